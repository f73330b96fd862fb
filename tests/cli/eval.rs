use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use serde_json::Value;

use crate::{Ran, fixtures, run};

fn loss(folder: &Path, more: &[&str]) -> Ran {
    let model = fixtures().join("tiny-pro/original");
    let model = model.to_str().unwrap();
    let fixed = ["eval", "loss", "--model", model, "--device", "cpu"];
    run(folder, &[&fixed[..], more].concat())
}

/// Three good lines and two bad ones, with a picture.
fn mixed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let picture = fixtures().join("tiny-pro/eval/landscape.png");
    fs::copy(picture, folder.path().join("a.png")).unwrap();
    let line = |answer: &str| {
        let question = r#"{"role": "user", "content": "<image>Why?"}"#;
        let answer = format!(r#"{{"role": "assistant", "content": "{answer}"}}"#);
        format!("{{\"messages\": [{question}, {answer}], \"images\": [\"a.png\"]}}\n")
    };
    let lines = [line("A."), "{\n".to_owned(), line("B."), line(""), line("C.")];
    fs::write(folder.path().join("d.jsonl"), lines.concat()).unwrap();
    folder
}

/// What PyTorch computed, through the real binary.
#[test]
fn the_loss_is_that_of_pytorch() {
    let folder = fixtures().join("tiny-pro/eval");
    let expected = fs::read(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    for more in [&[][..], &["--batch-size", "1"], &["--dtype", "f32", "--batch-size", "6"]] {
        let ran = loss(&folder, &[&["data.jsonl", "--json"], more].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
        let found = ran.json();
        assert_eq!((&found["samples"], &found["left_out"]), (&6.into(), &0.into()));
        for kind in ["text", "image"] {
            assert_eq!(found[kind]["tokens"], expected[kind]["tokens"]);
            let [loss, wanted] =
                [&found, &expected].map(|value| value[kind]["loss"].as_f64().unwrap());
            assert!((loss / wanted - 1.0).abs() < 1e-6, "{kind}: {loss}, PyTorch has {wanted}");
        }
    }
    // The last digits belong to the processor.
    assert_snapshot!("eval_loss", rough(&loss(&folder, &["data.jsonl"]).to_string()));
}

/// Only what was asked for: a kind, the first few, another format; no loss where nothing counts.
#[test]
fn parts_of_the_data() {
    let folder = fixtures().join("tiny-pro/eval");
    let found = loss(&folder, &["data.jsonl", "data.jsonl", "--samples", "3", "--json"]).json();
    assert_eq!(found["samples"], 6);
    let words = ["data.jsonl", "--kind", "text", "--on-bad-sample", "skip", "--json"];
    let found = loss(&folder, &words).json();
    assert_eq!((&found["samples"], &found["left_out"]), (&2.into(), &4.into()));
    assert_eq!((&found["image"]["loss"], &found["image"]["tokens"]), (&Value::Null, &0.into()));

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("d.txt"), "One cat.\nTwo cats.\n").unwrap();
    let found = loss(other.path(), &["d.txt", "--json"]).json();
    assert_eq!((&found["samples"], &found["image"]["tokens"]), (&2.into(), &0.into()));
    // The same lines as JSON, where the name of the file does not say so.
    let lines = "{\"text\": \"One cat.\"}\n{\"text\": \"Two cats.\"}\n";
    fs::write(other.path().join("d.jsonl"), lines).unwrap();
    let same = loss(other.path(), &["d.jsonl", "--format", "text", "--json"]).json();
    assert_eq!(found["text"], same["text"]);
}

#[test]
fn bad_samples_are_named() {
    let folder = mixed();
    assert_snapshot!("eval_loss_bad", loss(folder.path(), &["d.jsonl"]));
    let ran = loss(folder.path(), &["d.jsonl", "--json"]);
    assert_eq!((ran.code, &ran.error()["code"]), (65, &65.into()));
    let ran = loss(folder.path(), &["d.jsonl", "--on-bad-sample", "skip", "--json"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!((&ran.json()["samples"], &ran.json()["left_out"]), (&3.into(), &2.into()));
    assert_snapshot!("eval_loss_left_out", ran.stderr);
}

#[test]
fn bad_requests_are_refused() {
    let folder = mixed();
    let bad = |more: &[&str]| loss(folder.path(), more);
    assert_snapshot!("eval_loss_no_data", bad(&["nowhere.jsonl"]));
    assert_snapshot!("eval_loss_format", bad(&["d.jsonl", "--format", "xml"]));
    assert_snapshot!("eval_loss_max_tokens", bad(&["d.jsonl", "--max-tokens", "99999"]));
    assert_snapshot!(
        "eval_loss_too_long",
        bad(&["d.jsonl", "--max-tokens", "20", "--on-bad-sample", "skip"])
    );
    // What is wrong with the data is said before a model is looked for.
    let words = ["eval", "loss", "nowhere.jsonl", "--model", "nothing"];
    assert_eq!(run(folder.path(), &words).code, 66);
}

/// The text without the decimals of its numbers.
fn rough(text: &str) -> String {
    let mut decimals = None;
    let mut keep = |letter: char| {
        decimals = match (letter, decimals) {
            ('.', _) => Some(0),
            (digit, Some(count)) if digit.is_ascii_digit() => Some(count + 1),
            _ => None,
        };
        decimals.is_none_or(|count| count == 0)
    };
    text.chars().filter(|letter| keep(*letter)).collect()
}
