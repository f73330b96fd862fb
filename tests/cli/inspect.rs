use std::path::Path;
use std::time::{Duration, Instant};

use insta::{assert_json_snapshot, assert_snapshot};
use serde_json::{Value, json};

use crate::{copy_of, fixtures, read_tensors, run, write_tensors};

const FOLDERS: [&str; 4] =
    ["tiny-pro/original", "tiny-pro/hf", "tiny-odd/hf", "tiny-odd/original-bin"];

#[test]
fn every_fixture_is_whole() {
    for folder in FOLDERS {
        let name = folder.replace('/', "_");
        assert_snapshot!(format!("inspect_{name}"), run(&fixtures(), &["inspect", folder]));
        let json = run(&fixtures(), &["inspect", folder, "--json"]).json();
        assert_json_snapshot!(format!("inspect_{name}_json"), json);
    }
}

#[test]
fn a_weight_file_and_checked_tensors_work_too() {
    let file =
        run(&fixtures(), &["inspect", "tiny-pro/original/pytorch_model.bin", "--check-tensors"]);
    assert_eq!(file.code, 0, "{file}");
    assert!(file.stdout.contains("PyTorch pickle"), "{file}");
}

#[test]
fn presets_need_no_files() {
    assert_snapshot!("inspect_preset_1b", run(&fixtures(), &["inspect", "janus-pro-1b"]));
    let json = run(&fixtures(), &["inspect", "Janus-Pro-7B", "--json"]).json();
    assert_json_snapshot!("inspect_preset_7b_json", json);
}

// --- published sizes, without their weights -----------------------------------------------------

