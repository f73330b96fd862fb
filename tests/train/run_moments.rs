//! Moments survive a process, byte for byte, or are refused: Burn itself would start afresh.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Once;

use burn::module::{Module, Param, ParamId};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, OptimizerRecord};
use burn::tensor::{Device, Tensor, TensorData};
use janus_model::ErrorKind;
use janus_train::run::RunError;
use janus_train::run::moments::{self, MomentsError, learners};

/// `y = w₂ (w₁ x) + bias`, and a part that no loss ever reaches.
#[derive(Module, Debug)]
pub struct Toy {
    first: Param<Tensor<2>>,
    second: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    idle: Param<Tensor<1>>,
}

impl Toy {
    /// With new ids each time, as in a new process.
    pub fn new(width: usize) -> Self {
        let count = 2 * width * width + 2 * width;
        let numbers: Vec<f32> = (0..count).map(|i| ((i as f32 + 1.0) * 0.7).sin()).collect();
        Self::of(width, &numbers)
    }

    /// With these weights, one after the other.
    pub fn of(width: usize, weights: &[f32]) -> Self {
        let device = Device::flex().autodiff();
        let (first, rest) = weights.split_at(width * width);
        let (second, rest) = rest.split_at(width * width);
        let (bias, idle) = rest.split_at(width);
        let matrix = |values: &[f32]| {
            let data = TensorData::new(values.to_vec(), [width, width]);
            Param::initialized(ParamId::new(), Tensor::from_data(data, &device).require_grad())
        };
        let row = |values: &[f32]| {
            let data = TensorData::new(values.to_vec(), [width]);
            Param::initialized(ParamId::new(), Tensor::from_data(data, &device).require_grad())
        };
        Self { first: matrix(first), second: matrix(second), bias: row(bias), idle: row(idle) }
    }

    pub fn loss(&self, step: usize) -> Tensor<1> {
        let [width] = self.bias.val().dims();
        let data: Vec<f32> = (0..2 * width).map(|i| ((i + step) as f32 * 0.3).cos()).collect();
        let x =
            Tensor::<2>::from_data(TensorData::new(data, [2, width]), &self.bias.val().device());
        let y = x.matmul(self.first.val()).matmul(self.second.val());
        (y + self.bias.val().unsqueeze()).square().mean()
    }

    pub fn weights(&self) -> Vec<Vec<f32>> {
        let flat = |data: TensorData| data.try_into_vec::<f32>().unwrap();
        let all = [self.first.val().into_data(), self.second.val().into_data()];
        let rows = [self.bias.val().into_data(), self.idle.val().into_data()];
        all.into_iter().chain(rows).map(flat).collect()
    }

    /// The same weights under the ids of a new process.
    fn reborn(&self) -> Self {
        Self::of(self.bias.val().dims()[0], &self.weights().concat())
    }
}

pub fn train(
    mut toy: Toy,
    mut optimizer: ModuleOptimizer,
    steps: Range<usize>,
) -> (Toy, ModuleOptimizer) {
    for step in steps {
        let gradients = GradientsParams::from_grads(toy.loss(step).backward(), &toy);
        toy = optimizer.step(0.01, toy, gradients);
    }
    (toy, optimizer)
}

pub fn adamw() -> ModuleOptimizer {
    AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.0).init()
}

/// Burn puts what it reads on its default device first, whatever the model is on.
pub fn load_record(optimizer: ModuleOptimizer, record: OptimizerRecord) -> ModuleOptimizer {
    static DEFAULT: Once = Once::new();
    // SAFETY: nothing in this process reads the variable but Burn, through the same lock.
    DEFAULT.call_once(|| unsafe { std::env::set_var("BURN_DEVICE", "flex") });
    optimizer.load_record(record)
}

/// Five steps, and the file of their moments.
fn trained() -> (Toy, ModuleOptimizer, tempfile::TempDir, PathBuf) {
    let (toy, optimizer) = train(Toy::new(4), adamw(), 0..5);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("moments.bpk");
    moments::write(&path, optimizer.to_record(), &learners(&toy)).unwrap();
    (toy, optimizer, dir, path)
}

