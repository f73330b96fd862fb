//! A source: samples of one kind, in an order of their own, with a weight among their kind.

use std::sync::Arc;

use super::error::{DataError, Place, Why};
use super::formats::{Reader, Spec, open};
use super::order::Order;
use super::random::hash;
use super::sample::{Kind, Sample};

/// Samples of one kind.
#[derive(Debug)]
pub struct Source {
    name: String,
    kind: Kind,
    weight: f64,
    seed: u64,
    reader: Arc<dyn Reader>,
    /// Those of the reader's samples that are of this kind; all where there is none.
    picks: Option<Vec<u32>>,
    order: Order,
}

/// How the samples of an epoch follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    /// As in the files.
    Off,
    /// Another order in each epoch, by the seed.
    Seed(u64),
}

impl Source {
    /// Opens files. Conversations without a stated kind become one source per kind they hold; a
    /// record that is none then counts as a bad sample of the most frequent kind.
    ///
    /// `number` tells equal files in one list apart; `weight` is the share among its kind.
    ///
    /// # Errors
    /// [`DataError`] where nothing can come of it.
    pub fn open(
        spec: &Spec,
        (number, weight): (usize, f64),
        shuffle: Shuffle,
    ) -> Result<Vec<Self>, DataError> {
        let path = spec.path.display();
        if !(weight > 0.0 && weight.is_finite()) {
            let problem = format!("{path}: the weight {weight} is not above 0");
            return Err(DataError::Mixture { problem });
        }
        let reader: Arc<dyn Reader> = Arc::from(reader(spec)?);
        let new = |kind: Kind, picks: Option<Vec<u32>>| {
            let reader = Arc::clone(&reader);
            Self { picks, ..Self::of(reader, path.to_string(), kind, (number, weight), shuffle) }
                .ordered(shuffle)
        };
        let Some(kind) = reader.kind() else {
            let sorted = sort(reader.as_ref());
            let found = Kind::ALL.into_iter().zip(sorted).filter(|(_, picks)| !picks.is_empty());
            return Ok(found.map(|(kind, picks)| new(kind, Some(picks))).collect());
        };
        Ok(vec![new(kind, None)])
    }

    /// A source that reads what it is given: for formats of your own. All samples must be of one
    /// kind; `number` and `weight` as in [`Source::open`].
    pub fn of(
        reader: Arc<dyn Reader>,
        name: String,
        kind: Kind,
        (number, weight): (usize, f64),
        shuffle: Shuffle,
    ) -> Self {
        let seed = match shuffle {
            Shuffle::Off => 0,
            Shuffle::Seed(seed) => hash(&[seed, number as u64, kind as u64]),
        };
        let order = Order::new(Vec::new(), None);
        Self { name, kind, weight, seed, reader, picks: None, order }.ordered(shuffle)
    }

    /// With the order that belongs to its samples.
    fn ordered(mut self, shuffle: Shuffle) -> Self {
        let all = || self.reader.chunks();
        let sizes = self.picks.as_ref().map_or_else(all, |picks| vec![picks.len() as u64]);
        self.order = Order::new(sizes, (shuffle != Shuffle::Off).then_some(self.seed));
        self
    }

    /// The path it was opened with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is learnt from its samples.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Share among the sources of its kind.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Seed of everything that chance decides about its samples.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Samples of an epoch.
    pub fn len(&self) -> u64 {
        self.order.len()
    }

    /// Never: an empty source does not open.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Number of the sample at a position of an epoch.
    pub fn index(&self, epoch: u64, position: u64) -> u64 {
        self.order.index(epoch, position)
    }

    /// A sample by its number.
    ///
    /// # Errors
    /// [`Why`] it cannot be used.
    pub fn sample(&self, index: u64) -> Result<Sample, Why> {
        self.reader.sample(self.pick(index))?.of(Some(self.kind))
    }

    /// Where a sample stands.
    pub fn place(&self, index: u64) -> Place {
        self.reader.place(self.pick(index))
    }

    /// In hexadecimal; changes when the files do.
    pub fn fingerprint(&self) -> String {
        self.reader.fingerprint().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn pick(&self, index: u64) -> u64 {
        self.picks.as_ref().map_or(index, |picks| u64::from(picks[index as usize]))
    }
}

/// Opens files that hold what was promised of them.
///
/// # Errors
/// As [`Source::open`].
pub(crate) fn reader(spec: &Spec) -> Result<Box<dyn Reader>, DataError> {
    let reader = open(spec)?;
    match (spec.kind, reader.kind()) {
        (Some(wanted), Some(kind)) if wanted != kind => {
            let path = spec.path.display();
            let problem = format!("{path}: holds samples for {kind}, not for {wanted}");
            Err(DataError::Mixture { problem })
        }
        _ => Ok(reader),
    }
}

/// Numbers of the samples of each kind.
fn sort(reader: &dyn Reader) -> [Vec<u32>; 3] {
    let mut sorted: [Vec<u32>; 3] = Default::default();
    let mut broken = Vec::new();
    let count: u64 = reader.chunks().iter().sum();
    for index in 0..u32::try_from(count).unwrap_or(u32::MAX) {
        match reader.sample(u64::from(index)) {
            Ok(sample) => sorted[sample.kind() as usize].push(index),
            Err(_) => broken.push(index),
        }
    }
    let most = (0..3).max_by_key(|kind| sorted[*kind].len()).unwrap_or(0);
    sorted[most].extend(broken);
    sorted[most].sort_unstable();
    sorted
}
