//! What a run starts from: finished models, parts of them, and chance.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use janus_model::checkpoint::LazyTensor;
use janus_model::{ErrorKind, Janus, JanusConfig, LoadOptions, Precision};
use janus_train::config::TrainConfig;
use janus_train::run::model::Companions;
use janus_train::start::{StartError, build, folder};

use crate::common::fixtures;
use crate::parts_common::{go, model, pictures, recipe};

/// Stage 1 for any model, with `key=value`.
fn config(changes: &[String]) -> TrainConfig {
    let stage = TrainConfig::recipe("janus-pro-1b-stage1").unwrap();
    let config = stage.with(&[&["model=any".to_owned()], changes].concat()).unwrap();
    config.validate().unwrap();
    config
}

/// A folder with everything of tiny-pro but its weights.
fn sizes(folder: &Path, dialect: &str) -> PathBuf {
    let (from, to) = (fixtures().join("tiny-pro").join(dialect), folder.join("sizes"));
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
    to
}

fn bytes(tensors: &[LazyTensor]) -> BTreeMap<String, Vec<u8>> {
    let bytes = |t: &LazyTensor| (t.name.clone(), t.to_bytes().unwrap().to_vec());
    tensors.iter().map(bytes).collect()
}

fn built(changes: &[String]) -> Result<(Janus, PathBuf), StartError> {
    build(&config(changes), Precision::F32, &Device::flex())
}

fn tiny() -> BTreeMap<String, Vec<u8>> {
    let options = LoadOptions { precision: Some(Precision::F32), ..LoadOptions::default() };
    bytes(&Janus::load(&model(), &Device::flex(), &options).unwrap().0.tensors())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn from_nothing_every_run_begins_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = sizes(dir.path(), "original");
    let init = vec![format!("init.model={}", sizes.display())];
    let (janus, companions) = built(&init).unwrap();
    assert_eq!(companions, sizes);
    Companions::read(&companions).unwrap();
    let first = bytes(&janus.tensors());
    assert_eq!(first, bytes(&built(&init).unwrap().0.tensors()));
    let names: Vec<_> = first.keys().cloned().collect();
    assert_eq!(names, tiny().keys().cloned().collect::<Vec<_>>());
    // LLaMA's law, the tokenizer's own, and code embeddings that begin as the codebook.
    let values = |name: &str| floats(&first[name]);
    assert!(values("language_model.model.norm.weight").iter().all(|v| *v == 1.0));
    assert!(values("aligner.layers.0.bias").iter().all(|v| *v == 0.0));
    let table = values("language_model.model.embed_tokens.weight");
    let deviation = (table.iter().map(|v| v * v).sum::<f32>() / table.len() as f32).sqrt();
    let width = values("language_model.model.norm.weight").len() as f32;
    assert!((deviation - width.sqrt().recip()).abs() < 0.001, "{deviation} for {width}");
    let codebook = values("gen_vision_model.quantize.embedding.weight");
    assert!(
        codebook.chunks(8).all(|row| (row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5)
    );
    let apart = codebook.iter().zip(values("gen_embed.weight")).map(|(a, b)| (a - b).abs());
    assert!(apart.fold(0.0, f32::max) < 1e-6);
    // Another seed, another model.
    let other = bytes(&built(&[init, vec!["seed=1".into()]].concat()).unwrap().0.tensors());
    assert_ne!(first["aligner.layers.0.weight"], other["aligner.layers.0.weight"]);
}

#[test]
fn parts_come_whole_from_where_they_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = sizes(dir.path(), "hf");
    // A run that trained a tokenizer, and one model under other names.
    let run = dir.path().join("tokenizer");
    let changes = [
        format!("model={}", sizes.display()),
        "steps=1".to_owned(),
        "side=24".to_owned(),
        "batch.size=1".to_owned(),
        "batch.rows=1".to_owned(),
        format!("data.0.path={}", pictures(dir.path(), 2).display()),
    ];
    go(&recipe(dir.path(), "tokenizer"), &changes, &run, u64::MAX);
    let hf = fixtures().join("tiny-pro/hf");
    let init = [
        format!("init.model={}", sizes.display()),
        format!("init.parts.language_model={}", hf.display()),
        format!("init.parts.vision_model={}", model().display()),
        format!("init.parts.gen_vision_model={}", run.display()),
    ];
    let (janus, _) = built(&init).unwrap();
    let (found, known) = (bytes(&janus.tensors()), tiny());
    let trained = bytes(&janus_train::start::part_in(&run, "gen_vision_model").unwrap());
    for (name, bytes) in &found {
        let part = name.split('.').next().unwrap();
        match part {
            "language_model" | "vision_model" => assert!(*bytes == known[name], "{name}"),
            "gen_vision_model" => assert!(*bytes == trained[name], "{name}"),
            _ => assert!(*bytes != known[name] || name.ends_with("bias"), "{name}"),
        }
    }
    // Embeddings of codes begin as the codebook, rows of unit length.
    let row = |name: &str| floats(&found[name])[..8].to_vec();
    let codebook = row("gen_vision_model.quantize.embedding.weight");
    let length = codebook.iter().map(|v| v * v).sum::<f32>().sqrt();
    for (embedded, code) in row("gen_embed.weight").iter().zip(codebook) {
        assert!((embedded - code / length).abs() < 1e-6);
    }
}

