//! Training the image tokenizer: every term and gradient against PyTorch, learning, resuming.

use std::path::{Path, PathBuf};

use janus_model::checkpoint::{Checkpoint, Limits};
use janus_model::processor::PixelValues;
use janus_model::{Janus, LoadOptions};
use janus_train::start::part_in;
use janus_train::strategy::{End, Measured, Training};
use janus_train::tokenizer::{
    CRITIC, Lpips, LpipsConfig, PREFIX, TokenizerConfig, TokenizerTraining,
};

use crate::common::{Fixture, Target, fixtures};
use crate::parts_common::{
    STOPS, distance, files, go, gradients, model, pictures, recipe, same_bytes_after_stops, targets,
};

/// Share of the expected value.
const BOUND: f64 = 1e-4;
/// The same after updates: the first of Adam are as large as the rate whatever the gradient, and
/// biases in front of a norm have gradients that are nothing but rounding.
const FOLLOW: f64 = 5e-4;

fn fixture() -> Fixture {
    Fixture::file("tokenizer-training", "expected.safetensors")
}

/// As `make_tokenizer_fixtures.py` has it.
fn reference(folder: &Path, target: &Target, from: u64) -> TokenizerTraining {
    let networks = fixtures().join("tokenizer-training");
    let data = pictures(folder, 4);
    let overrides = [
        format!("model={}", model().display()),
        format!("start={}", model().display()),
        "side=16".to_owned(),
        "batch.size=4".to_owned(),
        "batch.rows=2".to_owned(),
        "loss.perceptual=0.5".to_owned(),
        format!("loss.adversarial_from={from}"),
        "critic.layers=2".to_owned(),
        "critic.width=4".to_owned(),
        format!("lpips.vgg={}", networks.join("vgg.pth").display()),
        format!("lpips.linear={}", networks.join("lpips.pth").display()),
        format!("data.0.path={}", data.display()),
    ];
    // Both paths at once: neither is a table of its own.
    let path = recipe(folder, "tokenizer");
    let text = std::fs::read_to_string(&path).unwrap().replace("# [lpips]", "[lpips]");
    let text = text.replace("# vgg =", "vgg =").replace("# linear =", "linear =");
    std::fs::write(&path, text).unwrap();
    let config = TokenizerConfig::read(&path, &overrides).unwrap();
    let critic = Checkpoint::open(networks.join("expected.safetensors"), &Limits::default());
    let mut critic = critic.unwrap().raw().to_vec();
    critic.retain(|tensor| tensor.name.starts_with(CRITIC));
    config.begin(&target.device).unwrap().with_critic(critic).unwrap()
}

fn pixels(f: &Fixture) -> Vec<PixelValues> {
    let numbers = f.f32s("pixels");
    let side = f.shape("pixels")[3];
    numbers.chunks(3 * side * side).map(|data| PixelValues { side, data: data.to_vec() }).collect()
}

/// Compares every term that PyTorch has of a step; the largest difference.
fn terms(f: &Fixture, step: &str, measured: &Measured, bound: f64) -> f64 {
    let mut worst = 0.0f64;
    for key in f.keys() {
        let Some(name) = key.strip_prefix(step) else { continue };
        let found = match name {
            "codes" => continue,
            "loss" => Some(measured.loss),
            "norm" => Some(measured.grad_norm),
            name => measured.terms.get(name),
        };
        let found = found.unwrap_or_else(|| panic!("{step} has no term {name}"));
        let expected = f64::from(f.f32s(&key)[0]);
        let off = (found - expected).abs() / expected.abs().max(1e-3);
        assert!(off <= bound, "{key}: {found}, PyTorch has {expected}");
        worst = worst.max(off);
    }
    assert!(worst > 0.0, "nothing was compared");
    worst
}

