//! Checkpoints: from a folder of weight files to named tensors, and back.
//!
//! ```text
//! folder ─ shards ─┬─ safetensors ─┐                    ┌─ canonical() ─ keys ─> module.apply
//!                  └─ pickle ──────┴─ raw LazyTensors ──┤
//!                     (zip, machine, views)             └─ manifest: which release is this?
//! LazyTensors ─ keys ─ save ─> safetensors, one file or shards
//! ```
//! Start with [`Checkpoint::open`]. Opening reads headers only: tensors are [`LazyTensor`]s whose
//! bytes are slices of the mapped files, so a 15 GB model opens in milliseconds and no weight is
//! copied unless its position in the file is misaligned, it is strided, it must be converted, or it
//! is a query, key or value matrix of the vision tower under Hugging Face names: those three are
//! joined to one by copying.
//!
//! What holds everywhere: **canonical names are DeepSeek's own** ([`keys`]); a file is data, never
//! code ([`pickle`]); every length a file declares is compared with [`Limits`] before memory is
//! set aside; comparison with the model is strict in both directions ([`Mismatch`]).
//!
//! Not here: the model's modules, which know nothing of files, and downloading.

pub mod error;
pub mod fingerprint;
pub mod keys;
pub mod lazy;
pub mod limits;
pub mod manifest;
pub mod packed;
pub mod pickle;
pub mod report;
pub mod safetensors;
pub mod save;
pub mod shards;

pub(crate) mod json;
mod mapped;
#[cfg(test)]
mod shapes;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use burn::tensor::DType;

pub use error::{CheckpointError, Impostor};
pub use fingerprint::Fingerprint;
use keys::Import;
pub use keys::{Canonical, Dropped, Naming};
pub use lazy::{LazyTensor, cast, check_tensors, concat, main_dtype, rows};
pub use limits::Limits;
pub use manifest::{Difference, Manifest};
pub use packed::{PackedTensor, rounded};
pub use pickle::{PickleError, ViewProblem, ZipError};
pub use report::{Mismatch, ShapeDifference};
pub use safetensors::HeaderError;
pub use save::{SaveOptions, save};
pub use shards::{Format, IndexError, WeightFile};

use crate::config::JanusConfig;
use crate::packed::Bits;

/// The weight files of one model, opened but not read.
#[derive(Debug)]
pub struct Checkpoint {
    /// Folder that holds the files (a snapshot, where the cache folder of a model was given).
    pub dir: PathBuf,
    /// The weight files, in reading order.
    pub files: Vec<WeightFile>,
    /// Who named the tensors.
    pub naming: Naming,
    tensors: Vec<LazyTensor>,
    /// How many of the tensors each file holds.
    counts: Vec<usize>,
    /// Those that are packed matrices, under their names in the files.
    packed: HashMap<String, PackedTensor>,
}

impl Checkpoint {
    /// Opens the weights at `path`: a model folder, a `models--…` cache folder, or one file.
    ///
    /// Files stay mapped, under a shared lock, until the last tensor drawn from them is dropped.
    ///
    /// # Errors
    /// See [`CheckpointError`]; nothing is allocated for what a file merely claims.
    pub fn open(path: impl AsRef<Path>, limits: &Limits) -> Result<Self, CheckpointError> {
        let found = shards::find(path.as_ref(), limits)?;
        let shards::Found { dir, files, mut tensors, counts } = found;
        if tensors.len() > limits.tensors {
            let (path, what) = (dir, "number of tensors");
            let (value, limit) = (tensors.len() as u64, limits.tensors as u64);
            return Err(CheckpointError::Limit { path, what, value, limit });
        }
        let naming = Naming::detect(tensors.iter().map(|tensor| tensor.name.as_str()));
        let mut packed = HashMap::new();
        for tensor in &mut tensors {
            if let Some(found) = PackedTensor::of(tensor, &dir)? {
                *tensor = found.wide();
                packed.insert(tensor.name.clone(), found);
            }
        }
        Ok(Self { dir, files, naming, tensors, counts, packed })
    }