/// A folder in the published shapes whose weights are a hole in a file.
fn published(name: &str) -> tempfile::TempDir {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights/manifests");
    let manifest = std::fs::read(manifest.join(format!("{name}.json"))).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in manifest["tensors"].as_object().unwrap() {
        let elements: u64 = shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product();
        let start = end;
        end += 2 * elements;
        header.insert(
            name.clone(),
            json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let header = Value::Object(header).to_string();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut content = (header.len() as u64).to_le_bytes().to_vec();
    content.extend(header.as_bytes());
    std::fs::write(&path, &content).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(content.len() as u64 + end).unwrap();
    let (width, inner, layers, heads) =
        if name.contains("1b") { (2048, 5632, 24, 16) } else { (4096, 11008, 30, 32) };
    let aligner = |input: u32| {
        json!({"cls": "MlpProjector", "params":
            {"depth": 2, "input_dim": input, "n_embed": width, "projector_type": "mlp_gelu"}})
    };
    let config = json!({
        "model_type": "multi_modality",
        "vision_config": {"cls": "CLIPVisionTower", "params": {"image_size": 384,
            "model_name": "siglip_large_patch16_384", "select_feature": "same", "select_layer": -1}},
        "aligner_config": aligner(1024),
        "gen_aligner_config": aligner(8),
        "gen_vision_config": {"cls": "VQ-16", "params": {"image_token_size": 16384, "n_embed": 8}},
        "gen_head_config": {"cls": "vision_head", "params":
            {"image_token_embed": width, "image_token_size": 16384, "n_embed": width}},
        "language_config": {"model_type": "llama", "vocab_size": 102_400, "hidden_size": width,
            "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": heads, "max_position_embeddings": 16_384},
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn a_full_size_folder_is_recognised_without_reading_it() {
    let folder = published("janus-pro-7b");
    let start = Instant::now();
    let ran = run(folder.path(), &["inspect", ".", "--json"]);
    let elapsed = start.elapsed();
    assert_eq!(ran.code, 0, "{ran}");
    let json = ran.json();
    assert_eq!(json["official"]["name"], "janus-pro-7b");
    assert_eq!(json["tensors"], 936);
    assert_eq!(json["elements"], 7_420_434_059_u64);
    let language = &json["components"][6];
    assert_eq!(
        (&language["tensors"], &language["elements"]),
        (&json!(273), &json!(6_910_365_696_u64))
    );
    // 15 GB; generous for a loaded machine and an unoptimised build.
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}

#[test]
fn component_sizes_are_the_published_ones() {
    let folder = published("janus-pro-1b");
    assert_snapshot!("inspect_1b", run(folder.path(), &["inspect", "."]));
    let against = run(folder.path(), &["inspect", ".", "--against", "janus-pro-7b", "--json"]);
    assert_eq!(against.code, 1);
    let json = against.json();
    assert_eq!((&json["ok"], &json["official"]["same"]), (&json!(false), &json!(false)));
    assert!(json["missing"].as_array().unwrap().is_empty(), "the folder itself is whole");
}

// --- damaged folders ----------------------------------------------------------------------------

/// What a run that trains the image tokenizer leaves.
#[test]
fn a_part_of_a_model_is_told_from_a_broken_one() {
    let folder = copy_of("tiny-pro/original");
    let model = folder.path().join("model");
    let mut tensors = read_tensors(&model);
    tensors.retain(|name, _| name.starts_with("gen_vision_model."));
    write_tensors(&model, &tensors);
    let told = run(folder.path(), &["inspect", "model"]);
    assert_eq!(told.code, 1, "{told}");
    let hint = "these files hold gen_vision_model and nothing else";
    assert!(told.stdout.contains(hint), "{told}");
}

#[test]
fn missing_tensors_are_named() {
    let folder = copy_of("tiny-pro/original");
    let model = folder.path().join("model");
    let mut tensors = read_tensors(&model);
    tensors.remove("gen_embed.weight").unwrap();
    tensors.remove("language_model.model.norm.weight").unwrap();
    write_tensors(&model, &tensors);
    assert_snapshot!("inspect_missing", run(folder.path(), &["inspect", "model"]));
    let json = run(folder.path(), &["inspect", "model", "--json"]).json();
    assert_eq!(json["ok"], false);
    assert_eq!(json["missing"].as_array().unwrap().len(), 2);
}

#[test]
fn mis_shaped_and_unknown_tensors_are_named() {
    let folder = copy_of("tiny-pro/original");
    let model = folder.path().join("model");
    let mut tensors = read_tensors(&model);
    tensors.get_mut("aligner.layers.0.weight").unwrap().1.reverse();
    let extra = tensors["gen_embed.weight"].clone();
    tensors.insert("visitor\n\u{1b}[2J".into(), extra);
    write_tensors(&model, &tensors);
    assert_snapshot!("inspect_shape", run(folder.path(), &["inspect", "model"]));
    let json = run(folder.path(), &["inspect", "model", "--json"]).json();
    assert_eq!(json["mis_shaped"][0]["transposed"], true);
    assert_eq!(json["unused"][0]["name"], "visitor\n\u{1b}[2J");
}

#[test]
fn a_config_of_another_size_is_noticed() {
    let folder = copy_of("tiny-pro/original");
    let other = fixtures().join("tiny-odd/original-bin/config.json");
    std::fs::copy(other, folder.path().join("model/config.json")).unwrap();
    let ran = run(folder.path(), &["inspect", "model"]);
    assert_eq!(ran.code, 1, "{ran}");
    let hint = "config.json says width 48 and 3 layers, the weights have width 64 and 2 layers";
    assert!(ran.stdout.contains(hint), "{ran}");
    let converted = run(folder.path(), &["convert", "model", "out", "--names", "hf"]);
    assert_eq!(converted.code, 78, "{converted}");
    assert!(converted.stderr.contains(hint), "{converted}");
}

#[test]
fn things_that_are_no_model_are_refused() {
    let folder = copy_of("tiny-pro/hf");
    let path = |name: &str| folder.path().join("model").join(name);
    let inspect = |name: &str| run(folder.path(), &["inspect", name]);
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "buy milk").unwrap();
    assert_snapshot!("inspect_absent", inspect("nowhere"));
    assert_snapshot!("inspect_empty", inspect("empty"));
    assert_snapshot!("inspect_text_file", inspect("notes.txt"));

    let config = std::fs::read(path("config.json")).unwrap();
    std::fs::remove_file(path("config.json")).unwrap();
    assert_snapshot!("inspect_no_config", inspect("model"));
    std::fs::write(path("config.json"), "{ // hello\n}").unwrap();
    assert_snapshot!("inspect_config_comment", inspect("model"));
    std::fs::write(path("config.json"), config).unwrap();

    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4178595094\n";
    std::fs::write(path("model.safetensors"), pointer).unwrap();
    assert_snapshot!("inspect_lfs", inspect("model"));
    let json = run(folder.path(), &["inspect", "model", "--json"]);
    assert_eq!((json.code, &json.error()["code"]), (65, &json!(65)));
}

#[test]
fn a_tokenizer_that_cannot_be_used_is_a_no() {
    let folder = copy_of("tiny-pro/original");
    std::fs::write(folder.path().join("model/tokenizer.json"), "{}").unwrap();
    let ran = run(folder.path(), &["inspect", "model"]);
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stdout.contains("processor      cannot be used: "), "{ran}");
    std::fs::remove_file(folder.path().join("model/tokenizer.json")).unwrap();
    let ran = run(folder.path(), &["inspect", "model"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stdout.contains("no tokenizer.json"), "{ran}");
}

/// bad-inputs W16.
#[test]
fn nan_is_found_only_on_request() {
    let folder = copy_of("tiny-pro/original");
    let model = folder.path().join("model");
    let mut tensors = read_tensors(&model);
    let data = &mut tensors.get_mut("gen_embed.weight").unwrap().2;
    data[2..4].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    write_tensors(&model, &tensors);
    assert_eq!(run(folder.path(), &["inspect", "model"]).code, 0);
    let checked = run(folder.path(), &["inspect", "model", "--check-tensors"]);
    assert_eq!(checked.code, 65);
    assert_snapshot!("inspect_nan", checked.stderr);
}

#[test]
fn limits_can_be_set_by_flag_and_environment() {
    let limited = run(&fixtures(), &["inspect", "tiny-pro/hf", "--max-tensors", "10"]);
    assert_snapshot!("inspect_limit", limited);
    let mut command = crate::janus(&fixtures());
    command.args(["inspect", "tiny-pro/hf"]).env("JANUS_MAX_HEADER_SIZE", "1KB");
    let ran = crate::Ran::new(command);
    assert_eq!(ran.code, 65, "{ran}");
    for (folder, flag) in [
        ("tiny-odd/hf", "--max-index-size"),
        ("tiny-odd/hf", "--max-tensors"),
        ("tiny-pro/hf", "--max-name-bytes"),
        ("tiny-pro/hf", "--max-header-size"),
        ("tiny-odd/original-bin", "--max-pickle-size"),
    ] {
        let ran = run(&fixtures(), &["inspect", folder, flag, "10"]);
        assert_eq!(ran.code, 65, "{ran}");
        assert!(ran.stderr.ends_with(&format!("raise {flag}\n")), "{ran}");
    }
}

/// bad-inputs C5.
#[test]
fn remote_code_is_ignored_with_a_warning() {
    let folder = copy_of("tiny-pro/original");
    let path = folder.path().join("model/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["auto_map"] = json!({"AutoModel": "evil.Model"});
    std::fs::write(&path, config.to_string()).unwrap();
    let ran = run(folder.path(), &["inspect", "model"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert_snapshot!("inspect_remote_code", ran.stderr);
}
