//! Tokens of documents: against layouts written by hand, and against the prompts of inference.

use bytes::Bytes;
use janus_model::processor::{Conversation, Message, Processor, Role};
use janus_train::batch::Target;
use janus_train::data::collate::{Example, collate};
use janus_train::data::error::Why;
use janus_train::data::sample::{Content, Picture, Piece, Sample, Turn};
use janus_train::data::tokens::{Chance, Document, Drawn, Seen};
use janus_train::data::{Objective, Packing, Tokens};

use crate::data_common::{CODES, processor, rgb, tokens};

const NO_CHANCE: Chance =
    Chance { unconditional: false, short_caption: false, hidden_codes: false };

fn picture() -> Picture {
    Picture::Bytes(Bytes::from_static(b"never decoded"))
}

fn exact() -> Tokens {
    tokens(Objective::exact(4096))
}

fn document(tokens: &Tokens, sample: &Sample) -> Document {
    tokens.document(sample, NO_CHANCE).unwrap()
}

fn conversation(turns: &[&str], pictures: usize) -> Sample {
    let role = |i: usize| if i.is_multiple_of(2) { Role::User } else { Role::Assistant };
    let turns = turns.iter().enumerate().map(|(i, text)| (role(i), (*text).to_owned(), true));
    Sample::conversation(None, turns.collect(), vec![picture(); pictures]).unwrap()
}

fn encode(processor: &Processor, text: &str) -> Vec<i32> {
    processor.tokenizer.encode(text).unwrap().into_iter().map(|id| id as i32).collect()
}

/// What inference reads, with padding where the ids of pictures stand.
fn prompt(processor: &Processor, conversation: &Conversation, pictures: usize) -> Vec<i32> {
    let pictures: Vec<_> = (0..pictures).map(rgb).collect();
    let input = processor.understand(conversation, &pictures).unwrap();
    let pad = processor.tokenizer.special().pad as i32;
    let slots = input.ids[0].iter().zip(&input.image_slots[0]);
    slots.map(|(id, slot)| if *slot { pad } else { *id }).collect()
}

/// The ids that the targets should predict, in order, where they stand one place further.
fn learnt(document: &Document) -> Vec<i32> {
    let next = |target: &Target| {
        assert_eq!(document.ids[target.place as usize + 1], target.id);
        target.id
    };
    document.targets.iter().map(next).collect()
}

/// By hand, for the tiny tokenizer: bos 560, eos 561, pad 562, boi 563, eoi 568, user 576,
/// assistant 577.
#[test]
fn an_understanding_document_token_by_token() {
    let tokens = exact();
    let processor = &tokens.processor;
    let system = "You see.";
    let turns = vec![
        (Role::User, "<image>\nWhat is it?".to_owned(), true),
        (Role::Assistant, " A cat.\n".to_owned(), true),
    ];
    let sample = Sample::conversation(Some(system.to_owned()), turns, vec![picture()]).unwrap();
    let found = document(&tokens, &sample);
    let mut expected = vec![560];
    expected.extend(encode(processor, "You see.\n\n"));
    expected.push(576);
    expected.extend(encode(processor, ": "));
    expected.push(563);
    let start = expected.len();
    expected.extend([562; 144]);
    expected.push(568);
    expected.extend(encode(processor, "\nWhat is it?\n\n"));
    expected.push(577);
    expected.extend(encode(processor, ":"));
    let answer = expected.len();
    expected.extend(encode(processor, " A cat."));
    expected.push(561);
    assert_eq!(found.ids, expected);
    assert_eq!(found.seen, [Seen { picture: 0, start }]);
    assert!(found.drawn.is_empty());
    let target = |place: usize| Target { place: place as i32, id: expected[place + 1] };
    assert_eq!(found.targets, (answer - 1..expected.len() - 1).map(target).collect::<Vec<_>>());
}

