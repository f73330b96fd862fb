//! What PyTorch computed for a training step of tiny-pro, and the same rows as batches.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};
use janus_model::{Janus, LoadOptions};
use janus_train::batch::{Batch, Target};
use janus_train::stage::Rules;
use janus_train::step::{Activations, Trainee, parameter_name};

use crate::common::{self, Fixture, fixtures};

/// The three rows of the fixture: understanding, text, drawing.
pub const SAMPLES: [&str; 3] = ["und", "text", "gen"];

/// Every backend that computes in f32 with f32 weights.
pub fn targets() -> Vec<common::Target> {
    common::targets().into_iter().filter(|target| target.dtype == DType::F32).collect()
}

/// The fixture, remade by `make_train_fixtures.py`.
pub fn fixture() -> Fixture {
    Fixture::file("tiny-pro", "train.safetensors")
}

/// Tiny-pro with the rules of a stage.
pub fn trainee(target: &common::Target, stage: usize, activations: Activations) -> Trainee {
    trainee_by(target, &Rules::janus_pro(stage).unwrap(), activations)
}

/// Tiny-pro with any rules.
pub fn trainee_by(target: &common::Target, rules: &Rules, activations: Activations) -> Trainee {
    let path = fixtures().join("tiny-pro/original");
    let options = LoadOptions { dtype: Some(target.dtype), ..Default::default() };
    let (janus, _) = Janus::load(&path, &target.device, &options).unwrap();
    let (janus, _) = rules.apply(janus).unwrap();
    Trainee::new(janus, activations)
}

/// One row, from place 0.
fn row(f: &Fixture, sample: &str) -> Batch {
    let ints = |key: &str| f.i32s(&format!("{sample}.{key}"));
    let targets = |key: &str| {
        let pairs = ints(key);
        pairs.chunks(2).map(|pair| Target { place: pair[0], id: pair[1] }).collect()
    };
    let ids = ints("ids");
    let pixels = format!("{sample}.pixels");
    Batch {
        rows: 1,
        tokens: ids.len(),
        positions: (0..ids.len() as i32).collect(),
        documents: vec![0; ids.len()],
        pixels: if f.has(&pixels) { f.f32s(&pixels) } else { Vec::new() },
        image_places: ints("image_places"),
        codes: ints("codes"),
        code_places: ints("code_places"),
        text_targets: targets("text_targets"),
        code_targets: targets("code_targets"),
        ids,
    }
}

/// Samples one by one.
pub fn alone(f: &Fixture, samples: &[&str]) -> Vec<Batch> {
    samples.iter().map(|sample| row(f, sample)).collect()
}

/// Samples as rows of one batch, padded on the right.
pub fn stacked(f: &Fixture, samples: &[&str]) -> Batch {
    let rows = alone(f, samples);
    let tokens = rows.iter().map(|row| row.tokens).max().unwrap();
    let mut all = Batch { tokens, ..Batch::default() };
    for mut row in rows {
        let padding = tokens - row.tokens;
        row.ids.extend(vec![1; padding]);
        row.positions.extend(vec![0; padding]);
        row.documents.extend(vec![-1; padding]);
        append(&mut all, row);
        all.rows += 1;
    }
    all
}

/// Samples as documents of one row, with padding behind them.
pub fn packed(f: &Fixture, samples: &[&str], padding: usize) -> Batch {
    let mut all = Batch { rows: 1, ..Batch::default() };
    for (number, mut row) in alone(f, samples).into_iter().enumerate() {
        row.documents.fill(number as i32);
        append(&mut all, row);
    }
    all.ids.extend(vec![1; padding]);
    all.positions.extend(vec![0; padding]);
    all.documents.extend(vec![-1; padding]);
    all.tokens = all.ids.len();
    all
}

/// Puts `row` behind what there is; places move along.
fn append(all: &mut Batch, row: Batch) {
    let first = all.ids.len() as i32;
    let moved = |places: Vec<i32>| places.into_iter().map(move |place| first + place);
    let target = |target: Target| Target { place: first + target.place, ..target };
    all.ids.extend(row.ids);
    all.positions.extend(row.positions);
    all.documents.extend(row.documents);
    all.pixels.extend(row.pixels);
    all.codes.extend(row.codes);
    all.image_places.extend(moved(row.image_places));
    all.code_places.extend(moved(row.code_places));
    all.text_targets.extend(row.text_targets.into_iter().map(target));
    all.code_targets.extend(row.code_targets.into_iter().map(target));
}

