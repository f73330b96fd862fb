//! What can go wrong with a checkpoint, one variant per cause.
//!
//! Messages name the file (as the caller spelled its folder), the tensor and the limit. Names read
//! from a file are escaped, so they cannot forge log lines.

use std::{fmt, io, path::PathBuf};

use crate::error::ErrorKind;

use super::{
    pickle::{PickleError, ZipError},
    report::Mismatch,
    safetensors::HeaderError,
    shards::{Format, IndexError},
};

/// Content that is often found where weights are expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Impostor {
    /// The small text file that Git LFS leaves in place of the data.
    LfsPointer,
    /// A web page, usually an error or login page saved by a download.
    Html,
    /// Nothing at all.
    Empty,
    /// A `torch.save` file from before PyTorch 1.6 (no zip archive around it).
    LegacyTorch,
    /// Bytes of no known format.
    Unknown,
}

impl fmt::Display for Impostor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LfsPointer => "a Git LFS pointer",
            Self::Html => "an HTML page",
            Self::Empty => "an empty file",
            Self::LegacyTorch => "a PyTorch file in the old format from before version 1.6",
            Self::Unknown => "data in no known weight format",
        })
    }
}

/// Why a checkpoint could not be opened, read, matched or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The path does not exist; a dangling link counts as absent.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// The path looked for.
        path: PathBuf,
    },
    /// The folder holds none of the known weight files.
    #[error("{}: no weights in this folder (looked for {looked_for})", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// The file names tried, in order.
        looked_for: &'static str,
    },
    /// A cache folder holds several snapshots and does not say which one is current.
    #[error(
        "{}: no refs/main, and several snapshots: {}",
        path.display(),
        snapshots.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ")
    )]
    SeveralSnapshots {
        /// The cache folder.
        path: PathBuf,
        /// Names of the snapshots, in order.
        snapshots: Vec<String>,
    },
    /// A device, pipe, socket or folder stands where a file should be.
    #[error("{}: expected a regular file, found {what}", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// A link inside the model folder leads out of it.
    #[error("{}: this link leads outside the model folder", path.display())]
    LinkLeaves {
        /// The link.
        path: PathBuf,
    },
    /// The operating system reported an error.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted: "open", "read", …
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has locked the file, presumably to write it.
    #[error("{}: another process is writing this file", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The content is something else than weights.
    #[error("{}: expected weights, found {found}", path.display())]
    NotWeights {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: Impostor,
    },
    /// The file name promises one format, the content is another.
    #[error("{}: the name says {expected}, the content is {found}", path.display())]
    WrongFormat {
        /// The file.
        path: PathBuf,
        /// Format by name.
        expected: Format,
        /// Format by content.
        found: Format,
    },
    /// A file is larger than this library is willing to read.
    #[error("{}: {what} is {value}, the limit is {limit}", path.display())]
    Limit {
        /// The file.
        path: PathBuf,
        /// The quantity.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The cap (see [`super::Limits`]).
        limit: u64,
    },
    /// A safetensors header is invalid.
    #[error("{}: bad safetensors header", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// The archive around a pickled checkpoint is invalid.
    #[error("{}: bad PyTorch archive", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ZipError,
    },
    /// The pickle of a PyTorch checkpoint is refused.
    #[error("{}: refused pickle", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PickleError,
    },
    /// The shard index is invalid, or the shards do not keep its promise.
    #[error("{}: bad shard index", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        source: IndexError,
    },
    /// A tensor has an element type that Janus never uses.
    #[error("{}: dtype {dtype} not supported for tensor {}", path.display(), shown(tensor))]
    UnsupportedDtype {
        /// The file.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
        /// The type, as the file spells it.
        dtype: String,
    },
    /// A matrix in 8 or 4 bits is not what its first line says.
    #[error("{}: bad packed matrix {}: {problem}", path.display(), shown(tensor))]
    Packed {
        /// The folder.
        path: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
        /// What does not fit.
        problem: &'static str,
    },
    /// Two tensors of the files stand for the same tensor of the model.
    #[error("{}: two tensors both stand for {}", path.display(), shown(tensor))]
    Ambiguous {
        /// The folder.
        path: PathBuf,
        /// Canonical name.
        tensor: String,
    },
    /// The checkpoint and the model disagree about names or shapes.
    #[error(transparent)]
    Mismatch(#[from] Box<Mismatch>),
    /// A tensor holds NaN or infinity.
    #[error(
        "tensor {}: {count} of {elements} values are NaN or infinite, the first at index {first}",
        shown(tensor)
    )]
    NonFinite {
        /// The tensor.
        tensor: String,
        /// How many values are not finite.
        count: u64,
        /// How many values there are.
        elements: u64,
        /// Flat index of the first.
        first: u64,
    },
    /// A tensor's bytes could not be drawn from its file.
    #[error("tensor {}: cannot read its data: {message}", shown(tensor))]
    Draw {
        /// The tensor.
        tensor: String,
        /// The provider's message.
        message: String,
    },
    /// The tensors handed over for saving cannot be written.
    #[error("cannot save tensor {}: {problem}", shown(tensor))]
    Unsavable {
        /// The tensor.
        tensor: String,
        /// Why not.
        problem: &'static str,
    },
    /// A built-in manifest is asked for under a name that does not exist.
    #[error("no built-in manifest is called {name:?}; there are: {known}")]
    UnknownManifest {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A manifest is not valid JSON of the expected form.
    #[error("bad tensor manifest {name}")]
    Manifest {
        /// Its name.
        name: String,
        /// The parser's complaint.
        source: serde_json::Error,
    },
}

