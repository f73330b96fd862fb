//! Ranges, and what must fit together.

use janus_model::JanusConfig;

use super::{GuardConfig, OptimizerConfig, RecipeError, SaveConfig, ScheduleConfig, TrainConfig};
use crate::data::{Kind, OnBad};
use crate::stage::{Action, Rule};

/// Name of no model in particular.
const ANY: &str = "any";

pub(crate) type Checked = Result<(), RecipeError>;

impl TrainConfig {
    /// Checks every value; data may still be missing, see [`TrainConfig::check_sources`].
    ///
    /// # Errors
    /// The first field that is out of range: its path, its value and the range.
    pub fn validate(&self) -> Checked {
        self.validate_stage()?;
        self.validate_rules()?;
        self.validate_optimizer()?;
        self.validate_batch()?;
        save(&self.save)?;
        guard(&self.guard)?;
        self.validate_compute()?;
        for (list, sources) in [("data", &self.data), ("valid.data", &self.valid.data)] {
            for (at, source) in sources.iter().enumerate() {
                positive(&format!("{list}.{at}.weight"), source.weight)?;
            }
        }
        Ok(())
    }

    fn validate_stage(&self) -> Checked {
        name(&self.name)?;
        whole("stage", self.stage.into(), 1, 4)?;
        if self.model != ANY && JanusConfig::preset(&self.model).is_none() {
            let range = "janus-pro-1b, janus-pro-7b, janus-1.3b or any";
            return Err(RecipeError::range("model", format!("{:?}", self.model), range));
        }
        schedule(self.steps, &self.schedule)?;
        match (&self.start, &self.init) {
            (Some(_), Some(_)) => Err(RecipeError::Contradiction(
                "start and init: a run begins from the one or from the other".into(),
            )),
            _ => Ok(()),
        }
    }

    fn validate_rules(&self) -> Checked {
        match self.train.0.iter().any(|Rule(_, action)| *action == Action::Train) {
            true => Ok(()),
            false => Err(RecipeError::Contradiction("train: no rule trains anything".into())),
        }
    }

    fn validate_optimizer(&self) -> Checked {
        optimizer(&self.optimizer)?;
        between("objective.unconditional", self.objective.unconditional, 0.0, 1.0)?;
        between("objective.first_sentence", self.objective.first_sentence, 0.0, 1.0)?;
        between("objective.hidden_codes", self.objective.hidden_codes, 0.0, 1.0)?;
        between("objective.word_weight", self.objective.word_weight, 0.0, 1000.0)
    }

    fn validate_batch(&self) -> Checked {
        whole("batch.size", self.batch.size, 1, 1 << 20)?;
        whole("batch.rows", self.batch.rows, 1, self.batch.size)?;
        // A picture alone takes 576 tokens.
        let longest = JanusConfig::preset(&self.model)
            .map_or(16_384, |model| model.language.max_position_embeddings);
        whole("batch.tokens", self.batch.tokens, 16, longest)?;
        if self.batch.isolate && !self.batch.pack {
            let text = "batch.isolate needs batch.pack: a row of one sample has nothing to isolate";
            return Err(RecipeError::Contradiction(text.into()));
        }
        let shares = Kind::ALL.map(|kind| (kind, self.mix.of(kind)));
        for (kind, share) in shares {
            whole(&format!("mix.{}", kind.name()), share as usize, 0, 1000)?;
        }
        let used = shares.iter().filter(|(_, share)| *share > 0).count();
        if used == 0 {
            return Err(RecipeError::Contradiction("mix: every share is 0".into()));
        }
        if self.batch.size < used {
            let range = format!("at least {used}, one sample of each kind in the mix");
            return Err(RecipeError::range("batch.size", self.batch.size, &range));
        }
        Ok(())
    }

    fn validate_compute(&self) -> Checked {
        whole("compute.workers", self.compute.workers, 0, 1024)?;
        whole("compute.ahead", self.compute.ahead, 1, 1 << 20)?;
        if self.valid.patience > 0 && self.valid.data.is_empty() {
            let text = "valid.patience needs valid.data: nothing else tells a best loss";
            return Err(RecipeError::Contradiction(text.into()));
        }
        if let OnBad::Stop { share, .. } = self.on_bad {
            between("on_bad.stop.share", share, 0.0, 1.0)?;
        }
        Ok(())
    }

