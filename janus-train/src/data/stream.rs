//! Samples of several sources in one stream, each made ready by whoever trains on them: for
//! networks that learn from pictures, or pairs of picture and caption, and not from documents.
//!
//! As in [`super::loader`]: the cursor is the whole state, chance is a hash of source, epoch and
//! sample, and a sample is used whole or counted and named.

use rayon::prelude::*;

use super::budget::{Ledger, OnBad};
use super::cursor::Cursor;
use super::error::{Bad, DataError, Why};
use super::formats::Spec;
use super::mixture::furthest_behind;
use super::random::hash;
use super::sample::Sample;
use super::source::{Shuffle, Source};

/// Gives samples, source by source as their weights want it.
#[derive(Debug)]
pub struct Stream {
    sources: Vec<Source>,
    ledgers: Vec<Ledger>,
    cursor: Cursor,
    on_bad: OnBad,
    left_out: Vec<String>,
}

/// A sample that is to be made ready.
#[derive(Clone, Copy)]
struct Pick {
    source: usize,
    epoch: u64,
    index: u64,
}

impl Stream {
    /// Opens sources, each with its weight.
    ///
    /// # Errors
    /// [`DataError`] where nothing can come of one.
    pub fn open(specs: &[(Spec, f64)], shuffle: Shuffle, on_bad: OnBad) -> Result<Self, DataError> {
        let mut sources = Vec::new();
        for (number, (spec, weight)) in specs.iter().enumerate() {
            sources.extend(Source::open(spec, (number, *weight), shuffle)?);
        }
        if sources.is_empty() {
            return Err(DataError::Mixture { problem: "there is no source of data".to_owned() });
        }
        let ledgers = sources.iter().map(|_| Ledger::default()).collect();
        let cursor = Cursor::start(sources.iter());
        Ok(Self { sources, ledgers, cursor, on_bad, left_out: Vec::new() })
    }

    /// Samples of one epoch of every source.
    pub fn len(&self) -> u64 {
        self.sources.iter().map(Source::len).sum()
    }

    /// Never: an empty source does not open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes when the files do.
    pub fn fingerprint(&self) -> String {
        self.sources.iter().map(Source::fingerprint).collect::<Vec<_>>().join(" ")
    }

    /// Where the run stands: behind the last samples that were given.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Goes on where a cursor says.
    ///
    /// # Errors
    /// [`DataError::Changed`] unless the data are the same, or `changed` allows others.
    pub fn seek(&mut self, cursor: &Cursor, changed: bool) -> Result<(), DataError> {
        let lens: Vec<u64> = self.sources.iter().map(Source::len).collect();
        self.cursor = cursor.onto(Cursor::start(self.sources.iter()), &lens, changed)?;
        Ok(())
    }

    /// Bad samples that were met since this was last asked.
    pub fn take_left_out(&mut self) -> Vec<String> {
        std::mem::take(&mut self.left_out)
    }

    /// The next `count` good samples, made ready by `ready` on all threads; its number is all the
    /// chance there is for a sample in its epoch. After an error the cursor still stands before
    /// them.
    ///
    /// # Errors
    /// Too many samples are bad.
    pub fn next<T: Send>(
        &mut self,
        count: usize,
        ready: impl Fn(&Sample, u64) -> Result<T, Why> + Sync,
    ) -> Result<Vec<T>, DataError> {
        let mut cursor = self.cursor.clone();
        let mut good = Vec::with_capacity(count);
        while good.len() < count {
            let picks: Vec<Pick> = (good.len()..count).map(|_| self.pick(&mut cursor)).collect();
            let made: Vec<Result<T, Bad>> =
                picks.par_iter().map(|pick| self.make(*pick, &ready)).collect();
            for (pick, made) in picks.iter().zip(made) {
                match made {
                    Ok(made) => {
                        self.ledgers[pick.source].good();
                        good.push(made);
                    }
                    Err(bad) => self.enter(pick.source, &bad, &mut cursor)?,
                }
            }
        }
        cursor.step += 1;
        self.cursor = cursor;
        Ok(good)
    }

    /// The sample whose turn it is, taken for good until it turns out otherwise.
    fn pick(&self, cursor: &mut Cursor) -> Pick {
        let taken =
            |(source, at): (&Source, &super::cursor::SourceCursor)| (source.weight(), at.taken);
        let all: Vec<_> = self.sources.iter().zip(&cursor.sources).map(taken).collect();
        let number = furthest_behind(&all);
        let (source, at) = (&self.sources[number], &mut cursor.sources[number]);
        let (epoch, index) = (at.epoch, source.index(at.epoch, at.position));
        at.taken += 1;
        at.advance(source.len());
        Pick { source: number, epoch, index }
    }

    fn make<T>(
        &self,
        pick: Pick,
        ready: impl Fn(&Sample, u64) -> Result<T, Why>,
    ) -> Result<T, Bad> {
        let source = &self.sources[pick.source];
        let chance = hash(&[source.seed(), pick.epoch, pick.index]);
        let made = source.sample(pick.index).and_then(|sample| ready(&sample, chance));
        made.map_err(|why| Bad { place: source.place(pick.index), why })
    }

    fn enter(&mut self, number: usize, bad: &Bad, cursor: &mut Cursor) -> Result<(), DataError> {
        let (source, at) = (&self.sources[number], &mut cursor.sources[number]);
        at.taken -= 1;
        at.bad += 1;
        self.left_out.push(bad.to_string());
        self.ledgers[number].enter(bad, source.name(), (at.bad, source.len()), self.on_bad)
    }
}
