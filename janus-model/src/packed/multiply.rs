//! Products with packed weights.
//!
//! One instruction of AVX-512 VNNI multiplies 64 pairs; 16 outputs of one group are 8 of them and 4
//! of f32 per row of activations. Elsewhere the compiler makes of [`plain`] what it can. Bytes of
//! weights decide up to some eight rows; beyond, 512 products of a group cost a dozen instructions.

use rayon::prelude::*;

use super::{BLOCK, Bits, GROUP, Line, PANEL, Packed, round, scale, weight};
use crate::ops::shared::Shared;
use crate::ops::simd::widest;

/// Rows of activations that meet a panel together.
const TOGETHER: usize = 8;

/// Activations as they are multiplied: 8 bits, in groups.
struct Rounded {
    /// `[rows, groups · 32]`.
    values: Vec<i8>,
    /// `[rows, groups]`: what a group is multiplied by.
    scales: Vec<f32>,
    /// `[rows, groups]`: what takes away again what the offset of weights adds to a sum.
    start: Vec<i32>,
    groups: usize,
}

impl Rounded {
    fn new(x: &[f32], rows: usize, input: usize, bits: Bits) -> Self {
        let groups = 2 * input.div_ceil(BLOCK);
        let mut values = vec![0; rows * groups * GROUP];
        let (mut scales, mut start) = (vec![0.0; rows * groups], vec![0; rows * groups]);
        let parts = values.par_chunks_mut(groups * GROUP);
        let parts = parts.zip(scales.par_chunks_mut(groups)).zip(start.par_chunks_mut(groups));
        parts.zip(x.par_chunks(input)).with_min_len(8).for_each(
            |(((values, scales), start), x)| {
                round::activations(x, values, scales, start);
                start.iter_mut().for_each(|sum| *sum *= -bits.offset());
            },
        );
        Self { values, scales, start, groups }
    }
}

impl Packed {
    /// `[rows, in]` gives `[rows, out]`.
    pub(super) fn multiply(&self, x: &[f32], rows: usize) -> Vec<f32> {
        self.multiply_by(x, rows, available())
    }

    fn multiply_by(&self, x: &[f32], rows: usize, fast: bool) -> Vec<f32> {
        assert_eq!(x.len(), rows * self.input, "packed weights: widths differ");
        let mut y = vec![0.0; rows * self.output];
        if y.is_empty() || self.input == 0 {
            return y;
        }
        let x = Rounded::new(x, rows, self.input, self.bits);
        let each = self.input.div_ceil(BLOCK) * self.bits.lines();
        let to = Shared::new(&mut y);
        self.lines.par_chunks(each).with_min_len(4).enumerate().for_each(|(panel, lines)| {
            let held = PANEL.min(self.output - panel * PANEL);
            for first in (0..rows).step_by(TOGETHER) {
                let mut sums = [[0.0f32; PANEL]; TOGETHER];
                let sums = &mut sums[..TOGETHER.min(rows - first)];
                meet(lines, self.bits, &x, first, sums, fast);
                for (row, sums) in sums.iter().enumerate() {
                    let at = to.at((first + row) * self.output + panel * PANEL);
                    // SAFETY: the row and the panel's columns lie in the result; no other piece
                    // owns these columns.
                    unsafe { at.copy_from_nonoverlapping(sums.as_ptr(), held) };
                }
            }
        });
        y
    }
}

/// Whether the processor multiplies whole numbers in fours.
fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::available();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// A panel against some rows of activations from `first` on.
fn meet(
    lines: &[Line],
    bits: Bits,
    x: &Rounded,
    first: usize,
    sums: &mut [[f32; PANEL]],
    fast: bool,
) {
    #[cfg(target_arch = "x86_64")]
    if fast {
        // SAFETY: `fast` says that the features are there.
        return unsafe { x86::meet(lines, bits, x, first, sums) };
    }
    let _ = fast;
    for (row, sums) in sums.iter_mut().enumerate() {
        plain(lines, bits, x, first + row, sums);
    }
}

