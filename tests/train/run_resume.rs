//! T1 and T7 on a toy: a run that is stopped anywhere ends with the bytes of one that was not, and
//! a step that is no number moves nothing.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use janus_model::ops::Products;
use janus_train::config::{GuardConfig, OnNan};
use janus_train::run::moments::{self, learners};
use janus_train::run::{Allow, Found, Keep, Role, Run, RunError, Staging};
use janus_train::schedule::{Schedule, Shape};
use janus_train::strategy::{End, Event, Measured, Plan, StepError, TrainError, Training, train};

use crate::run_common::identity;
use crate::run_moments::{Toy, load_record};

const STEPS: usize = 20;
/// Eight losses of a toy say little about the next: only a hundredfold one is a spike.
const GUARD: GuardConfig =
    GuardConfig { window: 8, sigma: 50.0, skips: 4, within: 10, on_nan: OnNan::Skip };

/// The toy with its optimizer and its place in the data.
struct Pupil {
    toy: Option<Toy>,
    optimizer: ModuleOptimizer,
    place: u64,
    /// Steps whose data give no number, and steps whose loss is a hundred times too large.
    broken: Vec<u64>,
    large: Vec<u64>,
}

impl Pupil {
    fn new() -> Self {
        let optimizer = AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).init();
        Self { toy: Some(Toy::new(4)), optimizer, place: 0, broken: vec![], large: vec![] }
    }

    fn toy(&self) -> &Toy {
        self.toy.as_ref().unwrap()
    }

    fn take(&mut self, step: u64) {
        assert_eq!(self.place, step, "no sample twice, none left out");
        self.place += 1;
    }
}

impl Training for Pupil {
    type Gradients = GradientsParams;

    fn gradients(&mut self, step: u64) -> Result<Option<(GradientsParams, Measured)>, StepError> {
        self.take(step);
        let factor = if self.broken.contains(&step) { f32::NAN } else { 1.0 };
        let factor = if self.large.contains(&step) { 100.0 } else { factor };
        let loss = self.toy().loss(step as usize) * factor;
        let value = loss.clone().into_data().try_into_vec::<f32>().unwrap()[0];
        let gradients = GradientsParams::from_grads(loss.backward(), self.toy());
        let measured =
            Measured { loss: value.into(), grad_norm: 1.0, tokens: 8, ..Default::default() };
        Ok(Some((gradients, measured)))
    }

    fn pass_by(&mut self, step: u64) -> Result<(), StepError> {
        self.take(step);
        Ok(())
    }

    fn update(&mut self, gradients: GradientsParams, rate: f64) {
        let toy = self.toy.take().unwrap();
        self.toy = Some(self.optimizer.step(rate, toy, gradients));
    }

    fn validate(&mut self) -> Result<Option<Measured>, StepError> {
        let loss = self.toy().valid().loss(1000).into_data().try_into_vec::<f32>().unwrap()[0];
        Ok(Some(Measured { loss: loss.into(), ..Default::default() }))
    }

    fn cursors(&self) -> serde_json::Value {
        serde_json::json!({ "place": self.place })
    }

    fn save(&mut self, _: &mut Run, staging: &mut Staging) -> Result<(), RunError> {
        let weights: Vec<u8> =
            self.toy().weights().concat().iter().flat_map(|value| value.to_le_bytes()).collect();
        staging.bytes(Role::Other, "weights", &weights)?;
        let record = self.optimizer.to_record();
        staging.file(Role::Moments, "moments.bpk", |path| {
            moments::write(path, record, &learners(self.toy()))
        })
    }

    fn load(&mut self, found: &Found) -> Result<(), StepError> {
        let weights: Vec<f32> = fs::read(found.path.join("weights"))?
            .chunks(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        // New parameters with new ids, as in a new process.
        let toy = Toy::of(4, &weights);
        let record = moments::read(&found.moments(), &learners(&toy))?;
        self.optimizer = load_record(Self::new().optimizer, record);
        self.toy = Some(toy);
        self.place = found.state.cursors["place"].as_u64().unwrap();
        Ok(())
    }
}

fn plan(guard: GuardConfig) -> Plan {
    let schedule = Schedule { peak: 0.01, warmup: 4, steps: STEPS, shape: Shape::Cosine };
    let (identity, allow) = (identity(), Allow::default());
    let products = Products::F32;
    Plan {
        identity,
        schedule,
        every: 5,
        patience: 0,
        products,
        guard,
        seed: 7,
        allow,
        events: None,
    }
}

/// Trains until `stop` steps are done.
fn go(dir: &Path, pupil: &mut Pupil, guard: GuardConfig, stop: u64) -> Result<End, TrainError> {
    let mut run = Run::open(dir, Keep { last: 2, best: 0, every: 0 })?;
    let plan = Plan { events: Some(dir.join("events")), ..plan(guard) };
    let mut watcher = |event: Event| match event {
        Event::Step(row) if row.step >= stop => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    train(pupil, &mut run, &plan, &mut watcher)
}

/// Every file of the last checkpoint.
fn last(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let folder = dir.join("ckpt/step-000020");
    ["MANIFEST.json", "moments.bpk", "state.json", "weights"]
        .map(|name| (name.to_owned(), fs::read(folder.join(name)).unwrap()))
        .into()
}

fn rows(dir: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let row = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        let fields = row.as_object_mut().unwrap();
        fields.remove("seconds").unwrap();
        fields.remove("tokens_per_second").unwrap();
        row
    };
    text.lines().map(row).collect()
}

fn uninterrupted(broken: &[u64], guard: GuardConfig) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut pupil = Pupil { broken: broken.to_vec(), ..Pupil::new() };
    assert_eq!(go(dir.path(), &mut pupil, guard, u64::MAX).unwrap(), End::Finished);
    dir
}

