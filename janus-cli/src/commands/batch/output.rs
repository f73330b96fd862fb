//! The file of answers: one line per row, in order, and what an earlier run left of it.
//!
//! A line ends in two short digests: `input` of the row with the bytes of its pictures, `settings`
//! of everything else that decides an answer. A later run goes on only where both still agree. A
//! line counts once its line break is there, so a run may end at any moment.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use janus_infer::Reply;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::prepare::Prepared;
use crate::answers;
use crate::args::BatchArgs;
use crate::report::{self, Exit, Failure};

/// No answer comes near it.
const MAX_LINE: u64 = 64 << 20;
/// How every line begins.
const BEGINNING: &[u8] = b"{\"id\":";

/// A line to be written.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Answer {
        id: &'a Value,
        images: &'a [String],
        question: Option<&'a str>,
        text: &'a str,
        token_ids: &'a [i32],
        finish: &'static str,
        prompt_tokens: usize,
        seed: u64,
        input: &'a str,
        settings: &'a str,
    },
    Error {
        id: &'a Value,
        error: Value,
        seed: u64,
        input: &'a str,
        settings: &'a str,
    },
}

/// What matters of a line that was written.
#[derive(Deserialize)]
pub struct Seen {
    /// The answer; none in an error line.
    pub text: Option<String>,
    seed: u64,
    input: String,
    settings: String,
}

/// The line of a row.
pub fn line(row: &Prepared, result: Result<&Reply, &Failure>, seed: u64, settings: &str) -> String {
    let (id, input) = (&row.id, row.input.as_str());
    let line = match result {
        Ok(reply) => Line::Answer {
            id,
            images: &row.images,
            question: row.question.as_deref(),
            text: &reply.text,
            token_ids: &reply.ids,
            finish: answers::finish(reply.finish),
            prompt_tokens: reply.prompt_tokens,
            seed,
            input,
            settings,
        },
        Err(failure) => Line::Error { id, error: failure.value(), seed, input, settings },
    };
    // Plain data: nothing in it can fail to be written.
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

/// Where the lines go.
pub struct Output {
    /// None for standard output.
    file: Option<File>,
    path: PathBuf,
    /// Reads what is there, up to the first line that is not finished.
    old: Option<BufReader<File>>,
    /// Bytes of the lines taken from `old`.
    kept: u64,
    number: usize,
}

impl Output {
    /// Opens the file and keeps other runs from writing to it.
    ///
    /// # Errors
    /// A path that cannot be written to, or that another run writes to.
    pub fn open(args: &BatchArgs) -> Result<Self, Failure> {
        let path = args.output.clone();
        if args.to_stdout() {
            return Ok(Self { file: None, path, old: None, kept: 0, number: 0 });
        }
        if path.exists() && !path.is_file() {
            let message = format!("{} is not a file", path.display());
            return Err(Failure::new(Exit::CannotCreate, message));
        }
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let message = format!("{}: no such folder", path.display());
                Failure::new(Exit::CannotCreate, message)
            }
            _ => Failure::io(&path, "write", &error),
        })?;
        match file.try_lock() {
            // A file system without locks: better unguarded than not at all.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("{} is being written by another janus", path.display());
                return Err(Failure::new(Exit::CannotCreate, message));
            }
        }
        let io = |error| Failure::io(&path, "read", &error);
        // The same open file: elsewhere than on Unix its lock would keep out a second one.
        let old = BufReader::new(file.try_clone().map_err(io)?);
        let old = (!args.restart).then_some(old);
        Ok(Self { file: Some(file), path, old, kept: 0, number: 0 })
    }

    /// The seed that the file was begun with. To be asked before the first [`Output::next_seen`].
    pub fn seed(&mut self) -> Result<Option<u64>, Failure> {
        let Some(mut old) = self.old.take() else { return Ok(None) };
        let first = self.read(&mut old, 1)?;
        old.rewind().map_err(|error| Failure::io(&self.path, "read", &error))?;
        self.old = Some(old);
        Ok(first.map(|(seen, _)| seen.seed))
    }

    /// The next finished line of an earlier run.
    ///
    /// # Errors
    /// Lines of something else. They are never removed.
    pub fn next_seen(&mut self) -> Result<Option<Seen>, Failure> {
        let Some(mut old) = self.old.take() else { return Ok(None) };
        let Some((seen, bytes)) = self.read(&mut old, self.number + 1)? else { return Ok(None) };
        (self.old, self.kept, self.number) = (Some(old), self.kept + bytes, self.number + 1);
        Ok(Some(seen))
    }

    fn read(&self, old: &mut impl BufRead, number: usize) -> Result<Option<(Seen, u64)>, Failure> {
        let mut bytes = Vec::new();
        old.take(MAX_LINE)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| Failure::io(&self.path, "read", &error))?;
        if bytes.last() != Some(&b'\n') {
            let ours = bytes.starts_with(BEGINNING) || BEGINNING.starts_with(&bytes);
            // What a crash of the machine may leave where data had not reached the disk.
            let lost = bytes.iter().all(|byte| *byte == 0);
            let unfinished = (ours || lost) && (bytes.len() as u64) < MAX_LINE;
            return if unfinished { Ok(None) } else { Err(self.foreign(number)) };
        }
        let seen = serde_json::from_slice(&bytes).map_err(|_| self.foreign(number))?;
        Ok(Some((seen, bytes.len() as u64)))
    }

    fn foreign(&self, number: usize) -> Failure {
        let message = format!("{}:{number}: not a line of `janus batch`", self.path.display());
        Failure::new(Exit::BadData, message)
            .hint("choose another --output, or --restart to throw away what the file holds")
    }

    /// Checks that a line of an earlier run is what this run would write.
    ///
    /// # Errors
    /// Another row, other pictures, or other settings.
    pub fn check(&self, seen: &Seen, input: Option<&str>, settings: &str) -> Result<(), Failure> {
        let what = match input {
            None => "more lines than the input",
            Some(_) if seen.settings != settings => "an answer of another model or other settings",
            Some(input) if seen.input != input => "an answer to another question or picture",
            Some(_) => return Ok(()),
        };
        let message = format!("{}:{}: {what}", self.path.display(), self.number);
        Err(Failure::new(Exit::Usage, message).hint(
            "go on with the flags, model and input it was begun with, choose another --output, \
             or --restart to answer everything again",
        ))
    }

    /// Cuts off the unfinished line; from now on lines are added.
    pub fn begin(&mut self) -> Result<(), Failure> {
        self.old = None;
        let Some(file) = &mut self.file else { return Ok(()) };
        file.set_len(self.kept)
            .and_then(|()| file.seek(SeekFrom::End(0)).map(drop))
            .map_err(|error| Failure::io(&self.path, "write", &error))
    }

    /// Adds lines; when this returns, they are on disk.
    pub fn write(&mut self, lines: &str) -> Result<(), Failure> {
        let Some(file) = &mut self.file else { return report::print(lines) };
        file.write_all(lines.as_bytes())
            .and_then(|()| file.sync_data())
            .map_err(|error| Failure::io(&self.path, "write", &error))
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
