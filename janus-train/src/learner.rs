//! The step in the shape that Burn's learner calls.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, OptimizerRecord};
use burn::tensor::ExecutionError;
use burn::train::metric::ItemLazy;
use burn::train::{InferenceStep, TrainOutput, TrainStep};

use crate::accumulate::Report;
use crate::batch::Batch;
use crate::step::{StepError, Trainee};

/// One micro-batch, and how many tokens the whole optimizer step supervises: gradients of the
/// micro-batches of a step then simply add up.
#[derive(Clone, Debug)]
pub struct Micro {
    /// The micro-batch.
    pub batch: Batch,
    /// Supervised tokens of all micro-batches of the step.
    pub total: usize,
}

/// What became of a micro-batch, or of all those of a step together. Burn's interface has no room
/// for an error, so it travels inside; gradients are then empty, and whoever drives the learner
/// must look before the update.
#[derive(Debug)]
pub struct Outcome {
    /// Losses.
    pub report: Result<Report, StepError>,
    /// Norm of all gradients of a whole step, before clipping.
    pub norm: Option<f64>,
}

impl From<Result<Report, StepError>> for Outcome {
    fn from(report: Result<Report, StepError>) -> Self {
        Self { report, norm: None }
    }
}

impl ItemLazy for Outcome {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self) // plain numbers already
    }
}

/// A window into the optimizer. Burn's learner keeps it to itself and shows it to nobody but its
/// model, and there only during an update.
#[derive(Clone, Default)]
pub struct Window(Arc<Mutex<View>>);

#[derive(Default)]
enum View {
    /// Updates are updates.
    #[default]
    Closed,
    /// The next update is none: it only shows the record.
    Open,
    /// The record.
    Shown(OptimizerRecord),
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Window")
    }
}

impl Window {
    fn swap(&self, view: View) -> View {
        std::mem::replace(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), view)
    }

    /// What `update` shows of the optimizer, which it leaves as it is.
    pub fn look(&self, update: impl FnOnce()) -> Option<OptimizerRecord> {
        self.swap(View::Open);
        update();
        match self.swap(View::Closed) {
            View::Shown(record) => Some(record),
            _ => None,
        }
    }

    /// Called by an update; whether it should not be one.
    fn show(&self, optimizer: &ModuleOptimizer) -> bool {
        let open = matches!(
            *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            View::Open | View::Shown(_)
        );
        if open {
            self.swap(View::Shown(optimizer.to_record()));
        }
        open
    }
}

impl TrainStep for Trainee {
    type Input = Micro;
    type Output = Outcome;

    fn step(&self, micro: Micro) -> TrainOutput<Outcome> {
        let (grads, report) = match self.micro_step(&micro.batch, micro.total) {
            Ok((gradients, losses)) => {
                let mut report = Report::default();
                report.add(losses);
                (gradients, Ok(report))
            }
            Err(error) => (GradientsParams::new(), Err(error)),
        };
        TrainOutput { grads, item: report.into() }
    }

    fn optimize(
        self,
        optimizer: &mut ModuleOptimizer,
        rate: ModuleLearningRate,
        gradients: GradientsParams,
    ) -> Self {
        match self.window().show(optimizer) {
            true => self,
            false => optimizer.step(rate, self, gradients),
        }
    }
}

impl InferenceStep for Trainee {
    type Input = Batch;
    type Output = Outcome;

    fn step(&self, batch: Batch) -> Outcome {
        self.evaluate(&batch).into()
    }
}
