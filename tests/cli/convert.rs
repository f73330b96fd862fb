use std::path::Path;

use insta::assert_snapshot;
use serde_json::Value;

use crate::{copy_of, fixtures, read_tensors, run};

fn source(name: &str) -> String {
    fixtures().join(name).to_string_lossy().into_owned()
}

fn convert(folder: &Path, words: &[&str]) -> crate::Ran {
    let mut all = vec!["convert"];
    all.extend(words);
    run(folder, &all)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn there_and_back_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (fixture, drops) in [("tiny-pro/original", 14), ("tiny-odd/hf", 0)] {
        let source = source(fixture);
        let there = convert(folder.path(), &[&source, "hf", "--names", "hf", "--json"]);
        assert_eq!((there.code, there.stderr.as_str()), (0, ""), "{there}");
        assert_eq!(there.json()["tensors_left_out"], drops);
        assert_eq!(convert(folder.path(), &["hf", "back", "--names", "original"]).code, 0);
        assert_eq!(convert(folder.path(), &["back", "again", "--names", "hf"]).code, 0);
        assert_eq!(run(folder.path(), &["inspect", "hf"]).code, 0);
        assert_eq!(run(folder.path(), &["inspect", "back"]).code, 0);
        if fixture.ends_with("original") {
            let (before, after) = (read_tensors(Path::new(&source)), read_tensors(&at("back")));
            assert_eq!(before.len(), after.len() + drops);
            for (name, value) in after {
                assert!(before[&name] == value, "{name}");
            }
            assert_eq!(
                json(&at("back/preprocessor_config.json")),
                json(&fixtures().join(fixture).join("preprocessor_config.json"))
            );
            assert_eq!(
                json(&at("back/processor_config.json")),
                json(&fixtures().join(fixture).join("processor_config.json"))
            );
            assert_eq!(
                json(&at("back/tokenizer_config.json")),
                json(&fixtures().join(fixture).join("tokenizer_config.json"))
            );
            assert_eq!(
                json(&at("back/special_tokens_map.json")),
                json(&fixtures().join(fixture).join("special_tokens_map.json"))
            );
        } else {
            assert!(read_tensors(Path::new(&source)) == read_tensors(&at("again")));
        }
        for name in ["hf", "back", "again"] {
            std::fs::remove_dir_all(at(name)).unwrap();
        }
    }
}

#[test]
fn the_hf_folder_equals_what_transformers_writes() {
    let folder = tempfile::tempdir().unwrap();
    let ran = convert(folder.path(), &[&source("tiny-pro/original"), "hf", "--names", "hf"]);
    assert_snapshot!("convert_hf", ran);
    let (ours, theirs) = (folder.path().join("hf"), fixtures().join("tiny-pro/hf"));
    assert_eq!(names(&ours), names(&theirs));
    assert!(read_tensors(&ours) == read_tensors(&theirs));
    let (ours, theirs) = (json(&ours.join("config.json")), json(&theirs.join("config.json")));
    for field in ["image_token_id", "model_type", "dtype", "tie_word_embeddings"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    for part in ["text_config", "vision_config", "vq_config"] {
        for (field, value) in ours[part].as_object().unwrap() {
            // The older spelling, which every release reads.
            if !matches!(field.as_str(), "rope_theta" | "torch_dtype") {
                assert_eq!(*value, theirs[part][field], "{part}.{field}");
            }
        }
    }
}

#[test]
fn pickles_and_dtypes_and_shards() {
    let folder = tempfile::tempdir().unwrap();
    let source = source("tiny-odd/original-bin");
    let words =
        [&*source, "f32", "--names", "original", "--dtype", "f32", "--max-shard-size", "1MB"];
    let ran = convert(folder.path(), &words);
    assert_snapshot!("convert_shards", ran);
    assert!(folder.path().join("f32/model-00004-of-00004.safetensors").exists());
    assert_eq!(json(&folder.path().join("f32/config.json"))["torch_dtype"], "float32");
    assert_eq!(
        convert(folder.path(), &["f32", "bf16", "--names", "hf", "--dtype", "bf16"]).code,
        0
    );
    // Widening and narrowing again is exact.
    let expected = read_tensors(&fixtures().join("tiny-odd/hf"));
    assert!(read_tensors(&folder.path().join("bf16")) == expected);
}

/// A folder in 8 or 4 bits draws what a folder draws that is rounded while it is loaded.
#[test]
fn int8_and_int4_are_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let source = source("tiny-pro/original");
    let draw = |model: &str, name: &str, more: &[&str]| {
        let words = ["generate", "a red cube", "--device", "cpu", "--temperature", "0", "--json"];
        let words = [&words[..], &["--model", model, "--output", name], more].concat();
        let ran = run(folder.path(), &words);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
        ran.json()["images"][0]["codes"].clone()
    };
    let mut sizes = vec![std::fs::metadata(format!("{source}/model.safetensors")).unwrap().len()];
    for dtype in ["int8", "int4"] {
        let words = [&*source, dtype, "--names", "original", "--dtype", dtype];
        assert_snapshot!(format!("convert_{dtype}"), convert(folder.path(), &words));
        let file = folder.path().join(dtype).join("model.safetensors");
        sizes.push(std::fs::metadata(file).unwrap().len());
        let loaded = draw(&source, &format!("loaded-{dtype}.png"), &["--dtype", dtype]);
        assert_eq!(draw(dtype, &format!("stored-{dtype}.png"), &[]), loaded);
        // Other names, and nothing else: it stays as it is.
        let other = format!("{dtype}-hf");
        let again = convert(folder.path(), &[dtype, &other, "--names", "hf", "--json"]);
        assert_eq!((again.code, &again.json()["dtype"]), (0, &Value::from(dtype)));
        assert_eq!(draw(&other, &format!("other-{dtype}.png"), &[]), loaded);
        let told = run(folder.path(), &["inspect", &other, "--json"]).json();
        assert_eq!(told["ok"], true, "{told:#}");
        assert!(told["dtypes"][dtype].as_u64().unwrap() > 0, "{told:#}");
        // And back to numbers that every program reads.
        let plain = format!("{dtype}-plain");
        let words = [dtype, &plain, "--names", "hf", "--dtype", "bf16"];
        assert_eq!(convert(folder.path(), &words).code, 0);
        assert_eq!(run(folder.path(), &["inspect", &plain]).code, 0);
    }
    assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
}

