//! Every parameter's gradient against PyTorch's autograd, and against itself when the same tokens
//! are cut up, packed or recomputed in another way.

use janus_train::stage::{Action, Rules};
use janus_train::step::{Activations, Trainee};

use crate::reference::{
    Expected, Named, SAMPLES, alone, fixture, named, packed, recompute_bound, stacked, targets,
    trainee, trainee_by, worst,
};

/// Share of a gradient's largest value.
const BOUND: f64 = 1e-4;

/// All gradients of a step by name.
fn gradients(trainee: &Trainee, step: &[janus_train::batch::Batch]) -> Named {
    named(trainee, &trainee.gradients(step).unwrap().0)
}

/// Measured, worst parameter and loss: 6.5e-6 and 1.4e-7 flex, 1.0e-5 and 2.2e-7 ndarray, 9.9e-6
/// and 1.4e-7 wgpu.
#[test]
fn every_gradient_is_that_of_pytorch() {
    let f = fixture();
    for target in targets() {
        let trainee = trainee(&target, 3, Activations::Kept);
        for sample in SAMPLES {
            let (found, report) = trainee.gradients(&alone(&f, &[sample])).unwrap();
            let loss = report.joined().mean().unwrap();
            let expected = f64::from(f.f32s(&format!("{sample}.loss"))[0]);
            let off = (loss - expected).abs() / expected;
            assert!(off < BOUND, "{} {sample}: loss {loss}, PyTorch has {expected}", target.name);
            let found = named(&trainee, &found);
            let reference = Expected::of(&f, sample);
            assert_eq!(found.keys().cloned().collect::<Vec<_>>(), reference.names(), "{sample}");
            let mut worst = (0.0, "");
            for (name, values) in &found {
                let distance = reference.distance(name, values);
                assert!(distance <= BOUND, "{} {sample} {name}: {distance:.1e}", target.name);
                worst = if distance > worst.0 { (distance, name) } else { worst };
            }
            let (at, name) = worst;
            println!("measured {} {sample}: loss {off:.1e}, {at:.1e} at {name}", target.name);
        }
    }
}

/// In stage 1 the language model and the encoder are frozen, and gradients reach the adaptors
/// through them: the same as with everything training (Burn issue 5162 had NaN or zero here).
///
/// Measured: 4.1e-6 flex, 5.4e-6 ndarray, 5.3e-6 wgpu.
#[test]
fn gradients_pass_through_a_frozen_trunk() {
    let f = fixture();
    for target in targets() {
        for activations in [Activations::Kept, Activations::Recomputed] {
            let trainee = trainee(&target, 1, activations);
            let rules = Rules::janus_pro(1).unwrap();
            for sample in ["und", "gen"] {
                let found = gradients(&trainee, &alone(&f, &[sample]));
                let reference = Expected::of(&f, sample);
                let mut names = reference.names();
                names.retain(|name| rules.trains(name));
                assert_eq!(found.keys().cloned().collect::<Vec<_>>(), names, "{sample}");
                for (name, values) in &found {
                    let distance = reference.distance(name, values);
                    println!("measured {} {sample} {name}: {distance:.1e}", target.name);
                    assert!(distance <= BOUND, "{} {name}: {distance:.1e}", target.name);
                }
            }
            // Text alone reaches nothing that trains.
            assert!(gradients(&trainee, &alone(&f, &["text"])).is_empty());
        }
    }
}

/// One batch of three rows, three micro-batches in any order, three documents in one row: the same
/// tokens, so the same step.
///
/// Measured: 1.8e-6 flex, 2.0e-6 ndarray, 2.7e-6 wgpu.
#[test]
fn cutting_and_packing_do_not_matter() {
    let f = fixture();
    for target in targets() {
        let trainee = trainee(&target, 3, Activations::Kept);
        let (whole, report) = trainee.gradients(&[stacked(&f, &SAMPLES)]).unwrap();
        let whole = named(&trainee, &whole);
        let ways = [
            ("micro-batches", alone(&f, &SAMPLES)),
            ("unequal parts", vec![packed(&f, &["gen", "und"], 0), row_of_text(&f)]),
            ("packed", vec![packed(&f, &SAMPLES, 0)]),
            ("packed, another order, padded", vec![packed(&f, &["gen", "text", "und"], 9)]),
        ];
        for (way, step) in ways {
            let (found, same) = trainee.gradients(&step).unwrap();
            let distance = worst(&named(&trainee, &found), &whole);
            println!("measured {} {way}: {distance:.1e}", target.name);
            assert!(distance <= 1e-5, "{} {way}: {distance:.1e}", target.name);
            assert_eq!(same.text.tokens, report.text.tokens);
            assert_eq!(same.codes.tokens, report.codes.tokens);
            let (loss, expected) = (same.joined().sum, report.joined().sum);
            assert!((loss - expected).abs() / expected < 1e-6, "{way}: {loss} {expected}");
        }
    }
}

