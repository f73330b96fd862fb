//! The loss over given data: every sample once, in the order of the files, nothing left to chance.
//!
//! ```text
//! files ─ reader ─► samples ─ prepare, on threads ─► rows, one sample each ─ Trainee::evaluate ─► sums
//! ```
//! Sums of words and of image codes stay apart, and every supervised token counts the same, so the
//! loss does not depend on how many rows are computed at once. The prompt is never hidden, captions
//! are never cut, and there is no dropout.

use std::ops::ControlFlow;

use janus_model::ErrorKind;
use janus_model::processor::PixelValues;
use rayon::prelude::*;

use crate::accumulate::Report;
use crate::batch::Batch;
use crate::config;
use crate::data::budget::Ledger;
use crate::data::collate::{Example, collate};
use crate::data::encoded::encoded;
use crate::data::error::Place;
use crate::data::formats::Reader;
use crate::data::prepare::Prepared;
use crate::data::source::reader;
use crate::data::tokens::Chance;
use crate::data::{Bad, DataError, Encode, Kind, Objective, OnBad, Packing, Prepare};
use crate::frozen::FrozenTokenizer;
use crate::step::{StepError, Trainee};

/// Data that a model is measured by.
#[derive(Debug)]
pub struct Evaluation {
    files: Vec<Files>,
    on_bad: OnBad,
}

/// One entry of the list of data.
#[derive(Debug)]
struct Files {
    name: String,
    reader: Box<dyn Reader>,
    /// How many samples are used, from the first on.
    samples: u64,
}

/// What happens on the way.
#[derive(Debug)]
pub enum Event<'a> {
    /// A sample is left out.
    LeftOut(&'a Bad),
    /// A few more are done.
    Done {
        /// Samples used or left out.
        done: u64,
        /// Of all.
        total: u64,
    },
}

/// A measured loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluated {
    /// Sums over words and over image codes.
    pub report: Report,
    /// Samples that were used.
    pub samples: u64,
    /// Samples that could not be.
    pub left_out: u64,
    /// Whether it was stopped before the end.
    pub stopped: bool,
}

/// Why there is no loss.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The data are of no use, or too many samples are bad.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Samples do not fit the model.
    #[error("samples from {first} to {last} cannot be computed")]
    Step {
        /// First sample of the rows at hand.
        first: Box<Place>,
        /// Last one.
        last: Box<Place>,
        /// Why not.
        source: StepError,
    },
    /// The loss is no number.
    #[error("the loss of the samples from {first} to {last} is not a finite number")]
    NotFinite {
        /// First sample of the rows at hand.
        first: Box<Place>,
        /// Last one.
        last: Box<Place>,
    },
}

impl EvaluateError {
    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Data(error) => error.kind(),
            Self::Step { source: StepError::Model(error), .. } => error.kind(),
            Self::Step { .. } | Self::NotFinite { .. } => ErrorKind::BadData,
        }
    }

    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(error) => error.hint(),
            Self::Step { source: StepError::Model(error), .. } => error.hint(),
            Self::Step { .. } => Some("were the data made for another model?".to_owned()),
            Self::NotFinite { .. } => Some(
                "the weights hold numbers that are not finite, or their format has too small a \
                 range: try f32"
                    .to_owned(),
            ),
        }
    }
}

impl Evaluation {
    /// Opens files; of each entry the first `samples` are used, or all where that is 0. Weights do
    /// not matter here.
    ///
    /// # Errors
    /// [`DataError`] where nothing can come of it: missing, empty, not of its format.
    pub fn open(
        sources: &[config::Source],
        samples: usize,
        on_bad: OnBad,
    ) -> Result<Self, DataError> {
        let files = sources.iter().map(|source| {
            let reader = reader(&source.spec())?;
            let found: u64 = reader.chunks().iter().sum();
            let wanted = if samples == 0 { found } else { samples as u64 };
            let name = source.path.display().to_string();
            Ok(Files { name, reader, samples: found.min(wanted) })
        });
        Ok(Self { files: files.collect::<Result<_, _>>()?, on_bad })
    }

    /// Samples to go through.
    pub fn len(&self) -> u64 {
        self.files.iter().map(|files| files.samples).sum()
    }

    /// Whether no picture is drawn in any of it, as far as the files tell without being read: then
    /// half a model is enough.
    pub fn needs_no_drawing(&self) -> bool {
        let words = |files: &Files| files.reader.kind().is_some_and(|kind| kind != Kind::Draw);
        self.files.iter().all(words)
    }

