//! Attention over keys and values in 8 bits, with AVX-512 or AVX2: as fast as they are read.
//!
//! Sixteen numbers (or eight) are widened, multiplied by their scale and met with the query, three
//! instructions and one load; sums stay in registers. Heads are whole groups, four at most. A page
//! ahead is asked for: of keys, then of values, then of the next head's keys.

use super::GROUP;
use super::kept::{Head, wide};
use crate::ops::simd::{ask, softmax};

/// Bytes that are asked for ahead: a page.
const AHEAD: usize = 4096;

impl Head<'_> {
    /// Asks for what comes a page after a token's numbers, where `then` comes after the last one.
    #[inline(always)]
    fn ask_ahead(&self, token: usize, then: *const i8) {
        let (place, width) = (token + AHEAD / self.width, self.width);
        let total = self.numbers.len() / width;
        let from = match place.checked_sub(total) {
            None => self.numbers.as_ptr().wrapping_add(place * width),
            Some(place) => then.wrapping_add(place * width),
        };
        ask(from, width);
    }
}

macro_rules! kept {
    (
        $name:ident, $features:literal, lanes $lanes:literal, $register:ident, zero $zero:ident,
        set $set:ident, load $load:ident, store $store:ident, add $add:ident, multiply $mul:ident,
        multiply_add $fma:ident, numbers $numbers:ident $loaded:ident as $half:ident,
        wide $convert:ident, sum $sum:ident
    ) => {
        pub mod $name {
            use std::arch::x86_64::*;

            use super::*;

            const LANES: usize = $lanes;
            const PARTS: usize = GROUP / LANES;

            /// The same as the portable body, for heads of `R` whole groups.
            ///
            /// # Safety
            /// The features must be there.
            #[target_feature(enable = $features)]
            pub unsafe fn one_head<const R: usize>(
                q: &[f32],
                keys: Head<'_>,
                values: Head<'_>,
                y: &mut [f32],
                weights: &mut [f32],
            ) {
                let (width, total) = (R * GROUP, weights.len());
                assert!(keys.width == width && values.width == width && q.len() == y.len());
                assert!(keys.holds(total) && values.holds(total));
                let (tokens, scale) = (q.len() / width, 1.0 / (width as f32).sqrt());
                for (t, (q, y)) in q.chunks_exact(width).zip(y.chunks_exact_mut(width)).enumerate()
                {
                    let weights = &mut weights[..total - tokens + t + 1];
                    // SAFETY: as asserted, so many tokens are held; a query and a result are `R`
                    // groups.
                    unsafe {
                        let q = query::<R>(q, scale);
                        for (token, weight) in weights.iter_mut().enumerate() {
                            keys.ask_ahead(token, values.numbers.as_ptr());
                            *weight = score::<R>(keys, token, q);
                        }
                        softmax(weights);
                        mix::<R>(weights, values, keys.next, y);
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn query<const R: usize>(q: &[f32], scale: f32) -> [[$register; PARTS]; R] {
                let (mut registers, scale) = ([[$zero(); PARTS]; R], $set(scale));
                for (at, register) in registers.as_flattened_mut().iter_mut().enumerate() {
                    // SAFETY: a query has so many numbers.
                    *register = unsafe { $mul($load(q.as_ptr().add(at * LANES)), scale) };
                }
                registers
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn score<const R: usize>(
                keys: Head<'_>,
                token: usize,
                q: [[$register; PARTS]; R],
            ) -> f32 {
                let mut sums = [$zero(); PARTS];
                for group in 0..R {
                    // SAFETY: the token is held.
                    unsafe {
                        let by = $set(wide(*keys.scales.as_ptr().add(token * R + group)));
                        for part in 0..PARTS {
                            let key = widened::<R>(keys, token, [group, part]);
                            sums[part] = $fma($mul(key, by), q[group][part], sums[part]);
                        }
                    }
                }
                let mut sum = sums[0];
                for more in &sums[1..] {
                    sum = $add(sum, *more);
                }
                $sum(sum)
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn mix<const R: usize>(
                weights: &[f32],
                values: Head<'_>,
                next: *const i8,
                y: &mut [f32],
            ) {
                let mut sums = [[$zero(); PARTS]; R];
                for (token, weight) in weights.iter().enumerate() {
                    values.ask_ahead(token, next);
                    for group in 0..R {
                        // SAFETY: the token is held.
                        unsafe {
                            let scale = wide(*values.scales.as_ptr().add(token * R + group));
                            let by = $set(weight * scale);
                            for part in 0..PARTS {
                                let value = widened::<R>(values, token, [group, part]);
                                sums[group][part] = $fma(value, by, sums[group][part]);
                            }
                        }
                    }
                }
                for (at, sum) in sums.as_flattened().iter().enumerate() {
                    // SAFETY: a result has so many numbers.
                    unsafe { $store(y.as_mut_ptr().add(at * LANES), *sum) };
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn widened<const R: usize>(
                head: Head<'_>,
                token: usize,
                [group, part]: [usize; 2],
            ) -> $register {
                let at = (token * R + group) * GROUP + part * LANES;
                // SAFETY: the token is held.
                unsafe {
                    $convert($numbers($loaded(head.numbers.as_ptr().add(at).cast::<$half>())))
                }
            }
        }
    };
}

kept!(
    avx512, "avx512f,avx512bw,avx512vl", lanes 16, __m512, zero _mm512_setzero_ps,
    set _mm512_set1_ps, load _mm512_loadu_ps, store _mm512_storeu_ps, add _mm512_add_ps,
    multiply _mm512_mul_ps, multiply_add _mm512_fmadd_ps,
    numbers _mm512_cvtepi8_epi32 _mm_loadu_si128 as __m128i, wide _mm512_cvtepi32_ps,
    sum _mm512_reduce_add_ps
);
kept!(
    avx2, "avx2,fma", lanes 8, __m256, zero _mm256_setzero_ps, set _mm256_set1_ps,
    load _mm256_loadu_ps, store _mm256_storeu_ps, add _mm256_add_ps, multiply _mm256_mul_ps,
    multiply_add _mm256_fmadd_ps, numbers _mm256_cvtepi8_epi32 _mm_loadl_epi64 as __m128i,
    wide _mm256_cvtepi32_ps, sum sum_of_eight
);

/// The sum of a register.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn sum_of_eight(x: std::arch::x86_64::__m256) -> f32 {
    use std::arch::x86_64::*;
    let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
