//! What belongs to a checkpoint: `MANIFEST.json`, written last.
//!
//! It holds its own SHA-256, over its text with zeros in the place of the digits. Every format
//! keeps that, and the number of the format, so that a damaged manifest is never taken for a newer
//! one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use janus_model::JanusConfig;
use janus_model::config::Dialect;
use janus_model::processor::{FileError, read_file};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Damage, RunError, files, hex, step_name};
use crate::config::TrainConfig;

/// Name of the file.
pub const MANIFEST: &str = "MANIFEST.json";
/// The format this release writes, and the latest that it reads.
pub const FORMAT: u64 = 1;
/// The Burn that this release computes with.
pub const BURN: &str = "0.22.1";

/// Largest manifest that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Part of the model folder.
    Model,
    /// What the optimizer remembers.
    Moments,
    /// Where the run stands.
    State,
    /// Anything else that a strategy wants back.
    Other,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Path below the checkpoint, with `/` on every system.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// What a checkpoint must have in common with the run that goes on from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Stage of the training.
    pub stage: u8,
    /// Sizes of the model in words.
    pub model: String,
    /// SHA-256 of all sizes of the model.
    pub model_sha256: String,
    /// Optimizer and its settings in words.
    pub optimizer: String,
    /// SHA-256 of what decides which sample comes when, and of what the files hold.
    pub data_sha256: String,
}

impl Identity {
    /// From here on, `stage` is no stage of a whole model: see [`crate::parts`].
    pub const PARTS: u8 = 100;

    /// Of a model, a stage, and data whose content has the given hash.
    pub fn new(model: &JanusConfig, stage: &TrainConfig, content: &str) -> Self {
        let llm = &model.language;
        let words = format!(
            "{} layers of width {}, {} words, {} codes",
            llm.num_hidden_layers, llm.hidden_size, llm.vocab_size, model.gen_head.codes
        );
        let digest = |text: &str| hex(Sha256::digest(text).as_slice());
        Self {
            stage: stage.stage,
            model: words,
            model_sha256: digest(&model.to_json(Dialect::Original, "", None)),
            optimizer: stage.optimizer_words(),
            data_sha256: digest(&format!("{} {content}", stage.data_digest())),
        }
    }
}

/// A checkpoint's table of contents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// See [`FORMAT`].
    pub format: u64,
    /// Release that wrote it.
    pub janus: String,
    /// Burn that it computed with.
    pub burn: String,
    /// What it belongs to.
    pub identity: Identity,
    /// Optimizer steps done.
    pub step: u64,
    /// Optimizer steps of the whole stage.
    pub steps: u64,
    /// Validation loss, where it was measured at this step.
    pub loss: Option<f64>,
    /// All other files, by name.
    pub files: Vec<Entry>,
    /// SHA-256 of this text with zeros here.
    pub sha256: String,
}

impl Manifest {
    /// A manifest of this release.
    pub(super) fn new(
        identity: Identity,
        (step, steps): (u64, u64),
        loss: Option<f64>,
        mut files: Vec<Entry>,
    ) -> Self {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let (janus, burn) = (env!("CARGO_PKG_VERSION").to_owned(), BURN.to_owned());
        // JSON has no word for NaN.
        let loss = loss.filter(|loss| loss.is_finite());
        let sha256 = ZEROS.to_owned();
        Self { format: FORMAT, janus, burn, identity, step, steps, loss, files, sha256 }
    }

    /// As text, with its own hash.
    pub(super) fn to_json(&self) -> String {
        let zeroed = Self { sha256: ZEROS.to_owned(), ..self.clone() };
        // Strings and numbers always serialise.
        let text = serde_json::to_string_pretty(&zeroed).unwrap_or_default() + "\n";
        let hash = hex(Sha256::digest(&text).as_slice());
        // The last one: a hash of zeros among the files is not ours to fill.
        match text.rsplit_once(ZEROS) {
            Some((before, after)) => format!("{before}{hash}{after}"),
            None => text,
        }
    }

    /// Reads the manifest of a checkpoint.
    ///
    /// # Errors
    /// Damage, or a format that this release does not know: `Ok(Err(format))`.
    pub(super) fn read(folder: &Path) -> Result<Result<Self, u64>, Damage> {
        let bytes = read_file(&folder.join(MANIFEST), MAX_BYTES).map_err(|error| match error {
            FileError::Missing { .. } => Damage::NoManifest,
            FileError::Io { source, .. } => {
                Damage::Unreadable { file: MANIFEST.to_owned(), source }
            }
            other => Damage::Manifest(other.to_string()),
        })?;
        Self::parse(&bytes)
    }

