//! Products with packed weights on processors with AVX-512 VNNI.
//!
//! One instruction multiplies 64 pairs; 16 outputs of one group are 8 of them and 4 of f32 per row of
//! activations.

use std::arch::x86_64::*;

use super::multiply::Rounded;
use super::{Bits, GROUP, Line, PANEL};

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
                let by = _mm512_mul_ps(scale, _mm512_set1_ps(*scales.add(row * groups + group)));
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