#[test]
fn a_drawing_document_token_by_token() {
    let tokens = exact();
    let processor = &tokens.processor;
    let found = document(&tokens, &conversation(&["a red cat", "<image>"], 1));
    let mut expected = vec![560, 576];
    expected.extend(encode(processor, ": a red cat\n\n"));
    expected.push(577);
    expected.extend(encode(processor, ":"));
    expected.push(563);
    let begin = expected.len() - 1;
    expected.extend([562; CODES - 1]);
    assert_eq!(found.ids, expected);
    assert!(found.targets.is_empty() && found.seen.is_empty());
    assert_eq!(found.drawn, [Drawn { picture: 0, begin, read: CODES - 1, learnt: true }]);
    // All codes are learnt, the first from begin-of-image, the last from the one before it.
    let codes: Vec<i32> = (100..100 + CODES as i32).collect();
    let example = Example { document: found, pixels: vec![], codes: vec![codes.clone()] };
    let batch = collate(&[vec![&example]], Packing::Isolated, 562, 144);
    let places: Vec<i32> = (begin as i32..begin as i32 + CODES as i32).collect();
    let ids: Vec<_> = batch.code_targets.iter().map(|target| target.id).collect();
    assert_eq!(batch.code_targets.iter().map(|t| t.place).collect::<Vec<_>>(), places);
    assert_eq!((ids, batch.codes), (codes.clone(), codes[..CODES - 1].to_vec()));
    assert_eq!(batch.code_places, places[1..]);
    assert_eq!(batch.tokens, begin + CODES);
}

#[test]
fn every_document_begins_with_the_prompt_of_inference() {
    let questions = [
        "What is it?",
        "  <|User|> in words, 3 times! ",
        "Zwölf Boxkämpfer?",
        "一只猫。",
        "- a\n- b",
    ];
    for name in ["tiny-pro/original", "tiny-odd/hf"] {
        let tokens = Tokens { processor: processor(name), ..exact() };
        let processor = &tokens.processor;
        for question in questions {
            let asked = vec![Message::user_with_places(&format!("<image>{question}"), 0)];
            let prompt = prompt(processor, &Conversation::new(asked), 1);
            let sample = conversation(&[&format!("<image>{question}"), "A cat."], 1);
            assert_eq!(document(&tokens, &sample).ids[..prompt.len()], prompt, "{name} {question}");

            let drawing = processor.generate(question).unwrap();
            let found = document(&tokens, &conversation(&[question, "<image>"], 1));
            let prompt: Vec<i32> = drawing.conditional.iter().map(|id| *id as i32).collect();
            assert_eq!(found.ids[..prompt.len()], prompt, "{name} {question}");
            assert_eq!(found.drawn[0].begin, prompt.len() - 1);

            let hidden = Chance { unconditional: true, ..NO_CHANCE };
            let found = tokens.document(&conversation(&[question, "<image>"], 1), hidden).unwrap();
            let twin: Vec<i32> = drawing.unconditional.iter().map(|id| *id as i32).collect();
            assert_eq!(found.ids[..twin.len()], twin, "{name} {question}");
        }
    }
}

/// At inference the second question is read together with everything before it.
#[test]
fn later_turns_are_what_inference_reads_too() {
    for answer in ["A cat.", "3 cats", "- one\n- two", "...", "猫", "<image> is a tag"] {
        let tokens = exact();
        let said = vec![
            Message::user_with_places("<image><image>What?", 0),
            Message::assistant(answer),
            Message::user("And now?"),
        ];
        let prompt = prompt(&tokens.processor, &Conversation::new(said), 2);
        let turn = |role, pieces| Turn { role, pieces, learnt: true };
        let text = |text: &str| Piece::Text(text.to_owned());
        let turns = vec![
            turn(Role::User, vec![Piece::Picture(0), Piece::Picture(1), text("What?")]),
            turn(Role::Assistant, vec![text(answer)]),
            turn(Role::User, vec![text("And now?")]),
            turn(Role::Assistant, vec![text("Still.")]),
        ];
        let content = Content::Turns { system: None, turns };
        let sample = Sample { content, pictures: vec![picture(); 2] };
        let found = document(&tokens, &sample);
        assert_eq!(found.ids[..prompt.len()], prompt, "{answer}");
        assert_eq!(found.seen.len(), 2);
        let expected = [
            encode(&tokens.processor, &format!(" {answer}")),
            vec![561],
            encode(&tokens.processor, " Still."),
            vec![561],
        ];
        assert_eq!(learnt(&found), expected.concat(), "{answer}");
    }
}

#[test]
fn plain_text_is_learnt_from_its_first_word() {
    let tokens = exact();
    let found = document(&tokens, &Sample::plain(" One cat.\nTwo. \n".to_owned()));
    let words = encode(&tokens.processor, "One cat.\nTwo.");
    assert_eq!(found.ids, [vec![560], words.clone(), vec![561]].concat());
    assert_eq!(learnt(&found), [words, vec![561]].concat());
}

