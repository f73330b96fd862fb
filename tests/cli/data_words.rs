use std::fs;
use std::path::Path;

use insta::assert_snapshot;

use crate::{Ran, run};

const CAPTIONS: &str = "a red circle\na blue square\na red square above a blue circle\n";

fn words(folder: &Path, more: &[&str]) -> Ran {
    run(folder, &[&["data", "words"], more].concat())
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), CAPTIONS.repeat(40)).unwrap();
    folder
}

#[test]
fn a_vocabulary_is_learnt() {
    let folder = folder();
    let line = r#"{"messages": [{"role": "user", "content": "<image>Which colour?"}, {"role": "assistant", "content": "Red."}], "images": ["a.png"]}"#;
    fs::write(folder.path().join("b.jsonl"), format!("{line}\n").repeat(20)).unwrap();
    let both = ["a.txt", "b.jsonl", "--vocab", "300"];
    assert_snapshot!("data_words", words(folder.path(), &[&both[..], &["-o", "w"]].concat()));
    let ran = words(folder.path(), &[&both[..], &["-o", "x", "--json"]].concat());
    let found = ran.json();
    assert_eq!((&found["tokens"], &found["merges"]), (&300.into(), &30.into()));
    assert_eq!((&found["samples"], &found["left_out"]), (&140.into(), &0.into()));
    // The same files give the same bytes.
    let mut names: Vec<_> = fs::read_dir(folder.path().join("w"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]);
    for name in names {
        let [one, other] = ["w", "x"].map(|dir| fs::read(folder.path().join(dir).join(&name)));
        assert_eq!(one.unwrap(), other.unwrap(), "{name}");
    }
}

#[test]
fn little_text_gives_a_small_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "ab ab\n").unwrap();
    assert_snapshot!("data_words_small", words(folder.path(), &["a.txt", "--output", "w"]));
}

#[test]
fn bad_requests_are_refused() {
    let folder = folder();
    let bad = |more: &[&str]| words(folder.path(), more);
    assert_snapshot!("data_words_no_output", bad(&["a.txt"]));
    assert_snapshot!("data_words_no_file", bad(&["b.txt", "-o", "w"]));
    assert_snapshot!("data_words_too_few", bad(&["a.txt", "-o", "w", "--vocab", "269"]));
    fs::create_dir(folder.path().join("full")).unwrap();
    fs::write(folder.path().join("full/x"), "").unwrap();
    assert_snapshot!("data_words_full", bad(&["a.txt", "-o", "full"]));
    fs::write(folder.path().join("c.jsonl"), "{\"text\": \"a\"}\n{\n").unwrap();
    assert_snapshot!("data_words_bad", bad(&["c.jsonl", "-o", "w"]));
    let ran = bad(&["c.jsonl", "-o", "w", "--json"]);
    assert_eq!((ran.code, &ran.error()["code"]), (65, &65.into()));
    assert!(!folder.path().join("w").exists());
}