#[test]
fn a_finished_model_is_loaded_as_it_is() {
    let (janus, companions) = built(&[format!("start={}", model().display())]).unwrap();
    assert_eq!(companions, model());
    assert_eq!(bytes(&janus.tensors()), tiny());
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = sizes(dir.path(), "original");
    let with = |part: &str, path: &Path| {
        let init = format!("init.model={}", sizes.display());
        built(&[init, format!("init.parts.{part}={}", path.display())]).unwrap_err()
    };
    let odd = fixtures().join("tiny-odd/hf");
    let error = with("vision_model", &odd);
    let text = error.to_string();
    assert!(text.starts_with(&odd.display().to_string()) && text.contains("shape"), "{text}");
    assert_eq!(error.kind(), ErrorKind::Config);
    // A run whose model has another part.
    let run = dir.path().join("run");
    let changes = [
        format!("model={}", sizes.display()),
        "steps=1".to_owned(),
        "side=24".to_owned(),
        "batch.size=1".to_owned(),
        "batch.rows=1".to_owned(),
        format!("data.0.path={}", pictures(dir.path(), 2).display()),
    ];
    go(&recipe(dir.path(), "tokenizer"), &changes, &run, u64::MAX);
    let error = with("vision_model", &run);
    assert_eq!(error.to_string(), format!("{}: there is no vision_model here", run.display()));
    assert!(error.hint().is_some());
    // Such a run is no stage that another could follow.
    let error = folder(&config(&[format!("start={}", run.display())])).unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("but this is an image tokenizer of 128 codes of width 8"), "{text}");
    assert!(matches!(folder(&config(&[])), Err(StartError::Nothing)));
}

#[test]
fn a_run_begins_from_one_place() {
    let stage = TrainConfig::recipe("janus-pro-1b-stage1").unwrap();
    let both = stage.with(&["start=a".to_owned(), "init.model=b".to_owned()]).unwrap();
    let error = both.validate().unwrap_err().to_string();
    assert_eq!(error, "start and init: a run begins from the one or from the other");
    let error = stage.with(&["init.parts.gen_hed=x".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("gen_hed"), "{error}");
    assert!(JanusConfig::pro_1b().validate().is_ok());
}

/// Paths of a recipe are taken from its folder.
#[test]
fn paths_of_parts_are_relative_to_the_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let (_, text) = janus_train::config::RECIPES[0];
    let path = dir.path().join("stage.toml");
    let init = "\n[init]\nmodel = \"sizes\"\n[init.parts]\nvision_model = \"runs/encoder\"\n";
    fs::write(&path, format!("{text}{init}")).unwrap();
    let init = TrainConfig::read(&path).unwrap().init.unwrap();
    assert_eq!(init.model, dir.path().join("sizes"));
    assert_eq!(init.parts.vision_model, Some(dir.path().join("runs/encoder")));
}
