//! An adapter folder, opened but not yet on a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use sha2::{Digest, Sha256};

use super::config::AdapterConfig;
use super::error::{AdapterError, Misfit};
use crate::checkpoint::{
    Checkpoint, CheckpointError, LazyTensor, Limits, cast, check_tensors, lazy,
};
use crate::error::Error;

/// Settings.
pub(super) const CONFIG: &str = "adapter_config.json";
/// Tensors; older versions of PEFT pickled them.
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
const PICKLED: &str = "adapter_model.bin";
/// What PEFT puts before the names of the model it wraps.
pub(super) const WRAPPED: &str = "base_model.model.";

/// Whether a folder claims to be an adapter.
pub fn is_adapter_folder(dir: &Path) -> bool {
    dir.join(CONFIG).is_file()
}

/// The factors of one layer, as the file has them.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The layer, as the file names it, without what PEFT puts before.
    pub module: String,
    /// `[r, in]`.
    pub a: LazyTensor,
    /// `[out, r]`.
    pub b: LazyTensor,
}

impl Pair {
    /// r.
    pub fn rank(&self) -> usize {
        self.a.shape[0]
    }
}

/// An adapter folder. Its tensors are whole, finite and of the ranks that the configuration says;
/// whether they fit a model is another question.
#[derive(Clone, Debug)]
pub struct AdapterFiles {
    /// The folder.
    pub dir: PathBuf,
    /// What it says about its scale.
    pub config: AdapterConfig,
    /// Factors, by the names of their layers.
    pub pairs: Vec<Pair>,
    /// Weights of the model itself, by the names of their layers: PEFT copies a text head that has
    /// an adapter.
    pub copies: Vec<(String, LazyTensor)>,
}

impl AdapterFiles {
    /// Opens a folder that PEFT or [`crate::Janus::save_adapter`] wrote. Adapters are small: values
    /// are looked at, and none may be NaN or infinite.
    ///
    /// # Errors
    /// [`AdapterError`], and [`CheckpointError`] for a damaged weight file.
    pub fn open(dir: &Path, limits: &Limits) -> Result<Self, Error> {
        let config = AdapterConfig::of(dir, limits)?;
        let weights = [WEIGHTS, PICKLED].map(|name| dir.join(name));
        let Some(weights) = weights.into_iter().find(|path| path.exists()) else {
            return Err(AdapterError::NotAnAdapter { path: dir.to_owned(), file: WEIGHTS }.into());
        };
        let checkpoint = Checkpoint::open(&weights, limits)?;
        let (copies, tensors): (Vec<_>, Vec<_>) =
            checkpoint.raw().iter().cloned().partition(|tensor| copied(&tensor.name).is_some());
        let pairs = pairs(&tensors, &config)
            .map_err(|problems| AdapterError::Misfit { path: dir.to_owned(), problems })?;
        if let Some(tensor) = tensors.iter().find(|tensor| !lazy::is_float(tensor.dtype)) {
            let (tensor, dtype) = (tensor.name.clone(), format!("{:?}", tensor.dtype));
            return Err(CheckpointError::UnsupportedDtype { path: weights, tensor, dtype }.into());
        }
        check_tensors(&tensors)?;
        let named = |tensor: LazyTensor| Some((copied(&tensor.name)?.to_owned(), tensor));
        let copies = copies.into_iter().filter_map(named).collect();
        Ok(Self { dir: dir.to_owned(), config, pairs, copies })
    }

    /// What tells it from other adapters: SHA-256 of all that it computes with, in hexadecimal
    /// digits. The same layers under other names are another adapter.
    ///
    /// # Errors
    /// A file that changed since it was opened.
    pub fn fingerprint(&self) -> Result<String, CheckpointError> {
        let mut hash = Sha256::new();
        for pair in &self.pairs {
            let scale = self.config.scale_of(&pair.module, pair.rank());
            hash.update(format!("{} {} {scale}\n", pair.module, pair.rank()));
            for half in [&pair.a, &pair.b] {
                hash.update(&lazy::draw(&cast(half.clone(), DType::F32))?[..]);
            }
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// How many values it holds.
    pub fn values(&self) -> usize {
        let of = |pair: &Pair| pair.a.shape.num_elements() + pair.b.shape.num_elements();
        self.pairs.iter().map(of).sum()
    }
}

/// Both halves of every layer.
fn pairs(tensors: &[LazyTensor], config: &AdapterConfig) -> Result<Vec<Pair>, Vec<Misfit>> {
    let mut halves: BTreeMap<&str, [Option<&LazyTensor>; 2]> = BTreeMap::new();
    let mut problems = Vec::new();
    for tensor in tensors {
        let name = tensor.name.clone();
        match half_of(&tensor.name) {
            None => problems.push(Misfit::Foreign { tensor: name }),
            Some((module, half)) => {
                if halves.entry(module).or_default()[half].replace(tensor).is_some() {
                    problems.push(Misfit::Twice { tensor: name });
                }
            }
        }
    }
    let mut pairs = Vec::new();
    for (module, halves) in halves {
        match halves {
            [Some(a), Some(b)] => match misshapen(a, b, config.rank_of(module)) {
                Some(problem) => problems.push(problem),
                None => {
                    let module = module.to_owned();
                    pairs.push(Pair { module, a: a.clone(), b: b.clone() });
                }
            },
            [a, _] => {
                let half = if a.is_some() { "lora_B" } else { "lora_A" };
                let tensor = format!("{WRAPPED}{module}.{half}.weight");
                problems.push(Misfit::Half { tensor });
            }
        }
    }
    if pairs.is_empty() && problems.is_empty() {
        problems.push(Misfit::Empty);
    }
    if problems.is_empty() { Ok(pairs) } else { Err(problems) }
}

/// The layer of a tensor, and whether it is A (0) or B (1).
fn half_of(name: &str) -> Option<(&str, usize)> {
    let name = name.strip_prefix(WRAPPED)?.strip_suffix(".weight")?;
    // Files that were not written by PEFT itself may still have its name for the adapter inside.
    let name = name.strip_suffix(".default").unwrap_or(name);
    let a = name.strip_suffix(".lora_A").map(|module| (module, 0));
    a.or_else(|| name.strip_suffix(".lora_B").map(|module| (module, 1)))
}

/// The layer whose own weight this is.
fn copied(name: &str) -> Option<&str> {
    name.strip_prefix(WRAPPED)?.strip_suffix(".base_layer.weight")
}

/// What is wrong with the shapes of a pair, as far as the rank tells.
fn misshapen(a: &LazyTensor, b: &LazyTensor, rank: usize) -> Option<Misfit> {
    let shape = |tensor: &LazyTensor, expected, right: fn(&[usize], usize) -> bool| {
        let found = tensor.shape.to_vec();
        let tensor = tensor.name.clone();
        (!right(&found, rank)).then_some(Misfit::Shape { tensor, expected, found })
    };
    shape(a, [Some(rank), None], |s, rank| s.len() == 2 && s[0] == rank && s[1] > 0).or_else(|| {
        shape(b, [None, Some(rank)], |s, rank| s.len() == 2 && s[1] == rank && s[0] > 0)
    })
}
