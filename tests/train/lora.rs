//! Low-rank adapters on a whole model: nothing at first, then a change that merging keeps.

use burn::module::Module;
use janus_model::Janus;
use janus_model::adapters::is_adapter;
use janus_train::accumulate::Report;
use janus_train::batch::Batch;
use janus_train::clip::clip;
use janus_train::lora::LoraConfig;
use janus_train::optim::AdamW;
use janus_train::stage::{Action, Rules};
use janus_train::step::{Activations, Trainee};

use crate::common::Target;
use crate::reference::{
    SAMPLES, fixture, named, recompute_bound, stacked, targets, trainee, weights, worst,
};

/// Tiny-pro with adapters of rank 4 on every linear layer, which alone train.
fn adapted(target: &Target, activations: Activations) -> Trainee {
    let mut janus = trainee(target, 3, activations).into_janus();
    let targets = ["**.layers.**", "**.blocks.**", "gen_head.**", "**.lm_head"];
    let targets = targets.iter().map(|t| t.to_string().try_into().unwrap()).collect();
    let names = LoraConfig { rank: 4, alpha: 8.0, targets }.attach(&mut janus, 5).unwrap();
    assert_eq!(names.len(), 2 * 4 + 2 * 2 + 2 + 2 * 7 + 1);
    let rules = [("**.lora.*", Action::Train), ("**", Action::Freeze)];
    let (janus, _) = Rules::new(&rules).unwrap().apply(janus).unwrap();
    Trainee::new(janus, activations)
}

fn loss(trainee: &Trainee, batch: &Batch) -> Report {
    trainee.evaluate(batch).unwrap()
}

/// Measured, merged against unmerged: 1.9e-8 flex, 1.9e-8 ndarray, 5.6e-8 wgpu.
#[test]
fn adapters_begin_as_nothing_learn_alone_and_merge() {
    let f = fixture();
    let batch = stacked(&f, &SAMPLES);
    for target in targets() {
        let mut tuned = adapted(&target, Activations::Kept);
        let start = loss(&tuned, &batch);
        assert_eq!(start, loss(&trainee(&target, 3, Activations::Kept), &batch), "{}", target.name);
        let before = weights(&tuned);

        let mut optimizer = AdamW::default().into();
        for _ in 0..10 {
            let (gradients, _) = tuned.gradients(std::slice::from_ref(&batch)).unwrap();
            assert!(named(&tuned, &gradients).keys().all(|name| is_adapter(name)));
            let (gradients, _) = clip(&tuned, gradients, 1.0).unwrap();
            tuned = tuned.update(&mut optimizer, 3e-3, gradients);
        }
        for (name, values) in weights(&tuned) {
            assert_eq!(values != before[&name], is_adapter(&name), "{name}");
        }

        let learned = loss(&tuned, &batch);
        for (now, then) in [(learned.text, start.text), (learned.codes, start.codes)] {
            assert!(now.sum < 0.98 * then.sum, "{}: {then:?}, then {now:?}", target.name);
        }
        let mut merged = tuned.into_janus();
        let names = |janus: &Janus| janus.tensors().into_iter().map(|t| t.name).collect::<Vec<_>>();
        let with_adapters = names(&merged);
        merged.merge_adapters();
        assert!(merged.linears_mut().iter().all(|(_, linear)| linear.lora.is_none()));
        assert_eq!(with_adapters, names(&merged), "a checkpoint holds no adapters");
        let merged = loss(&Trainee::new(merged.no_grad(), Activations::Kept), &batch);
        let off = (merged.joined().sum / learned.joined().sum - 1.0).abs();
        println!("measured {}: {start:?} {learned:?} merged {off:.1e}", target.name);
        assert!(off < 1e-6, "{}: {learned:?}, merged {merged:?}", target.name);
    }
}

/// Adapters in blocks that run again get the gradients of those in blocks that were kept.
#[test]
fn adapters_of_recomputed_blocks_get_the_same_gradients() {
    let f = fixture();
    let step = [stacked(&f, &SAMPLES)];
    for target in targets() {
        let of = |activations| {
            let trainee = adapted(&target, activations);
            let (gradients, _) = trainee.gradients(&step).unwrap();
            named(&trainee, &gradients)
        };
        let distance = worst(&of(Activations::Recomputed), &of(Activations::Kept));
        assert!(distance <= recompute_bound(&target), "{}: {distance:.1e}", target.name);
    }
}
