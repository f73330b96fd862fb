//! Recipes of networks that are trained apart: read strictly, described without loading anything.

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use janus_model::config::Dialect;
use janus_model::{ErrorKind, JanusConfig};
use janus_train::parts::{self, Description, Part, PartError, describe, part_of};

use crate::parts_common::{model, pictures, recipe};

/// A folder with the sizes of the published 1B.
fn published(folder: &Path) -> String {
    let sizes = folder.join("sizes");
    fs::create_dir_all(&sizes).unwrap();
    let json = JanusConfig::pro_1b().to_json(Dialect::Original, "float32", None);
    fs::write(sizes.join("config.json"), json).unwrap();
    format!("model={}", sizes.display())
}

fn described(folder: &Path, name: &str, more: &[&str]) -> Description {
    let data = format!("data.0.path={}", pictures(folder, 6).display());
    let mut overrides = vec![published(folder), data];
    overrides.extend(more.iter().map(|text| (*text).to_owned()));
    describe(&recipe(folder, name), &overrides, &Device::flex()).unwrap()
}

#[test]
fn recipes_say_which_part_they_train() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name| part_of(&recipe(folder.path(), name)).unwrap();
    assert_eq!(of("tokenizer"), Some(Part::Tokenizer));
    assert_eq!(of("encoder"), Some(Part::Encoder));
    let stage = folder.path().join("stage.toml");
    fs::write(&stage, janus_train::config::RECIPES[0].1).unwrap();
    assert_eq!(part_of(&stage).unwrap(), None);
    let error = describe(&stage, &[], &Device::flex()).unwrap_err();
    assert!(matches!(error, PartError::NoPart), "{error}");
    fs::write(&stage, "part = \"decoder\"").unwrap();
    let error = part_of(&stage).unwrap_err().to_string();
    assert!(error.contains("line 1: part: unknown variant `decoder`"), "{error}");
    assert_eq!(parts::RECIPES.len(), 2);
}

/// Parameters of the published networks, without the usage buffer and the pooling head.
#[test]
fn a_description_counts_what_would_train() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = described(folder.path(), "tokenizer", &[]);
    let counts: Vec<_> =
        tokenizer.networks.iter().map(|n| (n.name.as_str(), n.parameters, n.kept)).collect();
    // The critic: 3·64·16+64, 64·128·16+256, 128·256·16+512, 256·512·16+1024, 512·16+1.
    let critic = 3136 + 131_328 + 524_800 + 2_098_176 + 8193;
    assert_eq!(counts, [("gen_vision_model", 71_883_403, true), ("critic", critic, false)]);
    assert_eq!((tokenizer.steps, tokenizer.samples, tokenizer.data), (400_000, 128, 6));
    let trained = 71_883_403 + critic;
    assert_eq!(tokenizer.memory.weights, 4 * trained);
    assert_eq!(tokenizer.memory.gradients, 8 * trained, "a sum, and what is added to it");
    assert_eq!(tokenizer.memory.optimizer, 8 * trained);
    assert_eq!(tokenizer.checkpoint, 12 * trained);
    assert!(tokenizer.memory.total() > tokenizer.memory.activations);
    let average = described(folder.path(), "tokenizer", &["average=0.999", "loss.adversarial=0"]);
    assert_eq!(average.memory.weights, 4 * 2 * 71_883_403);

    let encoder = described(folder.path(), "encoder", &["batch.size=64"]);
    let vision = &encoder.networks[0];
    assert_eq!((vision.name.as_str(), vision.parameters), ("vision_model", 303_688_704));
    assert!(vision.kept && !encoder.networks[1].kept);
    // Words, positions, twelve blocks, last norm, head; pool; t and b.
    let text = 102_400 * 768 + 64 * 768 + 12 * 7_087_872 + 1536 + (768 * 1024 + 1024);
    let pool = 1024 + 4 * (1024 * 1024 + 1024) + 2048 + (2 * 1024 * 4096 + 4096 + 1024);
    assert_eq!(encoder.networks[1].parameters, text + pool + 2);
    assert_eq!(encoder.memory.gradients, 4 * (303_688_704 + text + pool + 2));
}

#[test]
fn recipes_are_read_strictly() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("data.0.path={}", pictures(folder.path(), 2).display());
    let model = format!("model={}", model().display());
    for name in ["tokenizer", "encoder"] {
        let path = recipe(folder.path(), name);
        let refused = |overrides: &[&str]| {
            let all: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
            let error = describe(&path, &all, &Device::flex()).unwrap_err();
            (error.kind(), error.to_string())
        };
        let (kind, text) = refused(&[&model, &data, "schedule.rat=1"]);
        assert_eq!(kind, ErrorKind::Usage);
        assert!(text.starts_with("schedule.rat=1: unknown field `rat`"), "{text}");
        let (kind, text) = refused(&[&model]);
        assert_eq!((kind, text.as_str()), (ErrorKind::Config, "data: there is no source"));
        for (change, expected) in [
            ("steps=0", "steps is 0, but must be between 1 and 1000000000"),
            ("batch.rows=0", "batch.rows is 0, but must be between 1 and "),
            ("save.keep=1", "save.keep is 1, but must be at least 2, or 0 for all"),
            ("optimizer.beta2=1.0", "optimizer.beta2 is 1, but must be at least 0 and below 1"),
            ("guard.window=1", "guard.window is 1, but must be between 8 and"),
            ("data.0.weight=0.0", "data.0.weight is 0, but must be a number above 0"),
            ("valid.patience=1", "valid.patience needs valid.data"),
            ("name=\"a/b\"", "name is \"a/b\", but must be a plain name for a folder"),
        ] {
            let (kind, text) = refused(&[&model, &data, change]);
            assert_eq!(kind, ErrorKind::Config, "{text}");
            assert!(text.starts_with(expected), "{text}");
        }
        // Nothing to learn from, and no model.
        let nowhere = format!("data.0.path={}", folder.path().join("nowhere").display());
        assert_eq!(refused(&[&model, &nowhere]).0, ErrorKind::Missing);
        let nowhere = format!("model={}", folder.path().join("nowhere").display());
        assert_eq!(refused(&[&nowhere, &data]).0, ErrorKind::Missing);
    }
}
