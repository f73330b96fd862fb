//! Rows I: shard indexes and the folders around them.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use burn::tensor::{Bytes, DType};
use janus_model::ErrorKind;
use janus_model::checkpoint::{CheckpointError, IndexError, LazyTensor, Limits, Mismatch};
use proptest::prelude::*;

use super::weights::{assert_says, draw_all, folder, message, open, valid};

const INDEX: &str = "model.safetensors.index.json";
const ONE: &str = "model-00001-of-00002.safetensors";
const TWO: &str = "model-00002-of-00002.safetensors";

fn index(pairs: &[(&str, &str)]) -> Vec<u8> {
    let rows: Vec<_> = pairs
        .iter()
        .map(|(tensor, shard)| {
            format!("{}:{}", serde_json::json!(tensor), serde_json::json!(shard))
        })
        .collect();
    let map = rows.join(",");
    format!(r#"{{"metadata":{{"total_size":32}},"weight_map":{{{map}}}}}"#).into_bytes()
}

#[track_caller]
fn index_error(files: &[(&str, &[u8])], words: &[&str]) -> IndexError {
    let (_root, dir) = folder(files);
    let error = open(&dir).unwrap_err();
    assert_says(&error, words);
    assert_says(&error, &[INDEX]);
    match error {
        CheckpointError::Index { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn shards_open_together() {
    let (one, two) = (valid(&["a"]), valid(&["b"]));
    let index = index(&[("a", ONE), ("b", TWO)]);
    let (_root, dir) = folder(&[(INDEX, &index), (ONE, &one), (TWO, &two)]);
    let checkpoint = open(&dir).unwrap();
    let names: Vec<_> = checkpoint.raw().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(checkpoint.files.len(), 2);
    draw_all(&checkpoint);
}

#[test]
fn i1_shard_name_with_a_path() {
    let names = [
        "../model.safetensors",
        "/etc/passwd",
        "..\\x",
        "C:x",
        "sub/model.safetensors",
        "a\0b",
        "",
        ".",
        "..",
        "a\nb",
    ];
    for shard in names {
        let index = index(&[("a.weight", shard)]);
        let error = index_error(&[(INDEX, &index)], &["'a.weight'", "must be a plain file name"]);
        assert!(matches!(error, IndexError::NotPlainName { .. }), "{shard:?}");
    }
}

#[test]
fn i2_shard_missing() {
    let (one, index) = (valid(&["a"]), index(&[("a", ONE), ("b", TWO), ("c", TWO)]));
    let (_root, dir) = folder(&[(INDEX, &index), (ONE, &one)]);
    let error = open(&dir).unwrap_err();
    assert_says(&error, &[TWO, "'b'", "1 other"]);
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(error.hint().unwrap().contains("download the missing file"));
}

#[test]
fn i2_shard_lacks_its_tensor() {
    let (one, index) = (valid(&["a"]), index(&[("a", ONE), ("b", ONE)]));
    let error = index_error(&[(INDEX, &index), (ONE, &one)], &["'b'", ONE]);
    assert!(matches!(error, IndexError::NotInShard { .. }));
}

#[test]
fn i2_tensor_not_listed() {
    let (one, index) = (valid(&["a", "b"]), index(&[("a", ONE)]));
    let error = index_error(&[(INDEX, &index), (ONE, &one)], &["'b'", ONE]);
    assert!(matches!(error, IndexError::NotListed { .. }));
}

#[test]
fn i2_tensor_in_two_shards() {
    let (one, two) = (valid(&["a"]), valid(&["a", "b"]));
    let index = index(&[("a", ONE), ("b", TWO)]);
    let files: [(&str, &[u8]); 3] = [(INDEX, &index), (ONE, &one), (TWO, &two)];
    let error = index_error(&files, &["'a'", ONE, TWO]);
    assert!(matches!(error, IndexError::InTwoShards { .. }));
}

#[test]
fn i2_tensor_listed_twice() {
    let index = index(&[("a", ONE), ("a", TWO)]);
    index_error(&[(INDEX, &index)], &["duplicate key 'a'"]);
}

#[test]
fn i3_not_an_index() {
    let deep = "[".repeat(10_000);
    for json in ["", "no", "[]", "{}", r#"{"weight_map":[]}"#, r#"{"weight_map":{"a":1}}"#, &deep] {
        let error = index_error(&[(INDEX, json.as_bytes())], &["not a shard index"]);
        assert!(matches!(error, IndexError::NotAnIndex { .. }), "{json}");
    }
    let error = index_error(&[(INDEX, br#"{"weight_map":{}}"#)], &["empty"]);
    assert!(matches!(error, IndexError::Empty));
}

#[test]
fn i3_index_too_large() {
    let (_root, dir) = folder(&[(INDEX, b"{}")]);
    fs::File::options().write(true).open(dir.join(INDEX)).unwrap().set_len(100 << 20).unwrap();
    let error = open(&dir).unwrap_err();
    assert_says(&error, &[INDEX, "104857600", "16777216"]);
    assert!(matches!(error, CheckpointError::Limit { .. }));
}

#[test]
fn i3_too_many_shards() {
    let names: Vec<_> = (0..1025).map(|i| format!("{i}.safetensors")).collect();
    let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let error = index_error(&[(INDEX, &index(&pairs))], &["1025", "1024"]);
    assert!(matches!(error, IndexError::TooMany { .. }));
}

#[cfg(unix)]
#[test]
fn i4_link_leaves_the_folder() {
    use std::os::unix::fs::symlink;
    let (root, dir) = folder(&[(INDEX, &index(&[("a", ONE)]))]);
    fs::write(root.path().join("secret.safetensors"), valid(&["a"])).unwrap();
    symlink("../secret.safetensors", dir.join(ONE)).unwrap();
    let error = open(&dir).unwrap_err();
    assert_says(&error, &[ONE, "outside the model folder"]);
    assert!(matches!(error, CheckpointError::LinkLeaves { .. }));
    // Links that stay inside are fine, and so is a link that the caller names.
    fs::remove_file(dir.join(ONE)).unwrap();
    fs::write(dir.join("real"), valid(&["a"])).unwrap();
    symlink("real", dir.join(ONE)).unwrap();
    draw_all(&open(&dir).unwrap());
}

/// The layout of the Hugging Face cache: snapshots hold links to blobs.
#[cfg(unix)]
fn cache(root: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::symlink;
    let model = root.join("models--org--name");
    let snapshot = model.join("snapshots").join("0123abcd");
    for folder in [&model.join("blobs"), &model.join("refs"), &snapshot] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(model.join("refs/main"), "0123abcd").unwrap();
    fs::write(model.join("blobs/ffff"), valid(&["a"])).unwrap();
    symlink("../../blobs/ffff", snapshot.join("model.safetensors")).unwrap();
    model
}

#[cfg(unix)]
#[test]
fn i4_cache_layout_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let model = cache(root.path());
    for path in [model.clone(), model.join("snapshots/0123abcd")] {
        let checkpoint = open(&path).unwrap();
        assert!(checkpoint.dir.ends_with("snapshots/0123abcd"));
        draw_all(&checkpoint);
    }
}

#[cfg(unix)]
#[test]
fn i4_cache_reference_cannot_leave() {
    let root = tempfile::tempdir().unwrap();
    let model = cache(root.path());
    for reference in ["../../elsewhere", "", "/etc", "a\nb"] {
        fs::write(model.join("refs/main"), reference).unwrap();
        let error = open(&model).unwrap_err();
        assert!(matches!(error, CheckpointError::NotWeights { .. }), "{}", message(&error));
    }
}

/// A download by revision writes no `refs/main`.
#[cfg(unix)]
#[test]
fn i4_cache_without_reference() {
    let root = tempfile::tempdir().unwrap();
    let model = cache(root.path());
    fs::remove_file(model.join("refs/main")).unwrap();
    assert!(open(&model).unwrap().dir.ends_with("snapshots/0123abcd"));
    fs::create_dir(model.join("snapshots/4567\ncd")).unwrap();
    let error = open(&model).unwrap_err();
    assert_says(&error, &["models--org--name", "'0123abcd', '4567\\ncd'"]);
    assert!(matches!(error, CheckpointError::SeveralSnapshots { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.hint().unwrap().contains("one of the snapshots"));
    fs::remove_dir_all(model.join("snapshots")).unwrap();
    fs::create_dir(model.join("snapshots")).unwrap();
    assert!(matches!(open(&model).unwrap_err(), CheckpointError::NoWeights { .. }));
}

/// The configuration of one release beside the weights of another.
#[test]
fn i5_hint_names_both_sizes() {
    type Tensors = Vec<(String, Vec<usize>)>;
    let model = |width: usize, layers: usize| -> Tensors {
        let layer = |i| {
            let parts = ["q", "k", "v", "o"].map(|p| format!("self_attn.{p}_proj"));
            let inner = ["gate", "up", "down"].map(|p| format!("mlp.{p}_proj"));
            let norms = ["input", "post_attention"].map(|p| format!("{p}_layernorm"));
            let all: Vec<_> = parts.into_iter().chain(inner).chain(norms).collect();
            all.into_iter()
                .map(move |p| (format!("language_model.model.layers.{i}.{p}.weight"), vec![width]))
        };
        let table = ("language_model.model.embed_tokens.weight".into(), vec![9, width]);
        let norm = ("language_model.model.norm.weight".into(), vec![width]);
        (0..layers).flat_map(layer).chain([table, norm]).collect()
    };
    let hint = |config: &Tensors, weights: &Tensors| {
        let bytes =
            |shape: &[usize]| Bytes::from_bytes_vec(vec![0; 4 * shape.iter().product::<usize>()]);
        let found: Vec<_> = weights
            .iter()
            .map(|(name, shape)| {
                LazyTensor::new(name.clone(), DType::F32, shape.clone(), None, bytes(shape))
            })
            .collect();
        CheckpointError::from(Mismatch::check(config, &found).unwrap_err()).hint()
    };
    let (small, large) = (model(4, 3), model(8, 5));
    let same = "they belong to a Janus of another size";
    for (config, weights, says) in [
        (&small, &large, "width 4 and 3 layers, the weights have width 8 and 5 layers"),
        (&large, &small, "width 8 and 5 layers, the weights have width 4 and 3 layers"),
        (&small, &model(8, 3), "width 4, the weights have width 8"),
        (&small, &model(4, 5), "3 layers, the weights have 5 layers"),
        (&model(4, 5), &small, "5 layers, the weights have 3 layers"),
    ] {
        assert_eq!(hint(config, weights).unwrap(), format!("config.json says {says}: {same}"));
    }
    // The table is not there to tell: the norm is.
    let without_table = |mut tensors: Tensors| {
        tensors.retain(|(name, _)| !name.contains("embed_tokens"));
        tensors
    };
    let says = hint(&small, &without_table(model(8, 3))).unwrap();
    assert!(says.contains("width 4, the weights have width 8"), "{says}");
    // A hole is no size, nor is one tensor a layer.
    let mut holed = model(4, 3);
    holed.retain(|(name, _)| !name.contains(".layers.1."));
    assert!(hint(&small, &holed).unwrap().contains("whole Janus"));
    let mut cut = model(4, 3);
    cut.remove(26);
    assert!(hint(&small, &cut).unwrap().contains("whole Janus"));
    let mut stray = small.clone();
    stray.push((format!("language_model.model.layers.{}.x", usize::MAX), vec![1]));
    assert_eq!(hint(&small, &stray), None);
    assert_eq!(Mismatch::default().hint(), None);
}

#[test]
fn limits_are_arguments() {
    let (_root, dir) = folder(&[("model.safetensors", &valid(&["a", "b"]))]);
    let limits = Limits { tensors: 1, ..Limits::default() };
    assert!(janus_model::checkpoint::Checkpoint::open(&dir, &limits).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutations_never_panic(at in 0_usize..200, byte in any::<u8>()) {
        let mut json = index(&[("a", ONE), ("b", TWO)]);
        let at = at % json.len();
        json[at] = byte;
        let (_root, dir) = folder(&[(INDEX, &json), (ONE, &valid(&["a"])), (TWO, &valid(&["b"]))]);
        if let Ok(checkpoint) = open(&dir) {
            draw_all(&checkpoint);
        }
    }
}
