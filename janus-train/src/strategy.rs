//! The order in which things happen to whatever is trained: gradients, judgement, update, line of
//! metrics, checkpoint; and on the way back: checkpoint, state, data, on.
//!
//! What is trained is a [`Training`]; this knows neither tensors nor files of samples. Everything
//! that a step depends on is its number and what a checkpoint holds, so a run that was stopped
//! anywhere ends with the bytes of one that was not.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use janus_model::ErrorKind;
use janus_model::ops::{Products, with_products};
use serde_json::Value;

use crate::config::{GuardConfig, TrainConfig};
use crate::metrics::{self, Metrics, MetricsError, Row, Terms};
use crate::run::state::Best;
use crate::run::{Allow, Found, Identity, Run, RunError, Saved, Staging, State, Ticket};
use crate::schedule::Schedule;
use crate::spikes::{Guard, Reason, Verdict};

/// An error of whatever is trained.
pub type StepError = Box<dyn std::error::Error + Send + Sync>;

/// Something that learns in steps.
pub trait Training {
    /// What a step computes and an update consumes.
    type Gradients;

    /// Takes the data of step `step`, counted from 0, and computes its gradients; weights and
    /// moments stay as they are. `None` where somebody wants to stop before they are complete.
    ///
    /// # Errors
    /// The data cannot be read, or the device fails.
    fn gradients(&mut self, step: u64) -> Result<Option<(Self::Gradients, Measured)>, StepError>;

    /// Takes the data of a step that is known to do harm, and computes nothing.
    ///
    /// # Errors
    /// The data cannot be read.
    fn pass_by(&mut self, step: u64) -> Result<(), StepError>;

    /// Changes the weights.
    fn update(&mut self, gradients: Self::Gradients, rate: f64);

    /// Samples that the last step met and could not use, each with the reason.
    fn left_out(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// What made the last step, for somebody who looks for the cause of a bad one.
    fn account(&self) -> Value {
        Value::Null
    }

    /// After a step that was taken, and before its checkpoint: something to look at.
    fn look(&mut self, _done: u64) {}

    /// Losses over data that is not trained on, if there is any.
    ///
    /// # Errors
    /// The data cannot be read, or the device fails.
    fn validate(&mut self) -> Result<Option<Measured>, StepError>;

    /// Where each source of data stands, behind the last step taken.
    fn cursors(&self) -> Value;

    /// Puts weights and moments into a checkpoint.
    ///
    /// # Errors
    /// They cannot be written.
    fn save(&mut self, run: &mut Run, staging: &mut Staging) -> Result<(), RunError>;

    /// Takes weights and moments from a checkpoint, and data from where it stood.
    ///
    /// # Errors
    /// They do not fit.
    fn load(&mut self, found: &Found) -> Result<(), StepError>;
}

/// What a step tells about itself, before the update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Mean over all supervised tokens.
    pub loss: f64,
    /// Mean over words, where there were any.
    pub loss_text: Option<f64>,
    /// Mean over codes, where there were any.
    pub loss_image: Option<f64>,
    /// Norm of all gradients, before clipping.
    pub grad_norm: f64,
    /// Supervised words and codes.
    pub supervised: u64,
    /// Of those, words.
    pub supervised_text: u64,
    /// Tokens, padding left out.
    pub tokens: u64,
    /// Bytes of memory in use, where known.
    pub memory: Option<u64>,
    /// What else there is to tell.
    pub terms: Terms,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the run belongs to.
    pub identity: Identity,
    /// Learning rate by step, and how many steps there are.
    pub schedule: Schedule,
    /// Steps between checkpoints.
    pub every: u64,
    /// Planned checkpoints without a new best validation loss after which the run ends; 0 for
    /// never.
    pub patience: u64,
    /// What factors of matrix products are rounded to.
    pub products: Products,
    /// What may be left out.
    pub guard: GuardConfig,
    /// Number that all chance derives from.
    pub seed: u64,
    /// Differences from the checkpoint that are meant.
    pub allow: Allow,
    /// Where TensorBoard's files go, if they are wanted.
    pub events: Option<PathBuf>,
}

