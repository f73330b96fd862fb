//! Folder and words in, text and pictures out.

use std::ops::ControlFlow;

use burn::tensor::Device;
use janus_infer::preview::preview;
use janus_infer::{
    AskOptions, DrawEvent, DrawOptions, Engine, FinishReason, Guidance, Manner, Order, Picture,
    Reply, Sampler, Sampling,
};
use janus_model::processor::{ChatStyle, Conversation, Message, Part, Processor, RgbImage8};
use janus_model::{Janus, LoadOptions, Parts};

use crate::common::{Expected, fixture};

fn engine() -> Engine {
    let options = LoadOptions::default();
    Engine::load(&fixture("tiny-pro/original"), &Device::flex(), &options).expect("a model").0
}

fn picture(number: usize) -> RgbImage8 {
    let (shape, bytes) = Expected::of("tiny-pro").bytes(&format!("image.source.{number}"));
    RgbImage8::new(shape[1], shape[0], bytes).expect("a picture")
}

fn question(text: &str, images: std::ops::Range<usize>) -> Conversation {
    Conversation::new(vec![Message::user_with_images(images, text)])
}

fn short() -> AskOptions {
    AskOptions { max_new_tokens: 24, ..AskOptions::default() }
}

fn ask(engine: &Engine, conversation: &Conversation, images: &[RgbImage8]) -> Reply {
    engine.ask((conversation, images), &short(), |_| ControlFlow::Continue(())).expect("a reply")
}

#[test]
fn a_question_about_a_picture_is_answered_as_in_pytorch() {
    let engine = engine();
    let mut heard = String::new();
    let reply = engine.ask(
        (&question("What is in this picture?", 0..1), &[picture(0)]),
        &short(),
        |text| {
            heard.push_str(text);
            ControlFlow::Continue(())
        },
    );
    let reply = reply.expect("a reply");
    let expected = &Expected::of("tiny-pro").ids("greedy.ids")[0];
    // The fixture never stops.
    let eos = engine.processor().tokenizer.special().eos as i32;
    let end = expected.iter().position(|id| *id == eos).unwrap_or(expected.len());
    assert_eq!(reply.ids, expected[..end]);
    assert_eq!(heard, reply.text);
    assert_eq!(reply.prompt_tokens, 213);
    let ids: Vec<u32> = reply.ids.iter().map(|id| *id as u32).collect();
    assert_eq!(reply.text, engine.processor().tokenizer.decode(&ids, true).expect("known ids"));
}

#[test]
fn questions_are_answered_alike_one_by_one_and_together() {
    let engine = engine();
    let images = [picture(0), picture(1)];
    let (one, two) = (question("Which colours?", 0..2), question("Hello", 0..0));
    let together = engine
        .ask_batch(&[(&one, &images), (&two, &[])], &short(), |_, _| ControlFlow::Continue(()))
        .expect("replies");
    assert_eq!(together, [ask(&engine, &one, &images), ask(&engine, &two, &[])]);
}

#[test]
fn a_stop_string_ends_the_answer() {
    let engine = engine();
    let question = question("Hello", 0..0);
    let free = ask(&engine, &question, &[]);
    let characters: Vec<char> = free.text.chars().collect();
    let stop: String = characters[characters.len() / 2..].iter().take(3).collect();
    let options = AskOptions { stop: vec![stop.clone()], ..short() };
    let reply = engine.ask((&question, &[]), &options, |_| ControlFlow::Continue(()));
    let reply = reply.expect("a reply");
    let end = free.text.find(&stop).expect("part of the text");
    assert_eq!((reply.text.as_str(), reply.finish), (&free.text[..end], FinishReason::Stop));
    assert!(reply.ids.len() < free.ids.len());
}

#[test]
fn a_listener_can_break_off() {
    let engine = engine();
    let mut calls = 0;
    let reply = engine.ask((&question("Hello", 0..0), &[]), &short(), |_| {
        calls += 1;
        ControlFlow::Break(())
    });
    let reply = reply.expect("a reply");
    assert_eq!((calls, reply.finish), (1, FinishReason::Cancelled));
}

