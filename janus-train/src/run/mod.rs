//! A run on disk: one folder that one process writes to, and that survives being killed.
//!
//! ```text
//! runs/x/LOCK                            held as long as a process trains here
//! runs/x/metrics.jsonl                   one line per step
//! runs/x/frozen/                         weights that never move, linked into every checkpoint
//! runs/x/ckpt/.step-000123.tmp-<pid>/    being written
//! runs/x/ckpt/step-000123/MANIFEST.json  what belongs to it, with sizes and hashes
//!                         state.json     where data, guard and rate stand
//!                         moments.bpk    what the optimizer remembers, by parameter path
//!                         model/         an ordinary model folder
//! runs/x/ckpt/latest -> step-000123
//! ```
//! A checkpoint appears at once or not at all: files are written below a name that nobody reads,
//! flushed, hashed, and read back; then the folder is renamed, then `latest` is replaced, and only
//! then may an older one go ([`Run::save`]). Going on reads from the newest to the oldest and takes
//! the first that is whole, saying why others were passed over ([`Run::resume`]). What is whole
//! but belongs to another model, stage, optimizer or other data is refused, never bent to fit.
//!
//! What always holds: from the first save on there is a checkpoint that was read back whole; nothing
//! is deleted before a newer one was; only the holder of the lock removes anything.
//!
//! Read: [`manifest`], [`commit`], [`resume`], [`keep`]; then [`model`] and [`moments`], the two
//! large parts of a checkpoint. Not here: when to save, and what is trained.

pub mod commit;
pub mod error;
pub mod keep;
pub mod manifest;
pub mod model;
pub mod moments;
pub mod resume;
pub mod state;

mod files;
mod lock;

#[cfg(all(test, unix))]
mod kill_tests;
#[cfg(test)]
mod samples;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use commit::{Saved, Staging, Ticket};
pub use error::{Damage, PassedOver, RunError};
pub(crate) use files::hex;
pub use keep::Keep;
pub use manifest::{Identity, Manifest, Role};
pub use resume::{Allow, Found, model_in, start_of};
pub use state::State;

use model::Frozen;

/// A run folder that is ours until this is dropped.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    keep: Keep,
    _lock: lock::Lock,
    /// Steps whose checkpoints were found damaged; they go once a newer one is whole.
    damaged: BTreeSet<u64>,
    /// Frozen weights, once they have been written by this process.
    frozen: Option<Frozen>,
    free_space: fn(&Path) -> Option<u64>,
}

impl Run {
    /// Opens or makes the folder, locks it, and removes what a killed process left unfinished.
    ///
    /// # Errors
    /// Another process trains here, the folder cannot be written to, or `keep` could leave no
    /// second checkpoint.
    pub fn open(dir: &Path, keep: Keep) -> Result<Self, RunError> {
        keep.check()?;
        let ckpt = dir.join("ckpt");
        std::fs::create_dir_all(&ckpt).map_err(|error| RunError::io(&ckpt, "create", error))?;
        let lock = lock::Lock::take(dir)?;
        let run = Self {
            dir: dir.to_owned(),
            keep,
            _lock: lock,
            damaged: BTreeSet::new(),
            frozen: None,
            free_space: files::free_space,
        };
        run.sweep()?;
        Ok(run)
    }

    /// The folder of the run.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the metrics of the run are kept.
    pub fn metrics_path(&self) -> PathBuf {
        self.dir.join("metrics.jsonl")
    }

    /// Asks another source for the bytes that may still be written.
    #[must_use]
    pub fn with_free_space(mut self, free_space: fn(&Path) -> Option<u64>) -> Self {
        self.free_space = free_space;
        self
    }

    /// Refuses to start a run whose second checkpoint would not fit.
    ///
    /// # Errors
    /// Less than 2.2 times `expected` bytes are free.
    pub fn preflight(&self, expected: u64) -> Result<(), RunError> {
        self.check_space(expected.saturating_mul(11) / 5)
    }

    /// Where `needed` bytes are known not to fit, says so before anything is written.
    fn check_space(&self, needed: u64) -> Result<(), RunError> {
        match (self.free_space)(&self.dir) {
            Some(free) if free < needed => {
                Err(RunError::Space { path: self.dir.clone(), needed, free })
            }
            _ => Ok(()),
        }
    }

    fn ckpt(&self) -> PathBuf {
        self.dir.join("ckpt")
    }

    /// Removes unfinished folders and links. The lock is ours: nobody is writing them.
    fn sweep(&self) -> Result<(), RunError> {
        for folder in [self.ckpt(), self.dir.clone()] {
            let list = |error| RunError::io(&folder, "list", error);
            for entry in std::fs::read_dir(&folder).map_err(list)? {
                let entry = entry.map_err(list)?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.starts_with('.') && name.contains(".tmp-") {
                    files::remove(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

/// The folder of a step.
pub(crate) fn step_name(step: u64) -> String {
    format!("step-{step:06}")
}

/// Steps that have a folder, in order; unfinished ones do not count.
///
/// # Errors
/// The folder cannot be listed.
pub fn steps(dir: &Path) -> Result<Vec<u64>, RunError> {
    let ckpt = dir.join("ckpt");
    let list = |error| RunError::io(&ckpt, "list", error);
    let mut steps = Vec::new();
    for entry in std::fs::read_dir(&ckpt).map_err(list)? {
        let name = entry.map_err(list)?.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix("step-"));
        // Only the one way of writing a number: two folders never mean the same step.
        let step = step.and_then(|digits| digits.parse().ok());
        steps.extend(step.filter(|step| name.to_str() == Some(&step_name(*step))));
    }
    steps.sort_unstable();
    Ok(steps)
}
