//! Everything of a run that is neither weights nor moments, as of a finished step.
//!
//! Chance needs no entry: every random number derives from the seed and the step. The time a run
//! has taken is not in here either but in its metrics, so that two runs that did the same have the
//! same bytes.

use serde::{Deserialize, Serialize};

use crate::spikes::Guard;

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Optimizer steps done, left-out ones included.
    pub step: u64,
    /// Number that all chance derives from.
    pub seed: u64,
    /// Learning rate of the last step.
    #[serde(with = "exact")]
    pub rate: f64,
    /// Where each source of data stands, in the words of the loader.
    pub cursors: serde_json::Value,
    /// What the guard remembers of the last steps.
    pub guard: Guard,
    /// The best validation loss so far.
    pub best: Option<Best>,
}

/// The best validation loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// When.
    pub step: u64,
    /// How low.
    #[serde(with = "exact")]
    pub loss: f64,
}

impl State {
    /// The state of a run that has not begun.
    pub fn new(seed: u64, guard: Guard) -> Self {
        Self { step: 0, seed, rate: 0.0, cursors: serde_json::Value::Null, guard, best: None }
    }

    /// As bytes; equal states have equal bytes.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and maps always serialise.
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

/// Floats as text: what a JSON reader makes of a number may differ in the last bit.
pub(crate) mod exact {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Lists of floats as one text each, see [`exact`].
pub(crate) mod exact_list {
    use std::collections::VecDeque;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        values: &VecDeque<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(f64::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<VecDeque<f64>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}
