//! What [`super::steps`] do, on processors that multiply matrices (AMX): up to 32 rows of activations,
//! rounded to bf16, against bf16 weights.
//!
//! 32 rows of weights at a time are copied into a panel, as [`matrices`](super::matrices) read a left factor,
//! and meet all rows of activations, the columns of the right one. Sums have the order of
//! [`super::tiles`], so a row is the same among few as among many. 2 bytes per weight, read once from
//! memory and once from the cache, and 2·rows FLOP, of which the processor does 64 whatever the rows.

use std::cell::RefCell;

use half::bf16;

use super::panels::{Lines, Panels};
use super::tiles::{self, Body, Course, Sink, WIDE};

/// Rows of weights per parallel piece: two panels.
pub const BLOCK: usize = 64;

/// Activations as a right factor.
pub struct Columns {
    panel: Panels,
    course: Course,
    rows: usize,
    input: usize,
}

thread_local! {
    /// Weights on their way.
    static ROOM: RefCell<Panels> = RefCell::default();
}

impl Columns {
    /// Up to [`WIDE`] `[rows, input]`; nothing where the processor has no matrices.
    pub fn new(x: &[f32], [rows, input]: [usize; 2]) -> Option<Self> {
        assert!(x.len() == rows * input && rows <= WIDE, "steps: lengths differ");
        if Body::get(true, || true) != Some(Body::Matrices) || x.is_empty() {
            return None;
        }
        let (panel, course) =
            tiles::right(Body::Matrices, Lines::wide(x, [rows, input], [input, 1]));
        Some(Self { panel, course, rows, input })
    }

    /// `to(r, w)` hears Σ weight·activation of every row `w` of `weights` and row `r` of these.
    pub fn meet(&self, weights: &[bf16], to: &mut dyn FnMut(usize, usize, f32)) {
        let (body, count) = (Body::Matrices, weights.len() / self.input);
        let lines = Lines::narrow(weights, [count, self.input]);
        let (_ready, tall) = (body.ready(), body.tall());
        ROOM.with_borrow_mut(|room| {
            room.resize(body.steps(self.input) * tall);
            for first in (0..count).step_by(tall) {
                tiles::left(body, lines, first, room);
                let mut sums = [0.0f32; 32 * WIDE];
                let sink = Sink { at: sums.as_mut_ptr(), stride: WIDE, add: false };
                let (left, right) = (room.numbers(), self.panel.numbers());
                // SAFETY: there is room for a whole tile; both panels and the course are of these lines
                // and this body, for which the thread is ready.
                unsafe { tiles::meet(body, sink, [tall, WIDE], left, right, &self.course) };
                for (weight, sums) in sums.chunks_exact(WIDE).enumerate().take(count - first) {
                    let sums = sums.iter().enumerate().take(self.rows);
                    sums.for_each(|(row, sum)| to(row, first + weight, *sum));
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_f64() {
        for input in [1, 31, 32, 33, 100, 2048] {
            for (count, rows) in [(1, 1), (3, 8), (33, 17), (64, 32)] {
                let number = |i: usize| (i as f32 * 0.37).sin();
                let weights: Vec<_> =
                    (0..count * input).map(|i| bf16::from_f32(number(i))).collect();
                let x: Vec<f32> = (0..rows * input).map(|i| (i as f32 * 0.11).cos()).collect();
                let Some(columns) = Columns::new(&x, [rows, input]) else { return };
                let mut met = 0;
                columns.meet(&weights, &mut |row, weight, sum| {
                    let terms = weights[weight * input..][..input].iter().zip(&x[row * input..]);
                    let exact: f64 =
                        terms.map(|(w, x)| w.to_f64() * bf16::from_f32(*x).to_f64()).sum();
                    let far = (f64::from(sum) - exact).abs();
                    assert!(far < 5e-5, "{input} {row} {weight}: {sum} {exact}");
                    met += 1;
                });
                assert_eq!(met, rows * count);
            }
        }
    }
}
