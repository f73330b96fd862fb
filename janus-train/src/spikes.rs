//! Steps that would do harm, told from loss and gradient norm before the weights have moved.
//!
//! A number that is none never reaches the weights. A loss or norm far above those of the last
//! good steps is left out, too: one broken batch can undo days. Where that happens again and
//! again, something else is wrong, and the run stops.
//!
//! A pure state machine: [`Guard::judge`] sees numbers and answers; it is saved with the run, so
//! that a resumed run judges as an uninterrupted one.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{GuardConfig, OnNan};
use crate::run::state::exact_list;

/// Share of the mean that a deviation counts for at least: losses that are all but equal would
/// make every other one a spike.
const LEAST_DEVIATION: f64 = 1e-3;

/// What a step is compared with, and what was left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    config: GuardConfig,
    /// Losses of the last good steps.
    #[serde(with = "exact_list")]
    losses: VecDeque<f64>,
    /// Their gradient norms, before clipping.
    #[serde(with = "exact_list")]
    norms: VecDeque<f64>,
    /// Steps left out, as far back as they count.
    skipped: VecDeque<u64>,
    /// Steps not to be tried again after going back.
    banned: BTreeSet<u64>,
    /// How many were left out since the run began.
    total: u64,
}

/// What to do with a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Use it.
    Take,
    /// Leave weights and moments as they are, and go on with the next.
    Skip(Reason),
    /// Go back to the last checkpoint, see [`Guard::back_to`].
    Rollback(Reason),
    /// End the run, and tell what was in the batch.
    Stop(Reason),
}

/// Why a step is not used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// The loss, or the gradient's norm, is no number.
    NotFinite {
        /// Which of them.
        what: &'static str,
    },
    /// It is far above the others.
    Spike {
        /// Loss or norm.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The mean of the window.
        mean: f64,
        /// How many standard deviations lie between.
        sigmas: f64,
    },
    /// It was the cause of going back.
    Banned,
    /// Too many were left out.
    TooMany {
        /// How many …
        skips: usize,
        /// … within so many steps.
        within: usize,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { what } => write!(f, "{what} is not a number"),
            Self::Spike { what, value, mean, sigmas } => write!(
                f,
                "{what} is {value:.4}, {sigmas:.1} standard deviations above the mean of {mean:.4}"
            ),
            Self::Banned => write!(f, "the run went back because of it"),
            Self::TooMany { skips, within } => {
                write!(f, "{skips} of the last {within} steps had to be left out")
            }
        }
    }
}

impl Guard {
    /// A guard that has seen nothing yet.
    pub fn new(config: GuardConfig) -> Self {
        Self {
            config,
            losses: VecDeque::new(),
            norms: VecDeque::new(),
            skipped: VecDeque::new(),
            banned: BTreeSet::new(),
            total: 0,
        }
    }

    /// The same memory under other settings.
    #[must_use]
    pub fn with_config(mut self, config: GuardConfig) -> Self {
        self.config = config;
        self.shorten();
        self
    }

    /// How many steps were left out since the run began.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether a step need not even be computed.
    pub fn is_banned(&self, step: u64) -> bool {
        self.banned.contains(&step)
    }

    /// The guard of a checkpoint that the run goes back to because of `step`, which is left out
    /// when it comes again. What was left out since is not forgotten: the run must not go in
    /// circles.
    #[must_use]
    pub fn back_to(mut self, past: Self, step: u64) -> Self {
        self.banned.insert(step);
        Self { losses: past.losses, norms: past.norms, ..self }
    }

    /// Judges the step counted from 0 by its mean loss and the norm of its gradients before
    /// clipping. Steps come in order, each once.
    pub fn judge(&mut self, step: u64, loss: f64, norm: f64) -> Verdict {
        let reason = match self.problem(step, loss, norm) {
            None => {
                self.losses.push_back(loss);
                self.norms.push_back(norm);
                self.shorten();
                // Left out before the run stopped, and good with other data or settings.
                if self.skipped.contains(&step) {
                    self.skipped.retain(|skipped| *skipped != step);
                    self.total -= 1;
                }
                return Verdict::Take;
            }
            Some(reason) => reason,
        };
        // One that comes again is no other one.
        if !self.skipped.contains(&step) {
            self.total += 1;
            self.skipped.push_back(step);
        }
        if matches!(reason, Reason::NotFinite { .. }) && self.config.on_nan == OnNan::Stop {
            return Verdict::Stop(reason);
        }
        let GuardConfig { skips, within, .. } = self.config;
        let oldest = (step + 1).saturating_sub(within as u64);
        self.skipped.retain(|skipped| *skipped >= oldest);
        if self.skipped.len() >= skips {
            return Verdict::Stop(Reason::TooMany { skips: self.skipped.len(), within });
        }
        match (reason, self.config.on_nan) {
            (Reason::NotFinite { .. }, OnNan::Rollback) => Verdict::Rollback(reason),
            _ => Verdict::Skip(reason),
        }
    }

