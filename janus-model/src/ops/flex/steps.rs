//! Up to 32 rows of activations, rounded to bf16, against bf16 weights as they lie, on processors
//! that multiply pairs of bf16 (AVX-512 BF16): a step of many sequences.
//!
//! A pair of weights meets the pair of every row of activations in one lane, which holds its sum to
//! the end: pair after pair, however many rows there are, in the order of [`super::tiles`]. 2 bytes
//! per weight, read once, and 2·rows FLOP. While rows of weights are used, the next ones are
//! fetched, since rows of 2048 are a page, and processors do not fetch across pages by themselves.
//!
//! - Up to [`FEW`] rows, reading takes the time: 16 rows of weights are turned, so that lanes are
//!   theirs, and every row of activations meets 16 of them with one instruction.
//! - Up to [`ROWS`], arithmetic does: lanes are the rows of activations, and [`TALL`] rows of weights
//!   meet them, a line of cache of each at a time, copied first: rows a page apart share a place in
//!   the first cache, which keeps no more than eight of them.

use half::bf16;

/// Most rows of activations.
pub const ROWS: usize = 32;
/// Most rows of activations that leave the lanes to weights.
const FEW: usize = 8;
/// Rows of weights that meet many rows at once: with two registers of sums each, 24 of 32.
const TALL: usize = 12;
/// Rows of weights per parallel piece: whole ones either way.
pub const BLOCK: usize = 48;

/// Activations in pairs: `[input / 2, wide]`, zeros for rows that are not there and beyond the end, up
/// to a multiple of 16 pairs.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Pairs {
    panel: Vec<u32>,
    wide: usize,
    rows: usize,
    input: usize,
}

impl Pairs {
    /// Up to [`ROWS`] `[rows, input]`, rounded to bf16; nothing where the processor has no pairs.
    pub fn new(x: &[f32], [rows, input]: [usize; 2]) -> Option<Self> {
        assert!(x.len() == rows * input && rows <= ROWS, "steps: lengths differ");
        #[cfg(target_arch = "x86_64")]
        if super::panels::available() {
            let wide = if rows <= FEW { FEW } else { rows.next_multiple_of(16) };
            let panel = super::panels::pairs(x, [rows, input], wide);
            return Some(Self { panel, wide, rows, input });
        }
        None
    }

