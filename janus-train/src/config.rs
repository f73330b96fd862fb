//! One training stage as a readable TOML file: how long, how fast, what trains, on which mix.
//!
//! The stages of the paper are [`RECIPES`]: complete but for the paths of somebody's own data.
//! A recipe is read strictly ([`TrainConfig::read`]): an unknown key is an error, and every error
//! names the file, the line and the field. `key=value` overrides from a command line go through
//! the same door ([`TrainConfig::with`]). [`TrainConfig::validate`] then checks every range, so
//! that nothing is loaded for a run that cannot work.

mod data;
mod init;
pub(crate) mod read;
pub(crate) mod validate;

use std::path::PathBuf;

use janus_model::ops::Products;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use data::{Mix, Source};
pub use init::{InitConfig, InitParts};
pub use read::RecipeError;

use crate::data::OnBad;
use crate::lora::LoraConfig;
use crate::optim::AdamW;
use crate::schedule::{Schedule, Shape};
use crate::stage::Rules;

/// The stages of the paper: name, text. `janus-1.3b` is the original Janus, for comparison.
pub const RECIPES: [(&str, &str); 9] = [
    ("janus-pro-1b-stage1", include_str!("../stages/janus-pro-1b-stage1.toml")),
    ("janus-pro-1b-stage2", include_str!("../stages/janus-pro-1b-stage2.toml")),
    ("janus-pro-1b-stage3", include_str!("../stages/janus-pro-1b-stage3.toml")),
    ("janus-pro-7b-stage1", include_str!("../stages/janus-pro-7b-stage1.toml")),
    ("janus-pro-7b-stage2", include_str!("../stages/janus-pro-7b-stage2.toml")),
    ("janus-pro-7b-stage3", include_str!("../stages/janus-pro-7b-stage3.toml")),
    ("janus-1.3b-stage1", include_str!("../stages/janus-1.3b-stage1.toml")),
    ("janus-1.3b-stage2", include_str!("../stages/janus-1.3b-stage2.toml")),
    ("janus-1.3b-stage3", include_str!("../stages/janus-1.3b-stage3.toml")),
];

/// A whole training stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What the run is called.
    pub name: String,
    /// 1, 2 or 3 of the paper, or 4 for fine-tuning. A stage starts from the end of the one before.
    pub stage: u8,
    /// Published model whose sizes these settings are for, such as `janus-pro-1b`; or `any`.
    pub model: String,
    /// What the stage starts from: a model folder, or the run folder of the stage before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// What the stage starts from, where that is no finished model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<InitConfig>,
    /// Number that all chance derives from.
    pub seed: u64,
    /// Optimizer steps.
    pub steps: usize,
    /// Path rules, in order: the first that matches a parameter's whole path decides.
    pub train: Rules,
    /// Learning rate by step.
    pub schedule: ScheduleConfig,
    /// How gradients become changes.
    pub optimizer: OptimizerConfig,
    /// How much one step sees.
    pub batch: BatchConfig,
    /// Kinds of samples inside every step.
    pub mix: Mix,
    /// What is hidden from the model while it learns to draw.
    pub objective: ObjectiveConfig,
    /// When checkpoints are written, and which are kept.
    pub save: SaveConfig,
    /// What happens to steps that would do harm.
    pub guard: GuardConfig,
    /// Low-rank adapters that train in place of whole weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// How the arithmetic is done; the losses hardly depend on it.
    #[serde(default)]
    pub compute: ComputeConfig,
    /// What the run is judged by on the way.
    #[serde(default)]
    pub valid: ValidConfig,
    /// What is drawn and answered on the way, to be looked at.
    #[serde(default)]
    pub samples: SamplesConfig,
    /// What happens to samples that cannot be used.
    #[serde(default)]
    pub on_bad: OnBad,
    /// Folder in which the codes of target pictures are kept; else `codes` in the run folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codes: Option<PathBuf>,
    /// Where samples come from; the only part that a recipe of the paper leaves empty.
    #[serde(default)]
    pub data: Vec<Source>,
}

/// How the arithmetic is done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComputeConfig {
    /// Format of weights and activations; masters and moments are f32 always. Without one: bf16
    /// where the device computes in it, else f32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    /// What factors of matrix products of a step are rounded to on the CPU.
    #[serde(skip_serializing_if = "is_exact")]
    pub products: Products,
    /// Keep the input of each block only, and work its inside out again: see [`crate::recompute`].
    pub recompute: bool,
    /// Threads that read and decode samples ahead; 0 for none.
    pub workers: usize,
    /// Samples that are made ready ahead.
    pub ahead: usize,
}

/// Number format of weights and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits, range of f32.
    Bf16,
}

/// Whether a recipe need not say it.
pub(crate) fn is_exact(products: &Products) -> bool {
    *products == Products::F32
}

impl Default for ComputeConfig {
    fn default() -> Self {
        Self { dtype: None, products: Products::F32, recompute: false, workers: 2, ahead: 64 }
    }
}

/// What the run is judged by, at every checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValidConfig {
    /// Samples that are never trained on. Without any, nothing is measured.
    pub data: Vec<Source>,
    /// So many of each source, from its beginning; 0 for all.
    pub samples: usize,
    /// Checkpoints without a new best loss after which the run ends; 0 for never.
    pub patience: usize,
}