#[test]
fn prompts_are_learnt_only_on_request_and_never_those_of_drawings() {
    let objective = Objective { supervise_prompt: true, ..Objective::exact(4096) };
    let all = tokens(objective);
    let sample = conversation(&["<image>What?", "A cat."], 1);
    let found = document(&all, &sample);
    // Everything but begin-of-sentence and the picture with its two ends.
    assert_eq!(found.targets.len(), found.ids.len() - 1 - 146);
    assert!(learnt(&found).iter().all(|id| ![560, 562, 563, 568].contains(id)));
    assert!(document(&all, &conversation(&["a cat", "<image>"], 1)).targets.is_empty());
    assert_eq!(document(&exact(), &sample).ids, found.ids);
}

/// By hand: each picture as it is seen and as codes, then the wish, without a blank.
#[test]
fn an_editing_document_token_by_token() {
    let tokens = exact();
    let processor = &tokens.processor;
    let found = document(&tokens, &conversation(&["<image>\nMake it red.\n", "<image>"], 2));
    let mut expected = vec![560, 576];
    expected.extend(encode(processor, ": "));
    expected.push(563);
    let start = expected.len();
    expected.extend([562; 144]);
    expected.extend([568, 563]);
    let source = expected.len() - 1;
    expected.extend([562; CODES]);
    expected.push(568);
    expected.extend(encode(processor, "Make it red.\n\n"));
    expected.push(577);
    expected.extend(encode(processor, ":"));
    expected.push(563);
    let begin = expected.len() - 1;
    expected.extend([562; CODES - 1]);
    assert_eq!(found.ids, expected);
    assert_eq!(found.seen, [Seen { picture: 0, start }]);
    let shown = Drawn { picture: 0, begin: source, read: CODES, learnt: false };
    let drawn = Drawn { picture: 1, begin, read: CODES - 1, learnt: true };
    assert_eq!(found.drawn, [shown, drawn]);
    assert!(found.targets.is_empty());
    // The codes of the source are read, those of the answer are learnt.
    let codes: Vec<Vec<i32>> = [100, 200].map(|n| (n..n + CODES as i32).collect()).to_vec();
    let pixels = vec![vec![0.0; 3]];
    let example = Example { document: found, pixels, codes: codes.clone() };
    let batch = collate(&[vec![&example]], Packing::Isolated, 562, 144);
    assert_eq!(batch.codes, [&codes[0][..], &codes[1][..CODES - 1]].concat());
    assert_eq!(batch.code_places[..CODES], places(source + 1, CODES));
    assert_eq!(batch.code_targets.iter().map(|t| t.id).collect::<Vec<_>>(), codes[1]);
    assert_eq!(batch.code_targets[0].place, begin as i32);
}

fn places(start: usize, count: usize) -> Vec<i32> {
    (start as i32..(start + count) as i32).collect()
}

/// What inference reads with `janus generate --image`, in each of its three rows.
#[test]
fn every_editing_document_begins_with_the_prompt_of_inference() {
    let questions = ["Make it red.", "  spaces ", "<|User|> 3 times!", "一只猫。", "- a\n- b"];
    for name in ["tiny-pro/original", "tiny-odd/hf"] {
        let tokens = Tokens { processor: processor(name), ..exact() };
        let processor = &tokens.processor;
        for question in questions {
            for (asked, data, count) in [
                (question.to_owned(), format!("<image>{question}"), 1),
                (question.to_owned(), format!("<image>\n<image>\n{question}"), 2),
                (format!("{question}<image>so"), format!("{question} <image> so"), 1),
            ] {
                let prompt = processor.edit(&asked, count, CODES).unwrap();
                let ids: Vec<i32> = prompt.ids.iter().map(|id| *id as i32).collect();
                let sample = conversation(&[&data, "<image>"], count + 1);
                let found = document(&tokens, &sample);
                assert_eq!(found.ids[..ids.len()], ids, "{name} {data:?}");
                let (sources, drawn) = found.drawn.split_at(count);
                assert_eq!(drawn[0].begin, ids.len() - 1);
                for ((slot, seen), source) in prompt.slots.iter().zip(&found.seen).zip(sources) {
                    assert_eq!((slot.picture, slot.features), (seen.picture, seen.start));
                    assert_eq!((slot.picture, slot.codes), (source.picture, source.begin + 1));
                }

                let part = Chance { hidden_codes: true, ..NO_CHANCE };
                let part = tokens.document(&sample, part).unwrap();
                assert_eq!((&part.ids, &part.seen), (&found.ids, &found.seen));
                assert_eq!(part.drawn, drawn, "only what is learnt is read as codes");

                let twin = Chance { unconditional: true, ..NO_CHANCE };
                let twin = tokens.document(&sample, twin).unwrap();
                let hidden = unconditional(&ids, processor.tokenizer.special().pad as i32);
                assert_eq!(twin.ids[..ids.len()], hidden, "{name} {data:?}");
                assert_eq!((twin.seen.len(), &twin.drawn[..]), (0, drawn));
            }
        }
    }
}

