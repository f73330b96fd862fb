//! What happens to samples that cannot be used: named, counted, and at some number the end.

use serde::{Deserialize, Serialize};

use super::error::{Bad, DataError};

/// How many names an error shows.
const NAMED: usize = 5;
/// How many are remembered for that.
const REMEMBERED: usize = 20;

/// What to do about bad samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBad {
    /// Leave them out, however many.
    Skip,
    /// Leave a few out, then stop.
    Stop {
        /// How many may be bad, as a share of the source's samples.
        share: f64,
        /// How many may be bad in any case.
        count: u64,
    },
}

impl Default for OnBad {
    fn default() -> Self {
        Self::Stop { share: 0.001, count: 0 }
    }
}

impl OnBad {
    /// How many samples of a source may be bad in one epoch.
    pub fn allowed(self, samples: u64) -> u64 {
        match self {
            Self::Skip => u64::MAX,
            Self::Stop { share, count } => count.max((samples as f64 * share) as u64),
        }
    }
}

/// The bad samples of one source.
#[derive(Debug, Default)]
pub struct Ledger {
    named: Vec<String>,
    in_a_row: u64,
}

impl Ledger {
    /// Enters a bad sample; `bad` counts those of this epoch, this one included.
    ///
    /// # Errors
    /// [`DataError::TooManyBad`]; [`DataError::AllBad`] once a whole epoch had nothing else.
    pub fn enter(
        &mut self,
        sample: &Bad,
        source_name: &str,
        (bad, samples): (u64, u64),
        on_bad: OnBad,
    ) -> Result<(), DataError> {
        if self.named.len() < REMEMBERED {
            self.named.push(sample.to_string());
        }
        self.in_a_row += 1;
        let first = || {
            let first: Vec<&str> = self.named.iter().take(NAMED).map(String::as_str).collect();
            first.join("; ")
        };
        let source_name = source_name.to_owned();
        let allowed = on_bad.allowed(samples);
        if self.in_a_row >= samples {
            return Err(DataError::AllBad { source_name, samples, first: first() });
        }
        if bad > allowed {
            let first = first();
            return Err(DataError::TooManyBad { source_name, bad, samples, allowed, first });
        }
        Ok(())
    }

    /// A good sample came.
    pub fn good(&mut self) {
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::error::{At, Place, Why};
    use super::*;

    fn bad(line: u64) -> Bad {
        let place = Place { file: Path::new("d.jsonl").into(), at: At::Line(line) };
        Bad { place, why: Why::Empty("the answer") }
    }

    #[test]
    fn one_in_a_thousand_is_allowed_and_then_named() {
        let mut ledger = Ledger::default();
        let on_bad = OnBad::default();
        assert_eq!((on_bad.allowed(999), on_bad.allowed(2000)), (0, 2));
        ledger.enter(&bad(3), "d", (1, 2000), on_bad).unwrap();
        ledger.good();
        ledger.enter(&bad(7), "d", (2, 2000), on_bad).unwrap();
        let error = ledger.enter(&bad(9), "d", (3, 2000), on_bad).unwrap_err();
        assert_eq!(
            error.to_string(),
            "3 of 2000 samples of d are bad, 2 may be; first: d.jsonl:3: the answer is empty; \
             d.jsonl:7: the answer is empty; d.jsonl:9: the answer is empty"
        );
        assert!(error.hint().unwrap().contains("--on-bad-sample skip"));
    }

    #[test]
    fn skipping_ends_only_where_nothing_is_left() {
        let mut ledger = Ledger::default();
        for n in 1..3 {
            ledger.enter(&bad(n), "d", (n, 3), OnBad::Skip).unwrap();
        }
        let error = ledger.enter(&bad(3), "d", (3, 3), OnBad::Skip).unwrap_err();
        assert!(matches!(error, DataError::AllBad { samples: 3, .. }));
    }
}
