//! The samples of each step, in an order that no thread can change.
//!
//! ```text
//! source ── positions ──► threads: read, tokenise, decode, resize ──► queue, in order
//!                                                                       │ mixture: which source
//! step ◄── collate ◄── pack ◄── codes (cache, or the image tokenizer) ◄─┘
//! ```
//! Threads only make ready what will be asked for next, source by source; which sample belongs to
//! which step is decided here, from the cursor alone. A queue holds a bounded number of samples.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::budget::{Ledger, OnBad};
use super::codes::{Cache, Encode};
use super::collate::{Example, collate};
use super::cursor::{Cursor, next};
use super::encoded::encoded;
use super::error::{Bad, DataError, Place};
use super::mixture::{Mixture, furthest_behind};
use super::pack::{Packing, pack};
use super::prepare::{Prepare, Prepared};
use super::sample::Kind;
use super::source::Source;
use super::tokens::Document;
use crate::batch::Batch;
use crate::trainer::forecast::Tokens;

/// How steps are made of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Understanding : text : drawing.
    pub ratio: [u32; 3],
    /// Samples of a step.
    pub batch: usize,
    /// Rows of a micro-batch.
    pub rows: usize,
    /// How samples share rows.
    pub packing: Packing,
    /// What to do about bad samples.
    pub on_bad: OnBad,
    /// Threads that prepare samples; 0 prepares each when it is needed.
    pub workers: usize,
    /// Samples prepared ahead, over all sources; each has one at least.
    pub ahead: usize,
}

/// All that one optimizer step needs.
#[derive(Clone, Debug)]
pub struct Step {
    /// Counted from 0.
    pub number: u64,
    /// Micro-batches.
    pub batches: Vec<Batch>,
    /// Its samples, as they were taken: understanding, text, drawing.
    pub places: Vec<Place>,
    /// Bad samples that were met and left out.
    pub left_out: Vec<String>,
}

impl Step {
    /// Supervised words and codes of all micro-batches.
    pub fn supervised(&self) -> usize {
        self.batches.iter().map(Batch::supervised).sum()
    }
}

type Ready = Result<Prepared, Bad>;

/// Gives the steps of a run.
#[derive(Debug)]
pub struct Loader {
    streams: Vec<Stream>,
    mixture: Mixture,
    options: Options,
    prepare: Arc<Prepare>,
    pool: Option<ThreadPool>,
    cursor: Cursor,
}

/// A source and what is being prepared of it.
#[derive(Debug)]
struct Stream {
    source: Arc<Source>,
    /// In order of their positions.
    queue: VecDeque<(Place, Receiver<Ready>)>,
    /// Epoch and position of the next to be queued.
    next: (u64, u64),
    /// How many are queued at most.
    ahead: usize,
    ledger: Ledger,
}

impl Loader {
    /// Puts sources together.
    ///
    /// # Errors
    /// [`DataError::Mixture`]: a kind of the ratio without a source, or a source that the ratio
    /// never asks for; fewer samples of a kind than one step takes. [`DataError::Threads`].
    pub fn new(
        sources: Vec<Source>,
        prepare: Prepare,
        options: Options,
    ) -> Result<Self, DataError> {
        let mixture = Mixture::new(options.ratio, options.batch)?;
        check(&sources, &mixture, options)?;
        let cursor = Cursor::start(sources.iter());
        let shares = shares(&sources, options.ratio);
        let stream = |(source, share): (Source, f64)| Stream {
            source: Arc::new(source),
            queue: VecDeque::new(),
            next: (0, 0),
            ahead: ((options.ahead as f64 * share).ceil() as usize).max(1),
            ledger: Ledger::default(),
        };
        let streams = sources.into_iter().zip(shares).map(stream).collect();
        let pool = || {
            let name = |number: usize| format!("data-{number}");
            ThreadPoolBuilder::new().num_threads(options.workers).thread_name(name).build()
        };
        let pool = (options.workers > 0)
            .then(pool)
            .transpose()
            .map_err(|error| DataError::Threads { problem: error.to_string() })?;
        Ok(Self { streams, mixture, options, prepare: Arc::new(prepare), pool, cursor })
    }

    /// How samples are made ready.
    pub fn prepare(&self) -> &Prepare {
        &self.prepare
    }

