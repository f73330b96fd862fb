//! Writing a checkpoint: whole, or not at all.
//!
//! write files → flush → hash → `MANIFEST.json` → read everything back → rename → `latest` →
//! remove older ones. Whatever stops this, and wherever: what was whole before still is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use janus_model::Error;
use janus_model::checkpoint::CheckpointError;

use super::manifest::{Entry, MANIFEST, Manifest, names_below};
use super::{Damage, Identity, Role, Run, RunError, State, files, step_name};
use crate::failpoint;

/// What a checkpoint is called and belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Ticket<'a> {
    /// What it must have in common with whoever goes on from it.
    pub identity: &'a Identity,
    /// Where the run stands.
    pub state: &'a State,
    /// Optimizer steps of the whole stage.
    pub steps: u64,
    /// Validation loss, where it was measured now.
    pub loss: Option<f64>,
}

/// A checkpoint that was written, read back and named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its folder.
    pub path: PathBuf,
    /// Bytes of its files, linked ones included.
    pub bytes: u64,
    /// Steps whose checkpoints went.
    pub removed: Vec<u64>,
    /// It was there already, whole and for the same run; nothing was written.
    pub already: bool,
}

/// A checkpoint that nobody sees yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    /// The folder it will be.
    shown: PathBuf,
    entries: Vec<Entry>,
    /// Names of links to files that were hashed before.
    known: BTreeSet<String>,
}

impl Staging {
    fn create(ckpt: &Path, step: u64) -> Result<Self, RunError> {
        let name = step_name(step);
        let path = ckpt.join(format!(".{name}.tmp-{}", std::process::id()));
        let shown = ckpt.join(&name);
        fs::create_dir(&path).map_err(|error| RunError::io(&shown, "create", error))?;
        Ok(Self { path, shown, entries: Vec::new(), known: BTreeSet::new() })
    }