    /// The tensors as the files name them; packed matrices as what they stand for, in f32.
    #[must_use]
    pub fn raw(&self) -> &[LazyTensor] {
        &self.tensors
    }

    /// The tensors under canonical names, without those that Janus never uses.
    ///
    /// # Errors
    /// A tensor that is to be kept has an element type other than f32, f16 and bf16, or two
    /// tensors of the files turn out to be the same canonical one.
    pub fn canonical(&self) -> Result<Canonical, CheckpointError> {
        let is_kept = |tensor: &LazyTensor| {
            !matches!(keys::import(&tensor.name, self.naming), Import::Drop(_))
        };
        let mut tensors = self.tensors.iter().enumerate();
        if let Some((at, tensor)) = tensors.find(|(_, t)| !lazy::is_float(t.dtype) && is_kept(t)) {
            let (path, dtype) = (self.file_of(at), format!("{:?}", tensor.dtype));
            let tensor = tensor.name.clone();
            return Err(CheckpointError::UnsupportedDtype { path, tensor, dtype });
        }
        let canonical = keys::canonical(&self.tensors, self.naming);
        let mut seen = HashSet::new();
        for tensor in &canonical.tensors {
            if !seen.insert(tensor.name.as_str()) {
                let (path, tensor) = (self.dir.clone(), tensor.name.clone());
                return Err(CheckpointError::Ambiguous { path, tensor });
            }
        }
        Ok(canonical)
    }

    /// The packed matrices under canonical names.
    #[must_use]
    pub fn packed(&self) -> HashMap<String, PackedTensor> {
        let canonical =
            |(name, tensor): (&String, &PackedTensor)| match keys::import(name, self.naming) {
                Import::Whole(name) => Some((name, tensor.clone())),
                _ => None,
            };
        self.packed.iter().filter_map(canonical).collect()
    }

    /// Bits of a weight of the decoder, where the files hold packed matrices. The heads may have
    /// more.
    #[must_use]
    pub fn bits(&self) -> Option<Bits> {
        self.packed.values().map(|tensor| tensor.bits).max_by_key(|bits| *bits == Bits::Four)
    }

    /// The float format that most values are in, packed matrices aside.
    #[must_use]
    pub fn main_dtype(&self) -> DType {
        let plain = self.tensors.iter().filter(|tensor| !self.packed.contains_key(&tensor.name));
        main_dtype(&plain.cloned().collect::<Vec<_>>())
    }

    /// What tells these weights from others, as they are stored.
    ///
    /// # Errors
    /// Those of [`Self::canonical`]; a tensor that cannot be read.
    pub fn fingerprint(&self, config: &JanusConfig) -> Result<Fingerprint, CheckpointError> {
        let (mut tensors, packed) = (self.canonical()?.tensors, self.packed());
        for tensor in &mut tensors {
            if let Some(found) = packed.get(&tensor.name) {
                *tensor = lazy::renamed(found.stored.clone(), tensor.name.clone());
            }
        }
        Fingerprint::of(config, &tensors)
    }

    /// Path of the file that holds the raw tensor `at`.
    fn file_of(&self, at: usize) -> PathBuf {
        let mut end = 0;
        let file = self.files.iter().zip(&self.counts).find(|(_, count)| {
            end += **count;
            at < end
        });
        file.map_or_else(|| self.dir.clone(), |(file, _)| self.dir.join(&file.name))
    }

    /// Elements per element type, for display.
    #[must_use]
    pub fn dtypes(&self) -> BTreeMap<String, usize> {
        let mut summary = BTreeMap::new();
        for tensor in &self.tensors {
            let elements: usize = tensor.shape.to_vec().iter().product();
            let name = match self.packed.get(&tensor.name) {
                Some(packed) => packed.bits.name().to_owned(),
                None => format!("{:?}", tensor.dtype),
            };
            *summary.entry(name).or_default() += elements;
        }
        summary
    }
}
