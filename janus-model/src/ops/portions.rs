//! Pieces of work handed out to all threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

/// Does every piece once. A thread takes a portion of what is left, large ones first, so that it
/// reads on where it was, and single pieces in the end, so that all are done at the same time; with
/// rayon's halves of halves, threads waited for half as long again (docs/benchmarks.md). `room` is what a
/// thread keeps between its pieces.
pub fn in_portions<R>(
    pieces: usize,
    room: impl Fn() -> R + Sync,
    work: impl Fn(&mut R, usize) + Sync,
) {
    let threads = rayon::current_num_threads().min(pieces);
    let left = Portions { next: AtomicUsize::new(0), pieces, threads };
    (0..threads).into_par_iter().with_max_len(1).for_each(|_| {
        let mut room = room();
        while let Some(portion) = left.take() {
            portion.for_each(|piece| work(&mut room, piece));
        }
    });
}

struct Portions {
    next: AtomicUsize,
    pieces: usize,
    threads: usize,
}

impl Portions {
    /// Half of what would be a thread's share of the rest, or one piece.
    fn take(&self) -> Option<Range<usize>> {
        let size = |first: usize| ((self.pieces - first) / (2 * self.threads)).max(1);
        let more = |first: usize| (first < self.pieces).then(|| first + size(first));
        // Pieces tell each other nothing, so no order is needed.
        let first = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(first..first + size(first))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        for pieces in [0, 1, 2, 3, 17, 1000] {
            let done: Vec<AtomicU32> = (0..pieces).map(|_| AtomicU32::new(0)).collect();
            let work = |met: &mut usize, piece: usize| {
                *met += 1;
                done[piece].fetch_add(1, Ordering::Relaxed);
            };
            in_portions(pieces, || 0, work);
            assert!(done.iter().all(|times| times.load(Ordering::Relaxed) == 1), "{pieces}");
        }
    }

    #[test]
    fn portions_become_smaller() {
        let left = Portions { next: AtomicUsize::new(0), pieces: 100, threads: 2 };
        let sizes: Vec<usize> = std::iter::from_fn(|| left.take()).map(|p| p.len()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 100);
        assert_eq!((sizes[0], sizes[1], sizes.last()), (25, 18, Some(&1)));
        assert!(sizes.is_sorted_by(|a, b| a >= b));
    }
}