#[test]
fn a_chat_reads_only_what_is_new_and_answers_the_same() {
    let engine = engine();
    let images = [picture(0), picture(1)];
    let mut chat = engine.chat();
    let mut conversation = question("What is this?", 0..1);
    let go_on = |_: &str| ControlFlow::Continue(());
    let first = chat.ask((&conversation, &images[..1]), &short(), go_on).expect("a reply");
    assert_eq!(first, ask(&engine, &conversation, &images[..1]));

    conversation.messages.push(Message::assistant(first.text));
    conversation.messages.push(Message::user_with_images(1..2, "And this?"));
    let second = chat.ask((&conversation, &images), &short(), go_on).expect("a reply");
    let fresh = ask(&engine, &conversation, &images);
    assert_eq!((&second.ids, &second.text), (&fresh.ids, &fresh.text));
    // The first question, with its picture, at least.
    assert!(second.cached_tokens >= 150, "{}", second.cached_tokens);
    assert!(second.cached_tokens < second.prompt_tokens);

    // The same words about another picture have nothing in common with it.
    let swapped = [picture(1), picture(0)];
    let other = chat.ask((&conversation, &swapped), &short(), go_on).expect("a reply");
    let input = engine.processor().understand(&conversation, &swapped).expect("a prompt");
    let place = input.image_slots[0].iter().position(|slot| *slot).expect("a picture");
    assert_eq!(other.cached_tokens, place);
    assert_eq!(other.ids, ask(&engine, &conversation, &swapped).ids);

    // A turn taken back.
    conversation.messages.truncate(1);
    let again = chat.ask((&conversation, &swapped[..1]), &short(), go_on).expect("a reply");
    assert_eq!(again.ids, ask(&engine, &conversation, &swapped[..1]).ids);
}

/// Long enough that the cache grows; every third turn brings a picture.
#[test]
fn no_turn_is_read_twice() {
    let engine = engine();
    let (mut chat, mut conversation) = (engine.chat(), Conversation::new(Vec::new()));
    let go_on = |_: &str| ControlFlow::Continue(());
    let (mut images, mut before) = (Vec::new(), 0);
    for turn in 0..8 {
        let given = images.len();
        if turn % 3 == 0 {
            images.push(picture(turn % 2));
        }
        let text = format!("Turn {turn}: {}", "a few words more ".repeat(6));
        conversation.messages.push(Message::user_with_images(given..images.len(), text));
        let reply = chat.ask((&conversation, &images), &short(), go_on).expect("a reply");
        // All of the last prompt but its end, whose token an answer may change.
        assert!(reply.cached_tokens + 2 >= before, "{turn}: {} of {before}", reply.cached_tokens);
        let fresh = ask(&engine, &conversation, &images);
        assert_eq!((reply.ids, reply.prompt_tokens), (fresh.ids, fresh.prompt_tokens), "{turn}");
        before = fresh.prompt_tokens;
        conversation.messages.push(Message::assistant(reply.text));
    }
    assert!(before > 1024, "{before} tokens fit into the first block");

    // The last turn again, about another picture: what came before it is kept.
    conversation.messages.truncate(conversation.messages.len() - 1);
    let last = conversation.messages.last_mut().expect("a turn");
    last.content.insert(0, Part::Image(images.len()));
    images.push(picture(0));
    let first = chat.ask((&conversation, &images), &short(), go_on).expect("a reply");
    *images.last_mut().expect("a picture") = picture(1);
    let other = chat.ask((&conversation, &images), &short(), go_on).expect("a reply");
    assert!(other.cached_tokens > 1000, "{}", other.cached_tokens);
    assert!(other.cached_tokens + 144 < first.prompt_tokens, "{}", other.cached_tokens);
    assert_eq!(other.ids, ask(&engine, &conversation, &images).ids);
}

fn draw(engine: &Engine, prompts: &[&str], options: &DrawOptions) -> Vec<Picture> {
    let prompts: Vec<String> = prompts.iter().map(|p| (*p).to_owned()).collect();
    let gallery = engine.generate(&prompts, options, |_| ControlFlow::Continue(()));
    let gallery = gallery.expect("pictures");
    assert!(gallery.complete);
    gallery.pictures
}

#[test]
fn pictures_do_not_depend_on_how_many_are_drawn_at_once() {
    let engine = engine();
    let options = DrawOptions { seed: 11, count: 2, at_once: 1, ..DrawOptions::default() };
    let prompts = ["a cat", "a very long story about a dog in a boat"];
    let one_by_one = draw(&engine, &prompts, &options);
    let together = draw(&engine, &prompts, &DrawOptions { at_once: 3, ..options.clone() });
    let keys = |pictures: &[Picture]| {
        pictures.iter().map(|p| (p.prompt, p.sampler.stream, p.codes.clone())).collect::<Vec<_>>()
    };
    assert_eq!(keys(&one_by_one), keys(&together));
    assert_eq!(one_by_one.iter().map(|p| p.prompt).collect::<Vec<_>>(), [0, 0, 1, 1]);
    let second = DrawOptions { first: 1, count: 1, ..options };
    assert_eq!(keys(&draw(&engine, &prompts[..1], &second)), keys(&one_by_one[1..2]));
    assert_eq!((one_by_one[0].image.width(), one_by_one[0].image.height()), (96, 96));
}

