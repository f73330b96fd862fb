//! Drawing from pictures.

use std::path::Path;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::generate::codes;
use crate::{Ran, fixtures, run};

fn photo(name: &str) -> String {
    fixtures().join("images").join(name).to_string_lossy().into_owned()
}

fn generate(folder: &Path, words: &[&str]) -> Ran {
    let model = fixtures().join("tiny-pro/hf");
    let fixed = ["generate", "--model", model.to_str().unwrap(), "--dtype", "f32", "--force"];
    run(folder, &[&fixed[..], words].concat())
}

fn drawn(folder: &Path, words: &[&str]) -> Value {
    let ran = generate(
        folder,
        &[&["make it red", "-o", "a.png", "--seed", "1", "--json"], words].concat(),
    );
    assert_eq!(ran.code, 0, "{ran}");
    ran.json()
}

#[test]
fn pictures_and_weights_decide_what_is_drawn() {
    let here = tempfile::tempdir().unwrap();
    let (one, two) = (photo("rgb.png"), photo("grey.png"));
    let plain = drawn(here.path(), &[]);
    assert_eq!((&plain["sources"], &plain["cfg_image"]), (&Value::Null, &Value::Null));
    let edited = drawn(here.path(), &["--image", &one]);
    assert_eq!((&edited["sources"], &edited["cfg_image"]), (&json!([one]), &json!(5.0)));
    let same = drawn(here.path(), &["--image", &one, "--cfg-image", "5", "--at-once", "1"]);
    assert_eq!(codes(&same, 0), codes(&edited, 0));
    for other in [
        plain,
        drawn(here.path(), &["--image", &two]),
        drawn(here.path(), &["--image", &one, "--image", &two]),
        drawn(here.path(), &["--image", &one, "--cfg-image", "0"]),
        drawn(here.path(), &["--image", &one, "--cfg", "1"]),
    ] {
        assert_ne!(codes(&other, 0), codes(&edited, 0));
    }
}

#[test]
fn an_edited_picture_is_drawn_again() {
    let here = tempfile::tempdir().unwrap();
    let (one, two) = (photo("rgb.png"), photo("grey.png"));
    drawn(here.path(), &["--image", &one, "--cfg-image", "2"]);
    let again = |words: &[&str]| {
        generate(here.path(), &[&["--reproduce", "a.png", "-o", "b.png"], words].concat())
    };
    let same = again(&["--image", &one]);
    assert_eq!((same.code, same.stdout.as_str()), (0, "b.png\nidentical\n"), "{same}");
    assert_snapshot!("edit_again_without", again(&[]));
    assert_eq!(again(&["--image", &two]).code, 2);
    assert_eq!(again(&["--image", &one, "--cfg-image", "3"]).code, 2);
    drawn(here.path(), &[]);
    assert_eq!(again(&["--image", &one]).code, 2, "drawn from words");
}

#[test]
fn a_file_of_prompts_edits_one_picture() {
    let here = tempfile::tempdir().unwrap();
    let prompts = "make it red\nlet <image> be a house\n";
    std::fs::write(here.path().join("wishes.txt"), prompts).unwrap();
    let words = ["--prompts", "wishes.txt", "-o", "out/", "--seed", "1", "--json"];
    let ran = generate(here.path(), &[&words[..], &["--image", &photo("rgb.png")]].concat());
    assert_eq!(ran.code, 0, "{ran}");
    let alone = drawn(here.path(), &["--image", &photo("rgb.png")]);
    assert_eq!(codes(&ran.json(), 0), codes(&alone, 0));
    assert_ne!(codes(&ran.json(), 1), codes(&alone, 0));
}

#[test]
fn what_cannot_be_edited_is_refused() {
    let here = tempfile::tempdir().unwrap();
    let image = photo("rgb.png");
    let refused =
        |words: &[&str]| generate(here.path(), &[&["red", "-o", "a.png"], words].concat());
    assert_snapshot!("edit_no_image", refused(&["--image", "none.png"]));
    assert_snapshot!("edit_weight_alone", refused(&["--cfg-image", "3"]));
    assert_snapshot!("edit_weight", refused(&["--image", &image, "--cfg-image", "-1"]));
    let places = generate(
        here.path(),
        &["<image> like <image>", "-o", "a.png", "--image", &image, "--seed", "1"],
    );
    assert_snapshot!("edit_places", places);
}

/// From samples to a picture: a run that learns edits is a model that edits.
#[test]
fn what_learnt_to_edit_edits() {
    let here = tempfile::tempdir().unwrap();
    let model = fixtures().join("tiny-pro/hf");
    let model = model.to_str().unwrap();
    for name in ["rgb.png", "grey.png"] {
        std::fs::copy(photo(name), here.path().join(name)).unwrap();
    }
    let line = json!({"images": ["rgb.png", "grey.png"], "messages": [
        {"role": "user", "content": "<image>make it grey"},
        {"role": "assistant", "content": "<image>"},
    ]});
    std::fs::write(here.path().join("edits.jsonl"), format!("{line}\n")).unwrap();
    let tune = ["finetune", "--task", "edit", "--data", "edits.jsonl", "--model", model];
    let how = ["--output", "run", "--set", "steps=2"];
    let ran = run(here.path(), &[&tune[..], &how].concat());
    assert_eq!(ran.code, 0, "{ran}");
    let edit = ["generate", "make it grey", "--image", &photo("rgb.png"), "--seed", "1", "--json"];
    let with = |words: &[&str]| {
        let ran = run(here.path(), &[&edit[..], &["-o", "a.png", "--force"], words].concat());
        assert_eq!(ran.code, 0, "{ran}");
        ran.json()
    };
    let tuned = with(&["--model", "run"]);
    assert_eq!(tuned["adapters"].as_array().unwrap().len(), 1);
    let same = with(&["--model", model, "--lora", "run"]);
    assert_eq!(codes(&tuned, 0), codes(&same, 0));
    assert_ne!(codes(&tuned, 0), codes(&with(&["--model", model]), 0));
}

#[test]
fn estimates_count_three_rows_of_long_prompts() {
    let words = ["estimate", "janus-pro-1b", "--device", "cpu", "--dtype", "bf16", "--json"];
    let cache = |more: &[&str]| {
        let ran = run(&fixtures(), &[&words[..], more].concat());
        ran.json()["plans"][0]["generate"][0]["memory"]["cache_bytes"].as_u64().unwrap()
    };
    // 40 words, and 576 twice with two ends each; 575 codes.
    assert_eq!(cache(&["--sources", "1"]) * 2 * 615, cache(&[]) * 3 * (615 + 1156));
}
