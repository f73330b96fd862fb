//! What a run says about itself: one JSON line per step, and the same for TensorBoard if wanted.
//!
//! Lines are appended whole, each by one write. After a kill the file may end in half a line, and
//! in lines of steps that the run goes back to: both are cut when it is opened, so that every step
//! is in it once.

mod events;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use janus_model::ErrorKind;
use serde::{Deserialize, Serialize};

pub use events::Events;

use crate::strategy::Measured;

/// Longest line that is read back, in bytes; ours are below 1 kB.
const MAX_LINE: usize = 1 << 16;

/// One optimizer step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Steps done, this one included.
    pub step: u64,
    /// Mean over all supervised tokens; `null` where it is no number.
    pub loss: Option<f64>,
    /// Mean over supervised words; `null` where there were none.
    pub loss_text: Option<f64>,
    /// Mean over supervised codes; `null` where there were none.
    pub loss_image: Option<f64>,
    /// Norm of all gradients, before clipping.
    pub grad_norm: Option<f64>,
    /// Learning rate.
    pub rate: f64,
    /// Supervised words and codes.
    pub supervised: u64,
    /// Of those, words.
    #[serde(default)]
    pub supervised_text: u64,
    /// Tokens of all rows, padding left out.
    pub tokens: u64,
    /// Tokens in a second.
    pub tokens_per_second: f64,
    /// Bytes of memory in use, where that is known.
    pub memory: Option<u64>,
    /// Time the run has taken, over all its processes.
    pub seconds: f64,
    /// Why the step was left out; absent where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What else this kind of training tells.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub terms: BTreeMap<String, f64>,
}

/// Most terms of one step.
const TERMS: usize = 12;

/// Named numbers of a step: the parts of a loss, shares, whatever belongs to one kind of training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms([Option<(&'static str, f64)>; TERMS]);

impl Terms {
    /// Adds to the number of that name, which begins at 0.
    ///
    /// # Panics
    /// On more names than there is room for, which no training of ours has.
    pub fn add(&mut self, name: &'static str, value: f64) {
        let known = |slot: &Option<(&str, f64)>| slot.is_none_or(|(other, _)| other == name);
        let slot = self.0.iter_mut().find(|slot| known(slot)).expect("room for a term");
        *slot = Some((name, slot.map_or(0.0, |(_, sum)| sum) + value));
    }

    /// The number of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().flatten().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// As a row of metrics has them; what is no number is left out.
    pub fn named(&self) -> BTreeMap<String, f64> {
        let finite = self.0.iter().flatten().filter(|(_, value)| value.is_finite());
        finite.map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }
}

/// Why metrics cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The operating system said no.
    #[error("{path}: cannot {action}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A whole line is none of ours.
    #[error("{path}: line {line}: {problem}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

impl MetricsError {
    fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }

    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Io,
            Self::Line { .. } => ErrorKind::BadData,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { .. } => None,
            Self::Line { .. } => {
                Some("move the file away: checkpoints do not need it, a new one is begun".into())
            }
        }
    }
}

/// The metrics of a run, open for the next step.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    before: f64,
    events: Option<Events>,
}

/// The part of a row that matters for going on.
#[derive(Deserialize)]
struct Place {
    step: u64,
    #[serde(default)]
    seconds: f64,
}

impl Metrics {
    /// Opens the file of a run of which `step` steps are done, and cuts what lies behind them.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds something else.
    pub fn open(path: &Path, step: u64) -> Result<Self, MetricsError> {
        let io = |action| move |error| MetricsError::io(path, action, error);
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(io("open"))?;
        let (length, before) = kept(path, &file, step)?;
        file.set_len(length).map_err(io("cut"))?;
        file.seek(SeekFrom::Start(length)).map_err(io("read"))?;
        Ok(Self { path: path.to_owned(), file, before, events: None })
    }