impl CheckpointError {
    /// Whose fault this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoWeights { .. } => ErrorKind::Missing,
            Self::Index { source, .. } if source.is_missing_shard() => ErrorKind::Missing,
            Self::Io { .. } | Self::Locked { .. } | Self::NotRegular { .. } | Self::Draw { .. } => {
                ErrorKind::Io
            }
            Self::UnknownManifest { .. } | Self::SeveralSnapshots { .. } => ErrorKind::Usage,
            Self::Unsavable { .. } | Self::Manifest { .. } => ErrorKind::Internal,
            Self::Mismatch(_) => ErrorKind::Config,
            _ => ErrorKind::BadData,
        }
    }

    /// What to do next, where there is good advice.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotFound { .. } | Self::NoWeights { .. } => {
                "pass the folder that holds config.json and the weights of a Janus model"
            }
            Self::NotWeights { found: Impostor::LfsPointer, .. } => {
                "this is a Git LFS pointer: run `git lfs pull` in that folder, or download the \
                 model with `janus pull`"
            }
            Self::NotWeights { found: Impostor::Html, .. } => {
                "the download saved a web page instead of the file; download the file again"
            }
            Self::NotWeights { found: Impostor::LegacyTorch, .. } => {
                "unsupported: re-save the state dict with PyTorch 1.6 or newer, or as safetensors"
            }
            Self::Packed { .. } => {
                "convert the original model again, with `janus convert --dtype int8` or int4"
            }
            Self::NotWeights { .. } | Self::Header { .. } | Self::Archive { .. } => {
                "the file is damaged or incomplete; download or re-export the file"
            }
            Self::WrongFormat { .. } => {
                "rename the file if you trust where it came from; formats are never guessed"
            }
            Self::SeveralSnapshots { .. } => "pass the folder of one of the snapshots",
            Self::LinkLeaves { .. } => "copy the file into the model folder",
            Self::Pickle { source, .. } => source.hint(),
            Self::Index { source, .. } if source.is_missing_shard() => {
                "the download is incomplete: `janus pull` goes on with it, or download the \
                 missing file into that folder"
            }
            Self::Locked { .. } => "wait until the other process has finished",
            Self::Mismatch(mismatch) => return mismatch.hint(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "the disk is full; nothing half-written was left behind"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    pub(crate) fn io(path: &std::path::Path, action: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), action, source },
        }
    }
}

/// A name from a file, made safe to print: control characters escaped, long ones cut.
pub(crate) fn shown(name: &str) -> String {
    const MAX_CHARS: usize = 160;
    let mut text: String = name.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(MAX_CHARS).is_some() {
        text.push_str(&format!("… ({} bytes)", name.len()));
    }
    format!("'{text}'")
}