#[test]
fn a_run_stopped_anywhere_ends_with_the_same_bytes() {
    for broken in [&[][..], &[6, 12]] {
        let whole = uninterrupted(broken, GUARD);
        assert_eq!(rows(whole.path()).len(), STEPS);
        // Before, at and behind a planned checkpoint; the last step; and again and again.
        for stops in [&[1][..], &[5], &[6], &[7], &[19], &[1, 2, 6, 13, 13, 20]] {
            let dir = tempfile::tempdir().unwrap();
            for stop in stops {
                let mut pupil = Pupil { broken: broken.to_vec(), ..Pupil::new() };
                let end = go(dir.path(), &mut pupil, GUARD, *stop).unwrap();
                assert_eq!(end, if *stop < 20 { End::Stopped } else { End::Finished });
            }
            let mut pupil = Pupil { broken: broken.to_vec(), ..Pupil::new() };
            assert_eq!(go(dir.path(), &mut pupil, GUARD, u64::MAX).unwrap(), End::Finished);
            for (found, expected) in last(dir.path()).iter().zip(last(whole.path())) {
                assert!(*found == expected, "{} after stops at {stops:?}", expected.0);
            }
            assert_eq!(rows(dir.path()), rows(whole.path()), "{stops:?}");
        }
    }
}

/// A finished run has nothing left to do, and does nothing.
#[test]
fn the_end_is_the_end() {
    let dir = uninterrupted(&[], GUARD);
    let before = last(dir.path());
    assert_eq!(go(dir.path(), &mut Pupil::new(), GUARD, u64::MAX).unwrap(), End::Finished);
    assert_eq!(last(dir.path()), before);
}

/// T7.
#[test]
fn a_step_that_does_harm_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut pupil = Pupil { broken: vec![15], large: vec![17], ..Pupil::new() };
    let mut before = Vec::new();
    for stop in [15, 16, 17, 18] {
        go(dir.path(), &mut pupil, GUARD, stop).unwrap();
        let folder = dir.path().join(format!("ckpt/step-{stop:06}"));
        let bytes = ["moments.bpk", "weights"].map(|name| fs::read(folder.join(name)).unwrap());
        match stop {
            16 | 18 => assert!(bytes == *before.last().unwrap(), "step {stop} moved something"),
            17 => assert!(bytes != *before.last().unwrap(), "step {stop} moved nothing"),
            _ => {}
        }
        before.push(bytes);
    }
    let reasons: Vec<_> = rows(dir.path())
        .into_iter()
        .filter_map(|row| Some((row["step"].as_u64()?, row["skipped"].as_str()?.to_owned())))
        .collect();
    assert_eq!(reasons[0], (16, "the loss is not a number".to_owned()));
    assert_eq!(reasons[1].0, 18);
    assert!(reasons[1].1.contains("standard deviations above the mean"), "{reasons:?}");
    assert_eq!(reasons.len(), 2);
}

#[test]
fn going_back_leaves_the_step_out_the_second_time() {
    let guard = GuardConfig { on_nan: OnNan::Rollback, ..GUARD };
    let dir = uninterrupted(&[12], guard);
    let rows = rows(dir.path());
    assert_eq!(rows.len(), STEPS, "each step once");
    assert_eq!(rows[12]["skipped"], "the run went back because of it");
    assert_eq!(rows[12]["loss"], serde_json::Value::Null);
    let sessions = fs::read_dir(dir.path().join("events")).unwrap().count();
    assert_eq!(sessions, 2, "TensorBoard drops what a later session repeats");
    // The same weights as if it had been left out at once; the guard remembers the difference.
    let skipped = uninterrupted(&[12], GUARD);
    for name in ["weights", "moments.bpk"] {
        let read = |dir: &Path| fs::read(dir.join("ckpt/step-000020").join(name)).unwrap();
        assert!(read(dir.path()) == read(skipped.path()), "{name}");
    }
}

#[test]
fn going_back_needs_a_checkpoint() {
    let guard = GuardConfig { on_nan: OnNan::Rollback, ..GUARD };
    let dir = tempfile::tempdir().unwrap();
    let mut pupil = Pupil { broken: vec![2], ..Pupil::new() };
    let error = go(dir.path(), &mut pupil, guard, u64::MAX).unwrap_err();
    assert!(matches!(error, TrainError::Guard { step: 2, .. }), "{error}");
}

#[test]
fn too_many_bad_steps_end_the_run_with_the_good_ones_saved() {
    let dir = tempfile::tempdir().unwrap();
    let mut pupil = Pupil { broken: (11..20).collect(), ..Pupil::new() };
    let error = go(dir.path(), &mut pupil, GUARD, u64::MAX).unwrap_err();
    assert!(matches!(error, TrainError::Guard { step: 14, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("4 of the last 10 steps had to be left out"), "{text}");
    assert!(error.hint().is_some());
    assert_eq!(janus_train::run::steps(dir.path()).unwrap(), [10, 14]);
    // With other data it goes on from there.
    let mut pupil = Pupil::new();
    let lenient = GuardConfig { skips: 6, ..GUARD };
    assert_eq!(go(dir.path(), &mut pupil, lenient, u64::MAX).unwrap(), End::Finished);
}

#[test]
fn on_nan_stop_ends_at_the_first() {
    let guard = GuardConfig { on_nan: OnNan::Stop, ..GUARD };
    let dir = tempfile::tempdir().unwrap();
    let mut pupil = Pupil { broken: vec![7], ..Pupil::new() };
    let error = go(dir.path(), &mut pupil, guard, u64::MAX).unwrap_err();
    assert!(error.to_string().starts_with("stopped before step 7: the loss is not a number"));
    assert_eq!(janus_train::run::steps(dir.path()).unwrap(), [5, 7]);
}