/// What is drawn and answered on the way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplesConfig {
    /// Steps between; 0 for never.
    pub every: usize,
    /// What is drawn.
    pub prompts: Vec<String>,
    /// What is asked.
    pub questions: Vec<SampleQuestion>,
}

/// A question about a picture, asked during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleQuestion {
    /// The picture; none for text alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<PathBuf>,
    /// The question.
    pub question: String,
}

/// Learning rate by step; see [`Schedule`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// What follows the warm-up.
    pub shape: Shape,
    /// Highest rate.
    pub rate: f64,
    /// Steps until it is reached, in equal parts.
    pub warmup: usize,
}

/// AdamW and the clip before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Share of a weight that is taken away per unit of rate, apart from the gradient.
    pub weight_decay: f64,
    /// Largest norm of all gradients together.
    pub clip: f64,
}

/// How much one step sees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Samples of one optimizer step.
    pub size: usize,
    /// Rows that are computed at once; the rest of the step follows row by row.
    pub rows: usize,
    /// Tokens of one row.
    pub tokens: usize,
    /// Several samples in one row.
    pub pack: bool,
    /// Samples of one row do not see each other, and each counts its positions from 0.
    pub isolate: bool,
}

/// What is hidden from the model while it learns, and what counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// Share of drawing samples whose words are replaced by padding, as guidance needs it.
    pub unconditional: f64,
    /// Share of captions of which only the first sentence is used.
    pub first_sentence: f64,
    /// Whether questions are learned like answers.
    pub supervise_prompt: bool,
    /// Share of edits in which the codes of the pictures they start from are replaced by padding.
    #[serde(default = "half")]
    pub hidden_codes: f64,
    /// What a word counts beside an image code. Janus has no such weight, which is 1; where a
    /// picture of hundreds of codes stands beside answers of a few words, those need more.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub word_weight: f64,
    /// Pictures of questions are read by the image tokenizer and `gen_aligner`, too, as in models
    /// with one encoder for both. Only to compare the two of Janus with: nothing else asks so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared_encoder: bool,
}

fn one() -> f64 {
    1.0
}

/// Whether a recipe need not say it.
fn is_one(weight: &f64) -> bool {
    *weight == 1.0
}

/// As Janus-4o was trained.
fn half() -> f64 {
    0.5
}

/// When checkpoints are written, and which are kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveConfig {
    /// Steps between checkpoints.
    pub every: usize,
    /// How many of the newest stay: at least two, or 0 for all.
    pub keep: usize,
    /// How many of the best by validation loss stay, too.
    pub best: usize,
    /// Checkpoints whose step is a multiple of this stay for ever; 0 for none.
    pub keep_every: usize,
}

/// See [`crate::spikes`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardConfig {
    /// Good steps that a new one is compared with.
    pub window: usize,
    /// Standard deviations above their mean from which a step is left out.
    pub sigma: f64,
    /// As many left-out steps …
    pub skips: usize,
    /// … within so many steps end the run.
    pub within: usize,
    /// What a loss or gradient that is no number does.
    pub on_nan: OnNan,
}

/// Answer to a loss or gradient that is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNan {
    /// Leave the step out.
    Skip,
    /// Go back to the last checkpoint, and leave the step out when it comes again.
    Rollback,
    /// End the run.
    Stop,
}

impl TrainConfig {
    /// The recipe of that name, from [`RECIPES`].
    pub fn recipe(name: &str) -> Option<Self> {
        let (_, text) = RECIPES.iter().find(|(known, _)| *known == name)?;
        // Every recipe is read by a test.
        Self::from_toml(text).ok()
    }

    /// Learning rate by step.
    pub fn schedule(&self) -> Schedule {
        let ScheduleConfig { shape, rate, warmup } = self.schedule;
        Schedule { peak: rate, warmup, steps: self.steps, shape }
    }

    /// SHA-256 of everything here that decides which sample comes when. Where the files lie and
    /// what they hold is not in it, nor how many rows fit into memory.
    pub fn data_digest(&self) -> String {
        let data: Vec<_> = self.data.iter().map(Source::nowhere).collect();
        let batch = BatchConfig { rows: 0, ..self.batch };
        let parts = (data, self.mix, batch, self.objective, self.seed);
        // Plain structs always serialise.
        let text = serde_json::to_string(&parts).unwrap_or_default();
        crate::run::hex(Sha256::digest(text).as_slice())
    }

    /// The optimizer in words, for comparison with a checkpoint's.
    pub fn optimizer_words(&self) -> String {
        self.optimizer.words()
    }
}

impl OptimizerConfig {
    /// In words, for comparison with a checkpoint's.
    pub fn words(&self) -> String {
        let Self { beta1, beta2, epsilon, weight_decay, .. } = self;
        format!("adamw beta1={beta1} beta2={beta2} epsilon={epsilon:e} weight_decay={weight_decay}")
    }

    /// The optimizer itself.
    pub fn adamw(&self) -> AdamW {
        AdamW {
            beta_1: self.beta1,
            beta_2: self.beta2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
        }
    }
}

#[cfg(test)]
mod tests;