    /// Checks that every kind in the mix has a source, and every source a place in the mix, as far
    /// as the sources say what kind they are.
    ///
    /// # Errors
    /// The first kind without a source, or source without a share.
    pub fn check_sources(&self) -> Checked {
        if self.data.is_empty() {
            return Err(RecipeError::Contradiction("data: there is no source".into()));
        }
        let open = self.data.iter().any(|source| source.kind.is_none());
        for kind in Kind::ALL {
            let (name, share) = (kind.name(), self.mix.of(kind));
            let source = self.data.iter().position(|source| source.kind == Some(kind));
            let text = match (share > 0, source) {
                (true, None) if !open => {
                    format!("mix.{name} is {share}, but no source has that kind")
                }
                (false, Some(at)) => {
                    format!(
                        "data.{at} has kind {name}, but mix.{name} is 0: it would never be read"
                    )
                }
                _ => continue,
            };
            return Err(RecipeError::Contradiction(text));
        }
        Ok(())
    }
}

/// A name that can be a folder.
pub(crate) fn name(name: &str) -> Checked {
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        let range = "a plain name for a folder";
        return Err(RecipeError::range("name", format!("{name:?}"), range));
    }
    Ok(())
}

/// How long, and how fast.
pub(crate) fn schedule(steps: usize, schedule: &ScheduleConfig) -> Checked {
    whole("steps", steps, 1, 1_000_000_000)?;
    whole("schedule.warmup", schedule.warmup, 0, steps)?;
    between("schedule.rate", schedule.rate, 0.0, 1.0)
}

/// AdamW and the clip.
pub(crate) fn optimizer(optimizer: &OptimizerConfig) -> Checked {
    for (field, value) in [("beta1", optimizer.beta1), ("beta2", optimizer.beta2)] {
        // At 1 a moment would never hear of a gradient.
        if !(0.0..1.0).contains(&value) {
            let field = format!("optimizer.{field}");
            return Err(RecipeError::range(&field, value, "at least 0 and below 1"));
        }
    }
    positive("optimizer.epsilon", optimizer.epsilon)?;
    between("optimizer.weight_decay", optimizer.weight_decay, 0.0, 10.0)?;
    positive("optimizer.clip", optimizer.clip)
}

/// Which checkpoints there are.
pub(crate) fn save(save: &SaveConfig) -> Checked {
    whole("save.every", save.every, 1, 1_000_000_000)?;
    if save.keep == 1 {
        let range = "at least 2, or 0 for all: the newest may turn out damaged";
        return Err(RecipeError::range("save.keep", 1, range));
    }
    whole("save.keep", save.keep, 0, 1_000_000)?;
    whole("save.best", save.best, 0, 1_000_000)
}

/// What is left out.
pub(crate) fn guard(guard: &GuardConfig) -> Checked {
    whole("guard.window", guard.window, 8, 1 << 16)?;
    between("guard.sigma", guard.sigma, 1.0, 1000.0)?;
    whole("guard.skips", guard.skips, 1, 1 << 16)?;
    whole("guard.within", guard.within, guard.skips, 1_000_000_000)
}

/// A whole number between two others.
pub(crate) fn whole(field: &str, value: usize, low: usize, high: usize) -> Checked {
    match (low..=high).contains(&value) {
        true => Ok(()),
        false => Err(RecipeError::range(field, value, &format!("between {low} and {high}"))),
    }
}

/// NaN is in no range.
pub(crate) fn between(field: &str, value: f64, low: f64, high: f64) -> Checked {
    match (low..=high).contains(&value) {
        true => Ok(()),
        false => Err(RecipeError::range(field, value, &format!("between {low} and {high}"))),
    }
}

/// A number above 0.
pub(crate) fn positive(field: &str, value: f64) -> Checked {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(RecipeError::range(field, value, "a number above 0")),
    }
}
