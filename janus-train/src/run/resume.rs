//! Going on: the newest checkpoint that is whole, and what was passed over to get there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use janus_model::processor::read_file;

use super::manifest::{BURN, FORMAT, Manifest};
use super::{Damage, Identity, PassedOver, Run, RunError, State, step_name};

/// Largest `state.json` that is read, in bytes.
const MAX_STATE_BYTES: u64 = 16 << 20;

/// Differences that somebody wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allow {
    /// Other data than the checkpoint was made with.
    pub data_change: bool,
}

/// A whole checkpoint.
#[derive(Debug)]
pub struct Found {
    /// Its folder.
    pub path: PathBuf,
    /// What belongs to it.
    pub manifest: Manifest,
    /// Where the run stood.
    pub state: State,
    /// Newer ones that were not whole, newest first.
    pub passed_over: Vec<PassedOver>,
    /// What should be told: another release wrote it, …
    pub notes: Vec<String>,
}

impl Found {
    /// The model folder in it.
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    /// The file of the moments in it.
    pub fn moments(&self) -> PathBuf {
        self.path.join("moments.bpk")
    }
}

/// Reads from the newest checkpoint to the oldest, and takes the first that is whole.
///
/// # Errors
/// There are some, but none is whole; or the newest whole one was written by a later release.
fn newest(dir: &Path) -> Result<Option<Found>, RunError> {
    let mut passed_over = Vec::new();
    for step in super::steps(dir)?.into_iter().rev() {
        let path = dir.join("ckpt").join(step_name(step));
        match whole(&path) {
            Ok(Ok((manifest, state))) => {
                let notes = notes(&manifest);
                return Ok(Some(Found { path, manifest, state, passed_over, notes }));
            }
            Ok(Err(found)) => return Err(RunError::Newer { path, found, known: FORMAT }),
            Err(damage) => passed_over.push(PassedOver { path, damage }),
        }
    }
    match passed_over.is_empty() {
        true => Ok(None),
        false => Err(RunError::NoneWhole { path: dir.to_owned(), passed_over }),
    }
}

/// Manifest and state of a checkpoint all of whose files are as they were.
fn whole(path: &Path) -> Result<Result<(Manifest, State), u64>, Damage> {
    let manifest = match Manifest::read(path)? {
        Ok(manifest) => manifest,
        Err(format) => return Ok(Err(format)),
    };
    manifest.verify(path, &BTreeSet::new())?;
    let file = "state.json".to_owned();
    let bytes = read_file(&path.join(&file), MAX_STATE_BYTES).map_err(|error| {
        let source = std::io::Error::other(error.to_string());
        Damage::Unreadable { file: file.clone(), source }
    })?;
    let state: State = serde_json::from_slice(&bytes)
        .map_err(|error| Damage::Unreadable { file: file.clone(), source: error.into() })?;
    if state.step != manifest.step {
        return Err(Damage::OtherStep(manifest.step));
    }
    Ok(Ok((manifest, state)))
}

fn notes(manifest: &Manifest) -> Vec<String> {
    let ours = (env!("CARGO_PKG_VERSION"), BURN);
    if (manifest.janus.as_str(), manifest.burn.as_str()) == ours {
        return Vec::new();
    }
    let Manifest { janus, burn, .. } = manifest;
    vec![format!(
        "written by janus {janus} with Burn {burn}; this is {} with {}, whose sums may round \
         differently",
        ours.0, ours.1
    )]
}

impl Run {
    /// The newest checkpoint that is whole, or `None` for a run that has not saved yet. `latest`
    /// names it from now on.
    ///
    /// # Errors
    /// None of several is whole; or the newest whole one belongs to another stage, model,
    /// optimizer or other data, or to a later release.
    pub fn resume(&mut self, wanted: &Identity, allow: Allow) -> Result<Option<Found>, RunError> {
        let Some(mut found) = newest(&self.dir)? else { return Ok(None) };
        found.manifest.check(&found.path, wanted, allow.data_change)?;
        if found.manifest.identity.data_sha256 != wanted.data_sha256 {
            found.notes.push("the data is not what it was when this was saved".into());
        }
        let damaged = super::steps(&self.dir)?;
        self.damaged.extend(damaged.into_iter().filter(|step| *step > found.manifest.step));
        self.point_latest(found.manifest.step)?;
        // A kill may have come between the last save and what it would have removed.
        self.prune(false)?;
        Ok(Some(found))
    }
}

/// The model in a folder: the folder itself, or the newest whole checkpoint of a run of any kind.
///
/// # Errors
/// The run has no checkpoint that is whole.
pub fn model_in(path: &Path) -> Result<PathBuf, RunError> {
    if !path.join("ckpt").is_dir() {
        return Ok(path.to_owned());
    }
    let found = newest(path)?.ok_or_else(|| RunError::Empty { path: path.to_owned() })?;
    Ok(found.model())
}

/// The model that stage `stage` starts from: `path` is a model folder, or the run folder of the
/// stage before, finished.
///
/// # Errors
/// The run is of another stage than the one before, or not at its end; or none of its checkpoints
/// is whole.
pub fn start_of(stage: u8, path: &Path) -> Result<PathBuf, RunError> {
    if !path.join("ckpt").is_dir() {
        return Ok(path.to_owned());
    }
    let found = newest(path)?.ok_or_else(|| RunError::Empty { path: path.to_owned() })?;
    let Manifest { identity, step, steps, .. } = &found.manifest;
    let wrong = |found: String| Err(RunError::Order { path: path.to_owned(), stage, found });
    if identity.stage + 1 != stage {
        let found = match identity.stage {
            Identity::PARTS.. => identity.model.clone(),
            stage => format!("stage {stage}"),
        };
        return wrong(found);
    }
    if step < steps {
        return wrong(format!("step {step} of {steps}"));
    }
    Ok(found.model())
}
