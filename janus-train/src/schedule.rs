//! Learning rate by optimizer step: a linear warm-up, then constant or cosine.
//!
//! Janus-Pro keeps the rate constant in all stages (technical report, table 2); the original
//! Janus used a cosine in stage 1. The shape of the warm-up is not published; linear is assumed.

use serde::{Deserialize, Serialize};

/// What follows the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// The peak rate for ever.
    Constant,
    /// Half a cosine from the peak to zero at the last step.
    Cosine,
}

/// A learning-rate schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Highest rate.
    pub peak: f64,
    /// Steps of the warm-up; 0 starts at the peak.
    pub warmup: usize,
    /// Steps of the whole stage.
    pub steps: usize,
    /// After the warm-up.
    pub shape: Shape,
}

impl Schedule {
    /// Stage 1, 2 or 3 of Janus-Pro; the 7B model ends stage 3 after half the steps.
    ///
    /// Stage 2 was planned for 360,000 steps and stopped at 270,000.
    pub fn janus_pro(stage: usize, seven_billion: bool) -> Option<Self> {
        let last = if seven_billion { 40_000 } else { 80_000 };
        let (peak, warmup, steps) = match stage {
            1 => (1e-3, 600, 20_000),
            2 => (1e-4, 5_000, 270_000),
            3 => (4e-5, 0, last),
            _ => return None,
        };
        Some(Self { peak, warmup, steps, shape: Shape::Constant })
    }

    /// The rate of step `step`, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        match self.shape {
            Shape::Constant => self.peak,
            Shape::Cosine => {
                let rest = self.steps.saturating_sub(self.warmup).max(1) as f64;
                let done = ((step - self.warmup) as f64 / rest).min(1.0);
                self.peak * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn stage_one_warms_up_and_stays() {
        let schedule = Schedule::janus_pro(1, false).unwrap();
        assert_eq!(schedule.rate(0), 1e-3 / 600.0);
        assert_eq!(schedule.rate(599), 1e-3);
        assert_eq!(schedule.rate(19_999), 1e-3);
    }

    #[test]
    fn a_cosine_ends_at_zero() {
        let schedule = Schedule { peak: 1.0, warmup: 10, steps: 110, shape: Shape::Cosine };
        assert_eq!(schedule.rate(10), 1.0);
        assert!((schedule.rate(60) - 0.5).abs() < 1e-12);
        assert!(schedule.rate(110).abs() < 1e-12 && schedule.rate(500).abs() < 1e-12);
    }

    #[test]
    fn there_are_three_stages() {
        assert!(Schedule::janus_pro(0, false).is_none() && Schedule::janus_pro(4, true).is_none());
        assert_eq!(Schedule::janus_pro(3, true).unwrap().steps, 40_000);
    }
}
