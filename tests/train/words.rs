//! A vocabulary learnt from text.

use std::ops::ControlFlow;
use std::path::PathBuf;

use janus_model::processor::JanusTokenizer;
use janus_train::config::Source;
use janus_train::data::OnBad;
use janus_train::words::{Event, Texts, Vocabulary, WordsError};

use crate::data_common::write;

fn learn(paths: &[PathBuf], size: usize) -> Result<Vocabulary, WordsError> {
    let sources: Vec<Source> = paths.iter().map(Source::of).collect();
    let texts = Texts::open(&sources, OnBad::Skip)?;
    let learnt = texts.learn(size, |_| ControlFlow::Continue(()))?;
    Ok(learnt.expect("nobody stopped it"))
}

const STORY: &str = "The red cube stands left of the blue sphere, 12 of them.\n\
    Wie groß ist die rote Kugel? Größer als die blaue!\n";

#[test]
fn nothing_is_unknown_and_everything_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.txt", STORY.repeat(50));
    let learnt = learn(&[path], 400).unwrap();
    assert!((300..400).contains(&learnt.tokenizer.size()), "{learnt:?}");
    let all: String = (0..=0x2fff).filter_map(char::from_u32).collect();
    for text in [STORY, &all, "🙂 \r\n\t x  ", "你好，世界！", "<|User|>: <image_placeholder>"]
    {
        for ids in [learnt.tokenizer.encode(text), learnt.tokenizer.encode_plain(text)] {
            assert_eq!(learnt.tokenizer.decode(&ids.unwrap(), false).unwrap(), text);
        }
    }
    // Digits stay single, as in the published tokenizer.
    let [twelve, one] = ["12", "1"].map(|text| learnt.tokenizer.encode(text).unwrap());
    assert_eq!((twelve.len(), twelve[0]), (2, one[0]));
}

/// In the published order behind what was learnt, each one token.
#[test]
fn special_tokens_are_those_of_janus() {
    let folder = tempfile::tempdir().unwrap();
    let learnt = learn(&[write(folder.path(), "a.txt", STORY)], 0).unwrap();
    let special = learnt.tokenizer.special();
    let ids = [special.bos, special.eos, special.pad, special.begin_of_image, special.end_of_image];
    assert_eq!((ids, special.image_placeholder), ([256, 257, 258, 259, 260], 261));
    assert_eq!((special.user, special.assistant), (Some(268), Some(269)));
    assert_eq!(learnt.tokenizer.encode("<|grounding|>").unwrap(), [267]);
    assert_eq!((learnt.merges, learnt.tokenizer.size()), (0, 270));
}

/// What is counted is what the tokenizer does with the same text.
#[test]
fn figures_are_those_of_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.txt", STORY.repeat(3));
    let learnt = learn(&[path], 330).unwrap();
    let lines = || STORY.lines();
    let tokens: usize = lines().map(|line| learnt.tokenizer.encode(line).unwrap().len()).sum();
    let characters: usize = lines().map(|line| line.chars().count()).sum();
    assert_eq!((learnt.samples, learnt.left_out), (6, 0));
    assert_eq!((learnt.tokens, learnt.characters), (3 * tokens as u64, 3 * characters as u64));
    assert!(learnt.tokens < learnt.characters / 2);
}

/// The system text belongs to conversations that have it at inference, and to no others.
#[test]
fn the_system_text_is_learnt_where_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let line = |system: &str, question: &str, answer: &str| {
        let turn = |role: &str, text: &str| format!(r#"{{"role":"{role}","content":"{text}"}}"#);
        let system = if system.is_empty() { String::new() } else { turn("system", system) + "," };
        let turns = format!("{},{}", turn("user", question), turn("assistant", answer));
        let images =
            if format!("{question}{answer}").contains("<image>") { "\"a.png\"" } else { "" };
        format!("{{\"messages\":[{system}{turns}],\"images\":[{images}]}}\n").repeat(30)
    };
    let prompt = |name: &str, line: String| {
        let path = write(folder.path(), &format!("{name}.jsonl"), line);
        learn(&[path], 1000).unwrap().system_prompt
    };
    let asked = prompt("asked", line("", "<image>What is it?", "A cube."));
    let drawn = prompt("drawn", line("", "a cube", "<image>"));
    let own = prompt("own", line("Be brief.", "What is a cube?", "A body."));
    // One token for each of its words and marks.
    assert_eq!(asked, 35);
    assert!(drawn > 150 && own > 100, "{drawn} {own}");
}

/// Neither hash maps nor threads are seen in the bytes; what cannot be read is left out by name.
#[test]
fn the_same_files_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let good: String = (0..9000).map(|n| format!("{{\"text\": \"cube {n} sphere\"}}\n")).collect();
    let path = write(folder.path(), "a.jsonl", good + "{\n");
    let first = learn(std::slice::from_ref(&path), 600).unwrap();
    assert_eq!((first.samples, first.left_out), (9000, 1));
    assert_eq!(first.json, learn(&[path], 600).unwrap().json);
    let again = JanusTokenizer::from_json(first.json.as_bytes()).unwrap();
    assert_eq!(again.special(), first.tokenizer.special());
}

#[test]
fn it_can_be_stopped_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.txt", STORY);
    let texts = Texts::open(&[Source::of(&path)], OnBad::default()).unwrap();
    let mut read = 0;
    let stopped = texts.learn(300, |event| {
        let Event::Read(samples) = event else { panic!("{event:?}") };
        read = samples;
        ControlFlow::Break(())
    });
    assert!(stopped.unwrap().is_none() && read == texts.len());
    let path = write(folder.path(), "b.jsonl", "{\"text\": \" \"}\n");
    assert_eq!(learn(&[path], 300).unwrap_err().to_string(), "there is no text in the data");
    assert!(learn(&[folder.path().join("c.txt")], 300).is_err());
}
