//! A Janus that learns: what [`crate::strategy`] asks of it, answered by Burn's learner, the data
//! and a checkpoint.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use burn::train::Learner;
use janus_model::adapters::AdapterSave;
use janus_model::checkpoint::{Limits, Naming};
use janus_model::{Janus, JanusConfig, LoadOptions, Parts, Precision};
use serde_json::{Value, json};

use crate::accumulate::Report;
use crate::clip::{clip_known, norms};
use crate::config::TrainConfig;
use crate::data::{Cache, Cursor, Encode, Loader};
use crate::evaluate::{self, Evaluation};
use crate::frozen::FrozenTokenizer;
use crate::learner::Micro;
use crate::optim::AdamW;
use crate::run::model::Companions;
use crate::run::{Found, Role, Run, RunError, Staging, moments};
use crate::start;
use crate::step::{Activations, Trainee};
use crate::strategy::{Measured, StepError, Training};

/// Folder of a checkpoint that holds adapters.
const ADAPTER: &str = "adapter";

/// Shows a model during training, after so many steps.
pub type Look = Box<dyn FnMut(u64, &Janus)>;

/// All that does not change while a model learns.
pub(super) struct Terms {
    /// Where weights come from at the very beginning.
    pub start: PathBuf,
    pub companions: Companions,
    pub config: TrainConfig,
    pub sizes: JanusConfig,
    pub optimizer: AdamW,
    pub precision: Precision,
    pub activations: Activations,
    /// Where codes of target pictures are kept.
    pub codes: PathBuf,
    pub device: Device,
    pub data_change: bool,
    /// What the run is judged by.
    pub valid: Option<Evaluation>,
    pub limits: Limits,
    /// Bytes of memory in use.
    pub memory: fn() -> Option<u64>,
    /// Whether somebody wants to stop, asked between micro-batches.
    pub stopping: fn() -> bool,
}

impl Terms {
    /// The model that the run starts from, with fresh adapters if those are to train.
    fn beginning(&self) -> Result<Janus, StepError> {
        let device = self.device.clone().autodiff();
        let (mut janus, _) = start::build(&self.config, self.precision, &device)?;
        if let Some(lora) = &self.config.lora {
            lora.attach(&mut janus, self.config.seed)?;
        }
        Ok(janus)
    }

    /// A model, ready for steps.
    fn trainee(&self, janus: Janus) -> Trainee {
        let word_weight = self.config.objective.word_weight;
        Trainee::new(janus, self.activations).with_word_weight(word_weight)
    }

    /// Weights of a model folder.
    fn weights(&self, path: &Path) -> Result<Janus, StepError> {
        let (precision, limits) = (Some(self.precision), self.limits.clone());
        let options = LoadOptions { precision, limits, ..LoadOptions::default() };
        Ok(Janus::load(path, &self.device.clone().autodiff(), &options)?.0)
    }

    /// Writes the model, or where only adapters learn, those.
    fn save(&self, mut janus: Janus, run: &mut Run, staging: &mut Staging) -> Result<(), RunError> {
        let naming = self.companions.naming();
        if self.config.lora.is_none() {
            let frozen = |name: &str| !self.config.train.trains(name);
            return staging.model(run, &self.companions, janus.tensors(), frozen);
        }
        // Hugging Face splits a matrix of the vision tower in three, and its adapter with it; what
        // is read back must have the shape that it had.
        let mut adapted =
            janus.linears_mut().into_iter().filter(|(_, linear)| linear.lora.is_some());
        let split = adapted.any(|(name, _)| name.starts_with("vision_model."));
        let naming = if split { Naming::Original } else { naming };
        // From wherever the adapter is used later.
        let base = std::fs::canonicalize(&self.start).unwrap_or_else(|_| self.start.clone());
        let options = AdapterSave { base: Some(base.display().to_string()), naming };
        staging.folder(Role::Model, ADAPTER, |path| Ok(janus.save_adapter(path, &options)?))
    }
}

/// See the [module documentation](self).
pub(super) struct JanusTraining {
    terms: Terms,
    loader: Loader,
    /// Loaded when it is first needed: from a checkpoint if there is one.
    model: Option<Loaded>,
    look: Option<Look>,
    /// Of the last step.
    left_out: Vec<String>,
    account: Value,
}

/// What lives on the device.
struct Loaded {
    learner: Learner<Trainee>,
    rate: Rate,
    tokenizer: FrozenTokenizer,
}

