//! Pre-training the understanding encoder: the loss and every gradient against PyTorch, at once and
//! cut up; learning; resuming.

use std::path::Path;

use burn::tensor::Device;
use janus_model::checkpoint::{Checkpoint, Limits};
use janus_model::processor::PixelValues;
use janus_model::{ErrorKind, Janus, LoadOptions};
use janus_train::encoder::training::Pair;
use janus_train::encoder::{EncoderConfig, EncoderTraining, HEADS};
use janus_train::start::part_in;
use janus_train::strategy::{End, Training};

use crate::common::{Fixture, Target, fixtures};
use crate::parts_common::{
    STOPS, distance, files, go, gradients, model, pictures, recipe, same_bytes_after_stops, targets,
};

/// Share of the expected value.
const BOUND: f64 = 1e-4;

fn fixture() -> Fixture {
    Fixture::file("", "encoder-training.safetensors")
}

/// As `make_encoder_fixtures.py` has it, `rows` pairs at a time.
fn reference(folder: &Path, target: &Target, rows: usize) -> EncoderTraining {
    let overrides = [
        small(folder, 5),
        vec![
            format!("start={}", model().display()),
            "batch.size=6".to_owned(),
            format!("batch.rows={rows}"),
            "optimizer.weight_decay=1e-4".to_owned(),
        ],
    ]
    .concat();
    let config = EncoderConfig::read(&recipe(folder, "encoder"), &overrides).unwrap();
    let file = fixtures().join("encoder-training.safetensors");
    let heads = Checkpoint::open(file, &Limits::default()).unwrap();
    let mut tensors = heads.raw().to_vec();
    tensors.retain(|tensor| tensor.name.starts_with(HEADS));
    tensors.extend(part_in(&model(), "vision_model").unwrap());
    config.begin(&target.device).unwrap().with_towers(tensors).unwrap()
}

/// Pictures of 4×4 squares, and captions that are numbers.
fn pairs(f: &Fixture) -> Vec<Pair> {
    let (small, ids) = (f.f32s("small"), f.i32s("ids"));
    let (side, each) = (96, 96 / 4);
    let picture = |small: &[f32]| {
        let pixel = |i: usize| {
            let (channel, y, x) = (i / (side * side), i / side % side / each, i % side / each);
            small[channel * 16 + y * 4 + x]
        };
        PixelValues { side, data: (0..3 * side * side).map(pixel).collect() }
    };
    let ids = ids.chunks(f.shape("ids")[1]);
    let pictures = small.chunks(48).map(picture);
    pictures.zip(ids).map(|(pixels, ids)| Pair { pixels, ids: ids.to_vec(), cut: false }).collect()
}

/// Measured, loss and worst gradient: 8.4e-8 and 1.6e-6 flex, 8.4e-8 and 1.6e-6
/// ndarray, all at once and two pairs at a time.
#[test]
fn the_loss_and_every_gradient_are_those_of_pytorch() {
    let f = fixture();
    for target in targets() {
        for rows in [6, 2] {
            let folder = tempfile::tempdir().unwrap();
            let mut training = reference(folder.path(), &target, rows);
            let (found, measured) = training.learn(&pairs(&f)).unwrap();
            let expected = f64::from(f.f32s("loss")[0]);
            let off = (measured.loss - expected).abs() / expected;
            assert!(off <= BOUND, "{} {rows}: {off:.1e}", target.name);
            let share = measured.terms.get("found").unwrap();
            assert!((share - f64::from(f.f32s("found")[0])).abs() < 1e-6);
            let factor = (measured.grad_norm + 1e-6).max(1.0) as f32;
            let found = gradients(training.towers(), "", &found);
            let mut worst = (0.0, String::new());
            for (name, values) in found {
                let values: Vec<f32> = values.iter().map(|v| v * factor).collect();
                let distance = distance(&f, &name, &values, measured.grad_norm);
                if distance > worst.0 {
                    worst = (distance, name);
                }
            }
            let (at, name) = worst;
            println!("measured {} {rows}: loss {off:.1e}, {at:.1e} at {name}", target.name);
            assert!(at <= BOUND, "{} {rows}: {at:.1e} at {name}", target.name);
        }
    }
}

/// Measured, worst loss and norm: 2.9e-7.
#[test]
fn five_steps_follow_pytorch() {
    let f = fixture();
    let folder = tempfile::tempdir().unwrap();
    let mut training = reference(folder.path(), &targets()[0], 3);
    let (losses, norms) = (f.f32s("steps.losses"), f.f32s("steps.norms"));
    let mut worst = 0.0f64;
    for (step, expected) in losses.into_iter().zip(norms).enumerate() {
        let (gradients, measured) = training.learn(&pairs(&f)).unwrap();
        let off = |found: f64, expected: f32| (found / f64::from(expected) - 1.0).abs();
        let off = off(measured.loss, expected.0).max(off(measured.grad_norm, expected.1));
        assert!(off <= 1e-3, "step {step}: {off:.1e}");
        worst = worst.max(off);
        training.update(gradients, 1e-3);
    }
    println!("measured: {worst:.1e}");
}

