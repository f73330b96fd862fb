//! Randomness without a state: every draw is a hash of what it is for.
//!
//! The run's seed, a stream and the sample's place in its epoch give the same draw in every
//! process, on every thread, before and after a resume.

/// Of SplitMix64: 2⁶⁴ divided by the golden ratio, odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// One number out of several; their order counts.
pub fn hash(parts: &[u64]) -> u64 {
    parts.iter().fold(STEP, |sum, part| mix(sum.wrapping_add(STEP) ^ mix(*part ^ STEP)))
}

/// Whether something of the given probability happens, by a [`hash`].
pub fn happens(hash: u64, probability: f64) -> bool {
    // The upper 53 bits are exact in f64, so 0 is never and 1 is always.
    ((hash >> 11) as f64) < probability * (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_and_every_part_count() {
        assert_eq!(hash(&[1, 2, 3]), hash(&[1, 2, 3]));
        assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
        assert_ne!(hash(&[1]), hash(&[1, 0]));
        assert_ne!(hash(&[0]), hash(&[1]));
    }

    #[test]
    fn probabilities_are_met() {
        let share = |p| (0..100_000).filter(|i| happens(hash(&[7, *i]), p)).count();
        assert_eq!((share(0.0), share(1.0)), (0, 100_000));
        // Five standard deviations.
        assert!(share(0.1).abs_diff(10_000) < 475, "{}", share(0.1));
        assert!(share(0.25).abs_diff(25_000) < 685, "{}", share(0.25));
    }
}
