//! Which checkpoints stay.

use std::collections::BTreeSet;

use super::manifest::glance;
use super::{Run, RunError, files, step_name};

/// What is kept, besides nothing ever being deleted before a newer one was read back whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How many of the newest: at least two, or 0 for all.
    pub last: usize,
    /// How many of the lowest validation loss, too.
    pub best: usize,
    /// And those whose step is a multiple of this; 0 for none.
    pub every: u64,
}

impl From<crate::config::SaveConfig> for Keep {
    fn from(save: crate::config::SaveConfig) -> Self {
        Self { last: save.keep, best: save.best, every: save.keep_every as u64 }
    }
}

impl Keep {
    /// # Errors
    /// A single checkpoint would be kept: if it is damaged, all is lost.
    pub(super) fn check(self) -> Result<(), RunError> {
        if self.last == 1 { Err(RunError::Keep(1)) } else { Ok(()) }
    }

    /// Of whole checkpoints (step and validation loss, in order of steps), the steps that stay.
    fn staying(self, whole: &[(u64, Option<f64>)]) -> BTreeSet<u64> {
        let steps = whole.iter().map(|(step, _)| *step);
        if self.last == 0 {
            return steps.collect();
        }
        let mut staying: BTreeSet<u64> = steps.clone().rev().take(self.last).collect();
        staying.extend(steps.filter(|step| self.every > 0 && step.is_multiple_of(self.every)));
        let mut measured: Vec<_> =
            whole.iter().filter_map(|(step, loss)| loss.map(|loss| (loss, *step))).collect();
        // Of equal ones the newer.
        measured.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        staying.extend(measured.into_iter().take(self.best).map(|(_, step)| step));
        staying
    }
}

impl Run {
    /// Removes what need not stay. Only called after the newest checkpoint was read in full; those
    /// found `damaged` stay as they are until a newer one was written.
    pub(super) fn prune(&mut self, damaged_too: bool) -> Result<Vec<u64>, RunError> {
        let mut whole = Vec::new();
        let mut removed = Vec::new();
        for step in super::steps(&self.dir)? {
            let damaged = self.damaged.contains(&step);
            match glance(&self.ckpt().join(step_name(step))).filter(|_| !damaged) {
                Some(manifest) => whole.push((step, manifest.loss)),
                // A newer release's, or unreadable: not ours to judge, unless it was judged.
                None if !damaged || !damaged_too => {}
                None => removed.push(step),
            }
        }
        let staying = self.keep.staying(&whole);
        removed.extend(whole.iter().map(|(step, _)| *step).filter(|step| !staying.contains(step)));
        for step in &removed {
            self.discard(*step)?;
            self.damaged.remove(step);
        }
        Ok(removed)
    }

    /// Takes a checkpoint's name away before its files, so that no half of it is ever seen.
    pub(super) fn discard(&self, step: u64) -> Result<(), RunError> {
        let folder = self.ckpt().join(step_name(step));
        let aside = self.ckpt().join(format!(".{}.tmp-{}", step_name(step), std::process::id()));
        files::remove(&aside)?;
        std::fs::rename(&folder, &aside).map_err(|error| RunError::io(&folder, "remove", error))?;
        crate::failpoint::reached("removing");
        files::remove(&aside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [(u64, Option<f64>); 6] = [
        (10, Some(3.0)),
        (20, Some(1.0)),
        (30, None),
        (40, Some(2.0)),
        (50, Some(2.0)),
        (60, None),
    ];

    fn staying(last: usize, best: usize, every: u64) -> Vec<u64> {
        Keep { last, best, every }.staying(&WHOLE).into_iter().collect()
    }

    #[test]
    fn the_newest_the_best_and_every_nth_stay() {
        assert_eq!(staying(0, 0, 0), [10, 20, 30, 40, 50, 60]);
        assert_eq!(staying(2, 0, 0), [50, 60]);
        assert_eq!(staying(3, 0, 0), [40, 50, 60]);
        assert_eq!(staying(2, 1, 0), [20, 50, 60]);
        assert_eq!(staying(2, 3, 0), [20, 40, 50, 60], "of 40 and 50 one is kept anyway");
        assert_eq!(staying(2, 0, 30), [30, 50, 60]);
        assert_eq!(staying(9, 9, 1), [10, 20, 30, 40, 50, 60]);
    }

    #[test]
    fn one_is_not_enough() {
        assert!(Keep { last: 1, best: 5, every: 1 }.check().is_err());
        for last in [0, 2, 3] {
            assert!(Keep { last, best: 0, every: 0 }.check().is_ok());
        }
    }

    #[test]
    fn of_equal_losses_the_newer_is_the_better() {
        let whole = [(1, Some(1.0)), (2, Some(1.0)), (3, None), (4, None)];
        let staying = Keep { last: 2, best: 1, every: 0 }.staying(&whole);
        assert_eq!(staying.into_iter().collect::<Vec<_>>(), [2, 3, 4]);
    }
}