    /// Writes a file of known content.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn bytes(&mut self, role: Role, name: &str, bytes: &[u8]) -> Result<(), RunError> {
        self.file(role, name, |path| {
            fs::write(path, bytes).map_err(|error| RunError::io(path, "write", error))
        })
    }

    /// Lets `write` make a file at the path it is given.
    ///
    /// # Errors
    /// Those of `write`, and what is there then cannot be read.
    pub fn file(
        &mut self,
        role: Role,
        name: &str,
        write: impl FnOnce(&Path) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        write(&self.path.join(name)).map_err(|error| self.renamed(error))?;
        self.enter(role, name)
    }

    /// Lets `write` make a folder with files at the path it is given.
    ///
    /// # Errors
    /// Those of `write`, and what is there then cannot be read.
    pub fn folder(
        &mut self,
        role: Role,
        name: &str,
        write: impl FnOnce(&Path) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let path = self.path.join(name);
        write(&path).map_err(|error| self.renamed(error))?;
        for below in names_below(&path) {
            let below = format!("{name}/{below}");
            if !self.entries.iter().any(|entry| entry.name == below) {
                self.enter(role, &below)?;
            }
        }
        self.sync_folder(&path)
    }

    /// Links a file that never changes; `length` and `sha256` are its own. Where the file system
    /// has no links, copies it.
    ///
    /// # Errors
    /// It can be neither linked nor copied.
    pub fn link(
        &mut self,
        role: Role,
        name: &str,
        source: &Path,
        (length, sha256): (u64, &str),
    ) -> Result<(), RunError> {
        let (path, shown) = (self.path.join(name), self.shown.join(name));
        let io = |action| {
            let shown = &shown;
            move |error| RunError::io(shown, action, error)
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io("create"))?;
        }
        if fs::hard_link(source, &path).is_err() {
            fs::copy(source, &path).map_err(io("write"))?;
            return self.enter(role, name);
        }
        self.known.insert(name.to_owned());
        let (name, sha256) = (name.to_owned(), sha256.to_owned());
        self.entries.push(Entry { name, role, bytes: length, sha256 });
        Ok(())
    }

    /// Flushes a file and takes down its length and hash.
    fn enter(&mut self, role: Role, name: &str) -> Result<(), RunError> {
        let (path, shown) = (self.path.join(name), self.shown.join(name));
        let io = |action| {
            let shown = &shown;
            move |error| RunError::io(shown, action, error)
        };
        files::sync(&path).map_err(io("write"))?;
        let (bytes, sha256) = files::hash(&path).map_err(io("read"))?;
        self.entries.push(Entry { name: name.to_owned(), role, bytes, sha256 });
        failpoint::reached("file");
        Ok(())
    }

    /// Writes the manifest, and reads everything back.
    fn seal(&mut self, ticket: &Ticket) -> Result<Manifest, RunError> {
        let position = (ticket.state.step, ticket.steps);
        let entries = std::mem::take(&mut self.entries);
        let manifest = Manifest::new(ticket.identity.clone(), position, ticket.loss, entries);
        failpoint::reached("manifest");
        files::write(&self.path.join(MANIFEST), manifest.to_json().as_bytes())
            .map_err(|error| RunError::io(&self.shown.join(MANIFEST), "write", error))?;
        self.sync_folder(&self.path)?;
        let read_back = || -> Result<(), Damage> {
            let read = Manifest::read(&self.path)?;
            let read = read.map_err(|_| Damage::Manifest("another format".into()))?;
            read.verify(&self.path, &self.known)
        };
        match read_back() {
            Ok(()) => Ok(manifest),
            Err(damage) => Err(RunError::NotKept { path: self.shown.clone(), damage }),
        }
    }

    fn sync_folder(&self, path: &Path) -> Result<(), RunError> {
        files::sync_folder(path).map_err(|error| RunError::io(&self.shown, "write into", error))
    }

    /// The same error, about the folder that the user will look for.
    fn renamed(&self, error: RunError) -> RunError {
        let shown = |path: PathBuf| match path.strip_prefix(&self.path) {
            Ok(below) => self.shown.join(below),
            Err(_) => path,
        };
        match error {
            RunError::Io { path, action, source } => {
                RunError::Io { path: shown(path), action, source }
            }
            RunError::Moments { path, source } => RunError::Moments { path: shown(path), source },
            RunError::Model(Error::Checkpoint(CheckpointError::Io { path, action, source })) => {
                let path = shown(path);
                Error::Checkpoint(CheckpointError::Io { path, action, source }).into()
            }
            other => other,
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After the rename there is nothing left, and after a failure its cause matters more.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Run {
    /// Writes a checkpoint: the state, and whatever `fill` puts beside it. When this returns, it
    /// has been read back, `latest` names it, and older ones have gone as far as they may.
    ///
    /// A whole checkpoint of the same step is left as it is.
    ///
    /// # Errors
    /// Those of `fill`; no room; what was written reads back otherwise. Then no checkpoint has
    /// changed, and none has gone.
    pub fn save(
        &mut self,
        ticket: &Ticket,
        fill: impl FnOnce(&mut Run, &mut Staging) -> Result<(), RunError>,
    ) -> Result<Saved, RunError> {
        let step = ticket.state.step;
        if let Some(saved) = self.already_saved(ticket)? {
            return Ok(saved);
        }
        self.check_space(self.expected_bytes()?)?;
        let mut staging = Staging::create(&self.ckpt(), step)?;
        staging.bytes(Role::State, "state.json", &ticket.state.to_json())?;
        fill(self, &mut staging)?;
        let manifest = staging.seal(ticket)?;
        self.publish(staging, step)?;
        failpoint::reached("prune");
        let removed = self.prune(true)?;
        let path = self.ckpt().join(step_name(step));
        Ok(Saved { path, bytes: manifest.bytes(), removed, already: false })
    }

    /// Gives a sealed checkpoint its name.
    fn publish(&mut self, staging: Staging, step: u64) -> Result<(), RunError> {
        let (ckpt, shown) = (self.ckpt(), staging.shown.clone());
        if self.damaged.remove(&step) {
            self.set_aside(step)?;
        }
        failpoint::reached("rename");
        fs::rename(&staging.path, &shown).map_err(|error| RunError::io(&shown, "create", error))?;
        drop(staging);
        failpoint::reached("renamed");
        files::sync_folder(&ckpt).map_err(|error| RunError::io(&ckpt, "write into", error))?;
        failpoint::reached("latest");
        self.point_latest(step)
    }

    /// Makes `latest` name the checkpoint of a step.
    pub(super) fn point_latest(&self, step: u64) -> Result<(), RunError> {
        let link = self.ckpt().join("latest");
        files::point(&link, &step_name(step)).map_err(|error| RunError::io(&link, "write", error))
    }

    /// Takes the name from a damaged checkpoint that is about to be written again.
    fn set_aside(&self, step: u64) -> Result<(), RunError> {
        let folder = self.ckpt().join(step_name(step));
        let aside = self.ckpt().join(format!(".damaged.tmp-{}", std::process::id()));
        files::remove(&aside)?;
        fs::rename(&folder, &aside).map_err(|error| RunError::io(&folder, "remove", error))?;
        files::remove(&aside)
    }

    /// The checkpoint of this step, if it is there and whole. A damaged one is marked as such.
    fn already_saved(&mut self, ticket: &Ticket) -> Result<Option<Saved>, RunError> {
        let path = self.ckpt().join(step_name(ticket.state.step));
        if !path.exists() {
            return Ok(None);
        }
        match Manifest::read(&path).and_then(|read| match read {
            Ok(manifest) => manifest.verify(&path, &BTreeSet::new()).map(|()| Ok(manifest)),
            Err(format) => Ok(Err(format)),
        }) {
            Ok(Ok(manifest)) => {
                manifest.check(&path, ticket.identity, false)?;
                let bytes = manifest.bytes();
                Ok(Some(Saved { path, bytes, removed: Vec::new(), already: true }))
            }
            Ok(Err(found)) => Err(RunError::Newer { path, found, known: super::manifest::FORMAT }),
            Err(_) => {
                self.damaged.insert(ticket.state.step);
                Ok(None)
            }
        }
    }

    /// Room for one more like the last, and a tenth; 0 before the first.
    fn expected_bytes(&self) -> Result<u64, RunError> {
        let last = super::steps(&self.dir)?.into_iter().rev();
        let mut sizes = last.filter_map(|step| {
            let manifest = super::manifest::glance(&self.ckpt().join(step_name(step)))?;
            // What is linked takes no room again.
            let linked = self.frozen.as_ref().map_or(0, |frozen| frozen.bytes);
            Some(manifest.bytes().saturating_sub(linked))
        });
        Ok(sizes.next().map_or(0, |bytes| bytes.saturating_mul(11) / 10))
    }
}
