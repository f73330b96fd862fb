//! Answers as text files beside their pictures.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::rows::Input;
use crate::args::BatchArgs;
use crate::pictures;
use crate::report::{Exit, Failure};

/// Where each caption goes; nowhere without `--captions`.
pub struct Captions {
    paths: Vec<PathBuf>,
    force: bool,
}

impl Captions {
    /// One text file per picture.
    ///
    /// # Errors
    /// Two pictures whose names differ in their endings only.
    pub fn new(args: &BatchArgs, input: &Input) -> Result<Self, Failure> {
        let paths = if args.captions { input.captions() } else { Vec::new() };
        let mut seen = HashSet::new();
        if let Some(twice) = paths.iter().find(|path| !seen.insert(*path)) {
            let message = format!("{} would be the caption of two pictures", twice.display());
            return Err(Failure::new(Exit::Usage, message)
                .hint("rename one of the pictures, or leave --captions away"));
        }
        Ok(Self { paths, force: args.force })
    }

    /// Before the model is loaded: hours of work must not end with "file exists". Captions of the
    /// first `done` pictures are there already.
    ///
    /// # Errors
    /// A text file that is in the way.
    pub fn refuse_existing(&self, done: usize) -> Result<(), Failure> {
        let rest = self.paths.get(done..).unwrap_or_default();
        match rest.iter().find(|path| path.exists()) {
            Some(path) if !self.force => Err(exists(path)),
            _ => Ok(()),
        }
    }

    /// Writes the caption of an answer that an earlier run gave, if it is not there. Whoever has
    /// edited it since keeps it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn restore(&self, row: usize, text: &str) -> Result<(), Failure> {
        let there = self.paths.get(row).is_some_and(|path| path.exists());
        if there && !self.force { Ok(()) } else { self.put(row, text) }
    }

    /// Writes one caption, unless it is there already.
    ///
    /// # Errors
    /// Another text is there, or the file cannot be written.
    pub fn put(&self, row: usize, text: &str) -> Result<(), Failure> {
        let Some(path) = self.paths.get(row) else { return Ok(()) };
        let wanted = format!("{}\n", text.trim());
        match fs::read(path) {
            Ok(bytes) if bytes == wanted.as_bytes() => Ok(()),
            Ok(_) if !self.force => Err(exists(path)),
            _ => pictures::write(path, wanted.as_bytes()),
        }
    }
}

fn exists(path: &Path) -> Failure {
    Failure::new(Exit::CannotCreate, format!("{} exists", path.display()))
        .hint("--force replaces captions; or move them away first")
}
