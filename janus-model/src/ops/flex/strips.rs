//! A few rows of activations against strips of bf16 weights, on processors with AVX-512: exact
//! products at the speed of reading.
//!
//! Four weight rows at a time meet up to four rows of activations, so that every activation in a
//! register is used four times; 32 weights become the even ones and the odd ones of a strip with
//! one shift and one mask, and activations are laid out to match. While a strip is used, the next
//! one is fetched: a row of 2048 weights is a page, and processors do not fetch across pages by
//! themselves. 2 bytes per weight, and 2·rows FLOP.

use half::bf16;

/// Weights that are widened at once.
const CHUNK: usize = 32;

/// Activations laid out for strips, zeros beyond the end.
pub struct Split {
    /// Of every 32, the even ones before the odd ones.
    values: Vec<f32>,
    rows: usize,
    input: usize,
}

impl Split {
    /// `[rows, input]`; nothing where the processor has no strips.
    pub fn new(x: &[f32], [rows, input]: [usize; 2]) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
        {
            assert_eq!(x.len(), rows * input, "strips: lengths differ");
            return Some(Self { values: halves(x, input), rows, input });
        }
        let _ = (x, rows, input);
        None
    }

    /// `to(r, w)` hears Σ weight·activation of every row `w` of `weights` and row `r` of these.
    pub fn meet(&self, weights: &[bf16], mut to: impl FnMut(usize, usize, f32)) {
        assert_eq!(weights.len() % self.input.max(1), 0, "strips: lengths differ");
        #[cfg(target_arch = "x86_64")]
        {
            let count = weights.len() / self.input.max(1);
            for first in (0..self.rows).step_by(4) {
                let mut to = |row: usize, weight: usize, sum| to(first + row, weight, sum);
                // SAFETY: the features were detected when these were made.
                unsafe {
                    match self.rows - first {
                        1 => x86::meet::<1>(self, first, weights, count, &mut to),
                        2 => x86::meet::<2>(self, first, weights, count, &mut to),
                        3 => x86::meet::<3>(self, first, weights, count, &mut to),
                        _ => x86::meet::<4>(self, first, weights, count, &mut to),
                    }
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (&mut to, &self.values, self.rows);
    }
}

/// Rows whose even numbers come before the odd ones, in every 32.
#[cfg(target_arch = "x86_64")]
fn halves(x: &[f32], input: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(x.len().next_multiple_of(CHUNK));
    for chunk in x.chunks_exact(input.max(1)).flat_map(|row| row.chunks(CHUNK)) {
        let mut padded = [0.0; CHUNK];
        padded[..chunk.len()].copy_from_slice(chunk);
        values.extend(padded.iter().step_by(2));
        values.extend(padded.iter().skip(1).step_by(2));
    }
    values
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::bf16;

    use super::{CHUNK, Split};

    /// Weight rows that are met together.
    const STRIP: usize = 4;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub unsafe fn meet<const X: usize>(
        x: &Split,
        first: usize,
        weights: &[bf16],
        count: usize,
        to: &mut impl FnMut(usize, usize, f32),
    ) {
        let at = |weight| Place { first, weight, input: x.input };
        let whole = count - count % STRIP;
        // SAFETY: so many rows of weights follow, and X rows of activations.
        unsafe {
            let strips = (0..whole).step_by(STRIP);
            strips.for_each(|weight| strip::<STRIP, X>(&x.values, weights, at(weight), to));
            (whole..count).for_each(|weight| strip::<1, X>(&x.values, weights, at(weight), to));
        }
    }

    /// Where a strip begins: with which rows, of what width.
    #[derive(Clone, Copy)]
    struct Place {
        first: usize,
        weight: usize,
        input: usize,
    }

    /// `R` rows of weights and `X` rows of activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn strip<const R: usize, const X: usize>(
        x: &[f32],
        weights: &[bf16],
        Place { first, weight, input }: Place,
        to: &mut impl FnMut(usize, usize, f32),
    ) {
        let padded = input.next_multiple_of(CHUNK);
        let (x, w) = (x[first * padded..].as_ptr(), weights[weight * input..].as_ptr());
        let odd_bits = _mm512_set1_epi32(!0xffff);
        let mut sums = [[_mm512_setzero_ps(); X]; R];
        for k in (0..input).step_by(CHUNK) {
            let left = input - k;
            let held = if left >= CHUNK { u32::MAX } else { (1 << left) - 1 };
            // Loops, not closures: those are not always compiled into the loop they stand in.
            // SAFETY: activations are padded; the mask ends with the row of weights, and what is
            // fetched ahead may be anything.
            unsafe {
                let mut even_x = [_mm512_setzero_ps(); X];
                let mut odd_x = [_mm512_setzero_ps(); X];
                for row in 0..X {
                    let x = x.add(row * padded + k);
                    even_x[row] = _mm512_loadu_ps(x);
                    odd_x[row] = _mm512_loadu_ps(x.add(CHUNK / 2));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let w = w.wrapping_add(r * input + k);
                    _mm_prefetch::<_MM_HINT_T1>(w.wrapping_add(R * input).cast());
                    let bits = match held {
                        u32::MAX => _mm512_loadu_si512(w.cast()),
                        held => _mm512_maskz_loadu_epi16(held, w.cast()),
                    };
                    let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits));
                    let odd = _mm512_castsi512_ps(_mm512_and_si512(bits, odd_bits));
                    for row in 0..X {
                        sums[row] = _mm512_fmadd_ps(even, even_x[row], sums[row]);
                        sums[row] = _mm512_fmadd_ps(odd, odd_x[row], sums[row]);
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (row, sum) in sums.iter().enumerate() {
                to(row, weight + r, _mm512_reduce_add_ps(*sum));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_agree_with_f64_on_odd_sizes() {
        let mut met = 0;
        for input in [1, 15, 31, 32, 33, 100, 2048] {
            for (count, rows) in [(1, 1), (3, 2), (4, 3), (5, 4), (8, 5), (9, 6), (13, 7), (64, 8)]
            {
                let number = |i: usize| (i as f32 * 0.37).sin();
                let weights: Vec<_> =
                    (0..count * input).map(|i| bf16::from_f32(number(i))).collect();
                let x: Vec<f32> = (0..rows * input).map(|i| (i as f32 * 0.11).cos()).collect();
                let Some(split) = Split::new(&x, [rows, input]) else { return };
                split.meet(&weights, |row, weight, sum| {
                    let weights = &weights[weight * input..][..input];
                    let terms = weights.iter().zip(&x[row * input..]);
                    let exact: f64 = terms.map(|(w, x)| w.to_f64() * f64::from(*x)).sum();
                    assert!((f64::from(sum) - exact).abs() < 2e-5, "{input} {row} {weight}");
                    met += 1;
                });
            }
        }
        assert_eq!(met, 7 * (1 + 6 + 12 + 20 + 40 + 54 + 91 + 512));
    }
}