    /// Whether there is no data at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The loss of a model over all of it, `rows` samples at once. Of `prepare` everything counts
    /// but chance. `watch` may break off.
    ///
    /// # Errors
    /// [`EvaluateError`].
    pub fn run(
        &self,
        trainee: &Trainee,
        prepare: &Prepare,
        rows: usize,
        mut watch: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Evaluated, EvaluateError> {
        let mut prepare = prepare.clone();
        let usual = prepare.tokens.objective;
        prepare.tokens.objective =
            Objective { unconditional: 0.0, short_captions: 0.0, hidden_codes: 0.0, ..usual };
        let mut pass = Pass {
            trainee,
            prepare: &prepare,
            on_bad: self.on_bad,
            tokenizer: None,
            found: Evaluated::default(),
        };
        let (total, rows) = (self.len(), rows.max(1) as u64);
        for files in &self.files {
            let mut ledger = Ledger::default();
            let mut bad = 0;
            for first in (0..files.samples).step_by(rows as usize) {
                let numbers = first..files.samples.min(first + rows);
                let good = pass.good(files, numbers, (&mut ledger, &mut bad), &mut watch)?;
                pass.measure(good)?;
                let done = pass.found.samples + pass.found.left_out;
                if watch(Event::Done { done, total }).is_break() {
                    pass.found.stopped = done < total;
                    return Ok(pass.found);
                }
            }
        }
        Ok(pass.found)
    }
}

/// One way through the data.
struct Pass<'a> {
    trainee: &'a Trainee,
    prepare: &'a Prepare,
    on_bad: OnBad,
    /// Made when the first unknown picture is met: not every model has one, nor all data need it.
    tokenizer: Option<FrozenTokenizer>,
    found: Evaluated,
}

impl Pass<'_> {
    /// The samples of these numbers that can be used, in their order.
    fn good(
        &mut self,
        files: &Files,
        numbers: std::ops::Range<u64>,
        (ledger, bad): (&mut Ledger, &mut u64),
        watch: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Prepared>, DataError> {
        let prepare = |number| files.prepare(self.prepare, number);
        let ready: Vec<Result<Prepared, Bad>> = numbers.into_par_iter().map(prepare).collect();
        let mut good = Vec::with_capacity(ready.len());
        for sample in ready {
            match sample {
                Ok(sample) => {
                    ledger.good();
                    good.push(sample);
                }
                Err(sample) => {
                    *bad += 1;
                    ledger.enter(&sample, &files.name, (*bad, files.samples), self.on_bad)?;
                    self.found.left_out += 1;
                    // An interrupt is obeyed after these rows.
                    let _ = watch(Event::LeftOut(&sample));
                }
            }
        }
        Ok(good)
    }

    /// Adds the losses of some samples.
    fn measure(&mut self, good: Vec<Prepared>) -> Result<(), EvaluateError> {
        let (Some(first), Some(last)) = (good.first(), good.last()) else { return Ok(()) };
        let (first, last) = (Box::new(first.place.clone()), Box::new(last.place.clone()));
        let samples = good.len() as u64;
        let (trainee, tokenizer) = (self.trainee, &mut self.tokenizer);
        let examples =
            encoded(good, self.prepare, |pictures| encode(trainee, tokenizer, pictures))?;
        match trainee.evaluate(&self.batch(&examples)) {
            Err(source) => Err(EvaluateError::Step { first, last, source }),
            Ok(report) if !report.joined().sum.is_finite() => {
                Err(EvaluateError::NotFinite { first, last })
            }
            Ok(report) => {
                self.found.report.join(report);
                self.found.samples += samples;
                Ok(())
            }
        }
    }

    /// One sample a row.
    fn batch(&self, examples: &[Example]) -> Batch {
        let processor = &self.prepare.tokens.processor;
        let pad = processor.tokenizer.special().pad as i32;
        let rows: Vec<Vec<&Example>> = examples.iter().map(|example| vec![example]).collect();
        collate(&rows, Packing::Off, pad, processor.num_image_tokens)
    }
}

impl Files {
    fn prepare(&self, prepare: &Prepare, number: u64) -> Result<Prepared, Bad> {
        let sample = self.reader.sample(number).and_then(|sample| sample.of(self.reader.kind()));
        prepare.of(self.reader.place(number), sample, Chance::default())
    }
}

/// Codes by the model's own image tokenizer.
fn encode(
    trainee: &Trainee,
    tokenizer: &mut Option<FrozenTokenizer>,
    pictures: &[PixelValues],
) -> Result<Vec<Vec<i32>>, String> {
    let tokenizer = match tokenizer {
        Some(tokenizer) => tokenizer,
        None => {
            let made = FrozenTokenizer::of(&trainee.janus).map_err(|error| error.to_string())?;
            tokenizer.insert(made)
        }
    };
    tokenizer.encode(pictures)
}
