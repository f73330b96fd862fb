//! A model folder, opened and compared with its own configuration; no weight is read.

use std::path::Path;

use janus_model::JanusConfig;
use janus_model::checkpoint::{Canonical, Checkpoint, LazyTensor, Limits, Mismatch};
use janus_model::config::Dialect;
use janus_model::processor::{Processor, ProcessorError};

use crate::device;
use crate::report::Failure;

const HEAD: &str = "language_model.lm_head.weight";

/// What a folder holds.
pub struct Folder {
    pub checkpoint: Checkpoint,
    pub config: JanusConfig,
    pub dialect: Dialect,
    pub canonical: Canonical,
    /// How the weights differ from what the configuration needs, if they do.
    pub mismatch: Option<Box<Mismatch>>,
}

impl Folder {
    /// Opens weights and configuration.
    ///
    /// # Errors
    /// Files that are missing, damaged or no weights; not a mismatch, which is an answer.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self, Failure> {
        let checkpoint = Checkpoint::open(path, limits)?;
        let (config, dialect) = JanusConfig::from_dir(&checkpoint.dir)?;
        let canonical = checkpoint.canonical()?;
        let mut expected = config.expected_tensors(&device::idle());
        if config.language.tie_word_embeddings && !has_head(&canonical.tensors) {
            // One table serves both ends.
            expected.retain(|(name, _)| name != HEAD);
        }
        let mismatch = Mismatch::check(&expected, &canonical.tensors)
            .map_err(|mismatch| mismatch.in_dir(&checkpoint.dir))
            .err();
        Ok(Self { checkpoint, config, dialect, canonical, mismatch })
    }

    /// How many tensors that the configuration asks for are missing below these names.
    pub fn lacks(&self, parts: &[&str]) -> usize {
        let below = |name: &str| parts.contains(&name.split('.').next().unwrap_or(name));
        let missing = self.mismatch.iter().flat_map(|mismatch| &mismatch.missing);
        missing.filter(|(name, _)| below(name)).count()
    }

    /// What the differences suggest, if there are any.
    pub fn hint(&self) -> Option<String> {
        self.mismatch.as_ref()?.hint()
    }

    /// The configuration that is true of the files: a head of its own is not tied, whatever
    /// config.json says, and transformers believes what it says.
    pub fn true_config(&self) -> JanusConfig {
        let mut config = self.config.clone();
        config.language.tie_word_embeddings &= !has_head(&self.canonical.tensors);
        config
    }

    /// Tokenizer and image rules, if the folder has a tokenizer.
    ///
    /// # Errors
    /// Files that are there and cannot be used, or that belong to another model.
    pub fn processor(&self) -> Result<Option<Processor>, ProcessorError> {
        let dir = &self.checkpoint.dir;
        let present = dir.join("tokenizer.json").exists();
        present.then(|| Processor::for_model(dir, &self.config)).transpose()
    }

    /// The seven parts of the model, each with its share of the files.
    pub fn components(&self) -> Vec<Component> {
        let kept = self.canonical.tensors.iter().map(|t| (t.name.as_str(), elements(t), false));
        let dropped = self.canonical.dropped.iter().map(|d| (d.name.as_str(), d.elements, true));
        components(kept.chain(dropped))
    }
}

fn has_head(tensors: &[LazyTensor]) -> bool {
    tensors.iter().any(|tensor| tensor.name == HEAD)
}

/// One part of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Prefix of its canonical names.
    pub name: &'static str,
    /// Tensors, under canonical names; dropped ones as the file counts them.
    pub tensors: usize,
    /// Values in them.
    pub elements: usize,
    /// Values that are not loaded.
    pub dropped: usize,
}

const PARTS: [&str; 8] = [
    "vision_model",
    "aligner",
    "gen_vision_model",
    "gen_aligner",
    "gen_head",
    "gen_embed",
    "language_model",
    "other",
];

/// Sums name, values and "is dropped" by part.
pub fn components<'a>(tensors: impl Iterator<Item = (&'a str, usize, bool)>) -> Vec<Component> {
    let mut parts =
        PARTS.map(|name| Component { name, tensors: 0, elements: 0, dropped: 0 }).to_vec();
    for (name, elements, dropped) in tensors {
        let name = name.strip_prefix("model.").unwrap_or(name);
        let prefix = match name.split('.').next().unwrap_or(name) {
            "vqmodel" => "gen_vision_model",
            prefix => prefix,
        };
        let at = PARTS.iter().position(|part| *part == prefix).unwrap_or(PARTS.len() - 1);
        let part = &mut parts[at];
        part.tensors += 1;
        part.elements += elements;
        part.dropped += if dropped { elements } else { 0 };
    }
    parts.retain(|part| part.name != "other" || part.tensors > 0);
    parts
}

/// Values in a tensor.
pub fn elements(tensor: &LazyTensor) -> usize {
    tensor.shape.to_vec().iter().product()
}
