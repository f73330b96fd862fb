//! A few rows of activations against strips of bf16 weights, on processors with AVX2 or AVX-512: exact
//! products at the speed of reading.
//!
//! Four weight rows at a time meet up to four rows of activations (two with AVX2, whose sums fill the
//! registers sooner), so that every activation in a register is used four times; weights become the even ones and the odd ones of a strip with
//! one shift and one mask, and activations are laid out to match. While a strip is used, the next
//! one is fetched: a row of 2048 weights is a page, and processors do not fetch across pages by
//! themselves. 2 bytes per weight, and 2·rows FLOP.

use half::bf16;

#[cfg(target_arch = "x86_64")]
use crate::ops::Instructions;

/// Activations laid out for strips, zeros beyond the end.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Split {
    /// Of every chunk, the even ones before the odd ones.
    values: Vec<f32>,
    /// Weights that are widened at once.
    chunk: usize,
    rows: usize,
    input: usize,
}

impl Split {
    /// `[rows, input]`; nothing where the processor has no strips.
    pub fn new(x: &[f32], [rows, input]: [usize; 2]) -> Option<Self> {
        assert_eq!(x.len(), rows * input, "strips: lengths differ");
        #[cfg(target_arch = "x86_64")]
        {
            let chunk = match Instructions::get() {
                Instructions { avx512: true, .. } => x86::avx512::CHUNK,
                Instructions { avx2: true, .. } => x86::avx2::CHUNK,
                _ => return None,
            };
            Some(Self { values: halves(x, input, chunk), chunk, rows, input })
        }
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// `to(r, w)` hears Σ weight·activation of every row `w` of `weights` and row `r` of these.
    pub fn meet(&self, weights: &[bf16], mut to: impl FnMut(usize, usize, f32)) {
        assert_eq!(weights.len() % self.input.max(1), 0, "strips: lengths differ");
        #[cfg(target_arch = "x86_64")]
        {
            let wide = self.chunk == x86::avx512::CHUNK;
            let rows = if wide { x86::avx512::ROWS } else { x86::avx2::ROWS };
            for first in (0..self.rows).step_by(rows) {
                let mut to = |row: usize, weight: usize, sum| to(first + row, weight, sum);
                // SAFETY: the features were there when these were laid out in such chunks.
                unsafe {
                    match wide {
                        true => x86::avx512::meet(self, first, weights, &mut to),
                        false => x86::avx2::meet(self, first, weights, &mut to),
                    }
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = &mut to;
    }
}

/// Rows whose even numbers come before the odd ones, in every chunk.
#[cfg(target_arch = "x86_64")]
fn halves(x: &[f32], input: usize, size: usize) -> Vec<f32> {
    let (rows, whole) = (x.len() / input.max(1), input.next_multiple_of(size));
    let mut values = vec![0.0; rows * whole];
    // Plain loops, for one thread does it while the others wait.
    for (row, to) in x.chunks_exact(input.max(1)).zip(values.chunks_exact_mut(whole.max(1))) {
        for (chunk, to) in row.chunks(size).zip(to.chunks_exact_mut(size)) {
            let ((even, odd), (pairs, last)) = (to.split_at_mut(size / 2), chunk.as_chunks::<2>());
            for ((even, odd), pair) in even.iter_mut().zip(odd).zip(pairs) {
                [*even, *odd] = *pair;
            }
            if let [last] = last {
                even[pairs.len()] = *last;
            }
        }
    }
    values
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::bf16;

    use super::Split;

    /// Where a strip begins: with which rows, of what width.
    #[derive(Clone, Copy)]
    struct Place {
        first: usize,
        weight: usize,
        input: usize,
    }

    /// Strips of one kind of registers; loops, not closures: those are not always compiled into the
    /// loop they stand in.
    macro_rules! strips {
        (
            $features:literal, chunk $chunk:literal, rows $most:literal,
            sums $sums:ident $zero:ident $load:ident, pairs $pairs:ident $no_weights:ident
            $weights:ident, even $even:ident, odd $odd:ident, multiply_add $fma:ident, sum $sum:ident
        ) => {
            /// Weights that are widened at once.
            pub const CHUNK: usize = $chunk;

            /// Rows of activations that are met together.
            pub const ROWS: usize = $most;

            /// Up to [`ROWS`] rows of activations from `first` on, and all rows of weights.
            #[target_feature(enable = $features)]
            pub unsafe fn meet(
                x: &Split,
                first: usize,
                weights: &[bf16],
                to: &mut impl FnMut(usize, usize, f32),
            ) {
                // SAFETY: the same contract; so many rows follow.
                unsafe {
                    match ROWS.min(x.rows - first) {
                        1 => all::<4, 1>(x, first, weights, to),
                        2 => all::<4, 2>(x, first, weights, to),
                        3 => all::<4, 3>(x, first, weights, to),
                        _ => all::<4, 4>(x, first, weights, to),
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn all<const R: usize, const X: usize>(
                x: &Split,
                first: usize,
                weights: &[bf16],
                to: &mut impl FnMut(usize, usize, f32),
            ) {
                let count = weights.len() / x.input.max(1);
                let whole = count - count % R;
                for weight in (0..whole).step_by(R) {
                    let place = Place { first, weight, input: x.input };
                    // SAFETY: so many rows of weights follow, and X rows of activations.
                    unsafe { strip::<R, X>(&x.values, weights, place, to) };
                }
                for weight in whole..count {
                    let place = Place { first, weight, input: x.input };
                    // SAFETY: as above.
                    unsafe { strip::<1, X>(&x.values, weights, place, to) };
                }
            }

            /// A chunk of `R` rows of weights times one of `X` rows of activations, `padded` apart.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn add<const R: usize, const X: usize>(
                sums: &mut [[$sums; X]; R],
                pairs: [$pairs; R],
                x: *const f32,
                padded: usize,
            ) {
                let (mut even, mut odd) = ([$zero(); R], [$zero(); R]);
                for r in 0..R {
                    (even[r], odd[r]) = ($even(pairs[r]), $odd(pairs[r]));
                }
                for row in 0..X {
                    // SAFETY: whole chunks of activations are there.
                    let (even_x, odd_x) = unsafe {
                        let x = x.add(row * padded);
                        ($load(x), $load(x.add(CHUNK / 2)))
                    };
                    for r in 0..R {
                        sums[r][row] = $fma(even[r], even_x, sums[r][row]);
                        sums[r][row] = $fma(odd[r], odd_x, sums[r][row]);
                    }
                }
            }

            /// `R` rows of weights and `X` rows of activations.
            #[target_feature(enable = $features)]
            unsafe fn strip<const R: usize, const X: usize>(
                x: &[f32],
                weights: &[bf16],
                Place { first, weight, input }: Place,
                to: &mut impl FnMut(usize, usize, f32),
            ) {
                let padded = input.next_multiple_of(CHUNK);
                let (x, w) = (x[first * padded..].as_ptr(), weights[weight * input..].as_ptr());
                let mut sums = [[$zero(); X]; R];
                let whole = input - input % CHUNK;
                for k in (0..whole).step_by(CHUNK) {
                    // SAFETY: whole chunks of weights, and as many activations; what is fetched
                    // ahead may be anything.
                    unsafe {
                        let mut pairs = [$no_weights(); R];
                        for r in 0..R {
                            let w = w.wrapping_add(r * input + k);
                            _mm_prefetch::<_MM_HINT_T1>(w.wrapping_add(R * input).cast());
                            pairs[r] = $weights(w);
                        }
                        add::<R, X>(&mut sums, pairs, x.add(k), padded);
                    }
                }
                if whole < input {
                    // SAFETY: no more weights are read than are left; activations are padded.
                    unsafe {
                        let mut pairs = [$no_weights(); R];
                        for r in 0..R {
                            let w = w.wrapping_add(r * input + whole);
                            pairs[r] = last_weights(w, input - whole);
                        }
                        add::<R, X>(&mut sums, pairs, x.add(whole), padded);
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    for (row, sum) in sums.iter().enumerate() {
                        to(row, weight + r, $sum(*sum));
                    }
                }
            }
        };
    }

    pub mod avx512 {
        use super::*;

        // 16 registers of sums, and as many for what meets in them.
        strips!(
            "avx512f,avx512bw,avx512vl", chunk 32, rows 4,
            sums __m512 _mm512_setzero_ps _mm512_loadu_ps, pairs __m512i _mm512_setzero_si512 weights,
            even even, odd odd, multiply_add _mm512_fmadd_ps, sum _mm512_reduce_add_ps
        );

        #[target_feature(enable = "avx512f")]
        #[inline]
        unsafe fn weights(from: *const bf16) -> __m512i {
            // SAFETY: a whole chunk.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        /// Fewer than a chunk, and zeros.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        unsafe fn last_weights(from: *const bf16, left: usize) -> __m512i {
            // SAFETY: there are so many.
            unsafe { _mm512_maskz_loadu_epi16((1 << left) - 1, from.cast()) }
        }

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn even(pairs: __m512i) -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs))
        }

        #[target_feature(enable = "avx512f")]
        #[inline]
        fn odd(pairs: __m512i) -> __m512 {
            _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(!0xffff)))
        }
    }

    pub mod avx2 {
        use super::*;

        // 8 registers of sums, and as many for what meets in them.
        strips!(
            "avx2,fma", chunk 16, rows 2,
            sums __m256 _mm256_setzero_ps _mm256_loadu_ps, pairs __m256i _mm256_setzero_si256 weights,
            even even, odd odd, multiply_add _mm256_fmadd_ps, sum sum
        );

        #[target_feature(enable = "avx2")]
        #[inline]
        unsafe fn weights(from: *const bf16) -> __m256i {
            // SAFETY: a whole chunk.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }

        /// Fewer than a chunk, and zeros.
        #[target_feature(enable = "avx2")]
        unsafe fn last_weights(from: *const bf16, left: usize) -> __m256i {
            let mut last = [bf16::ZERO; CHUNK];
            // SAFETY: there are so many, and room for more.
            unsafe {
                from.copy_to_nonoverlapping(last.as_mut_ptr(), left);
                weights(last.as_ptr())
            }
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        fn even(pairs: __m256i) -> __m256 {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs))
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        fn odd(pairs: __m256i) -> __m256 {
            _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(!0xffff)))
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        fn sum(register: __m256) -> f32 {
            let four =
                _mm_add_ps(_mm256_castps256_ps128(register), _mm256_extractf128_ps::<1>(register));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
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