/// Measured, worst term and gradient: 2.7e-6 and 4.3e-5 flex, 2.6e-6 and 3.5e-5 ndarray.
#[test]
fn every_term_and_gradient_is_that_of_pytorch() {
    let f = fixture();
    for target in targets() {
        let folder = tempfile::tempdir().unwrap();
        let mut training = reference(folder.path(), &target, 1);
        let (pair, measured) = training.learn(0, &pixels(&f)).unwrap();
        let off = terms(&f, "all.", &measured, BOUND);
        // Ours are clipped already: back to what they were.
        let factors = [measured.grad_norm, measured.terms.get("critic_norm").unwrap()];
        let [vq, judge] = factors.map(|norm| (norm + 1e-6).max(1.0));
        let critic = pair.critic.unwrap();
        let all = [
            (gradients(training.model(), PREFIX, &pair.tokenizer), vq),
            (gradients(training.critic(), CRITIC, &critic), judge),
        ];
        let mut worst = (0.0, String::new());
        for (found, factor) in all {
            for (name, values) in found {
                let values: Vec<f32> = values.iter().map(|v| v * factor as f32).collect();
                let distance = distance(&f, &name, &values, measured.grad_norm);
                if distance > worst.0 {
                    worst = (distance, name);
                }
            }
        }
        println!("measured {}: terms {off:.1e}, {:.1e} at {}", target.name, worst.0, worst.1);
        assert!(worst.0 <= BOUND, "{}: {:.1e} at {}", target.name, worst.0, worst.1);
    }
}

/// Measured, worst term or norm: 1.5e-5.
#[test]
fn five_steps_follow_pytorch() {
    let f = fixture();
    // One step is enough for the other backend, which takes much longer.
    for target in &targets()[..1] {
        let folder = tempfile::tempdir().unwrap();
        let mut training = reference(folder.path(), target, 3);
        let mut worst = 0.0f64;
        for step in 0..5 {
            let (pair, measured) = training.learn(step, &pixels(&f)).unwrap();
            assert_eq!(pair.critic.is_some(), step >= 2);
            worst = worst.max(terms(&f, &format!("step.{step}."), &measured, FOLLOW));
            training.update(pair, 1e-4);
        }
        println!("measured {}: five steps {worst:.1e}", target.name);
    }
}

/// A small tokenizer on six pictures, with everything that a checkpoint can hold.
fn small(folder: &Path, steps: usize) -> Vec<String> {
    let data = pictures(folder, 6);
    vec![
        format!("model={}", model().display()),
        format!("steps={steps}"),
        "side=24".to_owned(),
        "schedule.rate=2e-3".to_owned(),
        "batch.size=4".to_owned(),
        "batch.rows=2".to_owned(),
        "critic.layers=2".to_owned(),
        "critic.width=4".to_owned(),
        "average=0.5".to_owned(),
        "save.every=4".to_owned(),
        format!("data.0.path={}", data.display()),
        format!("valid.data.0.path={}", data.display()),
    ]
}

/// The same pictures without a text: a folder of them is a class of the folder above.
fn bare(folder: &Path) -> PathBuf {
    let (bare, all) = (folder.join("bare"), folder.join("bare/all"));
    std::fs::create_dir_all(&all).unwrap();
    for entry in std::fs::read_dir(folder.join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "png") {
            std::fs::copy(&path, all.join(path.file_name().unwrap())).unwrap();
        }
    }
    bare
}

/// The same error, measured at the first and at the last checkpoint, on pictures as they are.
#[test]
fn reconstructions_become_better() {
    let folder = tempfile::tempdir().unwrap();
    let mut overrides = small(folder.path(), 40);
    overrides.push("loss.adversarial_from=100".to_owned());
    overrides.push(format!("valid.data.0.path={}", bare(folder.path()).display()));
    overrides.push("valid.data.0.format=classes".to_owned());
    let output = folder.path().join("run");
    let (end, rows) = go(&recipe(folder.path(), "tokenizer"), &overrides, &output, u64::MAX);
    assert_eq!((end, rows.len()), (End::Finished, 40));
    assert!(rows.iter().all(|row| row.skipped.is_none()));
    let valid = std::fs::read_to_string(output.join("valid.jsonl")).unwrap();
    let losses: Vec<f64> = valid
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    let first = rows[0].terms["reconstruction"];
    println!("measured: {first}, {losses:?}");
    assert!(losses[losses.len() - 1] < 0.6 * first, "{first} {losses:?}");
    assert!(rows[0].terms["codes_used"] > 0.0 && rows[0].terms["codes_dead"] < 1.0);
}