    /// Keeps codes of target pictures, and looks there first. To be called before the first step.
    pub fn set_cache(&mut self, cache: Arc<Cache>) {
        Arc::make_mut(&mut self.prepare).cache = Some(cache);
    }

    /// Where the run stands: behind the last step that was given.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Tokens of a step, as the first `samples` of each source have them; no picture is decoded.
    pub fn expect(&self, samples: u64) -> Tokens {
        let options = self.options;
        let sources: Vec<&Source> =
            self.streams.iter().map(|stream| stream.source.as_ref()).collect();
        let mut sum = Tokens::default();
        for (source, share) in sources.iter().zip(shares(&sources, options.ratio)) {
            let documents: Vec<Document> = (0..samples.min(source.len()))
                .filter_map(|index| self.prepare.document(source, index).ok())
                .collect();
            let weight = share * options.batch as f64 / documents.len().max(1) as f64;
            for document in documents {
                let each = self.prepare.tokens.codes;
                let learnt = document.drawn.iter().filter(|drawn| drawn.learnt).count();
                sum.all += weight * document.ids.len() as f64;
                sum.words += weight * document.targets.len() as f64;
                sum.codes += weight * (learnt * each) as f64;
                sum.pictures += weight * document.seen.len() as f64;
            }
        }
        sum
    }

    /// Goes on where a cursor says.
    ///
    /// # Errors
    /// [`DataError::Changed`] unless the data are the same, or `changed` allows others.
    pub fn seek(&mut self, cursor: &Cursor, changed: bool) -> Result<(), DataError> {
        let fresh = Cursor::start(self.streams.iter().map(|stream| stream.source.as_ref()));
        let lens: Vec<u64> = self.streams.iter().map(|stream| stream.source.len()).collect();
        self.cursor = cursor.onto(fresh, &lens, changed)?;
        self.rewind();
        Ok(())
    }

    /// Forgets what is being prepared and begins again at the cursor.
    fn rewind(&mut self) {
        for (stream, at) in self.streams.iter_mut().zip(&self.cursor.sources) {
            stream.queue.clear();
            stream.next = (at.epoch, at.position);
        }
    }

    /// The next step. After an error the cursor still stands before it.
    ///
    /// # Errors
    /// [`DataError`]: too many bad samples, an image tokenizer that fails.
    pub fn next(&mut self, encoder: &mut dyn Encode) -> Result<Step, DataError> {
        let step = self.step(encoder);
        if step.is_err() {
            self.rewind();
        }
        step
    }

    fn step(&mut self, encoder: &mut dyn Encode) -> Result<Step, DataError> {
        let mut cursor = self.cursor.clone();
        let (mut taken, mut left_out) = (Vec::with_capacity(self.options.batch), Vec::new());
        let counts = self.mixture.counts(cursor.step);
        for (kind, count) in Kind::ALL.into_iter().zip(counts) {
            for _ in 0..count {
                let stream = self.whose_turn(kind, &cursor);
                taken.push(self.take(stream, &mut cursor, &mut left_out)?);
            }
        }
        let places = taken.iter().map(|prepared| prepared.place.clone()).collect();
        let examples = encoded(taken, &self.prepare, |pictures| encoder.encode(pictures))?;
        let batches = self.batches(&examples);
        let number = cursor.step;
        cursor.step += 1;
        self.cursor = cursor;
        Ok(Step { number, batches, places, left_out })
    }

    /// The source of a kind that is furthest behind its weight.
    fn whose_turn(&self, kind: Kind, cursor: &Cursor) -> usize {
        let of_kind: Vec<usize> =
            (0..self.streams.len()).filter(|i| self.streams[*i].source.kind() == kind).collect();
        let taken = |i: &usize| (self.streams[*i].source.weight(), cursor.sources[*i].taken);
        of_kind[furthest_behind(&of_kind.iter().map(taken).collect::<Vec<_>>())]
    }

    /// The next good sample of a source.
    fn take(
        &mut self,
        number: usize,
        cursor: &mut Cursor,
        left_out: &mut Vec<String>,
    ) -> Result<Prepared, DataError> {
        let at = &mut cursor.sources[number];
        loop {
            let ready = self.pop(number)?;
            let stream = &mut self.streams[number];
            let (source, on_bad) = (&stream.source, self.options.on_bad);
            match ready {
                Ok(prepared) => {
                    stream.ledger.good();
                    at.taken += 1;
                    at.advance(source.len());
                    return Ok(prepared);
                }
                Err(bad) => {
                    at.bad += 1;
                    stream.ledger.enter(&bad, source.name(), (at.bad, source.len()), on_bad)?;
                    left_out.push(bad.to_string());
                    at.advance(source.len());
                }
            }
        }
    }

