//! Optimizer steps: PyTorch's losses, frozen bits, narrow weights.

use burn::optim::GradientsAccumulator;
use burn::tensor::DType;
use burn::train::{InferenceStep, TrainStep};
use janus_model::{Janus, LoadOptions, Parts};
use janus_train::accumulate::Report;
use janus_train::batch::Batch;
use janus_train::clip::clip;
use janus_train::learner::Micro;
use janus_train::optim::AdamW;
use janus_train::stage::Rules;
use janus_train::step::{Activations, StepError, Trainee};

use crate::common;
use crate::reference::{SAMPLES, alone, fixture, named, stacked, targets, trainee, weights};

/// As the fixture was made.
const RATE: f64 = 1e-3;

/// `count` steps; the loss before each, the norm before clipping, and the model after.
fn train(mut trainee: Trainee, step: &[Batch], count: usize) -> (Vec<f64>, Vec<f64>, Trainee) {
    let mut optimizer = AdamW::default().into();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (gradients, report) = trainee.gradients(step).unwrap();
        let (gradients, norm) = clip(&trainee, gradients, 1.0).unwrap();
        losses.push(report.joined().mean().unwrap());
        norms.push(norm);
        trainee = trainee.update(&mut optimizer, RATE, gradients);
    }
    (losses, norms, trainee)
}

/// Ten steps of a mixed batch and the loss after them.
///
/// Measured, losses and norms: 4.1e-7 and 3.0e-6 flex, 4.7e-7 and 4.7e-6 ndarray, 4.7e-7 and 4.5e-6
/// wgpu.
#[test]
fn ten_steps_follow_pytorch() {
    let f = fixture();
    for target in targets() {
        let (mut losses, norms, after) =
            train(trainee(&target, 3, Activations::Kept), &[stacked(&f, &SAMPLES)], 10);
        let mut last = Report::default();
        for batch in alone(&f, &SAMPLES) {
            last.join(after.evaluate(&batch).unwrap());
        }
        losses.push(last.joined().mean().unwrap());
        for (what, found, bound) in [("losses", losses, 1e-5), ("norms", norms, 1e-4)] {
            let expected = f.f32s(&format!("steps.{what}"));
            assert_eq!(found.len(), expected.len());
            let far = found.iter().zip(&expected).map(|(a, e)| (a / f64::from(*e) - 1.0).abs());
            let worst = far.fold(0.0, f64::max);
            println!("measured {} {what}: {worst:.1e}", target.name);
            assert!(worst <= bound, "{} {what}: {found:?}, PyTorch has {expected:?}", target.name);
        }
    }
}

/// What is frozen keeps its bits, what trains moves: every parameter of it.
#[test]
fn frozen_bits_never_move() {
    let f = fixture();
    for target in targets() {
        for stage in 1..=3 {
            let start = trainee(&target, stage, Activations::Kept);
            let before = weights(&start);
            let (_, _, after) = train(start, &[stacked(&f, &SAMPLES)], 2);
            let rules = Rules::janus_pro(stage).unwrap();
            for (name, values) in weights(&after) {
                let mut pairs = values.iter().zip(&before[&name]);
                let moved = pairs.any(|(a, b)| a.to_bits() != b.to_bits());
                assert_eq!(moved, rules.trains(&name), "{} stage {stage} {name}", target.name);
            }
        }
    }
}

/// Weights kept in bf16 with masters in f32 learn as f32 weights do. Gradients of such weights are
/// rounded to bf16, which is what is left of the difference.
///
/// Measured: 4.1e-3.
#[test]
fn narrow_weights_learn_like_wide_ones() {
    let f = fixture();
    let losses = |dtype| {
        let found = common::targets().into_iter().find(|t| t.name.starts_with("flex"));
        let target = common::Target { dtype, ..found.unwrap() };
        let start = trainee(&target, 3, Activations::Kept);
        let (losses, _, after) = train(start, &[stacked(&f, &SAMPLES)], 10);
        let table = &after.janus.language_model.model.embed_tokens.weight;
        assert_eq!(table.val().dtype(), dtype);
        losses
    };
    let (wide, narrow) = (losses(DType::F32), losses(DType::BF16));
    let far = wide.iter().zip(&narrow).map(|(w, n)| (w - n).abs() / w).fold(0.0, f64::max);
    println!("measured: {far:.1e} {wide:?} {narrow:?}");
    assert!(narrow[9] < narrow[0]);
    assert!(far < 1e-2, "{wide:?} {narrow:?}");
}

/// What Burn's learner calls gives the same gradients and losses, and hands errors on.
#[test]
fn the_learners_step_is_the_same_step() {
    let f = fixture();
    let trainee = trainee(&targets()[0], 3, Activations::Kept);
    let step = alone(&f, &SAMPLES);
    let total = step.iter().map(Batch::supervised).sum();
    let (mut sum, mut report) = (GradientsAccumulator::new(), Report::default());
    for batch in &step {
        let micro = Micro { batch: batch.clone(), total };
        let output = TrainStep::step(&trainee, micro);
        sum.accumulate(&trainee, output.grads);
        report.join(output.item.report.unwrap());
    }
    let (expected, losses) = trainee.gradients(&step).unwrap();
    assert_eq!(report, losses);
    assert_eq!(named(&trainee, &sum.grads()), named(&trainee, &expected));

    // The forward pass alone may use faster kernels.
    let evaluated = InferenceStep::step(&trainee, step[0].clone()).report.unwrap();
    let (found, expected) = (evaluated.text, losses.text);
    assert!(found.tokens < expected.tokens && found.sum < expected.sum);

    let broken = Batch { ids: Vec::new(), ..step[0].clone() };
    let output = TrainStep::step(&trainee, Micro { batch: broken, total });
    assert!(output.grads.is_empty());
    assert!(matches!(output.item.report, Err(StepError::Batch(_))));
    assert!(trainee.gradients(&[]).is_err(), "nothing supervised");
}

/// A part that is missing is named, not a panic.
#[test]
fn half_a_model_says_what_it_lacks() {
    let f = fixture();
    let half = |parts| {
        let options = LoadOptions { parts, ..Default::default() };
        let path = common::fixtures().join("tiny-pro/original");
        let janus = Janus::load(&path, &targets()[0].device, &options).unwrap().0;
        Trainee::new(janus, Activations::Kept)
    };
    for (parts, samples, part) in [
        (Parts::Understanding, ["und", "gen"], "gen_embed"),
        (Parts::Generation, ["gen", "und"], "vision_model"),
    ] {
        let [has, lacks] = samples.map(|sample| alone(&f, &[sample]).remove(0));
        let half = half(parts);
        assert!(half.evaluate(&has).is_ok());
        let error = half.evaluate(&lacks).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
