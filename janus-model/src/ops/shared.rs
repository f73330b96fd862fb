//! Results that several threads fill.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// A buffer while parallel pieces fill it, each its own elements.
#[derive(Clone, Copy)]
pub struct Shared(*mut f32);

// SAFETY: whoever shares it gives every piece its own elements.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Of a buffer that outlives all pieces.
    pub fn new(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// Of one that holds nothing yet, and is not read before it does.
    pub fn empty(values: &mut [MaybeUninit<f32>]) -> Self {
        Self(values.as_mut_ptr().cast())
    }

    /// Where element `index` lies.
    pub fn at(self, index: usize) -> *mut f32 {
        self.0.wrapping_add(index)
    }
}

/// `N` results of `count` numbers, worked out piece after piece, on all threads if there is more than one.
/// Pieces are zeros when their work begins: cleared by the thread that fills them, in its cache, not all of
/// them before by one.
pub fn in_pieces<const N: usize>(
    count: usize,
    piece: usize,
    work: impl Fn(usize, [&mut [f32]; N]) + Sync,
) -> [Vec<f32>; N] {
    let piece = piece.max(1);
    let mut results = [(); N].map(|()| Vec::<f32>::with_capacity(count));
    let shared = results.each_mut().map(|result| Shared::empty(result.spare_capacity_mut()));
    let run = |index: usize| {
        let first = index * piece;
        let held = piece.min(count - first);
        // SAFETY: every piece has numbers of its own, inside of the room there is, and they are zeros
        // before anyone sees them.
        let parts = shared.map(|result| unsafe {
            result.at(first).write_bytes(0, held);
            std::slice::from_raw_parts_mut(result.at(first), held)
        });
        work(index, parts);
    };
    let pieces = count.div_ceil(piece);
    match pieces {
        0..=1 => (0..pieces).for_each(run),
        _ => (0..pieces).into_par_iter().for_each(run),
    }
    // SAFETY: pieces have all numbers.
    results.iter_mut().for_each(|result| unsafe { result.set_len(count) });
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_all_there_is() {
        for (count, piece) in [(0, 4), (3, 4), (4, 4), (4001, 7), (5, 0)] {
            let [indices, ones] = in_pieces(count, piece, |index, [indices, ones]| {
                assert!(indices.iter().chain(ones.iter()).all(|x| *x == 0.0));
                indices.fill(index as f32);
                ones.iter_mut().for_each(|x| *x += 1.0);
            });
            assert!(indices.iter().enumerate().all(|(at, x)| *x == (at / piece.max(1)) as f32));
            assert_eq!([indices.len(), ones.len()], [count; 2]);
            assert!(ones.iter().all(|x| *x == 1.0));
        }
    }
}