/// As in the first row of guidance: nothing but begin-of-sentence and begin-of-image.
fn unconditional(ids: &[i32], pad: i32) -> Vec<i32> {
    let mut ids = ids.to_vec();
    let last = ids.len() - 1;
    ids[1..last].fill(pad);
    ids
}

/// A wish about a picture that was drawn a turn before: the sources of each turn stand in it.
#[test]
fn later_wishes_follow_earlier_pictures() {
    let tokens = exact();
    let talk = ["<image>Make it red.", "<image>", "<image>Now blue.", "<image>"];
    let found = document(&tokens, &conversation(&talk, 4));
    let learnt: Vec<bool> = found.drawn.iter().map(|drawn| drawn.learnt).collect();
    assert_eq!(learnt, [false, true, false, true]);
    for (seen, source) in found.seen.iter().zip([found.drawn[0], found.drawn[2]]) {
        assert_eq!(seen.picture, source.picture);
        assert_eq!(source.begin, seen.start + 144 + 1);
        let ends = [seen.start - 1, seen.start + 144, source.begin, source.begin + CODES + 1];
        assert_eq!(ends.map(|place| found.ids[place]), [563, 568, 563, 568]);
    }
    let error = tokens.document(&conversation(&["<image> \n", "<image>"], 2), NO_CHANCE);
    assert_eq!(error.unwrap_err().to_string(), "the wish is empty");
}

/// A question differs in what stands in the picture's place, and in nothing else.
#[test]
fn one_encoder_for_both_reads_codes() {
    let two = exact();
    let objective = Objective { shared_encoder: true, ..two.objective };
    let one = Tokens { objective, ..two.clone() };
    let sample = conversation(&["<image>What is it?", "A cat.", "Sure?", "Yes."], 1);
    let (two, one) = (document(&two, &sample), document(&one, &sample));
    let start = two.seen[0].start;
    assert!(two.drawn.is_empty() && one.seen.is_empty());
    let expected = Drawn { picture: 0, begin: start - 1, read: CODES, learnt: false };
    assert_eq!(one.drawn, [expected]);
    assert_eq!([start - 1, start + CODES].map(|place| one.ids[place]), [563, 568]);
    let without = |ids: &[i32], tokens| [&ids[..start], &ids[start + tokens..]].concat();
    assert_eq!(without(&one.ids, CODES), without(&two.ids, 144));
    let words = |document: &Document| -> Vec<i32> {
        document.targets.iter().map(|target| target.id).collect()
    };
    assert_eq!(words(&one), words(&two));
    let last = |document: &Document| document.ids.len() - document.targets[0].place as usize;
    assert_eq!(last(&one), last(&two));
}

/// A share of them, for each sample its own.
#[test]
fn codes_are_hidden_as_often_as_was_said() {
    let objective = Objective { hidden_codes: 0.5, ..Objective::exact(4096) };
    let hidden = |index| Chance::of(&objective, 1, 0, index).hidden_codes;
    let count = (0..10_000).filter(|index| hidden(*index)).count();
    assert!(count.abs_diff(5_000) < 250, "{count}");
    assert!((0..1000).all(|index| Chance::of(&Objective::exact(1), 1, 0, index) == NO_CHANCE));
}

#[test]
fn only_bare_captions_to_be_drawn_are_cut() {
    let tokens = exact();
    let short = Chance { short_caption: true, ..NO_CHANCE };
    let cut = |sample: &Sample| tokens.document(sample, short).unwrap();
    let long = conversation(&["A cat. It sleeps.", "<image>"], 1);
    assert_eq!(cut(&long), document(&tokens, &conversation(&["A cat.", "<image>"], 1)));
    for kept in [
        conversation(&["A cat. It sleeps.", "Yes. It does."], 0),
        conversation(&["<image>Make it blue. Keep the hat.", "<image>"], 2),
        conversation(&["A cat. It sleeps.", "<image>", "Now a dog. Awake.", "<image>"], 2),
    ] {
        assert_eq!(cut(&kept), document(&tokens, &kept));
    }
}

