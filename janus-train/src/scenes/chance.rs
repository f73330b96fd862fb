//! Draws in a row, each a hash of what the row is for and of its number in it.

use crate::data::random::{happens, hash};

/// Draws for one purpose. Equal keys give equal rows, in every process and on every thread.
#[derive(Clone, Debug)]
pub struct Chance {
    key: u64,
    drawn: u64,
}

impl Chance {
    /// The row that belongs to these numbers.
    pub fn of(parts: &[u64]) -> Self {
        Self { key: hash(parts), drawn: 0 }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.drawn += 1;
        hash(&[self.key, self.drawn])
    }

    /// One of `0..count`; 0 where there is nothing to choose from.
    pub fn below(&mut self, count: usize) -> usize {
        // The bias of a remainder of 64 bits is far below anything that could be noticed.
        self.bits().checked_rem(count as u64).unwrap_or(0) as usize
    }

    /// One of several.
    ///
    /// # Panics
    /// Without any.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        happens(self.bits(), probability)
    }

    /// A number of `low..high`, evenly.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        // 24 bits are exact in f32.
        low + (high - low) * ((self.bits() >> 40) as f32 / (1 << 24) as f32)
    }

    /// Puts things in any order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even_and_repeatable() {
        let row = |key| {
            let mut chance = Chance::of(&[key]);
            (0..60_000).map(|_| chance.below(6)).collect::<Vec<_>>()
        };
        let (first, again, other) = (row(1), row(1), row(2));
        assert_eq!(first, again);
        assert_ne!(first, other);
        for face in 0..6 {
            let share = first.iter().filter(|found| **found == face).count();
            // Five standard deviations.
            assert!(share.abs_diff(10_000) < 457, "{face}: {share}");
        }
        assert_eq!(Chance::of(&[1]).below(0), 0);
    }

    #[test]
    fn numbers_stay_between_and_orders_are_all_met() {
        let mut chance = Chance::of(&[3]);
        let drawn: Vec<f32> = (0..1000).map(|_| chance.between(-2.0, 3.0)).collect();
        assert!(drawn.iter().all(|x| (-2.0..3.0).contains(x)));
        assert!(drawn.iter().any(|x| *x < -1.9) && drawn.iter().any(|x| *x > 2.9));
        let orders: std::collections::HashSet<[u8; 3]> = (0..200)
            .map(|_| {
                let mut things = [0, 1, 2];
                chance.shuffle(&mut things);
                things
            })
            .collect();
        assert_eq!(orders.len(), 6);
    }
}
