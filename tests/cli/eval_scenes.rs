use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use janus_model::processor::{ImageLimits, Orientation, load_image};
use serde_json::Value;

use crate::{Ran, fixtures, run};

fn scenes(folder: &Path, more: &[&str]) -> Ran {
    let model = fixtures().join("tiny-pro/original");
    let fixed = ["eval", "scenes", "--device", "cpu", "--model", model.to_str().unwrap()];
    run(folder, &[&fixed[..], more].concat())
}

const FEW: [&str; 8] =
    ["--prompts", "2", "--images", "1", "--questions", "14", "--max-new-tokens", "4"];

/// A model of random weights knows nothing; what is asked of it is the same every time.
#[test]
fn a_random_model_has_bad_marks() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["--sheet", "all.png", "--details", "all.jsonl", "--json"];
    let ran = scenes(folder.path(), &[&FEW[..], &files].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    let found = ran.json();
    for (part, parts) in [("generation", 7), ("answers", 8)] {
        let shares = found[part].as_object().unwrap();
        assert_eq!(shares.len(), parts, "{found}");
        assert!(shares.values().all(|share| share.as_f64().unwrap() < 0.2), "{found}");
    }
    for key in ["single_object", "two_objects", "counting", "colors", "position"] {
        assert_eq!(found["generation"][key], 0.0);
    }
    assert_eq!(
        (&found["prompts"], &found["images"], &found["seed"]),
        (&2.into(), &1.into(), &0.into())
    );

    // One picture of each prompt, one line of each task.
    let sheet =
        load_image(&folder.path().join("all.png"), &ImageLimits::default(), Orientation::Raw);
    let sheet = sheet.unwrap();
    assert_eq!((sheet.width(), sheet.height()), (4 * 96 + 3 * 4, 3 * 96 + 2 * 4));
    let details = fs::read_to_string(folder.path().join("all.jsonl")).unwrap();
    let lines: Vec<Value> =
        details.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 12 + 14);
    assert!(lines[..12].iter().all(|line| line["prompt"].is_string()));
    assert!(lines[12..].iter().all(|line| line["expected"].is_string()));

    let again = ["--details", "again.jsonl", "--at-once", "5", "--batch-size", "3", "--json"];
    let again = scenes(folder.path(), &[&FEW[..], &again].concat());
    assert_eq!(again.json(), found);
    // The same tasks, pictures and answers, whatever they were computed beside.
    assert_eq!(fs::read_to_string(folder.path().join("again.jsonl")).unwrap(), details);
    let other = ["--details", "other.jsonl", "--seed", "1"];
    assert_eq!(scenes(folder.path(), &[&FEW[..], &other].concat()).code, 0);
    assert_ne!(fs::read_to_string(folder.path().join("other.jsonl")).unwrap(), details);
}

#[test]
fn half_of_it_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let draw = ["--prompts", "1", "--images", "2", "--questions", "0", "--cfg", "1"];
    assert_snapshot!("eval_scenes_drawn", scenes(folder.path(), &draw));
    let json = scenes(folder.path(), &[&draw[..], &["--json"]].concat()).json();
    assert_eq!((&json["answers"]["overall"], &json["cfg"]), (&Value::Null, &1.0.into()));
    let ask = ["--prompts", "0", "--questions", "7", "--max-new-tokens", "3"];
    assert_snapshot!("eval_scenes_asked", scenes(folder.path(), &ask));
    let json = scenes(folder.path(), &[&ask[..], &["--json"]].concat()).json();
    assert_eq!((&json["generation"]["overall"], &json["exact"]), (&Value::Null, &Value::Null));
}

#[test]
fn bad_requests_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("here.png"), "mine").unwrap();
    let bad = |more: &[&str]| scenes(folder.path(), more);
    assert_snapshot!("eval_scenes_nothing", bad(&["--prompts", "0", "--questions", "0"]));
    assert_snapshot!("eval_scenes_exists", bad(&["--sheet", "here.png"]));
    assert_snapshot!("eval_scenes_no_folder", bad(&["--details", "nowhere/a.jsonl"]));
    assert_snapshot!("eval_scenes_sheet_name", bad(&["--sheet", "sheet.tiff"]));
    assert_snapshot!("eval_scenes_sheet_of_nothing", bad(&["--sheet", "a.png", "--prompts", "0"]));
    assert_snapshot!("eval_scenes_cfg", bad(&["--cfg", "-1"]));
    let json = bad(&["--temperature", "-1", "--json"]);
    assert_eq!((json.code, &json.error()["code"]), (2, &2.into()));
    assert_eq!(fs::read(folder.path().join("here.png")).unwrap(), b"mine");
}

/// What the image tokenizer makes of the true pictures, marked like drawn ones.
#[test]
fn the_ceiling_is_that_of_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let few =
        ["--ceiling", "--prompts", "2", "--questions", "0", "--details", "all.jsonl", "--json"];
    let ran = scenes(folder.path(), &few);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    let found = ran.json();
    assert_eq!((&found["ceiling"], &found["complete"]), (&true.into(), &true.into()));
    // Random weights give nothing back; each prompt was tried once.
    assert!(found["generation"]["overall"].as_f64().unwrap() < 0.2, "{found}");
    let details = fs::read_to_string(folder.path().join("all.jsonl")).unwrap();
    assert_eq!(details.lines().count(), 12);
}
