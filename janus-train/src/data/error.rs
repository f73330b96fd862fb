//! What can be wrong with training data, and where.
//!
//! A broken sample is a [`Bad`]: counted, named, left out or the end of the run, as
//! [`super::budget`] has it. What makes a source or a request useless as a whole is a
//! [`DataError`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use janus_model::processor::{FileError, ImageError, ProcessorError, PromptError, TokenizerError};
use janus_model::{ErrorKind, processor::ImageLimits};
use thiserror::Error;

/// Where a sample stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or the folder of files.
    pub file: Arc<Path>,
    /// Where in it.
    pub at: At,
}

/// A place inside a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// Line of a text file, from 1.
    Line(u64),
    /// Row of a table, from 1.
    Row(u64),
    /// Name of a member of an archive.
    Member(Arc<str>),
    /// The file is the sample.
    Whole,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.at {
            At::Line(line) => write!(f, "{file}:{line}"),
            At::Row(row) => write!(f, "{file}: row {row}"),
            At::Member(name) => write!(f, "{file}: {}", shown(name)),
            At::Whole => write!(f, "{file}"),
        }
    }
}

/// A sample that cannot be used.
#[derive(Debug, Error)]
#[error("{place}: {}", chain(.why))]
pub struct Bad {
    /// Which.
    pub place: Place,
    /// Why not.
    pub why: Why,
}

/// The message with all its causes, as one line of a log.
fn chain(why: &Why) -> String {
    let mut text = why.to_string();
    let mut source = std::error::Error::source(why);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Why a sample cannot be used.
#[derive(Debug, Error)]
pub enum Why {
    /// Not what its format says.
    #[error("{0}")]
    Record(String),
    /// A path that leads out of the data, or nowhere.
    #[error("the path \"{path}\" {problem}")]
    Path {
        /// As written, cut and escaped.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A picture that cannot be read or decoded.
    #[error(transparent)]
    Picture(#[from] ImageError),
    /// A file that cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// Places and pictures do not match.
    #[error("places for pictures (<image>): {places}, pictures: {pictures}")]
    Places {
        /// `<image>` in the text.
        places: usize,
        /// Pictures that are given.
        pictures: usize,
    },
    /// More tokens than a row holds.
    #[error("{tokens} tokens, a row holds {limit}: nothing is ever cut off")]
    TooLong {
        /// Tokens of the sample, those of pictures included.
        tokens: usize,
        /// Tokens of a row.
        limit: usize,
    },
    /// A part without content.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Nothing to learn: every token would be masked.
    #[error("nothing is supervised")]
    NothingSupervised,
    /// The conversation cannot be written as tokens.
    #[error(transparent)]
    Prompt(Box<ProcessorError>),
    /// Of another kind than its source.
    #[error("a sample for {found} in a source for {expected}")]
    Kind {
        /// What it is.
        found: super::sample::Kind,
        /// What the source is.
        expected: super::sample::Kind,
    },
}

impl From<PromptError> for Why {
    fn from(error: PromptError) -> Self {
        Self::Prompt(Box::new(error.into()))
    }
}

impl From<TokenizerError> for Why {
    fn from(error: TokenizerError) -> Self {
        Self::Prompt(Box::new(error.into()))
    }
}

/// A few characters of a file's contents, escaped.
pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() { format!("{cut}…") } else { cut }
}

/// What makes a source, or a mix of sources, useless as a whole.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file that cannot be used.
    #[error("{path}: {problem}")]
    File {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file or folder that cannot be read.
    #[error("cannot {action} {path}")]
    Io {
        /// The path as given.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A source without samples.
    #[error("{path}: no samples ({found})")]
    Empty {
        /// The path as given.
        path: PathBuf,
        /// What was looked for.
        found: &'static str,
    },
    /// Ratio, weights and sources do not fit together.
    #[error("{problem}")]
    Mixture {
        /// What does not fit.
        problem: String,
    },
    /// Too many samples of a source are bad.
    #[error(
        "{bad} of {samples} samples of {source_name} are bad, {allowed} may be; first: {first}"
    )]
    TooManyBad {
        /// Name of the source.
        source_name: String,
        /// Bad ones of this epoch so far.
        bad: u64,
        /// Samples of an epoch.
        samples: u64,
        /// How many may be bad.
        allowed: u64,
        /// The first bad ones that were met, with their places.
        first: String,
    },
    /// A source whose every sample is bad.
    #[error("not one of the {samples} samples of {source_name} can be used; first: {first}")]
    AllBad {
        /// Name of the source.
        source_name: String,
        /// Samples of an epoch.
        samples: u64,
        /// The first bad ones that were met, with their places.
        first: String,
    },
    /// The data are not those of the checkpoint.
    #[error("the data changed since the checkpoint: {problem}")]
    Changed {
        /// What differs, both values.
        problem: String,
    },
    /// The image tokenizer failed, or gave what cannot be codes.
    #[error("cannot encode target pictures: {problem}")]
    Encode {
        /// In words.
        problem: String,
    },
    /// The threads that prepare samples cannot be started.
    #[error("cannot start threads: {problem}")]
    Threads {
        /// In words.
        problem: String,
    },
    /// A thread that prepares samples is gone.
    #[error("a thread that prepares samples stopped at {place}")]
    Worker {
        /// What it was at.
        place: Place,
    },
}

impl DataError {
    /// Whose fault it is, for exit codes.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorKind::Missing
            }
            Self::Io { .. } => ErrorKind::Io,
            Self::Mixture { .. } => ErrorKind::Usage,
            Self::Encode { .. } | Self::Threads { .. } | Self::Worker { .. } => ErrorKind::Internal,
            _ => ErrorKind::BadData,
        }
    }

    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::TooManyBad { .. } => {
                "mend or remove them, or leave bad samples out: --on-bad-sample skip"
            }
            Self::AllBad { .. } => "is the format the one you meant? it can be named",
            Self::Changed { .. } => {
                "give the data the checkpoint was made with, or --allow-data-change"
            }
            Self::Empty { .. } => "check the path, or name the format",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Reads a small file of the data, at most as large as a picture may be.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    janus_model::processor::read_file(path, limit.min(ImageLimits::default().max_bytes))
}