/// A small text tower beside the tower of tiny-pro, on twelve pictures.
fn small(folder: &Path, steps: usize) -> Vec<String> {
    let data = pictures(folder, 12);
    vec![
        format!("model={}", model().display()),
        format!("steps={steps}"),
        "text.width=16".to_owned(),
        "text.layers=1".to_owned(),
        "text.heads=2".to_owned(),
        "text.length=8".to_owned(),
        "schedule.rate=2e-3".to_owned(),
        "schedule.warmup=0".to_owned(),
        "batch.size=12".to_owned(),
        "batch.rows=12".to_owned(),
        "save.every=4".to_owned(),
        format!("data.0.path={}", data.display()),
    ]
}

/// Twelve pictures of two colours each: by chance one of twelve captions is right.
#[test]
fn pictures_find_their_captions() {
    let folder = tempfile::tempdir().unwrap();
    let mut overrides = small(folder.path(), 48);
    let more = ["text.length=24", "text.width=32", "schedule.rate=3e-3", "pooling=mean"];
    overrides.extend(more.map(str::to_owned));
    overrides.push(format!("valid.data.0.path={}", folder.path().join("data").display()));
    let output = folder.path().join("run");
    let (end, rows) = go(&recipe(folder.path(), "encoder"), &overrides, &output, u64::MAX);
    assert_eq!((end, rows.len()), (End::Finished, 48));
    let found: Vec<f64> = rows.iter().map(|row| row.terms["found"]).collect();
    let losses: Vec<f64> = rows.iter().filter_map(|row| row.loss).collect();
    println!("measured: {found:.2?} {losses:.2?}");
    assert!(found[0] < 0.25, "{found:?}");
    assert!(found[40..].iter().all(|share| *share > 0.4), "{found:?}");
    assert!(losses[47] < 0.4 * losses[0], "{losses:?}");
    assert!(rows.iter().all(|row| row.terms["captions_cut"] == 0.0));
    // The checkpoints were judged, and the last ones are better than the first.
    let valid = std::fs::read_to_string(output.join("valid.jsonl")).unwrap();
    assert_eq!(valid.lines().count(), 12);
}

#[test]
fn a_run_stopped_anywhere_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let overrides =
        [small(folder.path(), 8), vec!["batch.size=5".into(), "batch.rows=2".into()]].concat();
    let recipe = recipe(folder.path(), "encoder");
    same_bytes_after_stops(&recipe, &overrides, 8, &STOPS);
}

/// What a run leaves is a part of a model, and of the next run.
#[test]
fn a_checkpoint_is_a_part_of_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let overrides = [small(folder.path(), 1), vec!["pooling=mean".into()]].concat();
    let recipe = recipe(folder.path(), "encoder");
    let output = folder.path().join("run");
    go(&recipe, &overrides, &output, u64::MAX);
    let found = part_in(&output, "vision_model").unwrap();
    let (janus, _) = Janus::load(&model(), &Device::flex(), &LoadOptions::default()).unwrap();
    let mut expected = janus.tensors();
    expected.retain(|tensor| tensor.name.starts_with("vision_model."));
    assert_eq!(found.len(), expected.len());
    let names = files(&output.join("ckpt/step-000001"));
    assert!(names.iter().any(|(name, _)| name.ends_with("heads/model.safetensors")));
    let start = format!("start={}", output.display());
    let next = EncoderConfig::read(&recipe, &[overrides, vec![start]].concat()).unwrap();
    let mut next = next.begin(&Device::flex()).unwrap();
    assert!(next.gradients(0).unwrap().is_some());
    let bias = next.towers().heads.bias.val().into_data().iter::<f32>().next().unwrap();
    assert!(bias != -10.0, "the heads of the run were not taken over");
}

#[test]
fn captions_that_are_too_long_are_named_where_they_may_not_be_cut() {
    let folder = tempfile::tempdir().unwrap();
    let overrides =
        [small(folder.path(), 2), vec!["text.length=3".into(), "text.cut=false".into()]].concat();
    let config = EncoderConfig::read(&recipe(folder.path(), "encoder"), &overrides).unwrap();
    let mut training = config.begin(&Device::flex()).unwrap();
    let error = training.gradients(0).unwrap_err().to_string();
    assert!(error.contains("tokens, a row holds 3: nothing is ever cut off"), "{error}");
    let refused = EncoderConfig::read(&recipe(folder.path(), "encoder"), &["text.heads=5".into()]);
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.to_string(), "text.heads is 5, but must be a divisor of text.width, 768");
}
