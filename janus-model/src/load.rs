//! From a folder on disk to a model on a device.
//!
//! Parameters of a fresh model are not computed before first use, so nothing random is ever
//! allocated here; each tensor is drawn from its file, converted to the format
//! [`Precision`] gives it and handed to the device, one at a time. On the CPU a tensor that keeps
//! its format stays where it is: in the mapped file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::store::{ApplyError, ModuleSnapshot};
use burn::tensor::{DType, Device};

use crate::adapters::{AdapterReport, is_adapter};
use crate::checkpoint::{
    Canonical, Checkpoint, CheckpointError, Dropped, LazyTensor, Limits, Mismatch, PackedTensor,
    cast,
};
use crate::config::{Dialect, JanusConfig};
use crate::error::Error;
use crate::janus::{Janus, Parts};
use crate::ops::Products;
use crate::packed::{Bits, Packed, rounding};
use crate::parameters::parameters;
use crate::precision::{Family, Precision};
use crate::tables::{TextTables, is_table};

/// What to load, and how.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Which halves.
    pub parts: Parts,
    /// Wanted format of the weights; `None` takes what suits the device.
    pub dtype: Option<DType>,
    /// All formats, in place of the choice for the device; `dtype` is then ignored.
    pub precision: Option<Precision>,
    /// What factors of products are rounded to where weights are kept in bf16 on the CPU.
    pub products: Products,
    /// What matrices of the decoder and the heads are rounded to, on the CPU; `None` leaves them as
    /// they are in the file, be it packed.
    pub packed: Option<Bits>,
    /// Where the text tables are kept.
    pub tables: TextTables,
    /// Bounds on what files may claim.
    pub limits: Limits,
    /// Adapter folders to put on the model, one after another: see [`crate::adapters`].
    pub adapters: Vec<PathBuf>,
}

/// What was found while loading.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// Folder the weights came from.
    pub dir: PathBuf,
    /// Dialect of `config.json`.
    pub dialect: Dialect,
    /// Tensors put into the model.
    pub tensors: usize,
    /// Format that most values of the files are in.
    pub file: DType,
    /// Tensors left out, each with the reason.
    pub dropped: Vec<Dropped>,
    /// Whether the text tables stay with the processor; see [`crate::tables`].
    pub tables_on_host: bool,
    /// Adapters that were put on the model.
    pub adapters: Vec<AdapterReport>,
}

impl Janus {
    /// Loads a model folder, an entry of a Hugging Face cache, or one that [`crate::checkpoint`]
    /// wrote: either naming, safetensors or `.bin`, one file or many.
    ///
    /// # Errors
    /// Anything that [`JanusConfig::from_dir`] or [`Checkpoint::open`] refuses, and every
    /// difference between the tensors of the files and those of the model, in one error.
    pub fn load(
        path: &Path,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<(Self, LoadReport), Error> {
        let checkpoint = Checkpoint::open(path, &options.limits)?;
        let (config, dialect) = JanusConfig::from_dir(&checkpoint.dir)?;
        let Canonical { tensors, dropped } = checkpoint.canonical()?;
        let (file, family) = (checkpoint.main_dtype(), Family::of(device));
        let supports = |dtype| device.supports_dtype(dtype);
        // What is packed in the file stays so where it can be multiplied, if nothing else is wanted.
        let as_stored = checkpoint.bits().filter(|_| family == Family::Cpu);
        let as_stored = as_stored.filter(|_| options.dtype.is_none());
        let precision = match options.precision {
            Some(precision) => precision,
            None => Precision::choose(family, file, options.dtype, supports)?
                .with_packed(family, options.packed.or(as_stored))?
                .with_products(options.products),
        };
        let stored = stored(&checkpoint, precision.packed)?;
        let mut model = config.init(options.parts, precision, device);
        model.place_tables(options.tables, options.parts, device)?;
        let tensors = with_tied_head(tensors, &config, options.parts);
        let tensors = of_parts(tensors, options.parts);
        let count = tensors.len();
        let tables_on_host = model.has_tables_on_host();
        let is_stored = |path: &str| {
            path.strip_suffix(".weight").is_some_and(|layer| stored.contains_key(layer))
        };
        let dtype_of = |path: &str, rank| match is_table(path) && tables_on_host {
            // The processor reads every format; as in the file, it need not be copied.
            true => Some(file),
            false if is_stored(path) => None,
            false => Some(precision.of_parameter(path, rank)),
        };
        fill(&mut model, "", tensors, dtype_of, &checkpoint.dir)?;
        model.put_packed(stored);
        let put = |dir: &PathBuf| model.add_adapter(dir, &options.limits);
        let adapters = options.adapters.iter().map(put).collect::<Result<_, _>>()?;
        if let Some(bits) = precision.packed {
            model.pack(bits);
        }
        let (dir, tensors) = (checkpoint.dir, count);
        let report = LoadReport { dir, dialect, tensors, file, dropped, tables_on_host, adapters };
        Ok((model, report))
    }

    /// Every parameter of the checkpoint by its canonical (original) name, drawn from the device
    /// when read. Adapters are not among them: see [`crate::adapters`].
    pub fn tensors(&self) -> Vec<LazyTensor> {
        let mut tensors = self.collect(None, None, false);
        tensors.retain(|tensor| !is_adapter(&tensor.name));
        for tensor in &mut tensors {
            tensor.name = canonical_name(&tensor.name);
        }
        tensors
    }
}

/// The matrices of a checkpoint that are stored as a model with so many bits wants them, by the name
/// of their layer.
fn stored(
    checkpoint: &Checkpoint,
    bits: Option<Bits>,
) -> Result<HashMap<String, Packed>, CheckpointError> {
    let Some(bits) = bits else { return Ok(HashMap::new()) };
    let wanted = |(name, tensor): (String, PackedTensor)| {
        let layer = name.strip_suffix(".weight")?;
        (rounding(layer, bits) == Some(tensor.bits)).then(|| (layer.to_owned(), tensor))
    };
    let wanted = checkpoint.packed().into_iter().filter_map(wanted);
    wanted.map(|(layer, tensor)| Ok((layer, tensor.packed()?))).collect()
}

impl Janus {
    /// Gives layers the rounded weights that a file has for them.
    fn put_packed(&mut self, mut stored: HashMap<String, Packed>) {
        for (name, linear) in self.linears_mut() {
            if let Some(packed) = stored.remove(&name) {
                linear.put(packed);
            }
        }
    }

