//! Where a run stands in its data: all the state there is.

use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::source::Source;

/// Where a run stands in its data. Everything else follows from it and from the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Steps taken.
    pub step: u64,
    /// Each source, in the order of the list.
    pub sources: Vec<SourceCursor>,
}

/// Where a run stands in one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCursor {
    /// The source's name and kind, for messages.
    pub name: String,
    /// Of its files.
    pub fingerprint: String,
    /// Of everything that chance decides.
    pub seed: u64,
    /// Epochs finished.
    pub epoch: u64,
    /// Samples of this epoch that were used or found bad.
    pub position: u64,
    /// Samples used in all.
    pub taken: u64,
    /// Bad samples of this epoch.
    pub bad: u64,
}

impl SourceCursor {
    /// The beginning.
    pub(super) fn start(source: &Source) -> Self {
        let name = format!("{} ({})", source.name(), source.kind());
        let (fingerprint, seed) = (source.fingerprint(), source.seed());
        Self { name, fingerprint, seed, epoch: 0, position: 0, taken: 0, bad: 0 }
    }

    /// One position further in a source of `len` samples.
    pub(super) fn advance(&mut self, len: u64) {
        (self.epoch, self.position) = next(self.epoch, self.position, len);
        if self.position == 0 {
            self.bad = 0;
        }
    }
}

/// The position after one.
pub(super) fn next(epoch: u64, position: u64, len: u64) -> (u64, u64) {
    if position + 1 < len { (epoch, position + 1) } else { (epoch + 1, 0) }
}

impl Cursor {
    /// The beginning of all sources.
    pub(super) fn start<'a>(sources: impl Iterator<Item = &'a Source>) -> Self {
        Self { step: 0, sources: sources.map(SourceCursor::start).collect() }
    }

    /// The same place in sources of which `fresh` is the beginning and `lens` the sizes.
    ///
    /// # Errors
    /// [`DataError::Changed`] unless the data are the same, or `changed` allows others.
    pub(super) fn onto(&self, fresh: Self, lens: &[u64], changed: bool) -> Result<Self, DataError> {
        let same = self.check(&fresh);
        if !changed || self.sources.len() != fresh.sources.len() {
            same?;
        }
        let mut cursor = self.clone();
        for ((at, fresh), len) in cursor.sources.iter_mut().zip(fresh.sources).zip(lens) {
            (at.name, at.fingerprint, at.seed) = (fresh.name, fresh.fingerprint, fresh.seed);
            if at.position >= *len {
                // Of data that became fewer.
                (at.epoch, at.position, at.bad) = (at.epoch + 1, 0, 0);
            }
        }
        Ok(cursor)
    }

    /// Whether the data are those that `self` was taken from; `fresh` is their beginning.
    ///
    /// # Errors
    /// [`DataError::Changed`] with what differs.
    pub(super) fn check(&self, fresh: &Self) -> Result<(), DataError> {
        let changed = |problem: String| Err(DataError::Changed { problem });
        let (then, now) = (self.sources.len(), fresh.sources.len());
        if then != now {
            return changed(format!("{then} sources then, {now} now"));
        }
        for (then, now) in self.sources.iter().zip(&fresh.sources) {
            if then.name != now.name {
                return changed(format!("{} then, {} now", then.name, now.name));
            }
            if then.seed != now.seed {
                return changed(format!("{}: another seed, so another order", then.name));
            }
            if then.fingerprint != now.fingerprint {
                let short = |hash: &str| hash.chars().take(12).collect::<String>();
                let (then_hash, now_hash) = (short(&then.fingerprint), short(&now.fingerprint));
                return changed(format!("{}: {then_hash} then, {now_hash} now", then.name));
            }
        }
        Ok(())
    }
}