    /// See [`Manifest::read`].
    pub(super) fn parse(bytes: &[u8]) -> Result<Result<Self, u64>, Damage> {
        #[derive(Deserialize)]
        struct Frame {
            format: u64,
            sha256: String,
        }
        if bytes.is_empty() {
            return Err(Damage::Manifest("empty".into()));
        }
        let bad = Damage::Manifest;
        let text = std::str::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
        let frame: Frame = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        let found = match text.rsplit_once(&frame.sha256) {
            Some((before, after)) if frame.sha256.len() == ZEROS.len() => {
                hex(Sha256::digest(format!("{before}{ZEROS}{after}")).as_slice())
            }
            _ => String::new(),
        };
        if found != frame.sha256 {
            let expected = frame.sha256;
            return Err(bad(format!("has the SHA-256 {found}, not {expected}")));
        }
        if frame.format > FORMAT {
            return Ok(Err(frame.format));
        }
        serde_json::from_str(text).map(Ok).map_err(|error| bad(error.to_string()))
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Compares every file of the folder with this manifest: names, lengths and hashes, but not
    /// the hashes of those in `known`.
    pub(super) fn verify(&self, folder: &Path, known: &BTreeSet<String>) -> Result<(), Damage> {
        self.verify_sizes(folder)?;
        let unknown = self.files.iter().filter(|entry| !known.contains(&entry.name));
        for Entry { name, sha256, .. } in unknown {
            let (_, found) = files::hash(&folder.join(name))
                .map_err(|source| Damage::Unreadable { file: name.clone(), source })?;
            if found != *sha256 {
                let (file, expected) = (name.clone(), sha256.clone());
                return Err(Damage::Hash { file, found, expected });
            }
        }
        Ok(())
    }

    /// The cheap part of [`Manifest::verify`].
    pub(super) fn verify_sizes(&self, folder: &Path) -> Result<(), Damage> {
        let step = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // A folder that is being written has its name in front of something else.
        if step.starts_with("step-") && step != step_name(self.step) {
            return Err(Damage::OtherStep(self.step));
        }
        for entry in &self.files {
            let file = entry.name.clone();
            match fs::metadata(folder.join(&file)) {
                Ok(found) if found.is_file() && found.len() == entry.bytes => {}
                Ok(found) => {
                    return Err(Damage::Size { file, found: found.len(), expected: entry.bytes });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Damage::Missing(file));
                }
                Err(source) => return Err(Damage::Unreadable { file, source }),
            }
        }
        let names: BTreeSet<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        match names_below(folder).into_iter().find(|name| {
            name != MANIFEST && !name.starts_with('.') && !names.contains(name.as_str())
        }) {
            // A stray index file would make a reader look elsewhere.
            Some(file) => Err(Damage::Extra(file)),
            None => Ok(()),
        }
    }
}

/// Files below a folder, with `/` between the parts, in order.
pub(super) fn names_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(prefix) = folders.pop() {
        // What cannot be listed is missed by name.
        let Ok(entries) = fs::read_dir(folder.join(&prefix)) else { continue };
        for entry in entries.flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(name + "/");
            } else {
                names.push(name);
            }
        }
    }
    names.sort_unstable();
    names
}

/// The manifest of a checkpoint whose lengths are right; `None` for anything else.
pub(super) fn glance(folder: &Path) -> Option<Manifest> {
    let manifest = Manifest::read(folder).ok()?.ok()?;
    manifest.verify_sizes(folder).is_ok().then_some(manifest)
}

impl Manifest {
    /// Refuses what belongs to another run.
    ///
    /// # Errors
    /// The first thing that differs, with both values.
    pub(super) fn check(
        &self,
        folder: &Path,
        wanted: &Identity,
        data_may_differ: bool,
    ) -> Result<(), RunError> {
        let ours = &self.identity;
        let with_hash = |words: &str, hash: &str| format!("{words} (SHA-256 {hash:.12})");
        let model = |of: &Identity| with_hash(&of.model, &of.model_sha256);
        let stage = |of: &Identity| of.stage.to_string();
        let all = [
            ("stage", stage(ours), stage(wanted)),
            ("model", model(ours), model(wanted)),
            ("optimizer", ours.optimizer.clone(), wanted.optimizer.clone()),
            ("data", ours.data_sha256.clone(), wanted.data_sha256.clone()),
        ];
        for (what, saved, wanted) in all {
            if saved != wanted && !(what == "data" && data_may_differ) {
                let path = folder.to_owned();
                return Err(RunError::Refused { path, what, saved, wanted });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::samples::identity;
    use super::*;

    fn manifest() -> Manifest {
        let entry = |name: &str, sha256: &str| Entry {
            name: name.into(),
            role: Role::Other,
            bytes: 3,
            sha256: sha256.into(),
        };
        // A hash of zeros must not be mistaken for the place of our own.
        let files = vec![entry("b", ZEROS), entry("a", &"1".repeat(64))];
        Manifest::new(identity(), (7, 9), Some(0.1), files)
    }

    #[test]
    fn what_is_written_is_read() {
        let text = manifest().to_json();
        let read = Manifest::parse(text.as_bytes()).unwrap().unwrap();
        assert_ne!(read.sha256, ZEROS);
        assert_eq!(read.to_json(), text);
        assert_eq!(Manifest { sha256: ZEROS.into(), ..read }, manifest());
        assert_eq!(manifest().files[0].name, "a", "sorted");
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_seen() {
        let text = manifest().to_json().into_bytes();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                assert!(Manifest::parse(&changed).is_err(), "bit {bit} of byte {at}");
            }
            assert!(Manifest::parse(&text[..at]).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn a_newer_format_is_no_damage() {
        let newer = Manifest { format: 7, ..manifest() }.to_json();
        assert_eq!(Manifest::parse(newer.as_bytes()).unwrap(), Err(7));
        // Fields that only a newer release knows, with a true hash.
        let text = newer.replace("\"step\"", "\"stride\"");
        let parsed = Manifest::parse(text.as_bytes());
        assert!(parsed.is_err(), "the hash is checked first");
    }

    /// Also in the lock file: Burn is pinned.
    #[test]
    fn the_version_of_burn_is_the_pinned_one() {
        let workspace = include_str!("../../../Cargo.toml");
        assert!(workspace.contains(&format!("burn = {{ version = \"={BURN}\"")), "{BURN}");
    }
}
