//! The `model/` of a checkpoint is a model folder like any other, and frozen weights are stored
//! once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use janus_model::checkpoint::{Checkpoint, LazyTensor, Limits, Naming};
use janus_model::processor::Processor;
use janus_model::{Janus, JanusConfig, LoadOptions};
use janus_train::run::model::Companions;
use janus_train::run::{Run, Saved};

use crate::run_common::{KEEP, folder, resume, save_with};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-pro").join(name)
}

/// In the format that it is trained in, named: a saved model has some tensors wider than its start.
fn load(dir: &Path) -> Janus {
    let options = LoadOptions { dtype: Some(DType::F32), ..LoadOptions::default() };
    Janus::load(dir, &Device::flex(), &options).unwrap().0
}

/// Bytes of every tensor by canonical name.
fn bytes(tensors: &[LazyTensor]) -> BTreeMap<String, Vec<u8>> {
    tensors
        .iter()
        .map(|tensor| (tensor.name.clone(), tensor.to_bytes().unwrap().to_vec()))
        .collect()
}

fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    let names = |map: &BTreeMap<String, Vec<u8>>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{name}: {} bytes, {}", found[name].len(), bytes.len());
    }
}

fn save(run: &mut Run, step: u64, start: &Path, frozen: &str) -> Saved {
    let (companions, model) = (Companions::read(start).unwrap(), load(start));
    let (identity, state) = (crate::run_common::identity(), crate::run_common::state(step));
    let ticket =
        janus_train::run::Ticket { identity: &identity, state: &state, steps: 40, loss: None };
    let saved = run.save(&ticket, |run, staging| {
        staging.model(run, &companions, model.tensors(), |name| name.starts_with(frozen))
    });
    saved.unwrap()
}

fn files(model: &Path) -> Vec<String> {
    let entries = fs::read_dir(model).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const SMALL: [&str; 6] = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

#[test]
fn a_saved_model_loads_with_the_same_weights() {
    let start = fixture("original");
    let expected = bytes(&load(&start).tensors());
    for (frozen, weights) in [
        ("nothing", &["model.safetensors"][..]),
        (
            "language_model.",
            &[
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
        ),
        // Everything: stage 0, so to speak.
        ("", &["model.safetensors"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut run = Run::open(dir.path(), KEEP).unwrap();
        let saved = save(&mut run, 10, &start, frozen);
        let model = saved.path.join("model");
        let mut names: Vec<_> =
            SMALL.iter().chain(weights).map(|name| (*name).to_owned()).collect();
        names.sort();
        assert_eq!(files(&model), names, "frozen: {frozen}");
        assert_same(&bytes(&load(&model).tensors()), &expected);
        Processor::from_dir(&model).unwrap();
        assert_eq!(JanusConfig::from_dir(&model).unwrap(), JanusConfig::from_dir(&start).unwrap());
        for name in SMALL {
            assert_eq!(fs::read(model.join(name)).unwrap(), fs::read(start.join(name)).unwrap());
        }
    }
}

#[test]
fn names_stay_those_of_the_model_it_started_from() {
    let start = fixture("hf");
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    let model = save(&mut run, 10, &start, "vision_model.").path.join("model");
    let checkpoint = Checkpoint::open(&model, &Limits::default()).unwrap();
    assert_eq!((checkpoint.naming, checkpoint.files.len()), (Naming::HuggingFace, 2));
    assert!(files(&model).contains(&"chat_template.jinja".to_owned()));
    assert_same(&bytes(&load(&model).tensors()), &bytes(&load(&start).tensors()));
}

#[cfg(unix)]
fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).unwrap().ino()
}

#[cfg(unix)]
#[test]
fn frozen_weights_take_room_once() {
    let start = fixture("original");
    let dir = tempfile::tempdir().unwrap();
    let shard = |step| folder(dir.path(), step).join("model/model-00001-of-00002.safetensors");
    let stored = dir.path().join("frozen/model.safetensors");
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    for step in [10, 20] {
        save(&mut run, step, &start, "language_model.");
        assert_eq!(inode(&shard(step)), inode(&stored), "step {step}");
    }
    drop(run);
    // Another process finds the same bytes, and links the same file.
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    save(&mut run, 30, &start, "language_model.");
    assert_eq!(inode(&shard(30)), inode(&shard(10)));
    drop(run);

    // What all share is damaged: a later process does not build on it.
    let mut bytes = fs::read(&stored).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&stored, bytes).unwrap();
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    save(&mut run, 40, &start, "language_model.");
    assert_ne!(inode(&shard(40)), inode(&shard(20)));
    drop(run);
    let found = resume(dir.path()).unwrap().unwrap();
    assert_eq!((found.state.step, found.passed_over.len()), (40, 0));
    fs::remove_file(found.path.join("MANIFEST.json")).unwrap();
    let text = resume(dir.path()).unwrap_err().to_string();
    assert_eq!(
        text.matches("model-00001-of-00002.safetensors has the SHA-256").count(),
        2,
        "{text}"
    );
}

#[test]
fn equal_models_are_equal_bytes() {
    let start = fixture("original");
    let hashes = || {
        let dir = tempfile::tempdir().unwrap();
        let mut run = Run::open(dir.path(), KEEP).unwrap();
        let saved = save(&mut run, 10, &start, "language_model.");
        fs::read(saved.path.join("MANIFEST.json")).unwrap()
    };
    assert_eq!(hashes(), hashes());
}

#[test]
fn a_start_without_a_model_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Companions::read(dir.path()).unwrap_err();
    assert!(error.to_string().contains("no weights in this folder"), "{error}");
    fs::copy(fixture("original/model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let error = Companions::read(dir.path()).unwrap_err();
    assert!(error.to_string().contains("config.json does not exist"), "{error}");
    assert_eq!(error.kind(), janus_model::ErrorKind::Missing);
    // Nothing is written before the companions are read.
    let run = tempfile::tempdir().unwrap();
    let mut run = Run::open(run.path(), KEEP).unwrap();
    let saved = save_with(&mut run, 10, None, |_| Ok(()));
    assert_eq!(saved.unwrap().removed, [0; 0]);
}
