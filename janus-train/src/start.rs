//! What a run starts from: a finished model, or one put together from parts.
//!
//! ```text
//! start = DIR                     a model folder, or the finished run of the stage before
//! [init] model = DIR              sizes, tokenizer and picture rules; weights are not read
//! [init.parts] aligner = DIR …    weights of parts, from model folders or runs of any kind
//! ```
//! What `[init.parts]` does not name begins at random, by the seed and the name of each tensor:
//! N(0, 0.02) as LLaMA, or wider where a layer is narrow ([`weights::llama`]), norms 1, biases 0; the
//! vision tower and its aligner as [`weights::siglip`], the image tokenizer as
//! [`weights::tokenizer`] has it. Two things are ours: the embeddings of image codes begin as the
//! codebook's normalised rows, which is how those of the published models began, and a part must be
//! whole and fit to the last shape.

use std::path::{Path, PathBuf};

use burn::store::burn_pack::Error as PackError;
use burn::tensor::{Bytes, DType, Device};
use janus_model::checkpoint::{Checkpoint, CheckpointError, LazyTensor, Limits, Mismatch, cast};
use janus_model::config::ConfigError;
use janus_model::load::with_tied_head;
use janus_model::{Error, ErrorKind, Janus, JanusConfig, LoadOptions, Parts, Precision};

use crate::config::{InitConfig, TrainConfig};
use crate::run::{RunError, model_in, start_of};
use crate::weights::{fresh, llama, siglip, to_unit, tokenizer};

const CODEBOOK: &str = "gen_vision_model.quantize.embedding.weight";
const CODE_EMBEDDINGS: &str = "gen_embed.weight";
const HEAD: &str = "language_model.lm_head.weight";

/// Why a run has nothing to start from.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The recipe names neither.
    #[error("the recipe names no model to start from")]
    Nothing,
    /// A run folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A model folder.
    #[error(transparent)]
    Model(#[from] Error),
    /// A folder without the part that it was named for.
    #[error("{path}: there is no {part} here", path = path.display())]
    NoPart {
        /// The folder.
        path: PathBuf,
        /// The part.
        part: String,
    },
}

impl From<CheckpointError> for StartError {
    fn from(error: CheckpointError) -> Self {
        Self::Model(error.into())
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Model(error.into())
    }
}

impl StartError {
    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Nothing => ErrorKind::Usage,
            Self::Run(error) => error.kind(),
            Self::Model(error) => error.kind(),
            Self::NoPart { .. } => ErrorKind::Config,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Nothing => Some(
                "give `start`, a model folder or the run before, or `[init]` with a folder of \
                 sizes"
                    .into(),
            ),
            Self::Run(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::NoPart { .. } => Some(
                "name a model folder or a run that trained this part, or leave it out to begin \
                 at random"
                    .into(),
            ),
        }
    }
}

/// The folder that sizes and small files come from. No weight is read.
///
/// # Errors
/// The recipe names none, or a run that is not finished.
pub fn folder(config: &TrainConfig) -> Result<PathBuf, StartError> {
    match (&config.start, &config.init) {
        (Some(start), _) => Ok(start_of(config.stage, start)?),
        (None, Some(init)) => Ok(init.model.clone()),
        (None, None) => Err(StartError::Nothing),
    }
}

/// The model that a run starts from, and the folder of its small files.
///
/// # Errors
/// See [`StartError`]; where parts do not fit, every difference.
pub fn build(
    config: &TrainConfig,
    precision: Precision,
    device: &Device,
) -> Result<(Janus, PathBuf), StartError> {
    let folder = folder(config)?;
    let janus = match &config.init {
        Some(init) if config.start.is_none() => {
            let (sizes, _) = JanusConfig::from_dir(&init.model)?;
            let tensors = tensors(init, &sizes, config.seed, device)?;
            Janus::from_tensors(&sizes, tensors, precision, device, &init.model)?
        }
        _ => {
            let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
            Janus::load(&folder, device, &options)?.0
        }
    };
    Ok((janus, folder))
}

/// All tensors of a model that is put together from parts.
fn tensors(
    init: &InitConfig,
    sizes: &JanusConfig,
    seed: u64,
    device: &Device,
) -> Result<Vec<LazyTensor>, StartError> {
    let expected = sizes.expected_tensors(device);
    let mut tensors = Vec::new();
    for (part, path) in init.parts.given() {
        let found = part_in(path, part)?;
        let found = with_tied_head(found, sizes, Parts::All);
        let of_part = |(name, _): &&(String, Vec<usize>)| belongs(name, part);
        let wanted: Vec<_> = expected.iter().filter(of_part).cloned().collect();
        Mismatch::check(&wanted, &found)
            .map_err(|mismatch| CheckpointError::from(mismatch.in_dir(path)))?;
        tensors.extend(found);
    }
    let given = |name: &str| init.parts.given().any(|(part, _)| belongs(name, part));
    for (name, shape) in expected.iter().filter(|(name, _)| !given(name)) {
        let law = match name.split('.').next() {
            Some("gen_vision_model") => tokenizer(name, shape),
            Some("vision_model" | "aligner") => siglip(name, shape),
            _ => llama(name, shape),
        };
        let tied = name == HEAD && sizes.language.tie_word_embeddings;
        if !tied && name != CODE_EMBEDDINGS {
            tensors.push(fresh(seed, name, shape, law));
        }
    }
    if !given(CODE_EMBEDDINGS) {
        let codebook = tensors.iter().find(|tensor| tensor.name == CODEBOOK);
        tensors.extend(codebook.map(code_embeddings));
    }
    Ok(tensors)
}

fn belongs(name: &str, part: &str) -> bool {
    name.strip_prefix(part).is_some_and(|rest| rest.starts_with('.'))
}

/// The tensors of a part, under canonical names, from a model folder or the newest whole
/// checkpoint of a run.
///
/// # Errors
/// There is no model, or the part is not in it.
pub fn part_in(path: &Path, part: &str) -> Result<Vec<LazyTensor>, StartError> {
    let checkpoint = Checkpoint::open(model_in(path)?, &Limits::default())?;
    let mut tensors = checkpoint.canonical()?.tensors;
    tensors.retain(|tensor| belongs(&tensor.name, part));
    match tensors.is_empty() {
        true => Err(StartError::NoPart { path: path.to_owned(), part: part.to_owned() }),
        false => Ok(tensors),
    }
}

/// Rows of the codebook, each of unit length.
fn code_embeddings(codebook: &LazyTensor) -> LazyTensor {
    let shape = codebook.shape.to_vec();
    let width = shape.last().copied().unwrap_or(1).max(1);
    let codebook = cast(codebook.clone(), DType::F32);
    let length = codebook.byte_len();
    let make = move || -> Result<Bytes, PackError> {
        let bytes = codebook.to_bytes()?;
        let (values, _) = bytes.as_chunks::<4>();
        let mut values: Vec<f32> = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
        values.chunks_mut(width).for_each(to_unit);
        Ok(Bytes::from_elems(values))
    };
    LazyTensor::deferred(CODE_EMBEDDINGS.to_owned(), DType::F32, shape, None, length, make)
}
