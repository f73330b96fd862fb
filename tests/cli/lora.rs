//! Adapters on a model: at inference, merged, shown, recorded.

use std::fs;
use std::path::Path;

use insta::{assert_json_snapshot, assert_snapshot};
use serde_json::{Value, json};

use crate::{Ran, fixtures, janus, run};

const BASE: &str = "tiny-pro/hf";
const ADAPTER: &str = "tiny-pro/adapter";
const DECODER: &str = "tiny-pro/adapter-decoder";
const QUESTION: [&str; 7] =
    ["ask", "-q", "Who are you?", "--max-new-tokens", "12", "--dtype", "f32"];

fn ask(words: &[&str]) -> Value {
    let ran = run(&fixtures(), &[&QUESTION[..], &["--json"], words].concat());
    assert_eq!(ran.code, 0, "{ran}");
    ran.json()
}

/// Greedy codes.
fn draw(folder: &Path, words: &[&str]) -> Value {
    let fixed = ["generate", "a red cube", "--temperature", "0", "--force", "--json"];
    let ran = run(folder, &[&fixed[..], &["--dtype", "f32"], words].concat());
    assert_eq!(ran.code, 0, "{ran}");
    ran.json()
}

fn at(name: &str) -> String {
    fixtures().join(name).to_string_lossy().into_owned()
}

#[test]
fn adapters_change_answers_and_pictures() {
    let plain = ask(&["--model", BASE]);
    let tuned = ask(&["--model", BASE, "--lora", ADAPTER]);
    assert_eq!((&plain["adapters"], &tuned["adapters"]), (&Value::Null, &json!([ADAPTER])));
    assert_ne!(plain["token_ids"], tuned["token_ids"]);
    let both = ask(&["--model", BASE, "--lora", ADAPTER, "--lora", DECODER]);
    assert_eq!(both["adapters"], json!([ADAPTER, DECODER]));
    assert_ne!(both["token_ids"], tuned["token_ids"]);
    // They add up, so their order does not matter.
    let swapped = ask(&["--model", BASE, "--lora", DECODER, "--lora", ADAPTER]);
    assert_eq!(both["token_ids"], swapped["token_ids"]);

    // An adapter knows its base; its own names are no matter.
    let alone = ask(&["--model", ADAPTER]);
    assert_eq!(alone["token_ids"], tuned["token_ids"]);
    assert_eq!(alone["adapters"], json!([ADAPTER]));
    let original = ask(&["--model", "tiny-pro/original", "--lora", ADAPTER]);
    assert_eq!(original["token_ids"], tuned["token_ids"]);
}

