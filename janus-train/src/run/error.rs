//! What can go wrong with a run folder.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use janus_model::ErrorKind;
use janus_model::checkpoint::CheckpointError;

use super::moments::MomentsError;

/// Why a run cannot be opened, saved or continued.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system said no.
    #[error("{path}: cannot {action}: {source}", path = path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process trains in the folder.
    #[error("{path}: {} is training here", process(*pid), path = path.display())]
    Locked {
        /// The run folder.
        path: PathBuf,
        /// Its number, where the lock file tells it.
        pid: Option<u32>,
    },
    /// A retention that could leave nothing to fall back to.
    #[error("keeping {0} checkpoint would leave none to fall back to")]
    Keep(usize),
    /// There are checkpoints, and none of them is whole.
    #[error("{path}: no checkpoint here is whole{}", list(passed_over), path = path.display())]
    NoneWhole {
        /// The run folder.
        path: PathBuf,
        /// Each, and why not.
        passed_over: Vec<PassedOver>,
    },
    /// There is no checkpoint.
    #[error("{path}: no checkpoint here", path = path.display())]
    Empty {
        /// The run folder.
        path: PathBuf,
    },
    /// A whole checkpoint of something else.
    #[error("{path}: its {what} is {saved}, but this run has {wanted}", path = path.display())]
    Refused {
        /// The checkpoint.
        path: PathBuf,
        /// What differs: "model", "data", …
        what: &'static str,
        /// As saved.
        saved: String,
        /// As asked for.
        wanted: String,
    },
    /// Written by a later release.
    #[error(
        "{path}: format {found}, but this release reads up to {known}", path = path.display()
    )]
    Newer {
        /// The checkpoint.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// A stage that does not follow the one it should start from.
    #[error("{path}: stage {stage} starts from the end of stage {}, but this is {found}", stage.saturating_sub(1), path = path.display())]
    Order {
        /// The run folder of the other stage.
        path: PathBuf,
        /// The stage to start.
        stage: u8,
        /// What is there.
        found: String,
    },
    /// Not enough room.
    #[error("{path}: {needed} bytes are needed for checkpoints, {free} are free", path = path.display())]
    Space {
        /// The run folder.
        path: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// What was written reads back as something else.
    #[error("{path}: written, but not readable again: {damage}", path = path.display())]
    NotKept {
        /// The checkpoint that was to be.
        path: PathBuf,
        /// How it differs.
        damage: Damage,
    },
    /// The moments cannot be written, or belong to other parameters.
    #[error("{path}: {source}", path = path.display())]
    Moments {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: MomentsError,
    },
    /// Weights could not be written, or small files of a model not be copied.
    #[error(transparent)]
    Model(#[from] janus_model::Error),
}

fn process(pid: Option<u32>) -> String {
    pid.map_or("another process".into(), |pid| format!("process {pid}"))
}

fn list(passed_over: &[PassedOver]) -> String {
    passed_over.iter().map(|one| format!("\n  {one}")).collect()
}

impl RunError {
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }

    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } | Self::Space { .. } | Self::NotKept { .. } => ErrorKind::Io,
            Self::NoneWhole { .. } => ErrorKind::BadData,
            Self::Empty { .. } => ErrorKind::Missing,
            Self::Moments { source, .. } => source.kind(),
            Self::Model(error) => error.kind(),
            _ => ErrorKind::Usage,
        }
    }

    /// Whether the disk is full, or a limit on files is reached.
    pub fn is_full(&self) -> bool {
        let source = match self {
            Self::Space { .. } => return true,
            Self::Io { source, .. } => source,
            Self::Model(janus_model::Error::Checkpoint(CheckpointError::Io { source, .. })) => {
                source
            }
            _ => return false,
        };
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            _ if self.is_full() => {
                "make room, and start again: the checkpoints that were whole still are"
            }
            Self::Locked { .. } => "wait for it, or give this run another folder",
            Self::Keep(_) => "keep at least 2, or 0 for all",
            Self::NoneWhole { .. } => "give the run another folder to start anew",
            Self::Refused { what: "data", .. } => {
                "give the run another folder, or --allow-data-change where it is meant"
            }
            Self::Refused { .. } => "give the run another folder",
            Self::Newer { .. } => "update janus",
            Self::Order { path, .. } => {
                let model = path.join("ckpt/latest/model");
                let known =
                    "give the folder of the finished stage before, or a model folder, such as";
                return Some(format!("{known} {}", model.display()));
            }
            Self::Model(error) => return error.hint(),
            _ => return None,
        };
        Some(text.into())
    }
}

/// How a checkpoint differs from what its manifest says.
#[derive(Debug)]
pub enum Damage {
    /// It was never finished, or somebody took it.
    NoManifest,
    /// The manifest is no manifest, or was changed.
    Manifest(String),
    /// It is the manifest of another step.
    OtherStep(u64),
    /// A file is not there.
    Missing(String),
    /// A file that no manifest knows.
    Extra(String),
    /// A file is longer or shorter.
    Size {
        /// The file.
        file: String,
        /// Its bytes.
        found: u64,
        /// What they should be.
        expected: u64,
    },
    /// A file holds something else.
    Hash {
        /// The file.
        file: String,
        /// SHA-256 of what it holds.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A file cannot be read.
    Unreadable {
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoManifest => write!(f, "MANIFEST.json is missing"),
            Self::Manifest(problem) => write!(f, "MANIFEST.json: {problem}"),
            Self::OtherStep(step) => write!(f, "MANIFEST.json belongs to step {step}"),
            Self::Missing(file) => write!(f, "{file} is missing"),
            Self::Extra(file) => write!(f, "{file} is not in MANIFEST.json"),
            Self::Size { file, found, expected } => {
                write!(f, "{file} has {found} bytes, not {expected}")
            }
            Self::Hash { file, found, expected } => {
                write!(f, "{file} has the SHA-256 {found}, not {expected}")
            }
            Self::Unreadable { file, source } => write!(f, "{file} cannot be read: {source}"),
        }
    }
}

/// A checkpoint that was not used.
#[derive(Debug)]
pub struct PassedOver {
    /// Its folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub damage: Damage,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        write!(f, "{name}: {}", self.damage)
    }
}