/// The learning rate of the step at hand. [`crate::schedule`] knows it; Burn's learner asks a
/// scheduler of its own kind.
#[derive(Clone, Default)]
struct Rate(Arc<AtomicU64>);

impl Rate {
    fn set(&self, rate: f64) {
        self.0.store(rate.to_bits(), Ordering::Relaxed);
    }
}

impl LrScheduler for Rate {
    fn step(&mut self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new() // a function of the step alone
    }

    fn load_record(&mut self, _: LrSchedulerRecord) {}
}

impl JanusTraining {
    pub(super) fn new(terms: Terms, loader: Loader, look: Option<Look>) -> Self {
        Self { terms, loader, model: None, look, left_out: Vec::new(), account: Value::Null }
    }

    /// The model, loaded from the start of the run if nothing was loaded yet.
    fn model(&mut self) -> Result<&mut Loaded, StepError> {
        if self.model.is_none() {
            let janus = self.terms.beginning()?;
            self.set(janus)?;
        }
        self.model.as_mut().ok_or_else(|| "no model".into())
    }

    /// The learner, for Burn to hold until it asks for training.
    pub(super) fn lend(&mut self) -> Result<Learner<Trainee>, StepError> {
        Ok(self.model()?.learner.clone())
    }

    /// The learner, back from Burn.
    pub(super) fn take_back(&mut self, learner: Learner<Trainee>) {
        if let Some(model) = &mut self.model {
            model.learner = learner;
        }
    }

    /// The model as it is now; one without weights where loading them failed.
    pub(super) fn last(&self) -> Trainee {
        let terms = &self.terms;
        let empty = || {
            let janus = terms.sizes.init(Parts::All, terms.precision, &terms.device);
            terms.trainee(janus)
        };
        self.model.as_ref().map_or_else(empty, |model| model.learner.model())
    }

    /// Puts a model to work, with an optimizer that remembers nothing.
    fn set(&mut self, janus: Janus) -> Result<(), StepError> {
        let (janus, _) = self.terms.config.train.apply(janus)?;
        let tokenizer = FrozenTokenizer::of(&janus)?;
        let codes = janus.config().gen_vision.grid().pow(2);
        let cache = Cache::open(&self.terms.codes, tokenizer.fingerprint(), codes)?;
        self.loader.set_cache(Arc::new(cache));
        let trainee = self.terms.trainee(janus);
        let rate = Rate::default();
        let learner = Learner::new(trainee, self.terms.optimizer.into(), rate.clone());
        self.model = Some(Loaded { learner, rate, tokenizer });
        Ok(())
    }
}

impl Training for JanusTraining {
    type Gradients = GradientsParams;

    fn gradients(&mut self, step: u64) -> Result<Option<(GradientsParams, Measured)>, StepError> {
        self.model()?;
        let Self { loader, model, terms, .. } = self;
        let Some(Loaded { learner, tokenizer, .. }) = model else { return Err("no model".into()) };
        let data = loader.next(tokenizer)?;
        debug_assert_eq!(data.number, step);
        self.left_out = data.left_out.clone();
        let samples: Vec<String> = data.places.iter().map(ToString::to_string).collect();
        self.account = json!({ "samples": samples });

        let (total, trainee) = (data.supervised(), learner.model());
        let mut measured = Measured {
            supervised: total as u64,
            tokens: data.batches.iter().map(|batch| batch.filled() as u64).sum(),
            memory: (terms.memory)(),
            ..Measured::default()
        };
        let mut gradients = GradientsAccumulator::new();
        let mut report = Report::default();
        for batch in data.batches {
            if (terms.stopping)() {
                // The checkpoint still stands before this step's data.
                return Ok(None);
            }
            let output = learner.train_step(Micro { batch, total });
            gradients.accumulate(&trainee, output.grads);
            report.join(output.item.report?);
        }
        measured.supervised_text = report.text.tokens as u64;
        (measured.loss_text, measured.loss_image) = (report.text.mean(), report.codes.mean());
        measured.loss = report.joined().mean().unwrap_or(f64::NAN);
        let gradients = gradients.grads();
        let norms = norms(&trainee, &gradients);
        self.account["norms"] = parts(&norms);
        match clip_known(&trainee, gradients, &norms, terms.config.optimizer.clip) {
            Ok((gradients, norm)) => {
                measured.grad_norm = norm;
                Ok(Some((gradients, measured)))
            }
            Err(not_finite) => {
                self.account["not_finite"] = json!(not_finite.names);
                measured.grad_norm = f64::NAN;
                Ok(Some((GradientsParams::new(), measured)))
            }
        }
    }

