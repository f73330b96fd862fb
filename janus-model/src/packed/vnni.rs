//! Products with packed weights on processors with AVX-512 VNNI.
//!
//! One instruction multiplies 64 pairs; 16 outputs of one group are 8 of them and 4 of f32 per row of
//! activations.

use std::arch::x86_64::*;

use super::multiply::{ABREAST, Rounded};
use super::{Bits, GROUP, Line, PANEL};
use crate::ops::Instructions;

/// Lines that are asked for ahead: processors fetch by themselves within a page only.
const AHEAD: usize = 64;

pub fn available() -> bool {
    Instructions::get().vnni
}

/// Adds one panel's products with up to eight rows.
///
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
                    ($count, Bits::Eight) => panels::<1, $count, 8>(lines, x, first, sums),
                    ($count, Bits::Four) => panels::<1, $count, 4>(lines, x, first, sums),
                )*
                (count, _) => unreachable!("{count} rows"),
            }
        };
    }
    // SAFETY: the same contract.
    unsafe { rows!(1 2 3 4 5 6 7 8) }
}

/// Adds [`ABREAST`] panels' products with one row or two; `sums` has those of the first panel first.
///
/// # Safety
/// As [`meet`].
pub unsafe fn meet_abreast(
    lines: &[Line],
    bits: Bits,
    x: &Rounded,
    first: usize,
    sums: &mut [[f32; PANEL]],
) {
    // SAFETY: the same contract.
    unsafe {
        match (sums.len() / ABREAST, bits) {
            (1, Bits::Eight) => panels::<ABREAST, 1, 8>(lines, x, first, sums),
            (1, Bits::Four) => panels::<ABREAST, 1, 4>(lines, x, first, sums),
            (2, Bits::Eight) => panels::<ABREAST, 2, 8>(lines, x, first, sums),
            (2, Bits::Four) => panels::<ABREAST, 2, 4>(lines, x, first, sums),
            (count, _) => unreachable!("{count} rows"),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn panels<const PANELS: usize, const ROWS: usize, const BITS: usize>(
    lines: &[Line],
    x: &Rounded,
    first: usize,
    sums: &mut [[f32; PANEL]],
) {
    let bits = if BITS == 8 { Bits::Eight } else { Bits::Four };
    let (each, groups) = (bits.lines(), x.groups);
    let panel = groups / 2 * each;
    assert!(lines.len() == PANELS * panel && x.scales.len() >= (first + ROWS) * groups);
    assert!(sums.len() == PANELS * ROWS);
    let (scales, starts) =
        (x.scales[first * groups..].as_ptr(), x.start[first * groups..].as_ptr());
    let mut totals = [[_mm512_setzero_ps(); ROWS]; PANELS];
    for group in 0..groups {
        let (block, half) = (group / 2 * each, group % 2);
        // Beyond the end of a panel, the panels that come next: those between are being used.
        let jump = if block + AHEAD >= panel { (PANELS - 1) * panel } else { 0 };
        for (number, totals) in totals.iter_mut().enumerate() {
            let at = lines.as_ptr().wrapping_add(number * panel + block);
            // SAFETY: as asserted: so many blocks of lines, and groups of every row.
            unsafe {
                // Loops, not closures: those are not always compiled into the loop they stand in.
                let mut whole = [_mm512_setzero_si512(); ROWS];
                for (row, whole) in whole.iter_mut().enumerate() {
                    *whole = _mm512_set1_epi32(*starts.add(row * groups + group));
                }
                if half == 0 {
                    ask::<PANELS>(at.wrapping_add(AHEAD + jump));
                }
                for step in 0..GROUP / 4 {
                    let four = four::<PANELS, BITS>(at, [half, step], AHEAD + jump);
                    for (row, whole) in whole.iter_mut().enumerate() {
                        let at = ((first + row) * groups + group) * GROUP + 4 * step;
                        let x = x.values.as_ptr().add(at).cast::<i32>().read_unaligned();
                        *whole = _mm512_dpbusd_epi32(*whole, four, _mm512_set1_epi32(x));
                    }
                }
                let scale = _mm512_cvtph_ps(_mm256_load_si256(at.cast::<__m256i>().add(half)));
                for (row, (total, whole)) in totals.iter_mut().zip(whole).enumerate() {
                    let by = _mm512_set1_ps(*scales.add(row * groups + group));
                    let by = _mm512_mul_ps(scale, by);
                    *total = _mm512_add_ps(*total, _mm512_mul_ps(_mm512_cvtepi32_ps(whole), by));
                }
            }
        }
    }
    for (total, sums) in totals.iter().flatten().zip(sums) {
        // SAFETY: 16 numbers.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), *total) };
    }
}

/// Four weights of 16 outputs, with their offset: one step of a half of the block at `at`. Where a
/// line of weights is begun, the one that is `ahead` is asked for.
///
/// # Safety
/// A whole block must be there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn four<const PANELS: usize, const BITS: usize>(
    at: *const Line,
    [half, step]: [usize; 2],
    ahead: usize,
) -> __m512i {
    const STEPS: usize = GROUP / 4;
    let per_line = if BITS == 8 { 1 } else { 2 };
    let line = at.wrapping_add(1 + (half * STEPS + step) / per_line);
    if step % per_line == 0 {
        ask::<PANELS>(line.wrapping_add(ahead));
    }
    // SAFETY: it is a line of the block.
    let line = unsafe { _mm512_load_si512(line.cast()) };
    let low = _mm512_set1_epi8(15);
    match (BITS, step % 2) {
        (8, _) => line,
        (_, 0) => _mm512_and_si512(line, low),
        _ => _mm512_and_si512(_mm512_srli_epi16::<4>(line), low),
    }
}

/// Asks for a line, wherever it may be.
#[inline(always)]
fn ask<const PANELS: usize>(line: *const Line) {
    // SAFETY: a hint, without effect where nothing is.
    unsafe {
        match PANELS {
            1 => _mm_prefetch::<_MM_HINT_T0>(line.cast()),
            _ => _mm_prefetch::<_MM_HINT_T1>(line.cast()),
        }
    }
}