    /// `to(r, w)` hears Σ weight·activation of every row `w` of `weights` and row `r` of these.
    pub fn meet(&self, weights: &[bf16], to: &mut dyn FnMut(usize, usize, f32)) {
        assert_eq!(weights.len() % self.input.max(1), 0, "steps: lengths differ");
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the features were detected when these were made; the panel is as wide as this.
        unsafe {
            match (self.wide, self.rows) {
                (16, _) => x86::many::<1>(self, weights, to),
                (32, _) => x86::many::<2>(self, weights, to),
                (_, 0) => (),
                (_, 1) => x86::few::<1>(self, weights, to),
                (_, 2) => x86::few::<2>(self, weights, to),
                (_, 3..=4) => x86::few::<4>(self, weights, to),
                _ => x86::few::<FEW>(self, weights, to),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = to;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::bf16;

    use super::super::panels::turned;
    use super::{FEW, Pairs, TALL};

    /// Weights of a row that are met before the next piece: a line of cache.
    const PIECE: usize = 32;

    /// Pairs of a piece.
    const STEPS: usize = PIECE / 2;

    /// Lanes of activations: `V` registers of 16 rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn many<const V: usize>(
        x: &Pairs,
        weights: &[bf16],
        to: &mut dyn FnMut(usize, usize, f32),
    ) {
        /// Pieces of all rows.
        #[repr(align(64))]
        struct Lines([[i32; STEPS]; TALL]);

        let count = weights.len() / x.input.max(1);
        for first in (0..count).step_by(TALL) {
            let mut sums = [[_mm512_setzero_ps(); V]; TALL];
            let rows = Rows { weights, first, count: TALL, input: x.input };
            for k in (0..x.input).step_by(PIECE) {
                let mut lines = Lines([[0; STEPS]; TALL]);
                for (row, line) in lines.0.iter_mut().enumerate() {
                    // SAFETY: the line has room for a register.
                    unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), rows.piece(row, k)) };
                }
                for step in 0..STEPS {
                    // Loops, not closures: those are not always compiled into the loop they stand in.
                    let mut pairs = [_mm512_setzero_si512(); V];
                    for (v, pairs) in pairs.iter_mut().enumerate() {
                        let at = ((k / 2 + step) * V + v) * 16;
                        // SAFETY: the panel has V registers for every step of every piece.
                        *pairs = unsafe { _mm512_loadu_si512(x.panel.as_ptr().add(at).cast()) };
                    }
                    for (sums, line) in sums.iter_mut().zip(&lines.0) {
                        let w = _mm512_set1_epi32(line[step]);
                        for v in 0..V {
                            sums[v] = multiply_add(sums[v], w, pairs[v]);
                        }
                    }
                }
            }
            for (weight, sums) in sums.into_iter().enumerate().take(count - first) {
                for (v, sum) in sums.into_iter().enumerate() {
                    let rows = numbers(sum).into_iter().enumerate().take(x.rows - 16 * v);
                    rows.for_each(|(row, sum)| to(16 * v + row, first + weight, sum));
                }
            }
        }
    }

    /// Lanes of weights: 16 rows of them. `R` rows of activations are met.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn few<const R: usize>(
        x: &Pairs,
        weights: &[bf16],
        to: &mut dyn FnMut(usize, usize, f32),
    ) {
        let count = weights.len() / x.input.max(1);
        for first in (0..count).step_by(16) {
            let mut sums = [_mm512_setzero_ps(); R];
            let rows = Rows { weights, first, count: 16, input: x.input };
            for k in (0..x.input).step_by(PIECE) {
                let mut lines = [_mm512_setzero_si512(); 16];
                for (row, line) in lines.iter_mut().enumerate() {
                    *line = rows.piece(row, k);
                }
                let lines = turned(lines);
                for (step, w) in lines.into_iter().enumerate() {
                    let at = (k / 2 + step) * FEW;
                    for (row, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: the panel has a pair of every row for every step of every piece.
                        let x = unsafe { *x.panel.get_unchecked(at + row) };
                        *sum = multiply_add(*sum, w, _mm512_set1_epi32(x.cast_signed()));
                    }
                }
            }
            for (row, sum) in sums.into_iter().enumerate().take(x.rows) {
                let weights = numbers(sum).into_iter().enumerate().take(count - first);
                weights.for_each(|(weight, sum)| to(row, first + weight, sum));
            }
        }
    }

    /// Rows of weights that are met at once.
    #[derive(Clone, Copy)]
    struct Rows<'a> {
        weights: &'a [bf16],
        first: usize,
        count: usize,
        input: usize,
    }

    impl Rows<'_> {
        /// A piece of a row from weight `k` on, zeros beyond its end; the last row again for one that
        /// is not there. With every piece, one of those behind is asked for, as they lie: memory gives
        /// these faster than pieces a page apart.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        #[inline]
        fn piece(self, row: usize, k: usize) -> __m512i {
            let Self { weights, first, count, input } = self;
            let left = input - k;
            let held = if left >= PIECE { u32::MAX } else { (1 << left) - 1 };
            let last = weights.len() / input - 1;
            let at = weights.as_ptr().wrapping_add((first + row).min(last) * input + k);
            let ahead = (first + count) * input + count * k + row * PIECE;
            // SAFETY: the mask ends with the row; what is asked for ahead may be anything.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(weights.as_ptr().wrapping_add(ahead).cast());
                _mm512_maskz_loadu_epi16(held, at.cast())
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    fn multiply_add(sum: __m512, w: __m512i, x: __m512i) -> __m512 {
        let pairs = |bits| {
            // SAFETY: any bits are pairs of bf16.
            unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
        };
        _mm512_dpbf16_ps(sum, pairs(w), pairs(x))
    }

    #[inline]
    fn numbers(register: __m512) -> [f32; 16] {
        // SAFETY: both are 64 bytes, and any bits will do.
        unsafe { std::mem::transmute(register) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_agree_with_f64_on_odd_sizes() {
        let mut met = 0;
        for input in [1, 2, 15, 31, 32, 33, 100, 2048] {
            for (count, rows) in [(1, 1), (3, 8), (11, 9), (12, 16), (13, 17), (48, 32)] {
                let number = |i: usize| (i as f32 * 0.37).sin();
                let weights: Vec<_> =
                    (0..count * input).map(|i| bf16::from_f32(number(i))).collect();
                let x: Vec<f32> = (0..rows * input).map(|i| (i as f32 * 0.11).cos()).collect();
                let Some(pairs) = Pairs::new(&x, [rows, input]) else { return };
                pairs.meet(&weights, &mut |row, weight, sum| {
                    let weights = &weights[weight * input..][..input];
                    let terms = weights.iter().zip(&x[row * input..]);
                    let exact: f64 =
                        terms.map(|(w, x)| w.to_f64() * bf16::from_f32(*x).to_f64()).sum();
                    assert!(
                        (f64::from(sum) - exact).abs() < 5e-5,
                        "{input} {row} {weight}: {sum} {exact}"
                    );
                    met += 1;
                });
            }
        }
        assert_eq!(met, 8 * (1 + 24 + 99 + 192 + 221 + 1536));
    }
}