#[test]
fn nothing_is_overwritten_unasked() {
    let folder = copy_of("tiny-odd/hf");
    std::fs::write(folder.path().join("model/diary.txt"), "mine").unwrap();
    let source = source("tiny-pro/original");
    let refused = convert(folder.path(), &[&source, "model", "--names", "original"]);
    assert_snapshot!("convert_exists", refused);
    assert_eq!(read_tensors(&folder.path().join("model")).len(), 315);

    let forced = convert(folder.path(), &[&source, "model", "--names", "original", "--force"]);
    assert_eq!(forced.code, 0, "{forced}");
    assert_eq!(
        names(&folder.path().join("model")),
        [
            "config.json",
            "diary.txt",
            "model.safetensors",
            "preprocessor_config.json",
            "processor_config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    assert_eq!(run(folder.path(), &["inspect", "model"]).code, 0);
}

#[test]
fn impossible_targets_are_refused() {
    let folder = copy_of("tiny-pro/hf");
    std::fs::write(folder.path().join("file"), "").unwrap();
    let same = convert(folder.path(), &["model", "./model", "--names", "hf", "--force"]);
    assert_snapshot!("convert_same", same);
    assert_snapshot!("convert_file", convert(folder.path(), &["model", "file", "--names", "hf"]));
    let below = convert(folder.path(), &["model", "file/x", "--names", "hf"]);
    assert_eq!(below.code, 73, "{below}");
}

#[test]
fn incomplete_sources_are_refused_before_writing() {
    let folder = copy_of("tiny-pro/original");
    let model = folder.path().join("model");
    let mut tensors = read_tensors(&model);
    tensors.remove("gen_embed.weight").unwrap();
    crate::write_tensors(&model, &tensors);
    assert_snapshot!(
        "convert_incomplete",
        convert(folder.path(), &["model", "out", "--names", "hf"])
    );
    assert_eq!(names(folder.path()), ["model"]);
}

#[test]
fn weights_alone_can_be_converted() {
    let folder = copy_of("tiny-pro/hf");
    std::fs::remove_file(folder.path().join("model/tokenizer.json")).unwrap();
    let ran = convert(folder.path(), &["model", "out", "--names", "original"]);
    assert_snapshot!("convert_no_tokenizer", ran);
    assert_eq!(names(&folder.path().join("out")), ["config.json", "model.safetensors"]);
}

/// A full disk, without needing one: the shell bounds the size of files.
#[cfg(unix)]
#[test]
fn a_write_that_fails_leaves_nothing_behind() {
    let folder = copy_of("tiny-pro/original");
    let script = "trap '' XFSZ; ulimit -f 2000; exec \"$JANUS\" convert model out --names hf";
    let mut command = assert_cmd::Command::new("sh");
    command.args(["-c", script]).current_dir(folder.path());
    command.env("JANUS", env!("CARGO_BIN_EXE_janus")).env("NO_COLOR", "1");
    let ran = crate::Ran::new(command);
    assert_snapshot!("convert_disk_full", ran);
    assert_eq!(names(folder.path()), ["model"]);
}
