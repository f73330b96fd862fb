//! One model written by PyTorch in four ways must be read as the same tensors, byte for byte, and
//! survive being written by us.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::{DType, bf16};
use janus_model::checkpoint::{
    Checkpoint, Format, LazyTensor, Limits, Naming, SaveOptions, WeightFile, save,
};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(path)
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &Limits::default()).unwrap()
}

/// Canonical name to type, shape and bytes.
type Content = BTreeMap<String, (DType, Vec<usize>, Vec<u8>)>;

fn content(checkpoint: &Checkpoint) -> Content {
    let tensors = checkpoint.canonical().unwrap().tensors;
    let row = |tensor: &LazyTensor| {
        let bytes = tensor.to_bytes().unwrap().to_vec();
        (tensor.name.clone(), (tensor.dtype, tensor.shape.to_vec(), bytes))
    };
    tensors.iter().map(row).collect()
}

#[track_caller]
fn assert_same(a: &Content, b: &Content) {
    let names = |content: &Content| content.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    for (name, a) in a {
        let b = &b[name];
        assert_eq!((a.0, &a.1), (b.0, &b.1), "{name}");
        assert!(a.2 == b.2, "bytes of {name} differ");
    }
}

#[test]
fn tiny_pro_reads_the_same_in_three_forms() {
    let safetensors = open(&fixture("tiny-pro/original/model.safetensors"));
    let pickle = open(&fixture("tiny-pro/original/pytorch_model.bin"));
    let hugging_face = open(&fixture("tiny-pro/hf"));
    assert_eq!(safetensors.naming, Naming::Original);
    assert_eq!(pickle.files[0].format, Format::Pickle);
    assert_eq!(hugging_face.naming, Naming::HuggingFace);
    let expected = content(&safetensors);
    assert!(!expected.is_empty());
    assert_same(&content(&pickle), &expected);
    assert_same(&content(&hugging_face), &expected);
    let reasons: Vec<_> = safetensors.canonical().unwrap().dropped;
    assert!(reasons.iter().all(|dropped| !dropped.reason.is_empty()));
}

#[test]
fn tiny_odd_reads_the_same_in_shards_of_both_kinds() {
    let hugging_face = open(&fixture("tiny-odd/hf"));
    let pickle = open(&fixture("tiny-odd/original-bin"));
    assert_eq!((hugging_face.files.len(), pickle.files.len()), (3, 2));
    assert_same(&content(&hugging_face), &content(&pickle));
}

/// A slice of the mapping has the same address each time; a copy would move.
#[test]
fn stored_weights_are_mapped() {
    for path in ["tiny-pro/original/model.safetensors", "tiny-pro/original/pytorch_model.bin"] {
        let checkpoint = open(&fixture(path));
        let tensors = checkpoint.raw();
        let mapped = tensors.iter().filter(|tensor| {
            let (a, b) = (tensor.to_bytes().unwrap(), tensor.to_bytes().unwrap());
            a.as_ptr() == b.as_ptr() && a.len() > 1
        });
        let (mapped, all) = (mapped.count(), tensors.len());
        assert!(10 * mapped >= 9 * all, "{path}: {mapped} of {all} tensors are mapped");
    }
}

fn saved(source: &Checkpoint, options: &SaveOptions) -> (tempfile::TempDir, Vec<WeightFile>) {
    let root = tempfile::tempdir().unwrap();
    let tensors = source.canonical().unwrap().tensors;
    let files = save(root.path().join("model"), tensors, options).unwrap();
    (root, files)
}