#[test]
fn a_run_stopped_anywhere_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    // The critic begins in between, before and behind a stop.
    let overrides = [small(folder.path(), 8), vec!["loss.adversarial_from=4".into()]].concat();
    let recipe = recipe(folder.path(), "tokenizer");
    same_bytes_after_stops(&recipe, &overrides, 8, &STOPS);
}

/// Weights that are kept in another form than the one they learn in, and codes that move.
#[test]
fn so_does_a_run_with_soft_norms() {
    let folder = tempfile::tempdir().unwrap();
    let ways = ["soft_norms=true", "local_codes=true", "revive=2", "loss.adversarial_from=100"];
    let ways = ways.map(str::to_owned);
    let overrides = [small(folder.path(), 8), ways.to_vec()].concat();
    let recipe = recipe(folder.path(), "tokenizer");
    same_bytes_after_stops(&recipe, &overrides, 8, &STOPS);
}

/// A model that draws codes goes on with other pictures for them, and stops like any run.
#[test]
fn only_the_decoder_may_learn() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), "tokenizer");
    let first = folder.path().join("first");
    let base = [small(folder.path(), 8), vec!["loss.adversarial_from=100".into()]].concat();
    go(&recipe, &base, &first, u64::MAX);
    let start = format!("start={}", first.display());
    let more = [start, "decoder_only=true".to_owned(), "average=0.9".to_owned()];
    let overrides = [base, more.to_vec()].concat();
    same_bytes_after_stops(&recipe, &overrides, 8, &STOPS);

    let second = folder.path().join("second");
    go(&recipe, &overrides, &second, u64::MAX);
    let [before, after] = [&first, &second].map(|run| part_in(run, "gen_vision_model").unwrap());
    for (before, after) in before.iter().zip(&after) {
        let same = before.to_bytes().unwrap()[..] == after.to_bytes().unwrap()[..];
        let learns = before.name.contains(".decoder.") || before.name.contains(".post_quant_conv.");
        assert_eq!((before.name == after.name, same), (true, !learns), "{}", before.name);
    }

    let refused = |more: &[&str]| {
        let more: Vec<String> = more.iter().map(|one| (*one).to_owned()).collect();
        TokenizerConfig::read(&recipe, &[overrides.clone(), more].concat()).is_err()
    };
    assert!(!refused(&[]) && refused(&["revive=2"]));
    let alone = [small(folder.path(), 8), vec!["decoder_only=true".to_owned()]].concat();
    assert!(TokenizerConfig::read(&recipe, &alone).is_err(), "codes of nobody");
}

