//! The step in the shape that Burn's learner calls.

use burn::optim::GradientsParams;
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

/// What became of a micro-batch. Burn's interface has no room for an error, so it travels inside;
/// gradients are then empty, and whoever drives the learner must look before the update.
#[derive(Debug)]
pub struct Outcome(pub Result<Report, StepError>);

impl ItemLazy for Outcome {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self) // plain numbers already
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
        TrainOutput { grads, item: Outcome(report) }
    }
}

impl InferenceStep for Trainee {
    type Input = Batch;
    type Output = Outcome;

    fn step(&self, batch: Batch) -> Outcome {
        Outcome(self.evaluate(&batch))
    }
}
