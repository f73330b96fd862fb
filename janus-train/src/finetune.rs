//! Fine-tuning: a recipe for somebody's own data, from a few wishes.
//!
//! Two recipes in `stages/` hold every setting with its reason: `finetune-lora`, in which the model
//! stays and small adapters learn, and `finetune-full`. What a [`Task`] changes in them is here:
//! which parts learn, and the mix of samples.

use serde::{Deserialize, Serialize};

use crate::config::{Mix, RecipeError, Source as SourceConfig, TrainConfig};
use crate::data::{DataError, Kind, Shuffle, Source};
use crate::lora::LoraConfig;
use crate::stage::{Action, Rules, StageError};

/// Adapters learn, the model stays.
pub const LORA: &str = include_str!("../stages/finetune-lora.toml");
/// The weights themselves learn.
pub const FULL: &str = include_str!("../stages/finetune-full.toml");

/// What is to be learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// To answer about pictures.
    Understand,
    /// To draw from words.
    Generate,
    /// Both, and to write.
    Both,
    /// To draw from pictures and words.
    Edit,
}

/// Low-rank adapters in place of whole weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adapters {
    /// r.
    pub rank: usize,
    /// α; without one, twice the rank.
    pub alpha: Option<f64>,
}

/// What somebody wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// What is to be learnt.
    pub task: Task,
    /// Samples.
    pub data: Vec<SourceConfig>,
    /// Adapters; all weights of the task's parts without.
    pub adapters: Option<Adapters>,
    /// How often every sample is used, unless `key=value` settings say `steps`.
    pub epochs: f64,
    /// Samples of a step.
    pub batch: Option<usize>,
    /// Tokens that the model reads at most.
    pub longest: usize,
}

/// Why there is no recipe.
#[derive(Debug, thiserror::Error)]
pub enum WishError {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Our own recipe, or what was changed in it.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A rule.
    #[error(transparent)]
    Rule(#[from] StageError),
    /// The data have nothing for the task.
    #[error("the data have no samples for {wanted}: {}", found(*counts))]
    Nothing {
        /// What was looked for.
        wanted: Kind,
        /// Samples of each kind.
        counts: [u64; 3],
    },
    /// A number that makes no sense.
    #[error("{what} must be above 0")]
    Zero {
        /// Which one.
        what: &'static str,
    },
}

fn found(counts: [u64; 3]) -> String {
    let all = Kind::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0);
    let all: Vec<String> = all.map(|(kind, count)| format!("{count} for {kind}")).collect();
    if all.is_empty() { "they are empty".to_owned() } else { format!("only {}", all.join(", ")) }
}

impl Task {
    /// Parts whose weights learn, by path rules.
    fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Understand => &["aligner.**", "language_model.**"],
            Self::Generate => {
                &["gen_aligner.**", "gen_embed.**", "gen_head.**", "language_model.**"]
            }
            Self::Both | Self::Edit => &[
                "aligner.**",
                "gen_aligner.**",
                "gen_embed.**",
                "gen_head.**",
                "language_model.**",
            ],
        }
    }

    /// Linear layers that get adapters. Not those of `gen_aligner`: its input has 8 numbers, which
    /// bounds the rank of everything; not tables, which are no linear layers.
    fn targets(self) -> &'static [&'static str] {
        const DECODER: &str = "language_model.model.layers.**";
        match self {
            Self::Understand => &[DECODER, "aligner.**"],
            Self::Generate => &[DECODER, "gen_head.**"],
            Self::Both | Self::Edit => &[DECODER, "aligner.**", "gen_head.**"],
        }
    }

    /// Kinds that the task uses, the one that it cannot do without first; the mix is that of
    /// stage 3, 5:1:4, as far as there are samples.
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Understand => &[Kind::Understand, Kind::Text],
            Self::Generate | Self::Edit => &[Kind::Draw],
            Self::Both => &[Kind::Draw, Kind::Understand, Kind::Text],
        }
    }
}

impl Wish {
    /// The recipe, with `overrides` put in their places last.
    ///
    /// # Errors
    /// [`WishError`].
    pub fn recipe(self, overrides: &[String]) -> Result<TrainConfig, WishError> {
        let text = if self.adapters.is_some() { LORA } else { FULL };
        let mut config = TrainConfig::from_toml(text)?;
        let counts = count(&self.data)?;
        config.mix = self.mix(counts)?;
        config.batch.size = self.batch(&config, counts)?;
        config.batch.rows = config.batch.rows.min(config.batch.size);
        config.steps = self.steps(config.batch.size, counts)?;
        config.batch.tokens = config.batch.tokens.min(self.longest);
        config.train = self.rules()?;
        config.lora = match self.adapters {
            None => None,
            Some(Adapters { rank, alpha }) => {
                let targets = self.task.targets().iter().map(|text| (*text).to_owned().try_into());
                let targets = targets.collect::<Result<_, StageError>>()?;
                Some(LoraConfig { rank, alpha: alpha.unwrap_or(2.0 * rank as f64), targets })
            }
        };
        config.data = self.data;
        let mut config = config.with(overrides)?;
        config.schedule.warmup = config.schedule.warmup.min(config.steps / 10);
        Ok(config)
    }

    fn mix(&self, counts: [u64; 3]) -> Result<Mix, WishError> {
        let kinds = self.task.kinds();
        let needed = match self.task {
            Task::Both => &kinds[..2],
            _ => &kinds[..1],
        };
        for wanted in needed {
            if counts[*wanted as usize] == 0 {
                return Err(WishError::Nothing { wanted: *wanted, counts });
            }
        }
        let share = |kind: Kind, share: u32| match counts[kind as usize] {
            // What the task does not use stays in the data, and is refused there by name.
            0 => 0,
            _ if kinds.contains(&kind) => share,
            _ => 0,
        };
        Ok(Mix {
            understand: share(Kind::Understand, 5),
            text: share(Kind::Text, 1),
            draw: share(Kind::Draw, 4),
        })
    }

    /// As in the recipe, but not more than there is.
    fn batch(&self, config: &TrainConfig, counts: [u64; 3]) -> Result<usize, WishError> {
        match self.batch {
            Some(0) => Err(WishError::Zero { what: "the batch" }),
            Some(size) => Ok(size),
            None => Ok(config.batch.size.min(counts.iter().sum::<u64>() as usize).max(1)),
        }
    }

    fn steps(&self, batch: usize, counts: [u64; 3]) -> Result<usize, WishError> {
        if self.epochs.is_nan() || self.epochs <= 0.0 {
            return Err(WishError::Zero { what: "the number of epochs" });
        }
        let samples = counts.iter().sum::<u64>() as f64 * self.epochs;
        Ok((samples / batch as f64).ceil().max(1.0) as usize)
    }

    fn rules(&self) -> Result<Rules, StageError> {
        if self.adapters.is_some() {
            return Rules::new(&[("**.lora.*", Action::Train), ("**", Action::Freeze)]);
        }
        let trained = self.task.parts().iter().map(|part| (*part, Action::Train));
        Rules::new(&trained.chain([("**", Action::Freeze)]).collect::<Vec<_>>())
    }
}

/// Samples of each kind.
fn count(data: &[SourceConfig]) -> Result<[u64; 3], DataError> {
    let mut counts = [0; 3];
    for (number, config) in data.iter().enumerate() {
        for source in Source::open(&config.spec(), (number, config.weight), Shuffle::Off)? {
            counts[source.kind() as usize] += source.len();
        }
    }
    Ok(counts)
}