#[test]
fn finished_pictures_survive_a_break() {
    let engine = engine();
    let options = DrawOptions {
        count: 3,
        at_once: 1,
        guidance: Guidance::words(1.0),
        sampling: Sampling::default(),
        ..DrawOptions::default()
    };
    let gallery = engine.generate(&["a cat".to_owned()], &options, |progress| {
        assert_eq!(progress.pictures, 3);
        let enough = progress.finished == 1 && progress.step.done == 2;
        if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let gallery = gallery.expect("one picture");
    assert_eq!((gallery.pictures.len(), gallery.complete), (1, false));
}

fn orders() -> Vec<Order> {
    let order = |(prompt, seed): (&str, u64)| {
        let sampler = Sampler { seed, stream: seed / 2 };
        Order { prompt: prompt.to_owned(), sampler }
    };
    [("a cat", 4), ("a dog in a boat, far from the shore", 5), ("a cat", 6)].map(order).to_vec()
}

#[test]
fn every_order_has_its_own_prompt_and_chance() {
    let engine = engine();
    let mut events = Vec::new();
    let mut together = Vec::new();
    let manner = Manner { at_once: 2, ..Manner::default() };
    let complete = engine.draw(&orders(), &manner, |event| {
        match event {
            DrawEvent::Step(progress) if progress.step.done == 144 => {
                events.push(format!("{} of {}", progress.finished, progress.pictures));
            }
            DrawEvent::Step(_) => {}
            DrawEvent::Finished(picture) => {
                events.push(format!("picture {}", picture.prompt));
                together.push(picture);
            }
        }
        ControlFlow::Continue(())
    });
    assert!(complete.expect("pictures"));
    // Each group is handed over before the next one is begun.
    assert_eq!(events, ["0 of 3", "picture 0", "picture 1", "2 of 3", "picture 2"]);
    for (order, picture) in orders().iter().zip(together) {
        let Sampler { seed, stream } = order.sampler;
        let options = DrawOptions { seed, first: stream, ..DrawOptions::default() };
        let alone = draw(&engine, &[&order.prompt], &options).remove(0);
        assert_eq!((alone.codes, alone.image), (picture.codes, picture.image));
        assert_eq!(picture.sampler, order.sampler);
    }
}

/// How many pictures come out where the callback breaks off at this event, and whether that is all.
fn until(engine: &Engine, stop: impl Fn(&DrawEvent<'_>) -> bool) -> (usize, bool) {
    let mut count = 0;
    let manner = Manner { at_once: 2, guidance: Guidance::words(1.0), ..Manner::default() };
    let complete = engine.draw(&orders(), &manner, |event| {
        count += usize::from(matches!(event, DrawEvent::Finished(_)));
        if stop(&event) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (count, complete.expect("no error"))
}

#[test]
fn drawing_can_be_broken_off_anywhere() {
    let engine = engine();
    let at_step = |group, step| {
        move |event: &DrawEvent<'_>| match event {
            DrawEvent::Step(p) => p.finished == group && p.step.done == step,
            DrawEvent::Finished(_) => false,
        }
    };
    let at_picture = |number| move |event: &DrawEvent<'_>| matches!(event, DrawEvent::Finished(p) if p.prompt == number);
    assert_eq!(until(&engine, at_step(0, 1)), (0, false));
    assert_eq!(until(&engine, at_step(0, 143)), (0, false));
    // The codes are complete: they are not thrown away.
    assert_eq!(until(&engine, at_step(0, 144)), (2, false));
    assert_eq!(until(&engine, at_step(2, 144)), (3, true));
    assert_eq!(until(&engine, at_picture(0)), (1, false));
    assert_eq!(until(&engine, at_picture(2)), (3, true));
    assert_eq!(until(&engine, |_| false), (3, true));
}

#[test]
fn a_prompt_that_cannot_be_drawn_is_told_before_anything_is_drawn() {
    let engine = engine();
    let mut orders = orders();
    orders[2].prompt = "word ".repeat(5000);
    let mut events = 0;
    let drawn = engine.draw(&orders, &Manner { at_once: 1, ..Manner::default() }, |_| {
        events += 1;
        ControlFlow::Continue(())
    });
    assert!(drawn.is_err());
    assert_eq!(events, 0);
}

#[test]
fn a_preview_shows_what_is_drawn_and_nothing_else() {
    let engine = engine();
    let whole = draw(&engine, &["a cat"], &DrawOptions::default()).remove(0);
    let part = |codes: usize| preview(engine.janus(), &whole.codes[..codes]).expect("a preview");
    assert_eq!(part(144), whole.image);
    // Five rows of twelve codes and seven more, each 8 pixels high and wide.
    let image = part(5 * 12 + 7);
    let pixel = |x: usize, y: usize| &image.pixels()[3 * (y * 96 + x)..][..3];
    for (x, y) in (0..96).flat_map(|y| (0..96).map(move |x| (x, y))) {
        let drawn = y / 8 < 5 || (y / 8 == 5 && x / 8 < 7);
        assert!(drawn || pixel(x, y) == [127; 3], "{x} {y}");
    }
    let grey = (0..40).flat_map(|y| (0..96).map(move |x| (x, y)));
    let grey = grey.filter(|(x, y)| pixel(*x, *y) == [127; 3]).count();
    assert!(grey < 96, "{grey} pixels of the drawn part are grey");
    assert!(part(0).pixels().iter().all(|value| *value == 127));
    let wrong = preview(engine.janus(), &[i32::MAX]).expect_err("no such code").to_string();
    assert!(wrong.starts_with("codes: "), "{wrong}");
    assert!(preview(engine.janus(), &[0; 145]).is_err());
}

#[test]
fn half_a_model_does_its_half() {
    let path = fixture("tiny-pro/original");
    let load = |parts| {
        let options = LoadOptions { parts, ..LoadOptions::default() };
        Engine::load(&path, &Device::flex(), &options).expect("half a model").0
    };
    let (reader, painter) = (load(Parts::Understanding), load(Parts::Generation));
    let options = DrawOptions::default();
    let question = question("Hello", 0..0);
    let whole = engine();
    assert_eq!(ask(&reader, &question, &[]), ask(&whole, &question, &[]));
    assert_eq!(draw(&painter, &["a cat"], &options), draw(&whole, &["a cat"], &options));
    let go_on = |_: &str| ControlFlow::Continue(());
    assert!(painter.ask((&question, &[]), &short(), go_on).is_err());
    let drawn = reader.generate(&["a cat".to_owned()], &options, |_| ControlFlow::Continue(()));
    assert!(drawn.is_err());
}

/// The predecessor's prompts spell the roles out; all else is the same.
#[test]
fn janus_1_3b_asks_and_draws_in_words() {
    let path = fixture("tiny-pro/original");
    let (janus, _) = Janus::load(&path, &Device::flex(), &LoadOptions::default()).expect("a model");
    let mut processor = Processor::for_model(&path, janus.config()).expect("its rules");
    let special = *processor.tokenizer.special();
    let roles = [special.user.expect("a token"), special.assistant.expect("a token")];
    processor.style = ChatStyle::Janus1_3b;
    let engine = Engine::new(janus, processor);

    let (question, images) = (question("What is in this picture?", 0..1), [picture(0)]);
    let input = engine.processor().understand(&question, &images).expect("a prompt");
    assert!(roles.iter().all(|role| !input.ids[0].contains(&(*role as i32))));
    let reply = ask(&engine, &question, &images);
    assert_eq!(reply.prompt_tokens, input.ids[0].len());
    assert!(!reply.ids.is_empty());
    // A word is more than one token of this tokenizer.
    assert!(reply.prompt_tokens > 213, "{}", reply.prompt_tokens);
    let mut chat = engine.chat();
    let go_on = |_: &str| ControlFlow::Continue(());
    assert_eq!(chat.ask((&question, &images), &short(), go_on).expect("a reply"), reply);

    let prompt = engine.processor().generate("a cat").expect("a prompt");
    assert!(roles.iter().all(|role| !prompt.conditional.contains(role)));
    let drawn = draw(&engine, &["a cat"], &DrawOptions::default());
    assert_eq!(drawn.len(), 1);
    assert_eq!((drawn[0].image.width(), drawn[0].codes.len()), (96, 144));
}
