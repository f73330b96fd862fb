//! Attention of one head over a cache of bf16, two numbers at a time, on processors with AVX-512.
//!
//! Four bytes hold an even number, which a shift makes f32, and an odd one, which a mask does: half
//! of what it takes to widen them one by one, so that a head costs what reading its cache costs.
//! Queries and results are parted to match. Sums stay in registers, along a key and down all values.
//! 4 bytes of cache for 8 FLOP.
//!
//! Memory is asked for ahead, across the end of the keys to the values, and from there to the next
//! head's keys: what lies behind either is room for tokens to come.

use half::bf16;

use super::attention::Size;
#[cfg(target_arch = "x86_64")]
use crate::ops::Instructions;

/// Keys and values of a head, `[total, d]`, and the keys of the head that comes next.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Held<'a> {
    pub keys: &'a [bf16],
    pub values: &'a [bf16],
    pub next: *const bf16,
}

/// `[T, d]` over what is held; token `t` of the `T` newest sees all but the `T − 1 − t` newest.
/// `false`, and nothing is done, where the processor cannot, or heads are too wide. `weights` is room
/// to work in.
pub fn one_head(
    q: &[f32],
    held: Held<'_>,
    y: &mut [f32],
    size: Size,
    weights: &mut Vec<f32>,
) -> bool {
    assert!(q.len() == size.tokens * size.width && y.len() == q.len(), "attention: queries");
    let numbers = size.total * size.width;
    assert!(held.keys.len() == numbers && held.values.len() == numbers, "attention: cache");
    #[cfg(target_arch = "x86_64")]
    if Instructions::get().avx512 {
        weights.resize(size.total, 0.0);
        // SAFETY: the features are there; all lengths are as asserted.
        unsafe {
            match size.width.div_ceil(x86::CHUNK) {
                1 => x86::one_head::<1>(q, held, y, size, weights),
                2 => x86::one_head::<2>(q, held, y, size, weights),
                3 => x86::one_head::<3>(q, held, y, size, weights),
                4 => x86::one_head::<4>(q, held, y, size, weights),
                _ => return false,
            }
        }
        return true;
    }
    let _ = weights;
    false
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::bf16;

    use super::{Held, Size};
    use crate::ops::simd::softmax;

    /// Numbers that are widened at once.
    pub const CHUNK: usize = 32;
    /// Bytes that are asked for ahead: a page.
    const AHEAD: usize = 4096;

    impl Held<'_> {
        /// Asks for a row of so many bytes [`AHEAD`] of a place, counted over keys and then values.
        #[inline(always)]
        fn ask(&self, place: usize, bytes: usize) {
            let (place, keys, values) =
                (place + AHEAD, size_of_val(self.keys), size_of_val(self.values));
            let from = if place < keys {
                self.keys.as_ptr().wrapping_byte_add(place)
            } else if place < keys + values {
                self.values.as_ptr().wrapping_byte_add(place - keys)
            } else {
                self.next.wrapping_byte_add(place - keys - values)
            };
            for line in (0..bytes).step_by(64) {
                // SAFETY: a hint, without effect where nothing is.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_byte_add(line).cast()) };
            }
        }
    }

    /// Heads of up to `R` chunks.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn one_head<const R: usize>(
        q: &[f32],
        held: Held<'_>,
        y: &mut [f32],
        size: Size,
        weights: &mut [f32],
    ) {
        let width = size.width;
        let mut masks = [u32::MAX; R];
        if !width.is_multiple_of(CHUNK) {
            masks[R - 1] = (1 << (width % CHUNK)) - 1;
        }
        let scale = 1.0 / (width as f32).sqrt();
        for t in 0..size.tokens {
            let weights = &mut weights[..size.total - size.tokens + t + 1];
            // SAFETY: a query has as many numbers, and there are as many keys and values.
            unsafe {
                let q = parted::<R>(&q[t * width..][..width], scale);
                for (at, weight) in weights.iter_mut().enumerate() {
                    held.ask(2 * at * width, 2 * width);
                    *weight = meet::<R>(held.keys.as_ptr().add(at * width), q, masks);
                }
                softmax(weights);
                let sums = mix::<R>(weights, held, width, masks);
                join::<R>(sums, &mut y[t * width..][..width]);
            }
        }
    }

    /// Even numbers of every chunk, and odd ones.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn parted<const R: usize>(q: &[f32], scale: f32) -> [[__m512; 2]; R] {
        let mut registers = [[_mm512_setzero_ps(); 2]; R];
        for (registers, chunk) in registers.iter_mut().zip(q.chunks(CHUNK)) {
            let mut parts = [[0.0f32; CHUNK / 2]; 2];
            for (i, q) in chunk.iter().enumerate() {
                parts[i % 2][i / 2] = q * scale;
            }
            for (register, part) in registers.iter_mut().zip(parts) {
                // SAFETY: sixteen numbers.
                *register = unsafe { _mm512_loadu_ps(part.as_ptr()) };
            }
        }
        registers
    }

    /// Numbers in the order they had before they were [`parted`].
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn join<const R: usize>(registers: [[__m512; 2]; R], y: &mut [f32]) {
        for (registers, chunk) in registers.iter().zip(y.chunks_mut(CHUNK)) {
            let mut parts = [[0.0f32; CHUNK / 2]; 2];
            for (register, part) in registers.iter().zip(&mut parts) {
                // SAFETY: room for sixteen numbers.
                unsafe { _mm512_storeu_ps(part.as_mut_ptr(), *register) };
            }
            for (i, y) in chunk.iter_mut().enumerate() {
                *y = parts[i % 2][i / 2];
            }
        }
    }

    /// Up to [`CHUNK`] numbers, the even and the odd ones, zeros beyond the mask.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    unsafe fn widened(from: *const bf16, mask: u32) -> [__m512; 2] {
        // SAFETY: numbers beyond the mask are not touched.
        let pairs = unsafe { _mm512_maskz_loadu_epi16(mask, from.cast()) };
        let even = _mm512_slli_epi32::<16>(pairs);
        let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(!0xffff));
        [_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd)]
    }

    /// A key times a query.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    unsafe fn meet<const R: usize>(key: *const bf16, q: [[__m512; 2]; R], masks: [u32; R]) -> f32 {
        let mut sums = [_mm512_setzero_ps(); 2];
        for r in 0..R {
            // SAFETY: the masks end with the key.
            let [even, odd] = unsafe { widened(key.add(r * CHUNK), masks[r]) };
            sums[0] = _mm512_fmadd_ps(even, q[r][0], sums[0]);
            sums[1] = _mm512_fmadd_ps(odd, q[r][1], sums[1]);
        }
        _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
    }

    /// Values by their weights, summed.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    unsafe fn mix<const R: usize>(
        weights: &[f32],
        held: Held<'_>,
        width: usize,
        masks: [u32; R],
    ) -> [[__m512; 2]; R] {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        for (at, weight) in weights.iter().enumerate() {
            held.ask(size_of_val(held.keys) + 2 * at * width, 2 * width);
            let weight = _mm512_set1_ps(*weight);
            for r in 0..R {
                // SAFETY: the masks end with the value.
                let [even, odd] =
                    unsafe { widened(held.values.as_ptr().add(at * width + r * CHUNK), masks[r]) };
                sums[r][0] = _mm512_fmadd_ps(even, weight, sums[r][0]);
                sums[r][1] = _mm512_fmadd_ps(odd, weight, sums[r][1]);
            }
        }
        sums
    }
}