    fn problem(&self, step: u64, loss: f64, norm: f64) -> Option<Reason> {
        if self.is_banned(step) {
            return Some(Reason::Banned);
        }
        let both = [("the loss", loss, &self.losses), ("the gradient's norm", norm, &self.norms)];
        if let Some((what, ..)) = both.into_iter().find(|(_, value, _)| !value.is_finite()) {
            return Some(Reason::NotFinite { what });
        }
        both.into_iter().find_map(|(what, value, window)| self.spike(what, value, window))
    }

    /// Only a full window can tell what is usual.
    fn spike(&self, what: &'static str, value: f64, window: &VecDeque<f64>) -> Option<Reason> {
        if window.len() < self.config.window {
            return None;
        }
        let count = window.len() as f64;
        let mean = window.iter().sum::<f64>() / count;
        let variance = window.iter().map(|past| (past - mean).powi(2)).sum::<f64>() / count;
        let deviation = variance.sqrt().max(LEAST_DEVIATION * mean.abs()).max(f64::MIN_POSITIVE);
        let sigmas = (value - mean) / deviation;
        (sigmas > self.config.sigma).then_some(Reason::Spike { what, value, mean, sigmas })
    }

    fn shorten(&mut self) {
        for window in [&mut self.losses, &mut self.norms] {
            let excess = window.len().saturating_sub(self.config.window);
            window.drain(..excess);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CONFIG: GuardConfig =
        GuardConfig { window: 128, sigma: 6.0, skips: 3, within: 10, on_nan: OnNan::Skip };

    /// A guard that has seen `steps` losses of 2 ± 0.1 and norms of 1 ± 0.05.
    fn seen(steps: u64, config: GuardConfig) -> Guard {
        let mut guard = Guard::new(config);
        for step in 0..steps {
            let sign = if step.is_multiple_of(2) { 1.0 } else { -1.0 };
            let verdict = guard.judge(step, 2.0 + 0.1 * sign, 1.0 + 0.05 * sign);
            assert_eq!(verdict, Verdict::Take, "step {step}");
        }
        guard
    }

    fn skips(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Skip(_))
    }

    #[test]
    fn what_is_no_number_is_never_taken() {
        for (loss, norm, what) in [
            (f64::NAN, 1.0, "the loss"),
            (f64::INFINITY, 1.0, "the loss"),
            (2.0, f64::NAN, "the gradient's norm"),
            (2.0, f64::NEG_INFINITY, "the gradient's norm"),
        ] {
            // From the very first step on.
            for steps in [0, 200] {
                let mut guard = seen(steps, CONFIG);
                let before = guard.losses.clone();
                let verdict = guard.judge(steps, loss, norm);
                assert_eq!(verdict, Verdict::Skip(Reason::NotFinite { what }));
                assert_eq!(guard.losses, before, "it does not enter the window");
                assert_eq!(guard.total(), 1);
            }
        }
    }

    /// σ is 0.1: 2.599 lies below 6σ, 2.601 above.
    #[test]
    fn six_deviations_are_the_border_and_falling_is_fine() {
        assert_eq!(seen(128, CONFIG).judge(128, 2.599, 1.0), Verdict::Take);
        let verdict = seen(128, CONFIG).judge(128, 2.601, 1.0);
        let Verdict::Skip(Reason::Spike { what: "the loss", mean, sigmas, .. }) = verdict else {
            panic!("{verdict:?}")
        };
        assert!((mean - 2.0).abs() < 1e-9 && (sigmas - 6.01).abs() < 1e-6);
        assert!(skips(&seen(128, CONFIG).judge(128, 2.0, 1.31)), "the norm counts, too");
        assert_eq!(seen(128, CONFIG).judge(128, 0.0, 0.0), Verdict::Take);
    }

    #[test]
    fn a_window_that_is_not_full_knows_nothing() {
        assert_eq!(seen(127, CONFIG).judge(127, 200.0, 1.0), Verdict::Take);
        assert!(skips(&seen(128, CONFIG).judge(128, 200.0, 1.0)));
    }

    #[test]
    fn equal_losses_do_not_make_noise_a_spike() {
        let mut guard = Guard::new(CONFIG);
        (0..128).for_each(|step| assert_eq!(guard.judge(step, 2.0, 1.0), Verdict::Take));
        assert_eq!(guard.judge(128, 2.01, 1.0), Verdict::Take);
        assert!(skips(&guard.judge(129, 2.1, 1.0)));
        let mut zero = Guard::new(CONFIG);
        (0..128).for_each(|step| assert_eq!(zero.judge(step, 0.0, 0.0), Verdict::Take));
        assert_eq!(zero.judge(128, 0.0, 0.0), Verdict::Take);
    }

    #[test]
    fn the_window_moves_on() {
        let mut guard = seen(128, CONFIG);
        // Half a deviation per window, for ever.
        for step in 128..2000_u64 {
            let drift =
                2.0 + (step - 128) as f64 * 4e-4 + if step.is_multiple_of(2) { 0.1 } else { -0.1 };
            assert_eq!(guard.judge(step, drift, 1.0), Verdict::Take, "step {step}");
        }
        assert_eq!(guard.losses.len(), 128);
    }

    #[test]
    fn too_many_end_the_run_and_old_ones_are_forgotten() {
        let mut guard = seen(128, CONFIG);
        assert!(skips(&guard.judge(128, f64::NAN, 1.0)));
        assert!(skips(&guard.judge(129, f64::NAN, 1.0)));
        for step in 130..138 {
            assert_eq!(guard.judge(step, 2.0, 1.0), Verdict::Take);
        }
        // 128 is out of the last ten steps now, 129 is not.
        assert!(skips(&guard.judge(138, f64::NAN, 1.0)));
        let verdict = guard.judge(139, f64::NAN, 1.0);
        assert!(skips(&verdict), "129 is out by now: {verdict:?}");
        let verdict = guard.judge(140, 500.0, 1.0);
        assert_eq!(verdict, Verdict::Stop(Reason::TooMany { skips: 3, within: 10 }));
        assert_eq!(guard.total(), 5);
    }

    #[test]
    fn a_step_that_comes_again_counts_as_it_comes_out() {
        let mut guard = seen(128, CONFIG);
        assert!(skips(&guard.judge(128, f64::NAN, 1.0)));
        assert!(skips(&guard.judge(128, f64::NAN, 1.0)));
        assert_eq!(guard.total(), 1);
        assert_eq!(guard.judge(128, 2.0, 1.0), Verdict::Take);
        assert_eq!((guard.total(), guard.skipped.len()), (0, 0));
    }

    #[test]
    fn on_nan_decides() {
        let with = |on_nan| seen(128, GuardConfig { on_nan, ..CONFIG }).judge(128, f64::NAN, 1.0);
        let reason = Reason::NotFinite { what: "the loss" };
        assert_eq!(with(OnNan::Skip), Verdict::Skip(reason));
        assert_eq!(with(OnNan::Rollback), Verdict::Rollback(reason));
        assert_eq!(with(OnNan::Stop), Verdict::Stop(reason));
        let spike = seen(128, GuardConfig { on_nan: OnNan::Stop, ..CONFIG }).judge(128, 99.0, 1.0);
        assert!(skips(&spike), "a spike is a number");
    }

    #[test]
    fn a_banned_step_is_left_out_whatever_it_says() {
        let past = seen(128, CONFIG);
        let mut now = past.clone();
        assert_eq!(now.judge(128, 2.3, 1.0), Verdict::Take);
        assert!(skips(&now.judge(129, f64::NAN, 1.0)));
        let mut guard = now.back_to(past.clone(), 129);
        assert_eq!(guard.losses, past.losses, "judged as at the checkpoint");
        assert_eq!(guard.judge(128, 2.3, 1.0), Verdict::Take);
        assert!(guard.is_banned(129) && !guard.is_banned(128));
        assert_eq!(guard.judge(129, 2.0, 1.0), Verdict::Skip(Reason::Banned));
        assert_eq!(guard.total(), 1, "the same step twice is one step");
        assert!(skips(&guard.judge(130, f64::NAN, 1.0)));
        assert!(matches!(guard.judge(131, f64::NAN, 1.0), Verdict::Stop(_)), "129 still counts");
    }

    #[test]
    fn a_saved_guard_judges_on() {
        let mut guard = seen(150, CONFIG);
        guard.judge(150, 0.1 + 0.2, 1.0 / 3.0);
        guard.judge(151, f64::NAN, 1.0);
        let past = guard.clone();
        guard = guard.back_to(past, 160);
        let text = serde_json::to_string(&guard).unwrap();
        let mut read: Guard = serde_json::from_str(&text).unwrap();
        assert_eq!(read, guard);
        for (step, loss) in (152..).zip([2.0, 2.7, f64::NAN, 1.9]) {
            assert_eq!(read.judge(step, loss, 1.0), guard.judge(step, loss, 1.0));
        }
        assert_eq!(read, guard);
        assert_eq!(guard.with_config(GuardConfig { window: 8, ..CONFIG }).losses.len(), 8);
    }

    #[test]
    fn reasons_read_well() {
        let spike = Reason::Spike { what: "the loss", value: 9.0, mean: 2.0, sigmas: 70.04 };
        assert_eq!(
            spike.to_string(),
            "the loss is 9.0000, 70.0 standard deviations above the mean of 2.0000"
        );
        assert_eq!(Reason::NotFinite { what: "the loss" }.to_string(), "the loss is not a number");
    }
}
