//! Which sample comes at which position of an epoch, without a list of them.
//!
//! A keyed permutation of the numbers below `n` (a Feistel network, walked until it lands below
//! `n`) takes no memory and no time to prepare, so a position is the whole state. Sources that are
//! slow to jump about in (tar shards, parquet row groups) are shuffled in two floors: the order of
//! the chunks, then the samples inside each chunk.

use std::sync::{Arc, Mutex, PoisonError};

use super::random::hash;

/// Enough for the halves to be mixed well; the permutation is no cipher.
const ROUNDS: u64 = 6;

/// Place of number `k` under the permutation of `0..n` that belongs to `key`.
///
/// # Panics
/// Unless `k < n`.
pub fn permute(key: u64, n: u64, k: u64) -> u64 {
    assert!(k < n, "{k} is not below {n}");
    let half = (64 - (n - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut at = k;
    // At most four times as many numbers as needed are permuted: a few walks at worst, and the
    // walk ends, because it is on a cycle that holds `k` itself.
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (hash(&[key, round, right]) & mask));
        }
        at = (left << half) | right;
        if at < n {
            return at;
        }
    }
}

/// The chunks of one epoch: their number, first sample, and the position after their last.
type Layout = Vec<Chunk>;

#[derive(Debug)]
struct Chunk {
    number: u64,
    first: u64,
    /// Samples of this and all earlier chunks of the epoch.
    end: u64,
    size: u64,
}

/// The order of a source's samples in every epoch.
#[derive(Debug)]
pub struct Order {
    sizes: Vec<u64>,
    len: u64,
    /// `None` keeps the order of the files.
    seed: Option<u64>,
    /// The epoch in use, as it takes a moment to lay out many chunks.
    layout: Mutex<Option<(u64, Arc<Layout>)>>,
}

impl Order {
    /// `sizes` are the samples of each chunk, one after the other.
    pub fn new(sizes: Vec<u64>, seed: Option<u64>) -> Self {
        let sizes: Vec<u64> = sizes.into_iter().filter(|size| *size > 0).collect();
        let len = sizes.iter().sum();
        Self { sizes, len, seed, layout: Mutex::new(None) }
    }

    /// Samples of an epoch.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to order.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sample at a position of an epoch.
    ///
    /// # Panics
    /// Unless `position` is below [`Order::len`].
    pub fn index(&self, epoch: u64, position: u64) -> u64 {
        let Some(seed) = self.seed else { return position };
        if self.sizes.len() == 1 {
            return permute(hash(&[seed, epoch]), self.len, position);
        }
        let layout = self.layout(seed, epoch);
        let chunk = &layout[layout.partition_point(|chunk| chunk.end <= position)];
        let inside = position - (chunk.end - chunk.size);
        chunk.first + permute(hash(&[seed, epoch, chunk.number]), chunk.size, inside)
    }

    fn layout(&self, seed: u64, epoch: u64) -> Arc<Layout> {
        let mut known = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, layout)) = known.as_ref().filter(|(of, _)| *of == epoch) {
            return Arc::clone(layout);
        }
        let starts: Vec<u64> = self
            .sizes
            .iter()
            .scan(0, |sum, size| {
                *sum += size;
                Some(*sum - size)
            })
            .collect();
        let chunks = self.sizes.len() as u64;
        let mut end = 0;
        let layout = (0..chunks).map(|k| {
            let number = permute(hash(&[seed, epoch]), chunks, k);
            let size = self.sizes[number as usize];
            end += size;
            Chunk { number, first: starts[number as usize], end, size }
        });
        let layout: Arc<Layout> = Arc::new(layout.collect());
        *known = Some((epoch, Arc::clone(&layout)));
        layout
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn all(order: &Order, epoch: u64) -> Vec<u64> {
        (0..order.len()).map(|position| order.index(epoch, position)).collect()
    }

    proptest! {
        #[test]
        fn a_permutation_is_a_bijection(key: u64, n in 1u64..3000) {
            let seen: BTreeSet<u64> = (0..n).map(|k| permute(key, n, k)).collect();
            prop_assert_eq!(seen.len() as u64, n);
            prop_assert_eq!(seen.last(), Some(&(n - 1)));
        }

        #[test]
        fn huge_sets_stay_inside(key: u64, n in 1u64..=u64::MAX >> 1, k: u64) {
            prop_assert!(permute(key, n, k % n) < n);
        }

        #[test]
        fn chunks_cover_everything_once(seed: u64, epoch: u64, sizes in prop::collection::vec(0u64..40, 1..12)) {
            let order = Order::new(sizes, Some(seed));
            let mut seen = all(&order, epoch);
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..order.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let order = |seed| Order::new(vec![500], Some(seed));
        assert_eq!(all(&order(1), 0), all(&order(1), 0));
        assert_ne!(all(&order(1), 0), all(&order(1), 1));
        assert_ne!(all(&order(1), 0), all(&order(2), 0));
    }

    #[test]
    fn a_chunk_is_read_in_one_go() {
        let order = Order::new(vec![10, 20, 0, 30], Some(3));
        let chunk = |index: u64| [10, 30, 60].iter().position(|end| index < *end);
        let mut visited: Vec<_> = all(&order, 5).into_iter().map(chunk).collect();
        visited.dedup();
        assert_eq!(visited.len(), 3);
    }

    #[test]
    fn without_a_seed_the_files_order_is_kept() {
        assert_eq!(all(&Order::new(vec![2, 3], None), 9), [0, 1, 2, 3, 4]);
    }

    /// A sample must not favour a part of the epoch: mean position over many keys.
    #[test]
    fn positions_are_spread_evenly() {
        let n = 100;
        for k in [0, 1, 50, 99] {
            let sum: u64 = (0..20_000).map(|key| permute(hash(&[key]), n, k)).sum();
            let mean = sum as f64 / 20_000.0;
            // A uniform place has mean 49.5 and deviation 28.9: five standard errors.
            assert!((mean - 49.5).abs() < 1.02, "{k} lands at {mean} on average");
        }
    }
}
