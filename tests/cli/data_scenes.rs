use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use serde_json::Value;

use crate::{Ran, fixtures, run};

fn scenes(folder: &Path, more: &[&str]) -> Ran {
    run(folder, &[&["data", "scenes"], more].concat())
}

/// Every file below a folder, by its name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let inside = files(&path).into_iter();
            all.extend(inside.map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            all.insert(name, fs::read(path).unwrap());
        }
    }
    all
}

fn lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_folder_is_whole_and_repeatable() {
    let folder = tempfile::tempdir().unwrap();
    let ran = scenes(folder.path(), &["--output", "a", "--count", "1003", "--size", "16"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    assert_snapshot!("data_scenes", ran);
    let a = files(&folder.path().join("a"));
    assert_eq!(a.len(), 3 * 1003 + 10);
    for name in ["pictures/000/000999.png", "pictures/001/001002.png"] {
        let picture = image::load_from_memory(&a[name]).unwrap().to_rgb8();
        assert_eq!((picture.width(), picture.height()), (16, 16));
    }
    let words = ["--output", "b", "--count", "1003", "--size", "16", "--json"];
    let b = scenes(folder.path(), &words).json();
    assert_eq!((&b["scenes"], &b["split"], &b["seed"]), (&1003.into(), &"train".into(), &0.into()));
    assert!(a == files(&folder.path().join("b")), "the same seed, other bytes");
    for other in [&["--seed", "1"][..], &["--split", "test"]] {
        let words = ["--output", "c", "--count", "5", "--size", "16"];
        assert_eq!(scenes(folder.path(), &[&words[..], other].concat()).code, 0);
        let c = files(&folder.path().join("c"));
        assert_ne!(a["pictures/000/000003.png"], c["pictures/000/000003.png"]);
        fs::remove_dir_all(folder.path().join("c")).unwrap();
    }
    // Nothing unfinished stays.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn lines_are_what_they_should_be() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert_eq!(scenes(folder.path(), &["-o", "empty", "--count", "40"]).code, 0);
    let files = files(&folder.path().join("empty"));
    let content = |line: &Value, turn: usize| {
        let turn = &line["messages"][turn];
        (turn["role"].as_str().unwrap().to_owned(), turn["content"].as_str().unwrap().to_owned())
    };
    let draw = lines(&files["draw.jsonl"]);
    assert_eq!(draw.len(), 40);
    for (number, line) in draw.iter().enumerate() {
        assert_eq!(line["images"][0], format!("plain/000/{number:06}.png"));
        assert_eq!(content(line, 1), ("assistant".to_owned(), "<image>".to_owned()));
        assert!(content(line, 0).1.len() > 5);
    }
    let relations = lines(&files["relations.jsonl"]);
    let images: Vec<_> = draw.iter().map(|line| &line["images"]).collect();
    assert!((1..20).contains(&relations.len()), "{}", relations.len());
    for line in relations {
        assert!(images.contains(&&line["images"]));
        let said = content(&line, 0).1.to_lowercase();
        let ends = ["left", "right", "above", "over", "below", "under", "beneath", "top"];
        assert!(ends.iter().any(|end| said.contains(end)), "{said}");
    }
    for line in lines(&files["pairs.jsonl"]) {
        assert_eq!(content(&line, 0), ("user".to_owned(), "<image>".to_owned()));
        assert!(content(&line, 1).1.len() > 5);
    }
    for line in lines(&files["ask.jsonl"]) {
        let turns = line["messages"].as_array().unwrap().len();
        assert!((4..=10).contains(&turns) && turns % 2 == 0);
        assert!(content(&line, 0).1.starts_with("<image>"));
        assert!(!content(&line, 2).1.contains("<image>"));
    }
    let places = lines(&files["places.jsonl"]);
    assert!((10..40).contains(&places.len()), "{}", places.len());
    for line in places {
        let turns = line["messages"].as_array().unwrap().len();
        assert!((2..=12).contains(&turns) && turns % 2 == 0);
        assert!(content(&line, 0).1.starts_with("<image>"));
        for turn in (0..turns).step_by(2) {
            let asked = content(&line, turn).1.to_lowercase();
            let where_is = ["where", "left or right", "above or below"];
            assert!(where_is.iter().any(|words| asked.contains(words)), "{asked}");
        }
    }
    let (mut yes, mut no) = (0, 0);
    for line in lines(&files["claims.jsonl"]) {
        let turns = line["messages"].as_array().unwrap().len();
        assert!((2..=12).contains(&turns) && turns % 2 == 0);
        assert!(content(&line, 0).1.starts_with("<image>"));
        for turn in (1..turns).step_by(2) {
            match content(&line, turn).1.as_str() {
                "yes" => yes += 1,
                "no" => no += 1,
                other => panic!("{other}"),
            }
        }
    }
    assert!(yes + no > 120 && yes.min(no) > 40, "{yes} {no}");
    for line in lines(&files["map.jsonl"]) {
        assert!(content(&line, 0).1.starts_with("<image>"));
        assert_eq!(content(&line, 1).1.split(' ').count(), 64);
    }
    for (number, line) in lines(&files["fields.jsonl"]).iter().enumerate() {
        assert_eq!(line["images"][0], format!("pictures/000/{number:06}.png"));
        assert_eq!(content(line, 1).1.split(", ").count(), 64);
    }
    for (number, line) in lines(&files["tiles.jsonl"]).iter().enumerate() {
        assert_eq!(line["images"][0], format!("tiles/000/{number:06}.png"));
        let tile = image::load_from_memory(&files[&format!("tiles/000/{number:06}.png")]).unwrap();
        assert_eq!((tile.width(), tile.height()), (32, 32));
    }
    let words = lines(&files["words.jsonl"]);
    assert_eq!(words.len(), 40 + 3);
    assert!(words[0]["text"].as_str().unwrap().starts_with("You are a helpful"));
}

/// What is written can be measured, and so trained on.
#[test]
fn a_model_reads_every_file() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(scenes(folder.path(), &["-o", "d", "--count", "3"]).code, 0);
    let model = fixtures().join("tiny-pro/original");
    let model = model.to_str().unwrap();
    for (name, samples) in [("draw", 3), ("pairs", 3), ("ask", 3), ("places", 2), ("words", 6)] {
        let file = format!("d/{name}.jsonl");
        let ran = run(folder.path(), &["eval", "loss", &file, "--model", model, "--json"]);
        assert_eq!(ran.code, 0, "{ran}");
        assert_eq!((&ran.json()["samples"], &ran.json()["left_out"]), (&samples.into(), &0.into()));
    }
}

#[test]
fn bad_requests_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("full")).unwrap();
    fs::write(folder.path().join("full/mine.txt"), "mine").unwrap();
    fs::write(folder.path().join("file"), "mine").unwrap();
    let bad = |more: &[&str]| scenes(folder.path(), more);
    assert_snapshot!("data_scenes_occupied", bad(&["--output", "full"]));
    assert_snapshot!("data_scenes_file", bad(&["--output", "file"]));
    assert_snapshot!("data_scenes_none", bad(&["--output", "x", "--count", "0"]));
    assert_snapshot!("data_scenes_small", bad(&["--output", "x", "--size", "15"]));
    assert_snapshot!("data_scenes_split", bad(&["--output", "x", "--split", "tests"]));
    assert_eq!(bad(&["--output", "x", "--size", "1025"]).code, 2);
    let json = bad(&["--output", "full", "--json"]);
    assert_eq!((json.code, &json.error()["code"]), (73, &73.into()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    assert_eq!(fs::read(folder.path().join("full/mine.txt")).unwrap(), b"mine");
}