    /// What a source's next position gives; the ones behind it are put to work.
    fn pop(&mut self, number: usize) -> Result<Ready, DataError> {
        let stream = &mut self.streams[number];
        let Some(pool) = &self.pool else {
            let (epoch, index) = stream.queue_next();
            return Ok(self.prepare.sample(&stream.source, epoch, index));
        };
        while stream.queue.len() < stream.ahead {
            let (epoch, index) = stream.queue_next();
            let (sender, receiver) = sync_channel(1);
            let (prepare, source) = (Arc::clone(&self.prepare), Arc::clone(&stream.source));
            stream.queue.push_back((source.place(index), receiver));
            pool.spawn_fifo(move || {
                // A panic would end the process; without an answer the other side gives an error.
                let ready =
                    catch_unwind(AssertUnwindSafe(|| prepare.sample(&source, epoch, index)));
                if let Ok(ready) = ready {
                    // Nobody waits where the loader is gone or was moved elsewhere.
                    let _ = sender.send(ready);
                }
            });
        }
        match stream.queue.pop_front() {
            Some((place, ready)) => ready.recv().map_err(|_| DataError::Worker { place }),
            None => Err(DataError::Threads { problem: "none is at work".to_owned() }),
        }
    }

    fn batches(&self, examples: &[Example]) -> Vec<Batch> {
        let (tokens, packing) = (&self.prepare.tokens, self.options.packing);
        let lengths: Vec<usize> = examples.iter().map(|e| e.document.ids.len()).collect();
        let rows = pack(&lengths, tokens.objective.max_tokens, packing);
        let row = |row: &Vec<usize>| row.iter().map(|index| &examples[*index]).collect();
        let rows: Vec<Vec<&Example>> = rows.iter().map(row).collect();
        let processor = &tokens.processor;
        let pad = processor.tokenizer.special().pad as i32;
        let micro =
            |rows: &[Vec<&Example>]| collate(rows, packing, pad, processor.num_image_tokens);
        rows.chunks(self.options.rows.max(1)).map(micro).collect()
    }
}

impl Stream {
    /// Epoch and number of the sample to queue now.
    fn queue_next(&mut self) -> (u64, u64) {
        let (epoch, position) = self.next;
        self.next = next(epoch, position, self.source.len());
        (epoch, self.source.index(epoch, position))
    }
}

/// Whether sources and ratio fit.
fn check(sources: &[Source], mixture: &Mixture, options: Options) -> Result<(), DataError> {
    let wrong = |problem: String| Err(DataError::Mixture { problem });
    for kind in Kind::ALL {
        let of_kind = || sources.iter().filter(move |source| source.kind() == kind);
        let (part, samples) =
            (options.ratio[kind as usize], of_kind().map(Source::len).sum::<u64>());
        let most = mixture.most(kind) as u64;
        match of_kind().next() {
            Some(source) if part == 0 => {
                let name = source.name();
                return wrong(format!("{name}: samples for {kind}, whose part of the ratio is 0"));
            }
            None if part > 0 => {
                return wrong(format!("no source for {kind}, whose part of the ratio is {part}"));
            }
            _ if samples < most => {
                return wrong(format!(
                    "a step takes {most} samples for {kind}, the data have {samples}: \
                     make the batch smaller"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Each source's share of all samples.
fn shares<S: Borrow<Source>>(sources: &[S], ratio: [u32; 3]) -> Vec<f64> {
    let parts: f64 = ratio.iter().map(|part| f64::from(*part)).sum();
    let share = |source: &S| {
        let source = source.borrow();
        let others = sources.iter().map(Borrow::borrow);
        let of_kind = others.filter(|other| other.kind() == source.kind());
        let weights: f64 = of_kind.map(Source::weight).sum();
        f64::from(ratio[source.kind() as usize]) / parts * source.weight() / weights
    };
    sources.iter().map(share).collect()
}
