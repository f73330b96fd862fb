//! From a recipe to a run: everything that trains a Janus, joined.
//!
//! ```text
//! Job::open    recipe ─► rules, data, sizes, plan     no weight is read: what cannot work fails here
//! forecast     parameters by part, memory, disk       what `--dry-run` shows
//! Job::run     training + run + plan ─► learning      Burn's SupervisedTraining, step by step
//! training     one Janus under strategy::Training     data, learner, checkpoint
//! ```
//! Read: [`Job`], [`forecast`]; then `training` and `learning`.

mod curves;
mod error;
pub mod forecast;
mod learning;
mod quiet;
mod training;

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use janus_model::checkpoint::{Checkpoint, Limits};
use janus_model::processor::{ImageLimits, Processor};
use janus_model::{Family, Janus, JanusConfig, Parts, Precision};
use sha2::{Digest, Sha256};

pub use curves::{Curve, Reading};
pub use error::JobError;
pub use forecast::Forecast;
pub use learning::{Extend, Watcher};
pub use quiet::Quiet;
pub use training::Look;

use crate::config::{Dtype, Source as SourceConfig, TrainConfig};
use crate::data::loader::Options as LoaderOptions;
use crate::data::{Loader, Objective, Packing, Prepare, Shuffle, Source, Tokens};
use crate::evaluate::Evaluation;
use crate::optim::AdamW;
use crate::run::model::Companions;
use crate::run::{Allow, Identity, Keep, Run, hex};
use crate::stage::Part;
use crate::start;
use crate::step::Activations;
use crate::strategy::{End, Plan};
use training::{JanusTraining, Terms};

/// Samples of each source whose lengths stand for all.
const LOOKED_AT: u64 = 32;

/// What a recipe does not say: where it runs and what it may cost.
pub struct Options {
    /// Where to compute.
    pub device: Device,
    /// Go on although the data are not what they were.
    pub data_change: bool,
    /// Write TensorBoard's files, too.
    pub events: bool,
    /// What a picture may cost.
    pub images: ImageLimits,
    /// What a model's files may claim.
    pub limits: Limits,
    /// Bytes of memory in use, asked once a step.
    pub memory: fn() -> Option<u64>,
    /// Whether somebody wants to stop, asked between micro-batches.
    pub stopping: fn() -> bool,
}

impl Options {
    /// On a device, everything else as usual: nobody stops it, and memory is not measured.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            data_change: false,
            events: false,
            images: ImageLimits::default(),
            limits: Limits::default(),
            memory: || None,
            stopping: || false,
        }
    }
}

/// A stage that is ready to run: recipe, data and start are known to fit each other.
pub struct Job {
    config: TrainConfig,
    options: Options,
    start: PathBuf,
    companions: Companions,
    model: JanusConfig,
    precision: Precision,
    parts: Vec<Part>,
    loader: Loader,
    valid: Option<Evaluation>,
    identity: Identity,
}

impl Job {
    /// Checks all that can be checked without reading weights.
    ///
    /// # Errors
    /// A recipe out of range, rules that do not cover the model, no data or too few, a start that
    /// is no model or no finished stage.
    pub fn open(config: TrainConfig, options: Options) -> Result<Self, JobError> {
        config.validate()?;
        config.check_sources()?;
        let start = start::folder(&config)?;
        if config.start.is_some() {
            // Sizes alone are enough only for a model that begins from nothing.
            Checkpoint::open(&start, &options.limits).map_err(janus_model::Error::from)?;
        }
        let companions = Companions::read(&start)?;
        let (model, _) = JanusConfig::from_dir(companions.dir())?;
        let precision = precision(&config, &options.device)?;
        let parts = parts(&config, &model, precision, &options.device)?;
        let rules = Processor::for_model(companions.dir(), &model)?;
        let (loader, content) = loader(&config, &model, rules, options.images.clone())?;
        let identity = Identity::new(&model, &config, &content);
        let valid = match config.valid.data.is_empty() {
            true => None,
            false => {
                Some(Evaluation::open(&config.valid.data, config.valid.samples, config.on_bad)?)
            }
        };
        Ok(Self {
            valid,
            config,
            options,
            start,
            companions,
            model,
            precision,
            parts,
            loader,
            identity,
        })
    }

    /// What trains, and what it will take.
    pub fn forecast(&self) -> Forecast {
        let tokens = self.loader.expect(LOOKED_AT);
        Forecast::of(&self.config, &self.model, self.precision, &self.parts, tokens)
    }

    /// The recipe.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Sizes of the model.
    pub fn model(&self) -> &JanusConfig {
        &self.model
    }

    /// The model folder that the run starts from.
    pub fn start(&self) -> &Path {
        &self.start
    }