fn row_of_text(f: &crate::common::Fixture) -> janus_train::batch::Batch {
    alone(f, &["text"]).remove(0)
}

/// Words that count three times: thrice the gradient, less what image codes have too much of it.
///
/// Measured: 1.7e-6 flex, 1.6e-6 ndarray, 3.1e-6 wgpu.
#[test]
fn words_may_count_more() {
    let f = fixture();
    for target in targets() {
        let trainee = trainee(&target, 3, Activations::Kept);
        let step = [stacked(&f, &SAMPLES)];
        let (usual, report) = trainee.gradients(&step).unwrap();
        let mut expected = named(&trainee, &usual);
        let codes = gradients(&trainee, &alone(&f, &["gen"]));
        let share = report.codes.tokens as f32 / report.joined().tokens as f32;
        for (name, values) in &mut expected {
            values.iter_mut().for_each(|value| *value *= 3.0);
            for (value, code) in values.iter_mut().zip(codes.get(name).into_iter().flatten()) {
                *value -= 2.0 * share * code;
            }
        }
        for activations in [Activations::Kept, Activations::Recomputed] {
            let trainee = Trainee::new(trainee.janus.clone(), activations).with_word_weight(3.0);
            let (found, same) = trainee.gradients(&step).unwrap();
            assert_eq!(same, report, "losses are told as they are");
            let distance = worst(&named(&trainee, &found), &expected);
            println!("measured {}: {distance:.1e}", target.name);
            assert!(distance <= 1e-5, "{}: {distance:.1e}", target.name);
        }
    }
}

/// What another document says must not reach a row that shares its place: change the neighbour,
/// and the loss of a document keeps its bits.
#[test]
fn documents_do_not_see_each_other() {
    let f = fixture();
    for target in targets() {
        let trainee = trainee(&target, 3, Activations::Kept);
        let mut batch = packed(&f, &["text", "und"], 0);
        let other = batch.text_targets.iter().filter(|t| t.place as usize >= length(&f, "text"));
        let kept: Vec<_> = other.copied().collect();
        batch.text_targets = kept;
        let before = trainee.evaluate(&batch).unwrap();
        for id in &mut batch.ids[..length(&f, "text")] {
            *id = (*id + 7) % 500;
        }
        assert_eq!(trainee.evaluate(&batch).unwrap(), before, "{}", target.name);
        batch.documents.fill(0);
        assert_ne!(trainee.evaluate(&batch).unwrap(), before, "{}", target.name);
    }
}

fn length(f: &crate::common::Fixture, sample: &str) -> usize {
    f.i32s(&format!("{sample}.ids")).len()
}

/// Blocks that run again give the gradients of blocks that were kept, in every stage: to the bit on
/// the processor; wgpu sums in another order where a gradient lies otherwise in memory.
///
/// Measured: 0 flex, 0 ndarray, 3.3e-6 wgpu, 0 there in stages 1 and 2.
#[test]
fn recomputed_blocks_give_the_same_gradients() {
    let f = fixture();
    let step = [stacked(&f, &SAMPLES), packed(&f, &SAMPLES, 5)];
    for target in targets() {
        for stage in 1..=3 {
            let of = |activations| {
                let trainee = trainee(&target, stage, activations);
                let (gradients, report) = trainee.gradients(&step).unwrap();
                (named(&trainee, &gradients), report)
            };
            let (kept, one) = of(Activations::Kept);
            let (again, two) = of(Activations::Recomputed);
            assert_eq!(one, two, "{} stage {stage}", target.name);
            let distance = worst(&again, &kept);
            println!("measured {} stage {stage}: {distance:.1e}", target.name);
            assert!(distance <= recompute_bound(&target), "{} stage {stage}", target.name);
        }
    }
}

/// Where only upper parts train, going back stops at the lowest of them: same gradients, no others.
#[test]
fn going_back_stops_where_nothing_below_trains() {
    let f = fixture();
    let (target, step) = (&targets()[0], [stacked(&f, &SAMPLES)]);
    for trained in
        ["gen_head.**", "language_model.model.layers.1.**", "vision_model.**.blocks.1.**"]
    {
        let rules = [(trained, Action::Train), ("**", Action::Freeze)];
        let rules = Rules::new(&rules).unwrap();
        let [kept, again] = [Activations::Kept, Activations::Recomputed]
            .map(|activations| gradients(&trainee_by(target, &rules, activations), &step));
        assert!(!kept.is_empty() && kept.keys().all(|name| rules.trains(name)), "{trained}");
        assert_eq!(worst(&again, &kept), 0.0, "{trained}");
    }
}