    fn pass_by(&mut self, _: u64) -> Result<(), StepError> {
        self.model()?;
        let Self { loader, model, .. } = self;
        let Some(Loaded { tokenizer, .. }) = model else { return Err("no model".into()) };
        self.left_out = loader.next(tokenizer)?.left_out;
        self.account = Value::Null;
        Ok(())
    }

    fn update(&mut self, gradients: GradientsParams, rate: f64) {
        let Some(Loaded { learner, rate: current, .. }) = &mut self.model else { return };
        current.set(rate);
        learner.lr_step();
        learner.optimizer_step(gradients);
    }

    fn left_out(&mut self) -> Vec<String> {
        std::mem::take(&mut self.left_out)
    }

    fn account(&self) -> Value {
        self.account.clone()
    }

    fn look(&mut self, done: u64) {
        let (Some(look), Some(model)) = (&mut self.look, &self.model) else { return };
        let every = self.terms.config.samples.every as u64;
        if every > 0 && done.is_multiple_of(every) {
            look(done, &model.learner.model().into_janus());
        }
    }

    fn validate(&mut self) -> Result<Option<Measured>, StepError> {
        let (Some(valid), Some(model)) = (&self.terms.valid, &self.model) else { return Ok(None) };
        let (trainee, stopping) = (model.learner.model(), self.terms.stopping);
        let watch = |_: evaluate::Event<'_>| match stopping() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let found =
            valid.run(&trainee, self.loader.prepare(), self.terms.config.batch.rows, watch)?;
        // Half of the samples would be another measure.
        let Some(loss) = found.report.joined().mean().filter(|_| !found.stopped) else {
            return Ok(None);
        };
        let Report { text, codes } = found.report;
        Ok(Some(Measured {
            loss,
            loss_text: text.mean(),
            loss_image: codes.mean(),
            supervised: found.report.joined().tokens as u64,
            supervised_text: text.tokens as u64,
            ..Measured::default()
        }))
    }

    fn cursors(&self) -> Value {
        // Plain numbers and strings always serialise.
        serde_json::to_value(self.loader.cursor()).unwrap_or_default()
    }

    fn save(&mut self, run: &mut Run, staging: &mut Staging) -> Result<(), RunError> {
        let Some(Loaded { learner, .. }) = &mut self.model else { return Ok(()) };
        let trainee = learner.model();
        self.terms.save(trainee.janus.valid(), run, staging)?;
        let shown = trainee.window().look(|| learner.optimizer_step(GradientsParams::new()));
        let learners = moments::learners(&trainee);
        staging.file(Role::Moments, "moments.bpk", |path| match shown {
            Some(record) => moments::write(path, record, &learners),
            None => Err(RunError::io(path, "write", std::io::Error::other("no moments"))),
        })
    }

    fn load(&mut self, found: &Found) -> Result<(), StepError> {
        // The old one goes first: two may not fit.
        self.model = None;
        let janus = match &self.terms.config.lora {
            None => self.terms.weights(&found.model())?,
            Some(_) => {
                let mut janus = self.terms.beginning()?;
                janus.load_adapter(&found.path.join(ADAPTER), &self.terms.limits)?;
                janus
            }
        };
        self.set(janus)?;
        let Some(Loaded { learner, .. }) = &mut self.model else { return Err("no model".into()) };
        let learners = moments::learners(&learner.model());
        learner.load_optim(moments::read(&found.moments(), &learners)?);
        let cursor: Cursor = serde_json::from_value(found.state.cursors.clone())?;
        Ok(self.loader.seek(&cursor, self.terms.data_change)?)
    }
}

/// Norm of the gradients of each part of the model.
fn parts(norms: &[(String, f64)]) -> Value {
    let mut squares = serde_json::Map::new();
    let mut sums: Vec<(&str, f64)> = Vec::new();
    for (name, norm) in norms {
        let part = name.split('.').next().unwrap_or_default();
        match sums.last_mut().filter(|(last, _)| *last == part) {
            Some((_, sum)) => *sum += norm * norm,
            None => sums.push((part, norm * norm)),
        }
    }
    for (part, sum) in sums {
        squares.insert(part.to_owned(), json!(sum.is_finite().then(|| sum.sqrt())));
    }
    Value::Object(squares)
}
