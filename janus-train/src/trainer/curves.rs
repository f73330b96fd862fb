//! Numbers of a step as Burn's metrics, for its dashboard, its event store and early stopping.

use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes,
    NumericEntry, SerializedEntry,
};

use crate::accumulate::Report;
use crate::learner::Outcome;

/// The numbers of a step, as a metric reads them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    report: Report,
    norm: Option<f64>,
}

impl Adaptor<Reading> for Outcome {
    fn adapt(&self) -> Reading {
        let report = self.report.as_ref().copied().unwrap_or_default();
        Reading { report, norm: self.norm }
    }
}

/// A curve; its mean over an epoch weighs every supervised token alike.
#[derive(Clone)]
pub struct Curve {
    name: MetricName,
    /// Value and tokens behind it, where the step had any.
    pick: fn(&Reading) -> Option<(f64, usize)>,
    state: NumericMetricState,
    /// Whether the last step had a value.
    fresh: bool,
}

impl Curve {
    /// Mean loss over all supervised tokens. Early stopping finds it by this name.
    pub fn loss() -> Self {
        Self::new("Loss", |reading| {
            let total = reading.report.joined();
            Some((total.mean()?, total.tokens))
        })
    }

    /// Over words.
    pub fn text() -> Self {
        Self::new("Loss of words", |reading| {
            Some((reading.report.text.mean()?, reading.report.text.tokens))
        })
    }

    /// Over image codes.
    pub fn codes() -> Self {
        Self::new("Loss of image codes", |reading| {
            Some((reading.report.codes.mean()?, reading.report.codes.tokens))
        })
    }

    /// Norm of all gradients before clipping.
    pub fn norm() -> Self {
        Self::new("Gradient norm", |reading| Some((reading.norm?, 1)))
    }

    fn new(name: &str, pick: fn(&Reading) -> Option<(f64, usize)>) -> Self {
        Self {
            name: Arc::new(name.to_owned()),
            pick,
            state: NumericMetricState::new(),
            fresh: false,
        }
    }

    fn format(&self) -> FormatOptions {
        FormatOptions::new(self.name()).precision(4)
    }
}

impl Metric for Curve {
    type Input = Reading;

    fn name(&self) -> MetricName {
        Arc::clone(&self.name)
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: false }.into()
    }

    fn update(
        &mut self,
        reading: &Reading,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let picked = (self.pick)(reading);
        self.fresh = picked.is_some();
        Ok(match picked {
            Some((value, tokens)) => {
                self.state.update(value, tokens);
                self.state.compute_update(self.format())
            }
            None => SerializedEntry::not_available(None),
        })
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(self.format()))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for Curve {
    fn value(&self) -> Option<NumericEntry> {
        self.fresh.then(|| self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}