    /// Trains in a run folder, from wherever it stands, to the end of the recipe.
    ///
    /// # Errors
    /// [`JobError`]; whatever happens, the folder holds the last whole checkpoint.
    pub fn run(
        self,
        output: &Path,
        watcher: Watcher,
        look: Option<Look>,
        extend: Option<Extend>,
    ) -> Result<End, JobError> {
        let save = self.config.save;
        let keep = Keep { last: save.keep, best: save.best, every: save.keep_every as u64 };
        let run = Run::open(output, keep)?;
        let Forecast { checkpoint, frozen, .. } = self.forecast();
        run.preflight(checkpoint + frozen / 2)?;
        self.leave_recipe(output)?;
        let plan = Plan {
            allow: Allow { data_change: self.options.data_change },
            events: self.options.events.then(|| output.join("events")),
            ..Plan::new(&self.config, self.identity.clone())
        };
        let (terms, loader) = self.terms(output);
        let training = JanusTraining::new(terms, loader, look);
        Ok(learning::launch(training, run, plan, watcher, extend)?)
    }

    /// The recipe as it is run, beside what comes of it.
    fn leave_recipe(&self, output: &Path) -> Result<(), JobError> {
        // Settings that were read once can be written.
        let text = toml::to_string_pretty(&self.config).unwrap_or_default();
        let path = output.join("recipe.toml");
        std::fs::write(&path, text).map_err(|source| JobError::Recipe { path, source })
    }

    fn terms(self, output: &Path) -> (Terms, Loader) {
        let Self { config, options, start, companions, model, precision, loader, valid, .. } = self;
        let codes = config.codes.clone().unwrap_or_else(|| output.join("codes"));
        let optimizer = config.optimizer;
        let activations = match config.compute.recompute {
            true => Activations::Recomputed,
            false => Activations::Kept,
        };
        let terms = Terms {
            start,
            companions,
            sizes: model,
            optimizer: AdamW {
                beta_1: optimizer.beta1,
                beta_2: optimizer.beta2,
                epsilon: optimizer.epsilon,
                weight_decay: optimizer.weight_decay,
            },
            precision,
            activations,
            codes,
            device: options.device,
            data_change: options.data_change,
            valid,
            limits: options.limits,
            config,
            memory: options.memory,
            stopping: options.stopping,
        };
        (terms, loader)
    }
}

/// bf16 where the device computes in it and nothing else was asked for.
fn precision(config: &TrainConfig, device: &Device) -> Result<Precision, JobError> {
    let supports = |dtype| device.supports_dtype(dtype);
    let family = Family::of(device);
    let narrow = matches!(family, Family::Cuda | Family::Metal);
    let dtype = match config.compute.dtype {
        Some(Dtype::F32) => DType::F32,
        Some(Dtype::Bf16) => DType::BF16,
        None if narrow => DType::BF16,
        None => DType::F32,
    };
    let precision = Precision::choose(family, DType::F32, Some(dtype), supports)?;
    Ok(precision)
}

/// What the rules make of the model; nothing of it is allocated.
fn parts(
    config: &TrainConfig,
    model: &JanusConfig,
    precision: Precision,
    device: &Device,
) -> Result<Vec<Part>, JobError> {
    let mut janus: Janus = model.init(Parts::All, precision, device);
    if let Some(lora) = &config.lora {
        lora.attach(&mut janus, config.seed)?;
    }
    let longest = model.language.max_position_embeddings;
    if config.batch.tokens > longest {
        return Err(JobError::Context { tokens: config.batch.tokens, longest });
    }
    Ok(config.train.plan(&janus)?)
}

/// The data, and a hash of what the files hold.
fn loader(
    config: &TrainConfig,
    model: &JanusConfig,
    processor: Processor,
    limits: ImageLimits,
) -> Result<(Loader, String), JobError> {
    let sources = open(&config.data, Shuffle::Seed(config.seed))?;
    let mut content = Sha256::new();
    for source in &sources {
        content.update(source.fingerprint());
    }
    let objective = Objective {
        max_tokens: config.batch.tokens,
        supervise_prompt: config.objective.supervise_prompt,
        unconditional: config.objective.unconditional,
        short_captions: config.objective.first_sentence,
        hidden_codes: config.objective.hidden_codes,
        shared_encoder: config.objective.shared_encoder,
    };
    let tokens =
        Tokens { processor: processor.into(), codes: model.gen_vision.grid().pow(2), objective };
    let prepare = Prepare { limits, ..Prepare::new(tokens) };
    let options = LoaderOptions {
        ratio: config.mix.ratio(),
        batch: config.batch.size,
        rows: config.batch.rows,
        packing: packing(config),
        on_bad: config.on_bad,
        workers: config.compute.workers,
        ahead: config.compute.ahead,
    };
    let loader = Loader::new(sources, prepare, options)?;
    Ok((loader, hex(content.finalize().as_slice())))
}

fn packing(config: &TrainConfig) -> Packing {
    match (config.batch.pack, config.batch.isolate) {
        (false, _) => Packing::Off,
        (true, true) => Packing::Isolated,
        (true, false) => Packing::Joined,
    }
}

/// Opens the sources of a list.
fn open(list: &[SourceConfig], shuffle: Shuffle) -> Result<Vec<Source>, JobError> {
    let mut sources = Vec::new();
    for (number, config) in list.iter().enumerate() {
        sources.extend(Source::open(&config.spec(), (number, config.weight), shuffle)?);
    }
    Ok(sources)
}