widest! {
    /// What every other body must equal, bit by bit.
    fn plain(lines: &[Line], bits: Bits, x: &Rounded, row: usize, sums: &mut [f32; PANEL]) {
        let _ = FMA;
        let values = &x.values[row * x.groups * GROUP..];
        for (block, lines) in lines.chunks_exact(bits.lines()).enumerate() {
            for half in 0..2 {
                let group = 2 * block + half;
                let mut whole = [x.start[row * x.groups + group]; PANEL];
                for k in 0..GROUP {
                    let value = i32::from(values[group * GROUP + k]);
                    for (lane, whole) in whole.iter_mut().enumerate() {
                        *whole += weight(lines, bits, lane, half * GROUP + k) * value;
                    }
                }
                let by = x.scales[row * x.groups + group];
                for (lane, (sum, whole)) in sums.iter_mut().zip(whole).enumerate() {
                    *sum += whole as f32 * (scale(&lines[0], half, lane).to_f32() * by);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Bits, GROUP, Line, PANEL, Rounded};

    /// Lines that are asked for ahead: processors fetch by themselves within a page only.
    const AHEAD: usize = 64;

    pub fn available() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
    }

    /// # Safety
    /// The processor must be one where it is [`available`].
    pub unsafe fn meet(
        lines: &[Line],
        bits: Bits,
        x: &Rounded,
        first: usize,
        sums: &mut [[f32; PANEL]],
    ) {
        macro_rules! rows {
            ($($count:literal)*) => {
                match (sums.len(), bits) {
                    $(
                        ($count, Bits::Eight) => panel::<$count, 8>(lines, x, first, sums),
                        ($count, Bits::Four) => panel::<$count, 4>(lines, x, first, sums),
                    )*
                    (count, _) => unreachable!("{count} rows"),
                }
            };
        }
        // SAFETY: the same contract.
        unsafe { rows!(1 2 3 4 5 6 7 8) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn panel<const ROWS: usize, const BITS: usize>(
        lines: &[Line],
        x: &Rounded,
        first: usize,
        sums: &mut [[f32; PANEL]],
    ) {
        const STEPS: usize = GROUP / 4;
        let bits = if BITS == 8 { Bits::Eight } else { Bits::Four };
        let each = bits.lines();
        let groups = x.groups;
        assert!(lines.len() == groups / 2 * each && x.scales.len() >= (first + ROWS) * groups);
        let values = x.values[first * groups * GROUP..].as_ptr();
        let (scales, starts) =
            (x.scales[first * groups..].as_ptr(), x.start[first * groups..].as_ptr());
        let low = _mm512_set1_epi8(15);
        let mut totals = [_mm512_setzero_ps(); ROWS];
        for group in 0..groups {
            let at = lines.as_ptr().wrapping_add(group / 2 * each);
            let half = group % 2;
            // SAFETY: as asserted: so many blocks of lines, and groups of every row.
            unsafe {
                let weights = at.wrapping_add(1 + half * (each - 1) / 2);
                _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(AHEAD).cast());
                let mut whole: [__m512i; ROWS] =
                    std::array::from_fn(|row| _mm512_set1_epi32(*starts.add(row * groups + group)));
                for step in 0..STEPS {
                    let four = match BITS {
                        8 => {
                            let at = weights.add(step);
                            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                            _mm512_load_si512(at.cast())
                        }
                        _ => {
                            let at = weights.add(step / 2);
                            let both = _mm512_load_si512(at.cast());
                            match step % 2 {
                                0 => {
                                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                                    _mm512_and_si512(both, low)
                                }
                                _ => _mm512_and_si512(_mm512_srli_epi16::<4>(both), low),
                            }
                        }
                    };
                    for (row, whole) in whole.iter_mut().enumerate() {
                        let at = values.add((row * groups + group) * GROUP + 4 * step);
                        let x = _mm512_set1_epi32(at.cast::<i32>().read_unaligned());
                        *whole = _mm512_dpbusd_epi32(*whole, four, x);
                    }
                }
                let scale = _mm256_load_si256(at.cast::<__m256i>().add(half));
                let scale = _mm512_cvtph_ps(scale);
                for (row, total) in totals.iter_mut().enumerate() {
                    let by =
                        _mm512_mul_ps(scale, _mm512_set1_ps(*scales.add(row * groups + group)));
                    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(whole[row]), by);
                    *total = _mm512_add_ps(*total, product);
                }
            }
        }
        for (total, sums) in totals.iter().zip(sums) {
            // SAFETY: 16 numbers.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *total) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, salt: u32) -> Vec<f32> {
        let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let some = std::iter::successors(Some(salt), next).skip(1).take(count);
        some.map(|x| (x >> 8) as f32 / 8_388_608.0 - 1.0).collect()
    }

    fn packed(weights: &[f32], output: usize, input: usize, bits: Bits) -> Packed {
        Packed::new([output, input], bits, |row, to| {
            to.copy_from_slice(&weights[row * input..][..input]);
        })
    }

    #[test]
    fn fast_is_plain_and_near_f64() {
        for bits in [Bits::Eight, Bits::Four] {
            for (output, input) in [(1, 1), (16, 64), (17, 65), (33, 96), (50, 200), (5, 2048)] {
                let weights = numbers(output * input, 7);
                let packed = packed(&weights, output, input, bits);
                for rows in [1, 2, 3, 7, 8, 9, 20] {
                    let x = numbers(rows * input, rows as u32);
                    let plain = packed.multiply_by(&x, rows, false);
                    if available() {
                        assert_eq!(packed.multiply_by(&x, rows, true), plain);
                    }
                    let mut worst = 0.0f64;
                    for (at, y) in plain.iter().enumerate() {
                        let row = packed.row(at % output);
                        let x = &x[at / output * input..][..input];
                        let exact: f64 =
                            row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                        worst = worst.max((f64::from(*y) - exact).abs());
                    }
                    // Half a step of activations against weights up to 1, at random.
                    assert!(worst < 0.02 * (input as f64).sqrt(), "{output} {input} {worst}");
                }
            }
        }
    }
}
