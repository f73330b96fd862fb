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

const NO_CHANCE: Chance = Chance { unconditional: false, short_caption: false };

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

            let hidden = Chance { unconditional: true, short_caption: false };
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

#[test]
fn hiding_a_prompt_spares_the_pictures_in_it() {
    let tokens = exact();
    let sample = conversation(&["<image>bluer, please", "<image>"], 2);
    let shown = document(&tokens, &sample);
    let hidden = Chance { unconditional: true, short_caption: true };
    let hidden = tokens.document(&sample, hidden).unwrap();
    assert_eq!((hidden.ids.len(), &hidden.seen), (shown.ids.len(), &shown.seen));
    let begin = shown.drawn[0].begin;
    let kept = [560, 563, 568];
    for (before, after) in shown.ids[..begin].iter().zip(&hidden.ids) {
        assert_eq!(*after, if kept.contains(before) { *before } else { 562 });
    }
    assert_eq!(shown.ids[begin..], hidden.ids[begin..]);
}

#[test]
fn only_bare_captions_to_be_drawn_are_cut() {
    let tokens = exact();
    let short = Chance { unconditional: false, short_caption: true };
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