fn refused(path: &Path, toy: &Toy) -> MomentsError {
    match moments::read(path, &learners(toy)) {
        Err(RunError::Moments { source, path: named }) => {
            assert_eq!(named, path);
            source
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn training_goes_on_as_if_nothing_had_been() {
    let (toy, optimizer, _dir, path) = trained();
    let reborn = toy.reborn();
    let (expected, _) = train(toy, optimizer, 5..12);
    let record = moments::read(&path, &learners(&reborn)).unwrap();
    let (found, _) = train(reborn.clone(), load_record(adamw(), record), 5..12);
    assert_eq!(found.weights(), expected.weights());
    // The moments matter: without them the weights would be others.
    assert_ne!(train(reborn, adamw(), 5..12).0.weights(), expected.weights());
}

#[test]
fn equal_moments_are_equal_bytes_whatever_the_ids() {
    let (toy, _, dir, path) = trained();
    let first = fs::read(&path).unwrap();
    assert!(first.len() > 500);
    let (again, optimizer) = train(Toy::new(4), adamw(), 0..5);
    moments::write(&path, optimizer.to_record(), &learners(&again)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first);
    // Through a record and back.
    let record = moments::read(&path, &learners(&toy)).unwrap();
    let loaded = load_record(adamw(), record);
    moments::write(&path, loaded.to_record(), &learners(&toy)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no scratch file stays");
}

#[test]
fn what_learns_is_seen_and_what_does_not_is_not() {
    let mut toy = Toy::new(4);
    toy.second = toy.second.set_require_grad(false);
    let found = learners(&toy);
    let paths: Vec<_> = found.iter().map(|learner| learner.path.as_str()).collect();
    assert_eq!(paths, ["first", "bias", "idle"]);
    assert_eq!(found[0].shape, [4, 4]);
}

/// R2: Burn would re-initialise it without a word.
#[test]
fn a_parameter_without_moments_is_refused() {
    let (mut toy, optimizer) = (Toy::new(4), adamw());
    toy.second = toy.second.set_require_grad(false);
    let (mut toy, optimizer) = train(toy, optimizer, 0..2);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("moments.bpk");
    moments::write(&path, optimizer.to_record(), &learners(&toy)).unwrap();
    toy.second = toy.second.set_require_grad(true);
    let error = refused(&path, &toy);
    assert_eq!(error.to_string(), "nothing for second, which learns");
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn moments_of_what_does_not_learn_are_refused() {
    let (mut toy, _, _dir, path) = trained();
    toy.first = toy.first.set_require_grad(false);
    toy.bias = toy.bias.set_require_grad(false);
    let text = refused(&path, &toy).to_string();
    assert_eq!(text, "moments of bias, which does not learn here (and 1 more)");
}

#[test]
fn moments_of_another_width_are_refused() {
    let (_, _, _dir, path) = trained();
    let error = refused(&path, &Toy::new(6));
    let MomentsError::Shape { entry, found, expected } = &error else { panic!("{error}") };
    assert!(entry.starts_with("bias/"), "{entry}");
    assert_eq!((found.as_slice(), expected.as_slice()), (&[4][..], &[6][..]));
}

#[test]
fn a_record_of_something_else_is_not_written() {
    let (_, optimizer, dir, _) = trained();
    let path = dir.path().join("other.bpk");
    let error = moments::write(&path, optimizer.to_record(), &learners(&Toy::new(4))).unwrap_err();
    assert!(error.to_string().contains("which does not learn here"), "{error}");
    assert!(!path.exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no scratch file stays");
}

#[test]
fn a_damaged_file_is_no_record() {
    let (toy, _, _dir, path) = trained();
    let whole = fs::read(&path).unwrap();
    for cut in [0, 5, 40, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = refused(&path, &toy);
        assert_eq!(error.kind(), ErrorKind::BadData, "cut to {cut}: {error}");
    }
    // Where the header still fits together, what is missing is missed.
    for at in 10..300 {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&path, changed).unwrap();
        // A flip in a name, a number or padding: an error or the record, never a panic.
        let _ = moments::read(&path, &learners(&toy));
    }
}

/// Burn-pack keeps only the words of the system; the exit code needs its number.
#[cfg(target_os = "linux")]
#[test]
fn what_the_system_says_is_kept() {
    let (toy, optimizer, dir, _) = trained();
    let gone = dir.path().join("gone/moments.bpk");
    let error = moments::write(&gone, optimizer.to_record(), &learners(&toy)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("moments.bpk: cannot write: "), "{error}");
}