/// What a run leaves is a part of a model, and of the next run.
#[test]
fn a_checkpoint_is_a_part_of_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let overrides = [small(folder.path(), 1), vec!["loss.adversarial_from=1".into()]].concat();
    let recipe = recipe(folder.path(), "tokenizer");
    let output = folder.path().join("run");
    go(&recipe, &overrides, &output, u64::MAX);
    let found = part_in(&output, "gen_vision_model").unwrap();
    let options = LoadOptions::default();
    let (janus, _) = Janus::load(&model(), &burn::tensor::Device::flex(), &options).unwrap();
    let mut expected = janus.tensors();
    expected.retain(|tensor| tensor.name.starts_with(PREFIX));
    assert_eq!(found.len(), expected.len());
    let names: Vec<_> = files(&output.join("ckpt/step-000001"));
    let names: Vec<_> = names.iter().map(|(name, _)| name.display().to_string()).collect();
    for name in [
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "weights/model.safetensors",
        "critic/model.safetensors",
        "moments.bpk",
        "critic.bpk",
        "usage",
        "state.json",
    ] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
    // The next run begins with the same tokenizer and the same critic.
    let start = format!("start={}", output.display());
    let overrides = [overrides, vec![start]].concat();
    let next = TokenizerConfig::read(&recipe, &overrides).unwrap();
    let mut next = next.begin(&burn::tensor::Device::flex()).unwrap();
    assert!(next.gradients(0).unwrap().is_some());
    let wanted = std::fs::read(output.join("ckpt/step-000001/critic/model.safetensors")).unwrap();
    let first = next.critic().layers[0].conv.weight.val().into_data();
    let first: Vec<u8> = first.iter::<f32>().flat_map(f32::to_le_bytes).collect();
    assert!(wanted.windows(first.len()).any(|bytes| bytes == first), "another critic");
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = recipe(folder.path(), "tokenizer");
    let refused = |change: &str| {
        let overrides = [small(folder.path(), 2), vec![change.to_owned()]].concat();
        let config = TokenizerConfig::read(&path, &overrides);
        let error = config.and_then(|config| config.begin(&burn::tensor::Device::flex()).map(drop));
        let error = error.unwrap_err();
        assert_eq!(error.kind(), janus_model::ErrorKind::Config, "{error}");
        error.to_string()
    };
    assert_eq!(refused("side=28"), "side is 28, but must be a multiple of 8, the side of one code");
    assert_eq!(
        refused("critic.layers=4"),
        "side is 24, but must be at least 48, or the critic has no patch to judge"
    );
    assert_eq!(refused("average=1.0"), "average is 1, but must be at least 0 and below 1");
    assert_eq!(
        refused("augment.min_crop=0.0"),
        "augment.min_crop is 0, but must be between 0.1 and 1"
    );
    let text = std::fs::read_to_string(&path).unwrap().replace("min_crop", "least_crop");
    std::fs::write(&path, text).unwrap();
    let error = TokenizerConfig::read(&path, &[]).unwrap_err().to_string();
    assert!(error.contains("unknown field `least_crop`"), "{error}");
}

/// Files of the perceptual term that are something else.
#[test]
fn perceptual_networks_are_checked_tensor_by_tensor() {
    let networks = fixtures().join("tokenizer-training");
    let (vgg, linear) = (networks.join("vgg.pth"), networks.join("lpips.pth"));
    let load = |vgg: &Path, linear: &Path| {
        let config = LpipsConfig { vgg: vgg.to_owned(), linear: linear.to_owned() };
        Lpips::load(&config, &burn::tensor::Device::flex())
    };
    assert!(load(&vgg, &linear).is_ok());
    let error = load(&linear, &vgg).unwrap_err();
    let name = linear.display();
    assert_eq!(error.to_string(), format!("{name}: there is no tensor features.0.weight"));
    assert!(error.hint().unwrap().contains("torchvision's vgg16"));
    assert_eq!(error.kind(), janus_model::ErrorKind::Config);
    let error = load(&vgg, &networks.join("nothing.pth")).unwrap_err();
    assert_eq!(error.kind(), janus_model::ErrorKind::Missing);
    // Half a file.
    let file = std::fs::read(&linear).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.pth");
    std::fs::write(&cut, &file[..file.len() / 2]).unwrap();
    assert!(load(&vgg, &cut).is_err());
    // The same picture twice is no distance; another one is.
    let lpips = load(&vgg, &linear).unwrap();
    let device = burn::tensor::Device::flex();
    let flat = |value: f32| burn::tensor::Tensor::<4>::full([1, 3, 32, 32], value, &device);
    let number = |distance: burn::tensor::Tensor<1>| crate::common::values(distance)[0];
    assert_eq!(number(lpips.distance(flat(0.25), flat(0.25))), 0.0);
    assert!(number(lpips.distance(flat(0.25), flat(-0.75))) > 0.0);
}
