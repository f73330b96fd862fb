//! An understanding encoder that learns from maps: learning, resuming, and what it leaves.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use janus_model::ErrorKind;
use janus_model::processor::RgbImage8;
use janus_train::fields::FieldsConfig;
use janus_train::parts::describe;
use janus_train::start::part_in;
use janus_train::strategy::{End, Training};

use crate::parts_common::{COLORS, STOPS, go, model, same_bytes_after_stops};

/// The recipe of janus-tiny, which is the only one there is.
fn recipe(folder: &Path) -> PathBuf {
    let path = folder.join("encoder.toml");
    fs::write(&path, include_str!("../../janus-train/recipes/tiny/encoder.toml")).unwrap();
    path
}

/// Pictures of two colours, one above the other, and what lies in each of 12×12 fields.
fn data(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    fs::create_dir_all(&data).unwrap();
    for number in 0..12 {
        let (above, below) = (COLORS[number % 6], COLORS[(number / 6 + number + 1) % 6]);
        let rows = (0..96).flat_map(|y| if y < 48 { [above.1; 96] } else { [below.1; 96] });
        let image = RgbImage8::new(96, 96, rows.flatten().collect()).unwrap();
        fs::write(data.join(format!("{number:02}.png")), image.to_png().unwrap()).unwrap();
        let map = [vec![above.0; 72], vec![below.0; 72]].concat().join(", ");
        fs::write(data.join(format!("{number:02}.txt")), map).unwrap();
    }
    data
}

fn small(folder: &Path, steps: usize) -> Vec<String> {
    let words = COLORS.map(|(name, _)| format!("{name:?}")).join(", ");
    vec![
        format!("model={}", model().display()),
        format!("words=[{words}]"),
        format!("steps={steps}"),
        "products=f32".to_owned(),
        "schedule.rate=3e-3".to_owned(),
        "schedule.warmup=0".to_owned(),
        "batch.size=12".to_owned(),
        "batch.rows=6".to_owned(),
        "save.every=4".to_owned(),
        format!("data.0.path={}", data(folder).display()),
    ]
}

/// Six colours: by chance a field is right in one of six, and less, since nothing may be said twice.
#[test]
fn fields_are_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let mut overrides = small(folder.path(), 24);
    overrides.push(format!("valid.data.0.path={}", folder.path().join("data").display()));
    let output = folder.path().join("run");
    let (end, rows) = go(&recipe(folder.path()), &overrides, &output, u64::MAX);
    assert_eq!((end, rows.len()), (End::Finished, 24));
    let right: Vec<f64> = rows.iter().map(|row| row.terms["right"]).collect();
    println!("measured: {right:.2?}");
    assert!(right[0] < 0.2, "{right:?}");
    assert!(right[20..].iter().all(|share| *share > 0.9), "{right:?}");
    let valid = fs::read_to_string(output.join("valid.jsonl")).unwrap();
    assert_eq!(valid.lines().count(), 6);
    // What is left is a part of a model.
    let found = part_in(&output, "vision_model").unwrap();
    assert!(found.iter().all(|tensor| tensor.name.starts_with("vision_model.")));
    let start = format!("start={}", output.display());
    let next = FieldsConfig::read(&recipe(folder.path()), &[overrides, vec![start]].concat());
    let next = next.unwrap().begin(&Device::flex()).unwrap();
    assert_eq!(next.seer().heads.words.weight.dims()[0], 6);
}

#[test]
fn a_run_stopped_anywhere_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let overrides =
        [small(folder.path(), 8), vec!["batch.size=5".into(), "batch.rows=2".into()]].concat();
    same_bytes_after_stops(&recipe(folder.path()), &overrides, 8, &STOPS);
}

#[test]
fn what_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let overrides = small(folder.path(), 2);
    let with = |more: &str| [overrides.clone(), vec![more.to_owned()]].concat();
    let config = FieldsConfig::read(&recipe(folder.path()), &with("words=[\"red\"]")).unwrap();
    let error = config.begin(&Device::flex()).unwrap().gradients(0).unwrap_err().to_string();
    assert!(error.contains("is not among the words of the recipe"), "{error}");
    for words in ["words=[]", "words=[\"a\", \"a\"]", "words=[\"a b\"]"] {
        let error = FieldsConfig::read(&recipe(folder.path()), &with(words)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("a list of different words"), "{error}");
    }
    let described = describe(&recipe(folder.path()), &overrides, &Device::flex()).unwrap();
    let names: Vec<_> = described.networks.iter().map(|n| (n.name.as_str(), n.kept)).collect();
    assert_eq!(names, [("vision_model", true), ("heads", false)]);
    // Six rows of the words, and their biases.
    let width = part_in(&model(), "vision_model").unwrap();
    let width = width.iter().find(|t| t.name.ends_with("norm.bias")).unwrap().shape[0];
    assert_eq!(described.networks[1].parameters, 6 * width as u64 + 6);
}