    /// Writes TensorBoard's files to `folder`, too.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn with_events(mut self, folder: &Path, step: u64) -> Result<Self, MetricsError> {
        let events = Events::create(folder, step);
        let events = events.map_err(|error| MetricsError::io(folder, "write into", error))?;
        self.events = Some(events);
        Ok(self)
    }

    /// Seconds that the run had taken when this was opened.
    pub fn seconds_before(&self) -> f64 {
        self.before
    }

    /// Appends a step.
    ///
    /// # Errors
    /// The disk is full; what was written of the line is taken back.
    pub fn log(&mut self, row: &Row) -> Result<(), MetricsError> {
        // Numbers and strings always serialise; what is no number becomes null.
        let mut line = serde_json::to_vec(row).unwrap_or_default();
        line.push(b'\n');
        let length = self.file.stream_position().unwrap_or_default();
        if let Err(error) = self.file.write_all(&line) {
            // Half a line would be cut at the next start anyway.
            let _ = self.file.set_len(length);
            let _ = self.file.seek(SeekFrom::Start(length));
            return Err(MetricsError::io(&self.path, "write", error));
        }
        let Some(events) = &mut self.events else { return Ok(()) };
        let written = events.scalars(row.step, &scalars(row));
        written.map_err(|error| MetricsError::io(events.path(), "write", error))
    }
}

impl Metrics {
    /// Appends losses over validation data to `valid.jsonl` beside the file. A step whose
    /// checkpoint was killed is there twice, with the same losses.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn log_valid(&mut self, step: u64, judged: &Measured) -> Result<(), MetricsError> {
        let Measured { loss, loss_text, loss_image, supervised, .. } = *judged;
        let line = serde_json::json!({
            "step": step,
            "loss": loss,
            "loss_text": loss_text,
            "loss_image": loss_image,
            "supervised": supervised,
        });
        append(&self.path.with_file_name("valid.jsonl"), &line)?;
        let Some(events) = &mut self.events else { return Ok(()) };
        let all =
            [("valid/loss", Some(loss)), ("valid/text", loss_text), ("valid/image", loss_image)];
        let all: Vec<_> = all.into_iter().filter_map(|(name, v)| Some((name, v?))).collect();
        let written = events.scalars(step, &all);
        written.map_err(|error| MetricsError::io(events.path(), "write", error))
    }
}

/// Appends a line of JSON to a file of its own.
///
/// # Errors
/// The file cannot be written.
pub fn append(path: &Path, line: &serde_json::Value) -> Result<(), MetricsError> {
    let file = File::options().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        .map_err(|error| MetricsError::io(path, "write", error))
}

/// Length of the file up to the last whole line of a step that is done, and that line's time.
fn kept(path: &Path, file: &File, step: u64) -> Result<(u64, f64), MetricsError> {
    let (mut length, mut before) = (0, 0.0);
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = io::Read::take(&mut reader, MAX_LINE as u64);
        let read = limited.read_until(b'\n', &mut line);
        let read = read.map_err(|error| MetricsError::io(path, "read", error))?;
        // Nothing more, or the line that a kill cut short.
        if line.last() != Some(&b'\n') && read < MAX_LINE {
            break;
        }
        let place: Place = serde_json::from_slice(&line).map_err(|error| {
            let problem = format!("no line of metrics: {error}");
            MetricsError::Line { path: path.to_owned(), line: number, problem }
        })?;
        if place.step > step {
            break;
        }
        length += read as u64;
        before = place.seconds;
    }
    Ok((length, before))
}

/// Names and values for TensorBoard.
fn scalars(row: &Row) -> Vec<(&str, f64)> {
    let always = [
        ("rate", Some(row.rate)),
        ("supervised", Some(row.supervised as f64)),
        ("tokens", Some(row.tokens as f64)),
        ("tokens_per_second", Some(row.tokens_per_second)),
        ("loss", row.loss),
        ("loss/text", row.loss_text),
        ("loss/image", row.loss_image),
        ("grad_norm", row.grad_norm),
        ("memory", row.memory.map(|bytes| bytes as f64)),
        ("skipped", row.skipped.as_ref().map(|_| 1.0)),
    ];
    let always = always.into_iter().filter_map(|(name, value)| Some((name, value?)));
    always.chain(row.terms.iter().map(|(name, value)| (name.as_str(), *value))).collect()
}

#[cfg(test)]
mod tests;