/// Values by canonical name.
pub type Named = BTreeMap<String, Vec<f32>>;

/// Gradients of a step by canonical name.
pub fn named(trainee: &Trainee, gradients: &GradientsParams) -> Named {
    collect(trainee, Some(gradients))
}

/// Weights by canonical name.
pub fn weights(trainee: &Trainee) -> Named {
    collect(trainee, None)
}

fn collect(trainee: &Trainee, gradients: Option<&GradientsParams>) -> Named {
    struct Visitor<'a> {
        gradients: Option<&'a GradientsParams>,
        path: Vec<String>,
        found: Named,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn enter_module(&mut self, name: &str, _kind: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _kind: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = match self.gradients {
                Some(gradients) => gradients.get::<D>(param.id),
                None => Some(param.val()),
            };
            if let Some(tensor) = tensor {
                let name = parameter_name(&self.path.join("."));
                let before = self.found.insert(name, common::values(tensor));
                assert!(before.is_none(), "two parameters of one name");
            }
        }
    }
    let mut visitor = Visitor { gradients, path: Vec::new(), found: Named::new() };
    trainee.visit(&mut visitor);
    visitor.found
}

/// The largest difference, as a share of the largest expected value.
pub fn share(actual: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    let worst = actual.iter().zip(expected).fold(0.0f64, |m, (a, e)| {
        let difference = (f64::from(*a) - f64::from(*e)).abs();
        if difference.is_nan() { f64::INFINITY } else { m.max(difference) }
    });
    if worst == 0.0 { 0.0 } else { worst / scale }
}

/// The largest difference over all parameters, which must be the same ones.
pub fn worst(actual: &Named, expected: &Named) -> f64 {
    assert_eq!(actual.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    actual.iter().map(|(name, values)| share(values, &expected[name])).fold(0.0, f64::max)
}

/// How far gradients of recomputed blocks may be from those of kept ones.
pub fn recompute_bound(target: &common::Target) -> f64 {
    if target.name == "wgpu" { 1e-5 } else { 0.0 }
}

/// The fixture's gradients of one sample.
pub struct Expected<'a> {
    f: &'a Fixture,
    prefix: String,
}

impl<'a> Expected<'a> {
    pub fn of(f: &'a Fixture, sample: &str) -> Self {
        Self { f, prefix: format!("{sample}.grad.") }
    }

    /// Names of the parameters that have a gradient, sorted.
    pub fn names(&self) -> Vec<String> {
        let keys = self.f.keys();
        let names = keys.iter().filter_map(|key| key.strip_prefix(&self.prefix));
        let mut names: Vec<String> =
            names.map(|name| name.split('#').next().unwrap().to_owned()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// How far a gradient is from PyTorch's: of a small one every value is compared, of a large
    /// one the norm, a few projections, which every value enters, and a sample.
    pub fn distance(&self, name: &str, actual: &[f32]) -> f64 {
        let key = format!("{}{name}", self.prefix);
        if self.f.has(&key) {
            return share(actual, &self.f.f32s(&key));
        }
        let part = |what: &str| self.f.f32s(&format!("{key}#{what}"));
        let expected = part("sample");
        let step = actual.len().div_ceil(512);
        let sample: Vec<f32> = actual.iter().step_by(step).copied().collect();
        let exact = || actual.iter().map(|v| f64::from(*v));
        let norm = f64::from(part("norm")[0]);
        let length = (exact().map(|v| v * v).sum::<f64>().sqrt() - norm).abs() / norm;
        let projections = part("projections").into_iter().enumerate().map(|(k, expected)| {
            let k = k as f64;
            let direction = |i: usize| (i as f64 * (0.37 + 0.11 * k) + k).cos();
            let found: f64 = exact().enumerate().map(|(i, v)| v * direction(i)).sum();
            (found - f64::from(expected)).abs() / norm
        });
        projections.fold(length.max(share(&sample, &expected)), |m, d| {
            if d.is_nan() { f64::INFINITY } else { m.max(d) }
        })
    }
}
