//! Reading small files of a checkpoint folder, and pictures, with a cap and without hanging.

use std::io::{ErrorKind as IoKind, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::error::ErrorKind;

/// Why a file could not be read.
#[derive(Debug, Error)]
pub enum FileError {
    /// No such file, or a link that leads nowhere.
    #[error("{path} does not exist")]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// A directory, pipe, socket or device.
    #[error("{path} is {found}, not a file")]
    NotAFile {
        /// The path as given.
        path: PathBuf,
        /// What lies there.
        found: &'static str,
    },
    /// More bytes than the cap.
    #[error("{path} has {bytes} bytes or more, the limit is {limit}")]
    TooLarge {
        /// The path as given.
        path: PathBuf,
        /// Size of the file, as far as it was looked at.
        bytes: u64,
        /// The cap.
        limit: u64,
    },
    /// Any other failure of the file system.
    #[error("cannot read {path}")]
    Io {
        /// The path as given.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl FileError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::Missing,
            Self::TooLarge { .. } => ErrorKind::BadData,
            Self::NotAFile { .. } | Self::Io { .. } => ErrorKind::Io,
        }
    }
}

/// Reads a regular file of at most `limit` bytes; directories, pipes and devices are never opened.
///
/// # Errors
/// See [`FileError`].
pub fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let io = |source: std::io::Error| match source.kind() {
        IoKind::NotFound => FileError::Missing { path: path.to_owned() },
        _ => FileError::Io { path: path.to_owned(), source },
    };
    // Opening a pipe would wait for a writer: look at the kind first.
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a directory" } else { "a pipe, socket or device" };
        return Err(FileError::NotAFile { path: path.to_owned(), found });
    }
    let too_large = |bytes| Err(FileError::TooLarge { path: path.to_owned(), bytes, limit });
    if metadata.len() > limit {
        return too_large(metadata.len());
    }
    // The file may grow between the two calls: the cap holds while reading, too.
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit { too_large(bytes.len() as u64) } else { Ok(bytes) }
}

/// [`read_file`], with `None` for a file that is not there.
pub(crate) fn read_optional(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FileError> {
    match read_file(path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FileError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
