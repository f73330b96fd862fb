//! The recipe of an understanding encoder: `stages/encoder.toml` has each value with its source.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use janus_model::JanusConfig;
use janus_model::load::part_names;
use janus_model::ops::Products;
use serde::{Deserialize, Serialize};

use super::training::EncoderTraining;
use super::{HEADS, PART};
use crate::config::validate::{Checked, whole};
use crate::config::{
    GuardConfig, OptimizerConfig, RecipeError, SaveConfig, ScheduleConfig, Source, ValidConfig,
    is_exact,
};
use crate::data::OnBad;
use crate::parts::{Common, Description, Network, Opened, Part, PartBatch, PartError, Recipe};
use crate::parts::{data, identity, read as recipe};

/// A run that trains an understanding encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// `encoder`.
    pub part: Part,
    /// What the run is called.
    pub name: String,
    /// A model folder: sizes of the encoder, tokenizer and picture rules, and what lies beside its
    /// weights in a checkpoint.
    pub model: PathBuf,
    /// A model folder or a run to take weights from; without one they begin at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Number that all chance derives from.
    pub seed: u64,
    /// Optimizer steps.
    pub steps: usize,
    /// What factors of matrix products of a step are rounded to on the CPU.
    #[serde(default, skip_serializing_if = "is_exact")]
    pub products: Products,
    /// From the tokens of a picture to one row.
    pub pooling: Pooling,
    /// The tower of captions.
    pub text: TextConfig,
    /// Learning rate by step.
    pub schedule: ScheduleConfig,
    /// How gradients become changes.
    pub optimizer: OptimizerConfig,
    /// How much one step sees; all pairs of a step are compared, whatever is computed at once.
    pub batch: PartBatch,
    /// When checkpoints are written, and which are kept.
    pub save: SaveConfig,
    /// What happens to steps that would do harm.
    pub guard: GuardConfig,
    /// What the run is judged by on the way.
    #[serde(default)]
    pub valid: ValidConfig,
    /// What happens to samples that cannot be used.
    #[serde(default)]
    pub on_bad: OnBad,
    /// Where pictures with captions come from.
    #[serde(default)]
    pub data: Vec<Source>,
}

/// From the tokens of a picture to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// A learnt question that looks at all of them.
    Attention,
    /// Their mean.
    Mean,
}

/// Sizes of the tower of captions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Width of a token.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads per block.
    pub heads: usize,
    /// Tokens of a caption, its end included; shorter ones are filled up.
    pub length: usize,
    /// Whether longer captions are cut; otherwise they cannot be used.
    pub cut: bool,
}

impl Recipe for EncoderConfig {
    type Training = EncoderTraining;

    fn common(&self) -> Common<'_> {
        Common {
            name: &self.name,
            model: &self.model,
            seed: self.seed,
            steps: self.steps,
            products: self.products,
            schedule: &self.schedule,
            optimizer: &self.optimizer,
            batch: self.batch,
            save: &self.save,
            guard: &self.guard,
            valid: &self.valid,
            on_bad: self.on_bad,
            data: &self.data,
        }
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        [&mut self.model].into_iter().chain(&mut self.start).collect()
    }

    fn sources(&mut self) -> Vec<&mut Source> {
        self.data.iter_mut().chain(&mut self.valid.data).collect()
    }

    fn check(&self) -> Checked {
        let text = &self.text;
        whole("batch.size", self.batch.size, 2, 1 << 20)?;
        whole("text.width", text.width, 1, 1 << 16)?;
        whole("text.layers", text.layers, 1, 1024)?;
        whole("text.heads", text.heads, 1, text.width)?;
        whole("text.length", text.length, 2, 4096)?;
        match text.width.is_multiple_of(text.heads) {
            true => Ok(()),
            false => {
                let range = format!("a divisor of text.width, {}", text.width);
                Err(RecipeError::range("text.heads", text.heads, &range))
            }
        }
    }

    fn open(&self, device: &Device) -> Result<Opened<EncoderTraining>, PartError> {
        let (model, _) = JanusConfig::from_dir(&self.model)?;
        let data = data(&self.common())?;
        let (blocks, width) = (model.vision.num_hidden_layers, model.vision.hidden_size);
        let words = format!("an understanding encoder of {blocks} blocks of width {width}");
        let sizes = format!("{:?} {:?} {:?}", model.vision, self.pooling, self.text);
        let identity = identity(&self.common(), (1, words, &sizes), "pairs", &data);
        let training = EncoderTraining::new(self.clone(), &model, data, device)?;
        Ok(Opened { training, identity })
    }

    fn describe(&self, device: &Device) -> Result<Description, PartError> {
        let (model, _) = JanusConfig::from_dir(&self.model)?;
        let data = data(&self.common())?.len();
        let towers = self.towers(&model.vision, model.language.vocab_size, device);
        let names = part_names(&towers, "");
        let network = |name: &str, prefix: &str, kept| {
            let of = names.iter().filter(|(name, _)| name.starts_with(prefix));
            let parameters = of.map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
            Network { name: name.to_owned(), parameters, kept }
        };
        let networks = vec![network(PART, PART, true), network("heads", HEADS, false)];
        let activations = self.batch.rows as u64 * self.activations(&model);
        Ok(Description::of(&self.common(), networks, (data, 0, activations)))
    }
}

impl EncoderConfig {
    /// Reads and checks a recipe, with `key=value` overrides.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, PartError> {
        recipe(path, overrides)
    }

    /// An encoder at the beginning of its training.
    ///
    /// # Errors
    /// Weights, sizes or data cannot be used.
    pub fn begin(&self, device: &Device) -> Result<EncoderTraining, PartError> {
        Ok(self.open(device)?.training)
    }

    /// Bytes that backward needs of one pair: projections, norms and residuals of each block, and
    /// the scores of its attention.
    fn activations(&self, model: &JanusConfig) -> u64 {
        let (vision, text) = (&model.vision, &self.text);
        let block = |places: usize, width: usize, inner: usize, heads: usize| {
            places * (18 * width + 4 * inner) + 3 * heads * places * places
        };
        let seen = block(
            vision.num_tokens(),
            vision.hidden_size,
            vision.intermediate_size,
            vision.num_attention_heads,
        );
        let read = block(text.length, text.width, 4 * text.width, text.heads);
        4 * (vision.num_hidden_layers * seen + text.layers * read) as u64
    }
}
