//! Products with packed weights on processors with AVX2: most that have no AVX-512.
//!
//! 32 pairs are three instructions: products of bytes as sums of two, those as sums of four, and
//! their sum. Sums of two must fit 16 bits, which those of an unsigned weight of 8 bits would not;
//! so weights get their sign back, and hand it to the activations. Half a line, 8 outputs, fills a
//! register, and four rows of activations meet it.

use std::arch::x86_64::*;

use super::multiply::Rounded;
use super::{Bits, GROUP, Line, PANEL};
use crate::ops::Instructions;

/// Outputs of a register.
const LANES: usize = 8;
/// Lines that are asked for ahead: processors fetch by themselves within a page only.
const AHEAD: usize = 64;

pub fn available() -> bool {
    Instructions::get().avx2
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
    for (number, sums) in sums.chunks_mut(4).enumerate() {
        let first = first + 4 * number;
        // SAFETY: the same contract.
        unsafe {
            match (sums.len(), bits) {
                (1, Bits::Eight) => panel::<1, 8>(lines, x, first, sums),
                (2, Bits::Eight) => panel::<2, 8>(lines, x, first, sums),
                (3, Bits::Eight) => panel::<3, 8>(lines, x, first, sums),
                (_, Bits::Eight) => panel::<4, 8>(lines, x, first, sums),
                (1, Bits::Four) => panel::<1, 4>(lines, x, first, sums),
                (2, Bits::Four) => panel::<2, 4>(lines, x, first, sums),
                (3, Bits::Four) => panel::<3, 4>(lines, x, first, sums),
                (_, Bits::Four) => panel::<4, 4>(lines, x, first, sums),
            }
        }
    }
}

#[target_feature(enable = "avx2,f16c")]
unsafe fn panel<const ROWS: usize, const BITS: usize>(
    lines: &[Line],
    x: &Rounded,
    first: usize,
    sums: &mut [[f32; PANEL]],
) {
    let each = if BITS == 8 { Bits::Eight } else { Bits::Four }.lines();
    let groups = x.groups;
    assert!(lines.len() == groups / 2 * each && x.scales.len() >= (first + ROWS) * groups);
    assert!(sums.len() == ROWS);
    let mut totals = [[_mm256_setzero_ps(); 2]; ROWS];
    for group in 0..groups {
        let block = lines[group / 2 * each..].as_ptr();
        for (side, at) in [0, LANES].into_iter().enumerate() {
            // SAFETY: as asserted: so many blocks of lines, and groups of every row.
            let whole = unsafe { group_of::<ROWS, BITS>(block, x, [first, group], side) };
            // SAFETY: a block begins with its scales, 32 of them.
            let scale = unsafe {
                let scales = block.cast::<u16>().add(group % 2 * PANEL + at);
                _mm256_cvtph_ps(_mm_loadu_si128(scales.cast()))
            };
            for (row, (totals, whole)) in totals.iter_mut().zip(whole).enumerate() {
                let by = _mm256_set1_ps(x.scales[(first + row) * groups + group]);
                let product = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_mul_ps(scale, by));
                totals[side] = _mm256_add_ps(totals[side], product);
            }
        }
    }
    for (totals, sums) in totals.iter().zip(sums) {
        for (total, sums) in totals.iter().zip(sums.chunks_exact_mut(LANES)) {
            // SAFETY: 8 numbers.
            unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), *total) };
        }
    }
}

/// Sums of one group, of 8 outputs and every row.
///
/// # Safety
/// `block` must be a whole block, and there must be `ROWS` rows with such a group from `first` on.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn group_of<const ROWS: usize, const BITS: usize>(
    block: *const Line,
    x: &Rounded,
    [first, group]: [usize; 2],
    side: usize,
) -> [__m256i; ROWS] {
    const STEPS: usize = GROUP / 4;
    let each = if BITS == 8 { Bits::Eight } else { Bits::Four }.lines();
    let (ones, low) = (_mm256_set1_epi16(1), _mm256_set1_epi8(15));
    let signs = _mm256_set1_epi8(-128);
    let at = |row: usize| (first + row) * x.groups + group;
    let mut whole: [__m256i; ROWS] = std::array::from_fn(|row| match BITS {
        // Weights have their sign again: nothing is to be taken away.
        8 => _mm256_setzero_si256(),
        _ => _mm256_set1_epi32(x.start[at(row)]),
    });
    let weights = block.wrapping_add(1 + group % 2 * ((each - 1) / 2));
    for step in 0..STEPS {
        let line = weights.wrapping_add(if BITS == 8 { step } else { step / 2 });
        _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(AHEAD).cast());
        // SAFETY: the line is one of the block, and has two halves.
        let both = unsafe { _mm256_load_si256(line.cast::<__m256i>().add(side)) };
        let four = match (BITS, step % 2) {
            (8, _) => _mm256_xor_si256(both, signs),
            (_, 0) => _mm256_and_si256(both, low),
            _ => _mm256_and_si256(_mm256_srli_epi16::<4>(both), low),
        };
        let size = if BITS == 8 { _mm256_abs_epi8(four) } else { four };
        for (row, whole) in whole.iter_mut().enumerate() {
            // SAFETY: 4 of the 32 values of this group.
            let x = unsafe {
                let x = x.values.as_ptr().add(at(row) * GROUP + 4 * step);
                _mm256_set1_epi32(x.cast::<i32>().read_unaligned())
            };
            let x = if BITS == 8 { _mm256_sign_epi8(x, four) } else { x };
            let twos = _mm256_maddubs_epi16(size, x);
            *whole = _mm256_add_epi32(*whole, _mm256_madd_epi16(twos, ones));
        }
    }
    whole
}
