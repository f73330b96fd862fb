//! The gradients of one optimizer step, however it is cut into micro-batches.
//!
//! The loss is the mean over all supervised tokens of the step, so the number of them must be
//! known before the first backward: each micro-batch is divided by the whole, and gradients add
//! up. A mean of means would weigh the tokens of short micro-batches more.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams, LearningRate, ModuleOptimizer};

use crate::batch::{Batch, BatchError};
use crate::objective::Sum;
use crate::step::{Activations, Losses, StepError, Trainee};

/// Loss over some tokens, as plain numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Total {
    /// Cross-entropy summed, in nats.
    pub sum: f64,
    /// Supervised tokens.
    pub tokens: usize,
}

/// Loss of words and of image codes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Words.
    pub text: Total,
    /// Image codes.
    pub codes: Total,
}

impl Total {
    /// Loss per token; none where there was no token.
    pub fn mean(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.sum / self.tokens as f64)
    }

    fn add(&mut self, sum: Option<Sum>) {
        let Some(sum) = sum else { return };
        let loss = sum.loss.into_data().iter::<f32>().next();
        self.sum += loss.map_or(f64::NAN, f64::from);
        self.tokens += sum.tokens;
    }
}

impl Report {
    /// Counts the losses of one more micro-batch; reads them from the device.
    pub fn add(&mut self, losses: Losses) {
        self.text.add(losses.text);
        self.codes.add(losses.codes);
    }

    /// Counts another report.
    pub fn join(&mut self, other: Self) {
        for (total, more) in [(&mut self.text, other.text), (&mut self.codes, other.codes)] {
            total.sum += more.sum;
            total.tokens += more.tokens;
        }
    }

    /// Both together, every token counting the same.
    pub fn joined(&self) -> Total {
        Total { sum: self.text.sum + self.codes.sum, tokens: self.text.tokens + self.codes.tokens }
    }
}

impl Trainee {
    /// Gradients of the mean loss over all supervised tokens of `step`, and that loss.
    ///
    /// # Errors
    /// As [`Batch::check`] for every micro-batch, before any is computed, and when the model lacks
    /// a part. A step without micro-batches supervises nothing.
    pub fn gradients(&self, step: &[Batch]) -> Result<(GradientsParams, Report), StepError> {
        for batch in step {
            batch.check(self.janus.config())?;
        }
        let total = step.iter().map(Batch::supervised).sum();
        if total == 0 {
            return Err(BatchError::Unsupervised.into());
        }
        let mut gradients = GradientsAccumulator::new();
        let mut report = Report::default();
        for batch in step {
            let (new, losses) = self.micro_step(batch, total)?;
            gradients.accumulate(&self.janus, new);
            report.add(losses);
        }
        Ok((gradients.grads(), report))
    }

    /// Moves what trains by one optimizer step.
    pub fn update(
        self,
        optimizer: &mut ModuleOptimizer,
        rate: LearningRate,
        gradients: GradientsParams,
    ) -> Self {
        optimizer.step(rate, self, gradients)
    }

    /// Loss of a micro-batch without gradients, for evaluation.
    ///
    /// # Errors
    /// As [`Trainee::losses`].
    pub fn evaluate(&self, batch: &Batch) -> Result<Report, StepError> {
        let mut report = Report::default();
        report.add(self.valid().losses(batch)?);
        Ok(report)
    }

    /// Gradients of one micro-batch of a step that supervises `total` tokens, and its sums.
    ///
    /// # Errors
    /// As [`Trainee::losses`].
    pub fn micro_step(
        &self,
        batch: &Batch,
        total: usize,
    ) -> Result<(GradientsParams, Losses), StepError> {
        match self.activations() {
            Activations::Kept => {
                let losses = self.losses(batch)?;
                let mean = self.objective(losses.clone(), total);
                // Text alone reaches nothing that stage 1 trains.
                let gradients = match mean.is_tracked() {
                    true => GradientsParams::from_grads(mean.backward(), &self.janus),
                    false => GradientsParams::new(),
                };
                Ok((gradients, losses))
            }
            Activations::Recomputed => self.micro_step_in_blocks(batch, total),
        }
    }
}