    /// Rounds the matrices of the decoder to so many bits, and those of both heads to 8, as far as
    /// they are not.
    fn pack(&mut self, bits: Bits) {
        for (name, linear) in self.linears_mut() {
            if let Some(bits) = rounding(&name, bits).filter(|_| linear.packed().is_none()) {
                linear.pack(bits);
            }
        }
    }

    /// A whole model out of tensors from anywhere, under canonical names: all of them, each in the
    /// format that `precision` gives it. A tied head may be missing, as in a checkpoint.
    ///
    /// `dir` is where they come from, for messages.
    ///
    /// # Errors
    /// Every difference between the tensors and those of the model; one that cannot be read.
    pub fn from_tensors(
        config: &JanusConfig,
        tensors: Vec<LazyTensor>,
        precision: Precision,
        device: &Device,
        dir: &Path,
    ) -> Result<Self, Error> {
        let mut model = config.init(Parts::All, precision, device);
        let tensors = with_tied_head(tensors, config, Parts::All);
        let dtype_of = |path: &str, rank| Some(precision.of_parameter(path, rank));
        fill(&mut model, "", tensors, dtype_of, dir)?;
        Ok(model)
    }
}

/// Puts tensors into a part of a model, in f32: exactly those that it has, under canonical names,
/// which are the part's own paths behind `prefix`.
///
/// `dir` is where they come from, for messages.
///
/// # Errors
/// As [`Janus::from_tensors`].
pub fn fill_part<M: Module>(
    part: &mut M,
    prefix: &str,
    tensors: Vec<LazyTensor>,
    dir: &Path,
) -> Result<(), Error> {
    fill(part, prefix, tensors, |_, _| Some(DType::F32), dir)
}

/// Canonical name and shape of every parameter of a part of a model. None is computed.
pub fn part_names<M: Module>(part: &M, prefix: &str) -> Vec<(String, Vec<usize>)> {
    let parameters = parameters(part).into_iter();
    parameters.map(|p| (canonical_name(&format!("{prefix}{}", p.path)), p.shape)).collect()
}

/// Every parameter of a part of a model by its canonical name, drawn from the device when read.
pub fn part_tensors<M: Module>(part: &M, prefix: &str) -> Vec<LazyTensor> {
    let mut tensors = part.collect(None, None, false);
    for tensor in &mut tensors {
        tensor.name = canonical_name(&format!("{prefix}{}", tensor.name));
    }
    tensors
}

impl JanusConfig {
    /// Canonical name and shape of every tensor that a whole model reads. Nothing is allocated
    /// on `device`.
    pub fn expected_tensors(&self, device: &Device) -> Vec<(String, Vec<usize>)> {
        part_names(&self.init(Parts::All, Precision::F32, device), "")
    }
}

/// Checks both directions, then moves every tensor to its device in the format that `dtype_of`
/// gives to its path and rank; where it gives none, the tensor is left to others. Names are paths
/// behind `prefix`, made canonical.
///
/// `dir` is where the tensors came from, for messages.
fn fill<M: Module>(
    model: &mut M,
    prefix: &str,
    tensors: Vec<LazyTensor>,
    dtype_of: impl Fn(&str, usize) -> Option<DType>,
    dir: &Path,
) -> Result<(), Error> {
    let (parameters, names) = (parameters(model), part_names(model, prefix));
    Mismatch::check(&names, &tensors)
        .map_err(|mismatch| CheckpointError::from(mismatch.in_dir(dir)))?;
    let mut by_name: HashMap<String, LazyTensor> =
        tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
    let ready = parameters.into_iter().zip(names).filter_map(|(parameter, (name, shape))| {
        let mut tensor = by_name.remove(&name)?;
        let dtype = dtype_of(&parameter.path, shape.len())?;
        tensor.name = parameter.path;
        Some(cast(tensor, dtype))
    });
    let result = model.apply(ready.collect(), None, None, false);
    // Names, shapes and kinds were checked: what is left is reading the file.
    match result.errors.into_iter().next() {
        None => Ok(()),
        Some(error) => Err(not_applied(error).into()),
    }
}

/// The tensor and the reason, out of burn-store's error.
fn not_applied(error: ApplyError) -> CheckpointError {
    let message = error.to_string();
    let (path, message) = match error {
        ApplyError::LoadError { path, message } | ApplyError::AdapterError { path, message } => {
            (path, message)
        }
        ApplyError::ShapeMismatch { path, .. } | ApplyError::DTypeMismatch { path, .. } => {
            (path, message)
        }
    };
    CheckpointError::Draw { tensor: canonical_name(&path), message }
}

/// The canonical (original) name of a parameter, by its path in [`Janus`]: Burn's words for norms,
/// and the places where a list of the original also counts things without parameters.
pub fn canonical_name(path: &str) -> String {
    let projector = path.starts_with("aligner.") || path.starts_with("gen_aligner.");
    let word = |(at, word): (usize, &str)| match word {
        "gamma" => "weight".to_owned(),
        "beta" => "bias".to_owned(),
        "block_1" => "0".to_owned(),
        "attn_1" => "1".to_owned(),
        "block_2" => "2".to_owned(),
        // The original counts the activations between the layers, too.
        index if projector && at == 2 => index.parse().map_or(0, |i: usize| 2 * i).to_string(),
        same => same.to_owned(),
    };
    path.split('.').enumerate().map(word).collect::<Vec<_>>().join(".")
}

/// The text head of a checkpoint that stores one table for both. A head of its own always wins:
/// transformers calls Janus tied by default, the published files are not.
pub fn with_tied_head(
    mut tensors: Vec<LazyTensor>,
    config: &JanusConfig,
    parts: Parts,
) -> Vec<LazyTensor> {
    const HEAD: &str = "language_model.lm_head.weight";
    const TABLE: &str = "language_model.model.embed_tokens.weight";
    let wanted = config.language.tie_word_embeddings && parts != Parts::Generation;
    if wanted && !tensors.iter().any(|tensor| tensor.name == HEAD) {
        let table = tensors.iter().find(|tensor| tensor.name == TABLE).cloned();
        tensors.extend(table.map(|mut table| {
            table.name = HEAD.to_owned();
            table
        }));
    }
    tensors
}

/// Leaves out the tensors of a half that was not asked for.
fn of_parts(tensors: Vec<LazyTensor>, parts: Parts) -> Vec<LazyTensor> {
    let other: &[&str] = match parts {
        Parts::All => &[],
        Parts::Understanding => &["gen_vision_model.", "gen_aligner.", "gen_head.", "gen_embed."],
        Parts::Generation => &["vision_model.", "aligner.", "language_model.lm_head."],
    };
    let wanted = |tensor: &LazyTensor| !other.iter().any(|part| tensor.name.starts_with(part));
    tensors.into_iter().filter(wanted).collect()
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use burn::store::burn_pack;

    use super::*;

    fn tiny() -> (Checkpoint, Janus) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/fixtures/tiny-pro/original/model.safetensors");
        let checkpoint = Checkpoint::open(dir, &Limits::default()).unwrap();
        let config = JanusConfig::from_dir(&checkpoint.dir).unwrap().0;
        let model = config.init(Parts::All, Precision::F32, &Device::flex());
        (checkpoint, model)
    }

    #[test]
    fn a_tensor_that_cannot_be_read_is_named() {
        let (checkpoint, mut model) = tiny();
        let mut tensors = checkpoint.canonical().unwrap().tensors;
        let norm = "language_model.model.norm.weight";
        let tensor = tensors.iter_mut().find(|tensor| tensor.name == norm).unwrap();
        let (dtype, shape, length) = (tensor.dtype, tensor.shape.to_vec(), tensor.byte_len());
        *tensor = LazyTensor::deferred(norm.into(), dtype, shape, None, length, || {
            Err(burn_pack::Error::IoError("the disk is gone".into()))
        });
        let error =
            fill(&mut model, "", tensors, |_, _| Some(DType::F32), &checkpoint.dir).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("'{norm}'")) && text.contains("the disk is gone"), "{text}");
    }

    #[test]
    fn a_misfit_names_the_folder() {
        let (checkpoint, mut model) = tiny();
        let tensors = checkpoint.canonical().unwrap().tensors.split_off(1);
        let error =
            fill(&mut model, "", tensors, |_, _| Some(DType::F32), &checkpoint.dir).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&checkpoint.dir.display().to_string()), "{text}");
        assert!(text.contains("1 missing"), "{text}");
    }
}
