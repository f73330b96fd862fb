//! The recipe of an understanding encoder that learns from maps.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use janus_model::JanusConfig;
use janus_model::load::part_names;
use janus_model::ops::Products;
use serde::{Deserialize, Serialize};

use super::training::{FieldsTraining, Seer};
use super::{HEADS, PART};
use crate::config::validate::Checked;
use crate::config::{
    GuardConfig, OptimizerConfig, RecipeError, SaveConfig, ScheduleConfig, Source, ValidConfig,
    is_exact,
};
use crate::data::OnBad;
use crate::parts::{Common, Description, Network, Opened, Part, PartBatch, PartError, Recipe};
use crate::parts::{data, identity, read as recipe};

/// A run that trains an understanding encoder from maps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldsConfig {
    /// `fields`.
    pub part: Part,
    /// What the run is called.
    pub name: String,
    /// A model folder: sizes of the encoder, picture rules, and what lies beside its weights in a
    /// checkpoint.
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
    /// What can be said of a field; a sample that says anything else cannot be used.
    pub words: Vec<String>,
    /// Learning rate by step.
    pub schedule: ScheduleConfig,
    /// How gradients become changes.
    pub optimizer: OptimizerConfig,
    /// How much one step sees.
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
    /// Where pictures with maps come from: what is said of each field, row by row, between commas.
    #[serde(default)]
    pub data: Vec<Source>,
}

impl Recipe for FieldsConfig {
    type Training = FieldsTraining;

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
        let distinct: BTreeSet<&String> = self.words.iter().collect();
        let plain = |word: &String| !word.is_empty() && !word.contains([' ', ',', '\n']);
        if distinct.len() != self.words.len()
            || self.words.is_empty()
            || !self.words.iter().all(plain)
        {
            let range = "a list of different words, at least one, without blanks and commas";
            return Err(RecipeError::range("words", format!("{:?}", self.words), range));
        }
        Ok(())
    }

    fn open(&self, device: &Device) -> Result<Opened<FieldsTraining>, PartError> {
        let (model, _) = JanusConfig::from_dir(&self.model)?;
        let data = data(&self.common())?;
        let (blocks, width) = (model.vision.num_hidden_layers, model.vision.hidden_size);
        let words = format!("an understanding encoder of {blocks} blocks of width {width}");
        let sizes = format!("{:?} {:?}", model.vision, self.words);
        let identity = identity(&self.common(), (1, words, &sizes), "fields", &data);
        let training = FieldsTraining::new(self.clone(), &model, data, device)?;
        Ok(Opened { training, identity })
    }

    fn describe(&self, device: &Device) -> Result<Description, PartError> {
        let (model, _) = JanusConfig::from_dir(&self.model)?;
        let data = data(&self.common())?.len();
        let names = part_names(&Seer::new(&model.vision, self.words.len(), device), "");
        let network = |name: &str, prefix: &str, kept| {
            let of = names.iter().filter(|(name, _)| name.starts_with(prefix));
            let parameters = of.map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
            Network { name: name.to_owned(), parameters, kept }
        };
        let networks = vec![network(PART, PART, true), network("heads", HEADS, false)];
        let vision = &model.vision;
        let (places, width) = (vision.num_tokens(), vision.hidden_size);
        let block = places * (18 * width + 4 * vision.intermediate_size)
            + 3 * vision.num_attention_heads * places * places;
        let activations = (self.batch.rows * 4 * vision.num_hidden_layers * block) as u64;
        Ok(Description::of(&self.common(), networks, (data, 0, activations)))
    }
}

impl FieldsConfig {
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
    pub fn begin(&self, device: &Device) -> Result<FieldsTraining, PartError> {
        Ok(self.open(device)?.training)
    }
}