#[test]
fn merged_models_say_and_draw_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let merged = folder.path().join("merged");
    let merged = merged.to_str().unwrap();
    let (base, adapter, decoder) = (at(BASE), at(ADAPTER), at(DECODER));
    let two = ["--lora", &adapter, "--lora", &decoder];
    let plain = ask(&["--model", &base])["token_ids"].take();
    for names in ["original", "hf"] {
        let words = ["convert", &base, merged, "--names", names, "--dtype", "f32", "--force"];
        let ran = run(folder.path(), &[&words[..], &two, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{ran}");
        assert_eq!(ran.json()["adapters"].as_array().unwrap().len(), 2);
        let unmerged = [&["--model", &base][..], &two].concat();
        assert_eq!(ask(&["--model", merged])["token_ids"], ask(&unmerged)["token_ids"], "{names}");
        assert_ne!(ask(&unmerged)["token_ids"], plain);
        let output = ["-o", "a.png"];
        let here = draw(folder.path(), &[&["--model", merged][..], &output].concat());
        let there = draw(folder.path(), &[&unmerged[..], &output].concat());
        assert_eq!(here["images"][0]["codes"], there["images"][0]["codes"], "{names}");
    }
    // An adapter's folder stands for its model with the adapter.
    let text = run(&fixtures(), &["convert", ADAPTER, merged, "--names", "hf", "--force"]);
    let text = text.to_string().replace(merged, "MERGED");
    assert_snapshot!("lora_convert", text);
}

#[test]
fn pictures_record_their_adapters() {
    let here = tempfile::tempdir().unwrap();
    let (base, adapter, decoder) = (at(BASE), at(ADAPTER), at(DECODER));
    draw(here.path(), &["--model", &base, "--lora", &adapter, "-o", "a.png"]);
    let again = |words: &[&str]| {
        let fixed = ["generate", "--reproduce", "a.png", "-o", "b.png", "--force"];
        run(here.path(), &[&fixed[..], &["--model", &base], words].concat())
    };
    let same = again(&["--lora", &adapter]);
    assert_eq!((same.code, same.stdout.as_str()), (0, "b.png\nidentical\n"), "{same}");
    assert_snapshot!("lora_again_without", again(&[]));
    assert_eq!(again(&["--lora", &adapter, "--lora", &decoder]).code, 65);
    assert_eq!(again(&["--any-model"]).code, 1, "another picture");
}

#[test]
fn every_command_names_its_adapters() {
    let here = tempfile::tempdir().unwrap();
    let model = ["--model", &at(BASE), "--lora", &at(DECODER)];
    fs::write(here.path().join("in.jsonl"), "{\"question\": \"Who?\"}\n").unwrap();
    let batch = ["batch", "in.jsonl", "-o", "out.jsonl", "--max-new-tokens", "2", "--json"];
    let ran = run(here.path(), &[&batch[..], &model].concat());
    assert_eq!(ran.json()["adapters"], json!([at(DECODER)]), "{ran}");
    // Answers of another adapter are another's.
    let ran = run(here.path(), &[&batch[..], &model[..2]].concat());
    assert_eq!(ran.code, 2, "{ran}");
    let bench = ["bench", "--codes", "2", "--prefill", "4", "--text-tokens", "1", "--json"];
    let ran = run(here.path(), &[&bench[..], &model].concat());
    assert_eq!(ran.json()["adapters"], json!([at(DECODER)]), "{ran}");
    let mut chat = janus(here.path());
    chat.args(["chat", "--json", "--max-new-tokens", "2"]).args(model).write_stdin("Who?\n");
    let line: Value = serde_json::from_str(&Ran::new(chat).stdout).unwrap();
    assert_eq!(line["adapters"], json!([at(DECODER)]));
}

#[test]
fn runs_of_training_are_models() {
    let here = tempfile::tempdir().unwrap();
    let step = here.path().join("run/ckpt/step-000007");
    fs::create_dir_all(step.join("adapter")).unwrap();
    fs::write(step.join("MANIFEST.json"), "{}").unwrap();
    fs::write(here.path().join("run/ckpt/latest"), "step-000007").unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let from = fixtures().join(DECODER).join(name);
        let text = fs::read(from).unwrap();
        fs::write(step.join("adapter").join(name), text).unwrap();
    }
    let question = [&QUESTION[..], &["--json", "--model", "run"]].concat();
    assert_snapshot!("lora_base_gone", run(here.path(), &question));
    let config = step.join("adapter/adapter_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(BASE, &at(BASE))).unwrap();
    let tuned = ask(&["--model", BASE, "--lora", DECODER]);
    let ran = run(here.path(), &question);
    assert_eq!(ran.json()["token_ids"], tuned["token_ids"], "{ran}");
    let shown = run(here.path(), &["inspect", "run"]);
    assert_eq!(shown.code, 0, "{shown}");
    assert!(shown.stderr.contains("trains an adapter"), "{shown}");

    // A run that trains all of a model keeps models.
    fs::remove_dir_all(step.join("adapter")).unwrap();
    fs::create_dir(step.join("model")).unwrap();
    for entry in fs::read_dir(fixtures().join(BASE)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), step.join("model").join(entry.file_name())).unwrap();
    }
    let ran = run(here.path(), &question);
    assert_eq!(ran.json()["token_ids"], ask(&["--model", BASE])["token_ids"], "{ran}");
    assert_eq!(ran.json()["adapters"], Value::Null);
}

#[test]
fn inspect_shows_adapters() {
    for name in [ADAPTER, DECODER] {
        let short = name.trim_start_matches("tiny-pro/");
        let shown = run(&fixtures(), &["inspect", name]);
        assert_snapshot!(format!("lora_inspect_{short}"), shown);
    }
    assert_json_snapshot!(
        "lora_inspect_json",
        run(&fixtures(), &["inspect", DECODER, "--json"]).json()
    );
    // On a model that it was not made for.
    let here = tempfile::tempdir().unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(fixtures().join(DECODER).join(name), here.path().join(name)).unwrap();
    }
    let config = here.path().join("adapter_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(BASE, &at("tiny-odd/hf"))).unwrap();
    let shown = run(here.path(), &["inspect", "."]);
    assert_eq!(shown.code, 1, "{shown}");
    assert!(shown.stdout.contains("the adapter does not fit"), "{shown}");
    fs::write(&config, text).unwrap();
    let shown = run(here.path(), &["inspect", "."]);
    assert_eq!(shown.code, 0, "{shown}");
    assert!(
        shown.stdout.contains("unknown: .: its base model, \"tiny-pro/hf\", is not"),
        "{shown}"
    );
}

#[test]
fn what_is_no_adapter_is_refused() {
    let with = |words: &[&str]| run(&fixtures(), &[&QUESTION[..], words].concat());
    assert_snapshot!("lora_absent", with(&["--model", BASE, "--lora", "tiny-pro/none"]));
    assert_snapshot!("lora_is_model", with(&["--model", BASE, "--lora", "tiny-pro/original"]));
    assert_snapshot!("lora_other_model", with(&["--model", "tiny-odd/hf", "--lora", DECODER]));
}
