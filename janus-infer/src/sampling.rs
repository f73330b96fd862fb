//! One choice: logits in, an index out. Nothing else.
//!
//! Order of the steps, as in transformers: repetition penalty → temperature → top-k → top-p →
//! inverse of the cumulative distribution. Logits are f32, probabilities and their sums f64.
//!
//! Randomness has no state: the number for `(seed, stream, step)` is a pure function, so picture
//! `k` is the same whether one or sixteen are drawn together, and on every backend.
//!
//! Paper of top-p: <https://arxiv.org/abs/1904.09751>; of the repetition penalty:
//! <https://arxiv.org/abs/1909.05858>. Generator: Vigna's splitmix64, <https://prng.di.unimi.it>.

use std::cmp::Ordering;

use crate::error::InferError;

/// How one index is chosen from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it. 0 takes the highest one, the first among equals.
    pub temperature: f32,
    /// Only the `k` highest are considered; among equals the lower index.
    pub top_k: Option<usize>,
    /// Of those, only the fewest that together reach this share of the probability.
    pub top_p: Option<f32>,
    /// Logits of indices seen before are divided by it where positive, else multiplied.
    pub repetition_penalty: Option<f32>,
}

impl Default for Sampling {
    /// The whole distribution at temperature 1: what the reference draws pictures with.
    fn default() -> Self {
        Self { temperature: 1.0, ..Self::GREEDY }
    }
}

impl Sampling {
    /// Always the highest: what the reference answers questions with.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_k: None, top_p: None, repetition_penalty: None };

    /// Checks every value.
    ///
    /// # Errors
    /// [`InferError::Sampling`] naming the first field out of its range; NaN is in no range.
    pub fn validate(&self) -> Result<(), InferError> {
        let refuse =
            |field, value: String, range| Err(InferError::Sampling { field, value, range });
        if !(0.0..=1000.0).contains(&self.temperature) {
            return refuse("temperature", self.temperature.to_string(), "from 0 to 1000");
        }
        if self.top_k == Some(0) {
            return refuse("top_k", "0".into(), "at least 1");
        }
        if let Some(p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return refuse("top_p", p.to_string(), "above 0 and up to 1");
        }
        if let Some(p) = self.repetition_penalty.filter(|p| !(0.01..=100.0).contains(p)) {
            return refuse("repetition_penalty", p.to_string(), "from 0.01 to 100");
        }
        Ok(())
    }
}

/// The source of chance of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Chosen by the user.
    pub seed: u64,
    /// Number of the sequence under that seed: the picture's index.
    pub stream: u64,
}

impl Sampler {
    /// Chooses the index for one step.
    ///
    /// `logits` are one row, unnormalised; `step` counts the choices of this sequence from 0;
    /// `seen` are the indices that the repetition penalty concerns, in any order.
    ///
    /// # Errors
    /// [`InferError::Logits`] where one of them is NaN or infinite, or there is none.
    pub fn choose(
        &self,
        sampling: &Sampling,
        logits: &[f32],
        step: u64,
        seen: &[i32],
    ) -> Result<usize, InferError> {
        let problem = |problem| InferError::Logits { step, problem };
        if let Some(at) = logits.iter().position(|x| !x.is_finite()) {
            return Err(problem(format!("logit {at} is {}", logits[at])));
        }
        let penalised = sampling.repetition_penalty.map(|penalty| penalise(logits, seen, penalty));
        let logits = penalised.as_deref().unwrap_or(logits);
        let best = argmax(logits).ok_or_else(|| problem("there are no logits".into()))?;
        if sampling.temperature == 0.0 {
            return Ok(best);
        }
        let candidates = candidates(sampling, logits, logits[best]);
        Ok(pick(&candidates, uniform(self.seed, self.stream, step)).unwrap_or(best))
    }
}

/// Index of the first maximum.
fn argmax(logits: &[f32]) -> Option<usize> {
    let first_max = |best: usize, (i, x): (usize, &f32)| if *x > logits[best] { i } else { best };
    (!logits.is_empty()).then(|| logits.iter().enumerate().fold(0, first_max))
}

fn penalise(logits: &[f32], seen: &[i32], penalty: f32) -> Vec<f32> {
    let mut scores = logits.to_vec();
    for index in seen.iter().filter_map(|id| usize::try_from(*id).ok()) {
        // Read from the original: an index seen twice is penalised once.
        if let Some(x) = logits.get(index) {
            scores[index] = if *x > 0.0 { x / penalty } else { x * penalty };
        }
    }
    scores
}

/// An index, its logit, and its probability up to a common factor.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    index: usize,
    logit: f32,
    weight: f64,
}

/// Highest first; a total order, because no two indices are equal.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.index.cmp(&b.index))
}

/// What is left after temperature, top-k and top-p, in the order of the indices.
fn candidates(sampling: &Sampling, logits: &[f32], best: f32) -> Vec<Candidate> {
    let temperature = f64::from(sampling.temperature);
    let candidate = |(index, &logit): (usize, &f32)| {
        // The difference is at most 0, so no temperature however small can overflow.
        let weight = ((f64::from(logit) - f64::from(best)) / temperature).exp();
        Candidate { index, logit, weight }
    };
    let mut kept: Vec<Candidate> = logits.iter().enumerate().map(candidate).collect();
    let all = kept.len();
    if let Some(k) = sampling.top_k.filter(|k| *k < all) {
        kept.select_nth_unstable_by(k - 1, by_rank);
        kept.truncate(k);
    }
    if let Some(p) = sampling.top_p.filter(|p| *p < 1.0) {
        kept.sort_unstable_by(by_rank);
        let wanted = f64::from(p) * kept.iter().map(|c| c.weight).sum::<f64>();
        let mut reached = 0.0;
        let enough = kept.iter().position(|c| {
            reached += c.weight;
            reached >= wanted
        });
        kept.truncate(enough.map_or(kept.len(), |last| last + 1));
    }
    if kept.len() < all {
        kept.sort_unstable_by_key(|c| c.index);
    }
    kept
}

/// The candidate in whose share of the whole `uniform` (in [0, 1)) falls.
fn pick(candidates: &[Candidate], uniform: f64) -> Option<usize> {
    let target = uniform * candidates.iter().map(|c| c.weight).sum::<f64>();
    let mut reached = 0.0;
    let hit = candidates.iter().find(|c| {
        reached += c.weight;
        reached > target
    });
    // Rounding may leave the target at the very end: the last one that is possible at all.
    hit.or_else(|| candidates.iter().rfind(|c| c.weight > 0.0)).map(|c| c.index)
}

/// A number in [0, 1), a pure function of its arguments: three rounds of splitmix64, each fed
/// with one of them, and the upper 53 bits of the last.
pub fn uniform(seed: u64, stream: u64, step: u64) -> f64 {
    let bits = splitmix64(splitmix64(splitmix64(seed) ^ stream) ^ step);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// First output of Vigna's splitmix64 from the state `x`.
fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
