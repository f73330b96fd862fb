//! How many samples of each kind a step takes, and from which source.
//!
//! Understanding, text and drawing stand in their ratio **inside every step**: each kind gets the
//! floor or the ceiling of its exact share, and who gets the ceiling is decided by what each is
//! still owed, so that the ratio is exact after `sum of the ratio` steps at the latest. Nothing is
//! drawn by chance; the number of the step is all that counts.
//!
//! Source: Janus-Pro report, section 2.4 (data types mixed within each step).

use super::error::DataError;
use super::sample::Kind;

/// Above this the ratio is written with a precision that nobody means.
const MOST_PARTS: u64 = 100_000;

/// Samples of each kind in each step.
#[derive(Debug)]
pub struct Mixture {
    /// What every step has.
    base: [usize; 3],
    /// Kinds that get one more, by step modulo the length.
    extra: Vec<[bool; 3]>,
}

impl Mixture {
    /// `ratio` is understanding : text : drawing.
    ///
    /// # Errors
    /// [`DataError::Mixture`] for a ratio of nothing or of absurd precision, or an empty batch.
    pub fn new(ratio: [u32; 3], batch: usize) -> Result<Self, DataError> {
        let wrong = |problem: String| Err(DataError::Mixture { problem });
        let parts: u64 = ratio.iter().map(|part| u64::from(*part)).sum();
        if parts == 0 {
            return wrong("the ratio is 0:0:0: nothing would be taken".to_owned());
        }
        if parts > MOST_PARTS {
            return wrong(format!(
                "the ratio has {parts} parts in all, at most {MOST_PARTS} may be"
            ));
        }
        if batch == 0 {
            return wrong("a batch of 0 samples".to_owned());
        }
        let exact = ratio.map(|part| u64::from(part) * batch as u64);
        let base = exact.map(|share| (share / parts) as usize);
        let rest = exact.map(|share| share % parts);
        Ok(Self { base, extra: extras(rest, parts, batch - base.iter().sum::<usize>()) })
    }

    /// Samples of each kind in a step.
    pub fn counts(&self, step: u64) -> [usize; 3] {
        let extra = &self.extra[(step % self.extra.len() as u64) as usize];
        std::array::from_fn(|kind| self.base[kind] + usize::from(extra[kind]))
    }

    /// The most samples of a kind that any step takes.
    pub fn most(&self, kind: Kind) -> usize {
        let kind = kind as usize;
        self.base[kind] + usize::from(self.extra.iter().any(|extra| extra[kind]))
    }
}

/// Largest remainder with what was owed before carried on. `rest` are the fractions of a sample,
/// in `1/parts`; each step hands out `places` samples beyond the floors.
fn extras(rest: [u64; 3], parts: u64, places: usize) -> Vec<[bool; 3]> {
    let mut owed = [0i64; 3];
    let step = |_: u64| {
        for (owed, rest) in owed.iter_mut().zip(rest) {
            *owed += rest as i64;
        }
        // Stable: of equal claims the first kind's counts.
        let mut claims: Vec<usize> = (0..3).filter(|kind| rest[*kind] > 0).collect();
        claims.sort_by_key(|kind| -owed[*kind]);
        let mut extra = [false; 3];
        for kind in claims.into_iter().take(places) {
            extra[kind] = true;
            owed[kind] -= parts as i64;
        }
        extra
    };
    let extra = (0..parts).map(step).collect();
    debug_assert_eq!(owed, [0; 3], "a period settles all claims");
    extra
}

/// The source whose turn it is: the one furthest behind its share. `sources` are weights above 0
/// and samples taken so far.
pub fn furthest_behind(sources: &[(f64, u64)]) -> usize {
    let weights: f64 = sources.iter().map(|(weight, _)| weight).sum();
    let total = sources.iter().map(|(_, taken)| taken).sum::<u64>() + 1;
    let behind = |(weight, taken): &(f64, u64)| weight / weights * total as f64 - *taken as f64;
    let mut best = 0;
    for (index, source) in sources.iter().enumerate() {
        if behind(source) > behind(&sources[best]) {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_papers_batches() {
        let stage = |ratio, batch| Mixture::new(ratio, batch).unwrap();
        assert_eq!(stage([1, 0, 3], 256).counts(7), [64, 0, 192]);
        let two = stage([2, 3, 5], 512);
        // 102.4, 153.6 and 256.
        assert_eq!(two.counts(0), [102, 154, 256]);
        let ten: Vec<_> = (0..10).map(|step| two.counts(step)).collect();
        let sum = |kind: usize| ten.iter().map(|counts| counts[kind]).sum::<usize>();
        assert_eq!([sum(0), sum(1), sum(2)], [1024, 1536, 2560]);
        // 64, 12.8, 51.2.
        assert_eq!(stage([5, 1, 4], 128).counts(0), [64, 13, 51]);
    }

    proptest! {
        #[test]
        fn every_step_holds_the_ratio_and_all_of_them_exactly(
            ratio in prop::array::uniform3(0u32..40), batch in 1usize..70, from in 0u64..1000,
        ) {
            prop_assume!(ratio.iter().sum::<u32>() > 0);
            let mixture = Mixture::new(ratio, batch).unwrap();
            let parts: u32 = ratio.iter().sum();
            let mut sums = [0usize; 3];
            for step in from..from + u64::from(parts) {
                let counts = mixture.counts(step);
                prop_assert_eq!(counts.iter().sum::<usize>(), batch);
                for ((part, count), sum) in ratio.iter().zip(counts).zip(&mut sums) {
                    let exact = f64::from(*part) * batch as f64 / f64::from(parts);
                    prop_assert!((count as f64 - exact).abs() < 1.0);
                    *sum += count;
                }
            }
            prop_assert_eq!(sums, ratio.map(|part| part as usize * batch));
        }

        #[test]
        fn weights_are_met_at_every_sample(weights in prop::collection::vec(1u32..20, 1..5)) {
            let total: u32 = weights.iter().sum();
            let mut sources: Vec<_> = weights.iter().map(|w| (f64::from(*w), 0u64)).collect();
            for taken in 1..=u64::from(total) * 3 {
                let turn = furthest_behind(&sources);
                sources[turn].1 += 1;
                for (weight, count) in &sources {
                    let exact = weight * taken as f64 / f64::from(total);
                    prop_assert!((*count as f64 - exact).abs() < 1.5);
                }
            }
            let counts: Vec<_> = sources.iter().map(|(_, taken)| *taken).collect();
            prop_assert_eq!(counts, weights.iter().map(|w| u64::from(*w) * 3).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_can_be_taken_of_nothing() {
        assert!(Mixture::new([0, 0, 0], 8).is_err());
        assert!(Mixture::new([1, 0, 0], 0).is_err());
        assert!(Mixture::new([u32::MAX, 1, 0], 8).is_err());
    }
}