#[test]
fn saving_and_reopening_is_the_identity() {
    let source = open(&fixture("tiny-pro/hf"));
    let expected = content(&source);
    for naming in [Naming::Original, Naming::HuggingFace, Naming::HuggingFaceLegacy] {
        for max_shard_bytes in [u64::MAX, 500_000] {
            let options = SaveOptions { naming, max_shard_bytes, ..SaveOptions::default() };
            let (root, files) = saved(&source, &options);
            assert_eq!(files.len() > 1, max_shard_bytes < u64::MAX);
            let copy = open(&root.path().join("model"));
            assert_eq!((copy.naming, &copy.files), (naming, &files));
            assert_same(&content(&copy), &expected);
            for file in &files {
                let bytes = std::fs::read(root.path().join("model").join(&file.name)).unwrap();
                assert_eq!(bytes.len() as u64, file.bytes);
                ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
            }
            let leftovers = std::fs::read_dir(root.path()).unwrap().count();
            assert_eq!(leftovers, 1);
        }
    }
}

/// The Hugging Face names we write are those that transformers wrote.
#[test]
fn exported_names_are_those_of_transformers() {
    let theirs = open(&fixture("tiny-pro/hf"));
    let source = open(&fixture("tiny-pro/original/pytorch_model.bin"));
    let options = SaveOptions { naming: Naming::HuggingFace, ..SaveOptions::default() };
    let (root, _) = saved(&source, &options);
    let ours = open(&root.path().join("model"));
    let names = |checkpoint: &Checkpoint| {
        let row = |tensor: &LazyTensor| (tensor.name.clone(), tensor.shape.to_vec());
        checkpoint.raw().iter().map(row).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(names(&ours), names(&theirs));
}

#[test]
fn saving_converts_and_replaces() {
    let source = open(&fixture("tiny-pro/hf"));
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    let tensors = || source.canonical().unwrap().tensors;
    let sharded = SaveOptions {
        dtype: Some(DType::BF16),
        max_shard_bytes: 300_000,
        ..SaveOptions::default()
    };
    let first = save(&dir, tensors(), &sharded).unwrap();
    let halves = content(&open(&dir));
    for (name, (dtype, _, bytes)) in content(&source) {
        let expected: Vec<u8> = match dtype {
            DType::F32 => bytes
                .chunks(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .flat_map(|value| bf16::from_f32(value).to_le_bytes())
                .collect(),
            DType::BF16 => bytes,
            other => panic!("{name}: {other:?}"),
        };
        assert!(halves[&name].2 == expected, "{name}");
        assert_eq!(halves[&name].0, DType::BF16);
    }
    // A file beside the weights stays; the shards and their index must not shadow the new file.
    std::fs::write(dir.join("config.json"), "{}").unwrap();
    save(&dir, tensors(), &SaveOptions::default()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors"], "was {first:?}");
    assert_same(&content(&open(&dir)), &content(&source));
}

/// Same arguments, same bytes.
#[test]
fn saving_is_deterministic() {
    let source = open(&fixture("tiny-odd/original-bin"));
    let read = || {
        let (root, _) = saved(&source, &SaveOptions::default());
        std::fs::read(root.path().join("model/model.safetensors")).unwrap()
    };
    assert!(read() == read());
}

/// A failure in the middle leaves the earlier checkpoint as it was and no temporary files.
#[test]
fn failed_save_changes_nothing() {
    let source = open(&fixture("tiny-pro/hf"));
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    let mut tensors = source.canonical().unwrap().tensors;
    save(&dir, tensors.clone(), &SaveOptions::default()).unwrap();
    let before = std::fs::read(dir.join("model.safetensors")).unwrap();

    let last = tensors.pop().unwrap();
    let (name, dtype, shape, length) =
        (last.name.clone(), last.dtype, last.shape.to_vec(), last.byte_len());
    tensors.push(LazyTensor::deferred(name.clone(), dtype, shape, None, length, || {
        Err(burn::store::burn_pack::Error::IoError("the disk is gone".into()))
    }));
    let error = save(&dir, tensors.clone(), &SaveOptions::default()).unwrap_err();
    assert!(error.to_string().contains("the disk is gone") && error.to_string().contains(&name));
    assert!(std::fs::read(dir.join("model.safetensors")).unwrap() == before);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);

    let fresh = root.path().join("fresh");
    save(&fresh, tensors, &SaveOptions::default()).unwrap_err();
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
}
