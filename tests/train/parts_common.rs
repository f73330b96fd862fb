//! Recipes and pictures for networks that are trained apart.

use std::fs;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use janus_model::load::canonical_name;
use janus_model::processor::RgbImage8;
use janus_train::parts;
use janus_train::strategy::{End, Event};

use crate::common::{self, fixtures};
use crate::reference::Named;

/// Flex, and ndarray beside it.
pub fn targets() -> Vec<common::Target> {
    let mut targets = crate::reference::targets();
    targets.retain(|target| target.name != "wgpu");
    targets
}

/// Burn puts the moments that it reads on its default device first, whatever the model is on.
pub fn set_default_device() {
    static DEFAULT: Once = Once::new();
    // SAFETY: nothing in this process reads the variable but Burn.
    DEFAULT.call_once(|| unsafe { std::env::set_var("BURN_DEVICE", "flex") });
}

/// A recipe of ours, written into a folder.
pub fn recipe(folder: &Path, name: &str) -> PathBuf {
    let (_, text) = parts::RECIPES.iter().find(|(known, _)| *known == name).unwrap();
    let path = folder.join(format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    path
}

/// The sizes of tiny-pro.
pub fn model() -> PathBuf {
    fixtures().join("tiny-pro/original")
}

/// Colours of the pictures in [`pictures`].
pub const COLORS: [(&str, [u8; 3]); 6] = [
    ("red", [220, 30, 30]),
    ("green", [30, 200, 40]),
    ("blue", [30, 40, 220]),
    ("yellow", [230, 220, 40]),
    ("black", [10, 10, 10]),
    ("white", [245, 245, 245]),
];

/// Pictures with captions: a colour above another.
pub fn pictures(folder: &Path, count: usize) -> PathBuf {
    let data = folder.join("data");
    fs::create_dir_all(&data).unwrap();
    for number in 0..count {
        let (above, below) = (COLORS[number % 6], COLORS[(number / 6 + number + 1) % 6]);
        let rows = (0..20).flat_map(|y| if y < 10 { [above.1; 24] } else { [below.1; 24] });
        let image = RgbImage8::new(24, 20, rows.flatten().collect()).unwrap();
        fs::write(data.join(format!("{number:02}.png")), image.to_png().unwrap()).unwrap();
        let caption = format!("{} above {}", above.0, below.0);
        fs::write(data.join(format!("{number:02}.txt")), caption).unwrap();
    }
    data
}

/// Runs a recipe on flex until `stop` steps are done; every step it took.
pub fn go(recipe: &Path, overrides: &[String], output: &Path, stop: u64) -> (End, Vec<Row>) {
    set_default_device();
    let mut rows = Vec::new();
    let mut watcher = |event: Event| match event {
        Event::Step(row) => {
            rows.push(row.clone());
            if row.step >= stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        _ => ControlFlow::Continue(()),
    };
    let end = parts::run(recipe, overrides, output, &Device::flex(), &mut watcher);
    (end.unwrap_or_else(|error| panic!("{error}")), rows)
}

/// The same, but in the middle of everything it is over, and nothing can be saved.
fn die(recipe: &Path, overrides: &[String], output: &Path, at: u64) {
    set_default_device();
    let mut watcher = |event: Event| match event {
        Event::Step(row) if row.step == at => resume_unwind(Box::new("killed")),
        _ => ControlFlow::Continue(()),
    };
    let run = || parts::run(recipe, overrides, output, &Device::flex(), &mut watcher);
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "nothing killed it");
}

pub use janus_train::metrics::Row;

/// Every file of a checkpoint, by name.
pub fn files(checkpoint: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![checkpoint.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push((
                    path.strip_prefix(checkpoint).unwrap().to_owned(),
                    fs::read(&path).unwrap(),
                )),
            }
        }
    }
    files.sort();
    files
}

/// How a run is interrupted, after so many steps.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// It is asked to, and saves.
    Asked(u64),
    /// It is gone at once.
    Killed(u64),
}

