//! Burn's `SupervisedTraining` around [`crate::strategy`]: its learner, metrics, dashboard, early
//! stopping and interrupter, driven step by step.
//!
//! Burn counts epochs and items of a loader. Here a step is all there is: an epoch is what lies
//! between two checkpoints, and its items are steps. Data come from [`crate::data::Loader`], whose
//! place in the data a checkpoint holds; Burn is only told how much there is.

use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::LearningRateMetric;
use burn::train::metric::store::EventStoreClient;
use burn::train::{
    CloneEarlyStoppingStrategy, EventProcessorTraining, Interrupter, Learner, LearnerEvent,
    SupervisedLearningStrategy, SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader,
    TrainingComponents, TrainingItem, TrainingStrategy, ValidLoader,
};

use super::curves::Curve;
use super::quiet::Quiet;
use super::training::JanusTraining;
use crate::accumulate::{Report, Total};
use crate::learner::Outcome;
use crate::metrics::Row;
use crate::run::{Run, State};
use crate::step::Trainee;
use crate::strategy::{End, Event, Measured, Plan, TrainError, begin_from, go_on};

/// Who watches, for the whole of a run.
pub type Watcher = Box<dyn FnMut(Event) -> ControlFlow<()>>;

/// What is added to Burn's training before it starts: metrics, loggers, a renderer, early stopping.
pub type Extend = Box<dyn FnOnce(SupervisedTraining<Trainee>) -> SupervisedTraining<Trainee>>;

/// Trains to the end of the plan under Burn's eyes.
///
/// # Errors
/// As [`train`](crate::strategy::train).
pub(super) fn launch(
    mut training: JanusTraining,
    mut run: Run,
    plan: Plan,
    mut watcher: Watcher,
    extend: Option<Extend>,
) -> Result<End, TrainError> {
    let found = run.resume(&plan.identity, plan.allow)?;
    if found.as_ref().is_some_and(|found| found.state.step >= plan.steps()) {
        return Ok(End::Finished);
    }
    let state = begin_from(&mut training, found, &plan, &mut *watcher)?;
    let step = state.step;
    let learner = training.lend().map_err(|source| TrainError::Step { step, source })?;
    let supervised = supervised(run.dir(), plan.schedule.steps);
    let supervised = match extend {
        Some(extend) => extend(supervised),
        None => supervised.renderer(Box::new(Quiet)),
    };
    let ended = Arc::new(Mutex::new(None));
    let job = Job { training, run, plan, watcher, state };
    let strategy = StepStrategy { job: Mutex::new(Some(job)), ended: Arc::clone(&ended) };
    // Burn asks for an `Arc`, and calls it on this thread.
    #[allow(clippy::arc_with_non_send_sync)]
    let strategy = TrainingStrategy::Custom(Arc::new(strategy));
    supervised.with_training_strategy(strategy).launch(learner);
    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner).take();
    ended.unwrap_or(Ok(End::Stopped))
}

/// Burn's training with our curves; nothing is written, [`crate::metrics`] does that.
fn supervised(folder: &Path, steps: usize) -> SupervisedTraining<Trainee> {
    let mut training = SupervisedTraining::new(folder, Arc::new(Told(steps)), Arc::new(Told(1)))
        .with_application_logger(None)
        .with_metric_logger(InMemoryMetricLogger::default())
        .metric_train_numeric(LearningRateMetric::new())
        .metric_train_numeric(Curve::norm());
    for curve in [Curve::loss(), Curve::text(), Curve::codes()] {
        training = training.metric_train_numeric(curve.clone()).metric_valid_numeric(curve);
    }
    training
}

/// A run that waits for its learner.
struct Job {
    training: JanusTraining,
    run: Run,
    plan: Plan,
    watcher: Watcher,
    state: State,
}

/// Burn's name for whatever drives the learner.
struct StepStrategy {
    job: Mutex<Option<Job>>,
    ended: Arc<Mutex<Option<Result<End, TrainError>>>>,
}

impl SupervisedLearningStrategy<Trainee> for StepStrategy {
    fn fit(
        &self,
        components: TrainingComponents<Trainee>,
        learner: Learner<Trainee>,
        _: TrainLoader<Trainee>,
        _: ValidLoader<Trainee>,
        _: usize,
    ) -> (Trainee, SupervisedTrainingEventProcessor<Trainee>) {
        let Some(mut job) = self.job.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return (learner.model(), components.event_processor);
        };
        job.training.take_back(learner);
        let mut teller = Teller::new(components, &job);
        let Job { training, run, plan, watcher, state } = &mut job;
        let mut both = |event: Event| {
            teller.tell(&event);
            let wants_on = watcher(event);
            if teller.wants_to_stop() { ControlFlow::Break(()) } else { wants_on }
        };
        let ended = go_on(training, run, plan, &mut both, state.clone());
        let model = training.last();
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        (model, teller.finish())
    }
}

/// Tells Burn what happens.
struct Teller {
    processor: SupervisedTrainingEventProcessor<Trainee>,
    components: Heard,
    steps: usize,
    every: u64,
    epoch: usize,
}