impl Plan {
    /// As a recipe says, for a run of the given identity.
    pub fn new(config: &TrainConfig, identity: Identity) -> Self {
        Self {
            identity,
            schedule: config.schedule(),
            every: config.save.every as u64,
            patience: config.valid.patience as u64,
            products: config.compute.products,
            guard: config.guard,
            seed: config.seed,
            allow: Allow::default(),
            events: None,
        }
    }

    /// The metrics of a run of which `step` steps are done.
    fn metrics(&self, run: &Run, step: u64) -> Result<Metrics, MetricsError> {
        let metrics = Metrics::open(&run.metrics_path(), step)?;
        match &self.events {
            Some(folder) => metrics.with_events(folder, step),
            None => Ok(metrics),
        }
    }

    /// Steps of the whole stage.
    pub fn steps(&self) -> u64 {
        self.schedule.steps as u64
    }
}

/// What happens, for whoever watches.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run goes on from a checkpoint.
    Resumed(&'a Found),
    /// Samples that could not be used.
    LeftOut(&'a [String]),
    /// A step was taken or left out.
    Step(&'a Row),
    /// Losses after so many steps, over data that is not trained on.
    Validated(u64, &'a Measured),
    /// A checkpoint was written.
    Saved(&'a Saved),
    /// The run went back to a checkpoint.
    RolledBack {
        /// The step that made it.
        step: u64,
        /// Why.
        reason: Reason,
        /// Where it goes on from.
        to: u64,
    },
}

/// How a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Finished,
    /// Whoever watches wanted it; everything is saved.
    Stopped,
    /// The validation loss has not become better for long; everything is saved.
    NoBetter,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The run folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The file of metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// What is trained.
    #[error("step {step}: {source}")]
    Step {
        /// Counted from 0.
        step: u64,
        /// Its own error.
        source: StepError,
    },
    /// The guard.
    #[error("stopped before step {step}: {reason}; the last good step is saved")]
    Guard {
        /// Counted from 0.
        step: u64,
        /// Why.
        reason: Reason,
    },
}

impl TrainError {
    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Run(error) => error.kind(),
            Self::Metrics(error) => error.kind(),
            Self::Step { .. } | Self::Guard { .. } => ErrorKind::BadData,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Run(error) => error.hint(),
            Self::Metrics(error) => error.hint(),
            Self::Step { .. } => None,
            Self::Guard { .. } => Some(
                "see `skipped` in metrics.jsonl; a lower rate or cleaner data may help, and a larger \
                 guard.sigma lets more through"
                    .into(),
            ),
        }
    }
}

/// Who watches, and may end the run after the step at hand.
pub type Watcher<'a> = dyn FnMut(Event) -> ControlFlow<()> + 'a;

/// Trains to the end of the plan, from wherever the run folder stands.
///
/// # Errors
/// See [`TrainError`]. Whatever happens, the folder holds the last checkpoint that was whole.
pub fn train<T: Training>(
    trainee: &mut T,
    run: &mut Run,
    plan: &Plan,
    watcher: &mut Watcher,
) -> Result<End, TrainError> {
    let state = begin(trainee, run, plan, watcher)?;
    go_on(trainee, run, plan, watcher, state)
}

/// The first half of [`train`]: looks where the run stands, and loads what it holds.
///
/// # Errors
/// As [`train`].
pub fn begin<T: Training>(
    trainee: &mut T,
    run: &mut Run,
    plan: &Plan,
    watcher: &mut Watcher,
) -> Result<State, TrainError> {
    let found = run.resume(&plan.identity, plan.allow)?;
    begin_from(trainee, found, plan, watcher)
}

/// As [`begin`], where it is known already where the run stands.
///
/// # Errors
/// What was found cannot be loaded.
pub fn begin_from<T: Training>(
    trainee: &mut T,
    found: Option<Found>,
    plan: &Plan,
    watcher: &mut Watcher,
) -> Result<State, TrainError> {
    let Some(found) = found else {
        return Ok(State::new(plan.seed, Guard::new(plan.guard)));
    };
    let step = found.state.step;
    trainee.load(&found).map_err(|source| TrainError::Step { step, source })?;
    // Nothing to stop yet: the first step comes anyway.
    let _ = watcher(Event::Resumed(&found));
    Ok(State { guard: found.state.guard.with_config(plan.guard), ..found.state })
}

/// The second half of [`train`].
///
/// # Errors
/// As [`train`].
pub fn go_on<T: Training>(
    trainee: &mut T,
    run: &mut Run,
    plan: &Plan,
    watcher: &mut Watcher,
    state: State,
) -> Result<End, TrainError> {
    let metrics = plan.metrics(run, state.step)?;
    let begun = Instant::now();
    let mut session = Session { trainee, run, plan, watcher, state, metrics, begun };
    while session.state.step < plan.steps() {
        let before = session.state.step;
        if before.is_multiple_of(plan.every) && session.is_no_better() {
            return Ok(End::NoBetter);
        }
        let wants_on = session.step()?;
        let done = session.state.step;
        if done <= before {
            // Back at a checkpoint, or stopped within a step, which then begins anew.
            if wants_on.is_break() {
                session.save(false)?;
                return Ok(End::Stopped);
            }
            continue;
        }
        let due = done.is_multiple_of(plan.every) || done == plan.steps();
        if due || wants_on.is_break() {
            session.save(due)?;
        }
        if done == plan.steps() {
            break;
        }
        if wants_on.is_break() {
            return Ok(End::Stopped);
        }
    }
    Ok(End::Finished)
}

/// A run between two checkpoints.
struct Session<'a, 'b, T: Training> {
    trainee: &'a mut T,
    run: &'a mut Run,
    plan: &'a Plan,
    watcher: &'a mut Watcher<'b>,
    state: State,
    metrics: Metrics,
    begun: Instant,
}

impl<T: Training> Session<'_, '_, T> {
    /// One step of data: taken, or left out.
    fn step(&mut self) -> Result<ControlFlow<()>, TrainError> {
        let step = self.state.step;
        let rate = self.plan.schedule.rate(step as usize);
        let started = Instant::now();
        let failed = |source| TrainError::Step { step, source };
        let (measured, verdict) = if self.state.guard.is_banned(step) {
            self.trainee.pass_by(step).map_err(failed)?;
            let measured = Measured { loss: f64::NAN, grad_norm: f64::NAN, ..Measured::default() };
            (measured, self.state.guard.judge(step, f64::NAN, f64::NAN))
        } else {
            let found = with_products(self.plan.products, || self.trainee.gradients(step));
            let Some(found) = found.map_err(failed)? else {
                return Ok(ControlFlow::Break(()));
            };
            let (gradients, measured) = found;
            let verdict = self.state.guard.judge(step, measured.loss, measured.grad_norm);
            if verdict == Verdict::Take {
                self.trainee.update(gradients, rate);
            }
            (measured, verdict)
        };
        let left_out = self.trainee.left_out();
        if !left_out.is_empty() {
            // Whoever watches is asked after the step.
            let _ = (self.watcher)(Event::LeftOut(&left_out));
        }
        if verdict != Verdict::Take {
            self.log_account(step, &measured)?;
        }
        let skipped = match verdict {
            Verdict::Take => None,
            Verdict::Skip(reason) => Some(reason),
            Verdict::Rollback(reason) => return self.roll_back(step, reason),
            Verdict::Stop(reason) => {
                self.save(false)?;
                return Err(TrainError::Guard { step, reason });
            }
        };
        self.state.step = step + 1;
        self.state.rate = rate;
        self.state.cursors = self.trainee.cursors();
        let row = self.row(&measured, started.elapsed().as_secs_f64(), skipped);
        self.metrics.log(&row)?;
        if row.skipped.is_none() {
            self.trainee.look(self.state.step);
        }
        Ok((self.watcher)(Event::Step(&row)))
    }

    /// Keeps what made a step that was not taken.
    fn log_account(&self, step: u64, measured: &Measured) -> Result<(), MetricsError> {
        let account = self.trainee.account();
        if account.is_null() {
            return Ok(());
        }
        let finite = |value: f64| value.is_finite().then_some(value);
        let line = serde_json::json!({
            "step": step + 1,
            "loss": finite(measured.loss),
            "grad_norm": finite(measured.grad_norm),
            "made_of": account,
        });
        metrics::append(&self.run.dir().join("skipped.jsonl"), &line)
    }

    /// Told from what a checkpoint holds, so that a run that was stopped knows it, too.
    fn is_no_better(&self) -> bool {
        let wait = self.plan.patience * self.plan.every;
        self.state.best.is_some_and(|best| wait > 0 && self.state.step >= best.step + wait)
    }

    fn row(&self, measured: &Measured, took: f64, skipped: Option<Reason>) -> Row {
        let finite = |value: f64| value.is_finite().then_some(value);
        Row {
            step: self.state.step,
            loss: finite(measured.loss),
            loss_text: measured.loss_text.and_then(finite),
            loss_image: measured.loss_image.and_then(finite),
            grad_norm: finite(measured.grad_norm),
            rate: self.state.rate,
            supervised: measured.supervised,
            supervised_text: measured.supervised_text,
            tokens: measured.tokens,
            tokens_per_second: measured.tokens as f64 / took.max(1e-9),
            memory: measured.memory,
            seconds: self.metrics.seconds_before() + self.begun.elapsed().as_secs_f64(),
            skipped: skipped.map(|reason| reason.to_string()),
            terms: measured.terms.named(),
        }
    }

    /// Measures and tells the loss over data that is not trained on.
    fn validate(&mut self) -> Result<Option<f64>, TrainError> {
        let step = self.state.step;
        let judged = self.trainee.validate();
        let judged = judged.map_err(|source| TrainError::Step { step, source })?;
        let Some(judged) = judged else { return Ok(None) };
        self.metrics.log_valid(step, &judged)?;
        // Whoever watches is asked after the step.
        let _ = (self.watcher)(Event::Validated(step, &judged));
        Ok(Some(judged.loss))
    }

    /// Writes a checkpoint of the steps done; only a `planned` one is worth a validation.
    fn save(&mut self, planned: bool) -> Result<(), TrainError> {
        if self.state.step == 0 {
            // Nothing has happened that the start does not know.
            return Ok(());
        }
        let step = self.state.step;
        let loss = if planned { self.validate()? } else { None };
        let known = self.state.best.map_or(f64::INFINITY, |best| best.loss);
        if let Some(loss) = loss.filter(|loss| *loss < known) {
            self.state.best = Some(Best { step, loss });
        }
        let (identity, steps) = (&self.plan.identity, self.plan.steps());
        let ticket = Ticket { identity, state: &self.state, steps, loss };
        let trainee = &mut *self.trainee;
        let saved = self.run.save(&ticket, |run, staging| trainee.save(run, staging))?;
        let _ = (self.watcher)(Event::Saved(&saved));
        Ok(())
    }

    /// Goes back to the last checkpoint, never to try `step` again.
    fn roll_back(&mut self, step: u64, reason: Reason) -> Result<ControlFlow<()>, TrainError> {
        let found = self.run.resume(&self.plan.identity, self.plan.allow)?;
        let Some(found) = found else {
            // Nothing was saved: stopping is all that is left.
            return Err(TrainError::Guard { step, reason });
        };
        self.trainee.load(&found).map_err(|source| TrainError::Step { step, source })?;
        self.metrics = self.plan.metrics(self.run, found.state.step)?;
        self.begun = Instant::now();
        let to = found.state.step;
        let guard = self.state.guard.clone().back_to(found.state.guard, step);
        self.state = State { guard, ..found.state };
        Ok((self.watcher)(Event::RolledBack { step, reason, to }))
    }
}