/// A picture that is followed by something is read to its end and closed.
#[test]
fn a_second_drawing_follows_a_whole_first_one() {
    let tokens = exact();
    let found = document(&tokens, &conversation(&["a cat", "<image>", "a dog", "<image>"], 2));
    let [first, second] = found.drawn[..] else { panic!("two pictures") };
    assert_eq!((first.read, second.read), (CODES, CODES - 1));
    let behind = first.begin + 1 + CODES;
    assert_eq!(found.ids[behind..behind + 3], [568, 561, 576]);
    assert!(found.targets.is_empty());
    assert_eq!(found.ids.len(), second.begin + CODES);
}

#[test]
fn answers_with_words_and_a_picture() {
    let tokens = exact();
    let found = document(&tokens, &conversation(&["a cat", "Here:\n<image>"], 1));
    assert_eq!(learnt(&found), encode(&tokens.processor, " Here:"));
    let begin = found.drawn[0].begin;
    assert_eq!(found.ids[begin], 563);
    assert_eq!(found.ids.len(), begin + CODES);
}

#[test]
fn blanks_around_a_picture_do_not_count() {
    let tokens = exact();
    let bare = document(&tokens, &conversation(&["a cat", "<image>"], 1));
    for answer in ["<image>\n", "\n<image>", " <image> \u{1f}\n"] {
        assert_eq!(document(&tokens, &conversation(&["a cat", answer], 1)), bare, "{answer:?}");
    }
}

#[test]
fn an_answer_that_is_not_to_be_learnt_is_read_only() {
    let tokens = exact();
    let turns = |first| {
        vec![
            (Role::User, "a".to_owned(), true),
            (Role::Assistant, "b".to_owned(), first),
            (Role::User, "c".to_owned(), true),
            (Role::Assistant, "<image>".to_owned(), false),
        ]
    };
    let sample = |first| Sample::conversation(None, turns(first), vec![picture()]).unwrap();
    assert_eq!(learnt(&document(&tokens, &sample(true))).last(), Some(&561));
    let error = tokens.document(&sample(false), NO_CHANCE).unwrap_err();
    assert!(matches!(error, Why::NothingSupervised), "{error}");
}

#[test]
fn what_cannot_be_learnt_says_why() {
    let tokens = tokens(Objective::exact(160));
    let error = |sample: &Sample| tokens.document(sample, NO_CHANCE).unwrap_err().to_string();
    let long = error(&conversation(&["<image>What is it?", "A cat."], 1));
    assert!(long.ends_with("tokens, a row holds 160: nothing is ever cut off"), "{long}");
    assert_eq!(error(&conversation(&["What?", " \n"], 0)), "the answer is empty");
    assert_eq!(error(&conversation(&["  ", "x"], 0)), "the question is empty");
    assert_eq!(error(&conversation(&[" ", "<image>"], 1)), "the caption is empty");
    assert_eq!(error(&Sample::plain(" \n ".to_owned())), "the text is empty");
}

/// Two documents in rows of every kind, by hand.
#[test]
fn rows_isolated_joined_and_alone() {
    let words = |ids: &[i32], places: &[i32]| Example {
        document: Document {
            ids: ids.to_vec(),
            targets: places
                .iter()
                .map(|p| Target { place: *p, id: ids[*p as usize + 1] })
                .collect(),
            ..Document::default()
        },
        pixels: vec![],
        codes: vec![],
    };
    let (one, two) = (words(&[1, 5, 6], &[0, 1]), words(&[1, 7], &[0]));
    let isolated = collate(&[vec![&one, &two], vec![&two]], Packing::Isolated, 9, 4);
    assert_eq!((isolated.rows, isolated.tokens), (2, 5));
    assert_eq!(isolated.ids, [1, 5, 6, 1, 7, 1, 7, 9, 9, 9]);
    assert_eq!(isolated.positions, [0, 1, 2, 0, 1, 0, 1, 0, 0, 0]);
    assert_eq!(isolated.documents, [0, 0, 0, 1, 1, 0, 0, -1, -1, -1]);
    let target = |place, id| Target { place, id };
    assert_eq!(isolated.text_targets, [target(0, 5), target(1, 6), target(3, 7), target(5, 7)]);
    let joined = collate(&[vec![&two], vec![&one, &two]], Packing::Joined, 9, 4);
    assert_eq!(joined.positions, [0, 1, 0, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(joined.documents, [0, 0, -1, -1, -1, 0, 0, 0, 0, 0]);
    let alone = collate(&[vec![&one], vec![&two]], Packing::Off, 9, 4);
    assert_eq!(alone.ids, [1, 5, 6, 1, 7, 9]);
}