/// What Burn may have to say.
struct Heard {
    interrupter: Interrupter,
    early_stopping: Option<Box<dyn CloneEarlyStoppingStrategy>>,
    store: Arc<EventStoreClient>,
}

impl Teller {
    fn new(components: TrainingComponents<Trainee>, job: &Job) -> Self {
        let heard = Heard {
            interrupter: components.interrupter,
            early_stopping: components.early_stopping,
            store: components.event_store,
        };
        let every = job.plan.every;
        let epoch = (job.state.step / every) as usize + 1;
        let steps = job.plan.schedule.steps;
        let mut teller =
            Self { processor: components.event_processor, components: heard, steps, every, epoch };
        teller.start_epoch(job.state.step);
        teller
    }

    fn train(&mut self, event: LearnerEvent<Outcome>) {
        let told = self.processor.process_train(event);
        self.components.interrupter.fail_on_error(told);
    }

    fn valid(&mut self, event: LearnerEvent<Outcome>) {
        let told = self.processor.process_valid(event);
        self.components.interrupter.fail_on_error(told);
    }

    fn start_epoch(&mut self, step: u64) {
        let total_items = self.every.min((self.steps as u64).saturating_sub(step)) as usize;
        self.train(LearnerEvent::StartSplit { epoch_number: self.epoch, total_items });
    }

    fn tell(&mut self, event: &Event) {
        match event {
            Event::Step(row) => {
                let (outcome, progress) = (outcome(row), self.progress(row.step));
                let rate = Some(row.rate.into());
                let item = TrainingItem::new(outcome, progress, Some(row.step as usize), rate);
                self.train(LearnerEvent::ProcessedItem(item));
            }
            Event::Validated(step, judged) => self.tell_valid(*step, judged),
            Event::Saved(_) => self.end_epoch(),
            _ => {}
        }
    }

    fn progress(&self, step: u64) -> Progress {
        let within = step.saturating_sub(1) % self.every + 1;
        Progress::new(within as usize, self.every as usize, Some("steps".to_owned()))
    }

    fn tell_valid(&mut self, step: u64, judged: &Measured) {
        self.train(LearnerEvent::EndSplit(self.epoch));
        self.valid(LearnerEvent::StartSplit { epoch_number: self.epoch, total_items: 1 });
        let progress = Progress::new(1, 1, Some("validations".to_owned()));
        let item = TrainingItem::new(judged_outcome(judged), progress, Some(step as usize), None);
        self.valid(LearnerEvent::ProcessedItem(item));
        self.valid(LearnerEvent::EndSplit(self.epoch));
    }

    /// A checkpoint ends what Burn calls an epoch.
    fn end_epoch(&mut self) {
        self.train(LearnerEvent::EndEpoch(self.epoch));
        if let Some(early) = &mut self.components.early_stopping {
            let told = self.processor.flush();
            self.components.interrupter.fail_on_error(told);
            if early.should_stop(self.epoch, &self.components.store) {
                self.components.interrupter.stop(Some("early stopping"));
            }
        }
        self.epoch += 1;
        self.start_epoch(self.every * (self.epoch as u64 - 1));
    }

    fn wants_to_stop(&self) -> bool {
        self.components.interrupter.should_stop()
    }

    fn finish(self) -> SupervisedTrainingEventProcessor<Trainee> {
        self.processor
    }
}

/// The numbers of a step as its micro-batches would have told them.
fn outcome(row: &Row) -> Outcome {
    let text = total(row.loss_text, row.supervised_text);
    let codes = total(row.loss_image, row.supervised - row.supervised_text);
    Outcome { report: Ok(Report { text, codes }), norm: row.grad_norm }
}

fn judged_outcome(judged: &Measured) -> Outcome {
    let text = total(judged.loss_text, judged.supervised_text);
    let codes = total(judged.loss_image, judged.supervised - judged.supervised_text);
    Outcome { report: Ok(Report { text, codes }), norm: None }
}

fn total(mean: Option<f64>, tokens: u64) -> Total {
    let sum = mean.unwrap_or(f64::NAN) * tokens as f64;
    Total { sum: if tokens == 0 { 0.0 } else { sum }, tokens: tokens as usize }
}

/// A loader that only tells how much there is.
struct Told(usize);

impl<T: 'static> DataLoader<T> for Told {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<T> + 'a> {
        Box::new(Nothing(self.0, PhantomData))
    }

    fn num_items(&self) -> usize {
        self.0
    }

    fn to_device(&self, _: &Device) -> Arc<dyn DataLoader<T>> {
        Arc::new(Self(self.0))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<T>> {
        Arc::new(Self(end.min(self.0).saturating_sub(start)))
    }
}

struct Nothing<T>(usize, PhantomData<T>);

impl<T> DataLoaderIterator<T> for Nothing<T> {
    fn progress(&self) -> Progress {
        Progress::new(0, self.0, None)
    }
}

impl<T> Iterator for Nothing<T> {
    type Item = Result<T, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}