/// Before the first checkpoint, between two, in the middle of one again, and right behind one.
pub const STOPS: [Stop; 5] =
    [Stop::Killed(2), Stop::Asked(3), Stop::Killed(6), Stop::Asked(4), Stop::Killed(8)];

/// A run that is interrupted ends with the bytes of one that was not.
pub fn same_bytes_after_stops(recipe: &Path, overrides: &[String], last: u64, stops: &[Stop]) {
    let run = |stops: &[Stop]| {
        let folder = tempfile::tempdir().unwrap();
        for stop in stops {
            match stop {
                Stop::Asked(step) => drop(go(recipe, overrides, folder.path(), *step)),
                Stop::Killed(step) => die(recipe, overrides, folder.path(), *step),
            }
        }
        assert_eq!(go(recipe, overrides, folder.path(), u64::MAX).0, End::Finished);
        folder
    };
    let (whole, stopped) = (run(&[]), run(stops));
    let last =
        |folder: &tempfile::TempDir| files(&folder.path().join(format!("ckpt/step-{last:06}")));
    let (whole, stopped) = (last(&whole), last(&stopped));
    let names = |files: &[(PathBuf, Vec<u8>)]| {
        files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&whole), names(&stopped));
    for ((name, expected), (_, found)) in whole.iter().zip(&stopped) {
        assert!(found == expected, "{} differs after stops at {stops:?}", name.display());
    }
}

/// Gradients by canonical name.
pub fn gradients<M: Module>(part: &M, prefix: &str, gradients: &GradientsParams) -> Named {
    struct Visitor<'a>(Vec<String>, &'a GradientsParams, Named);
    impl ModuleVisitor for Visitor<'_> {
        fn enter_module(&mut self, name: &str, _kind: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _kind: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.1.get::<D>(param.id);
            let name = canonical_name(&self.0.join("."));
            let gradient = gradient.unwrap_or_else(|| panic!("no gradient for {name}"));
            self.2.insert(name, common::values(gradient));
        }
    }
    let path = prefix.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let mut visitor = Visitor(path, gradients, Named::new());
    part.visit(&mut visitor);
    visitor.2
}

/// How far a gradient is from PyTorch's, as a share of its norm, or of a thousandth of that of all
/// gradients, `total`, where it is smaller: that of a bias in front of a norm is 0 but for rounding.
/// Of a large one the norm, three projections, which every value enters, and a sample are compared.
pub fn distance(f: &common::Fixture, name: &str, actual: &[f32], total: f64) -> f64 {
    let key = format!("grad.{name}");
    let exact: Vec<f64> = actual.iter().map(|v| f64::from(*v)).collect();
    let off = |found: &[f64], expected: Vec<f32>| {
        assert_eq!(found.len(), expected.len(), "{name}");
        let squares = found.iter().zip(&expected).map(|(a, b)| (a - f64::from(*b)).powi(2));
        squares.sum::<f64>().sqrt()
    };
    if f.has(&key) {
        let expected = f.f32s(&key);
        let norm = expected.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        return off(&exact, expected) / norm.max(1e-3 * total);
    }
    let part = |what: &str| f.f32s(&format!("{key}#{what}"));
    let norm = f64::from(part("norm")[0]);
    let found = exact.iter().map(|v| v * v).sum::<f64>().sqrt();
    let step = actual.len().div_ceil(32);
    let sample: Vec<f64> = exact.iter().step_by(step).copied().collect();
    let projections: Vec<f64> = (0..3)
        .map(|k| {
            let k = f64::from(k);
            let direction = |i: usize| (i as f64 * (0.37 + 0.11 * k) + k).cos();
            exact.iter().enumerate().map(|(i, v)| v * direction(i)).sum()
        })
        .collect();
    let worst = (found - norm).abs().max(off(&sample, part("sample")));
    worst.max(off(&projections, part("projections"))) / norm.max(1e-3 * total)
}
