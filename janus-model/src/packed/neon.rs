//! Products with packed weights on 64-bit ARM.
//!
//! 16 pairs, of 4 outputs, are one instruction where the processor has the dot product (nearly all
//! since 2018), and elsewhere four: products of bytes twice, their sums of two, and the sums of
//! those added up. Weights are signed again: ARM has no product of an unsigned and a signed byte.
//! Four rows of activations meet a quarter of a line.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::multiply::Rounded;
use super::{Bits, GROUP, Line, PANEL};

/// Outputs of a register.
const LANES: usize = 4;

pub fn has_dot_product() -> bool {
    is_aarch64_feature_detected!("dotprod")
}

/// Adds one panel's products with some rows.
///
/// # Safety
/// With `dot`, the processor must [have it](has_dot_product).
pub unsafe fn meet(
    lines: &[Line],
    bits: Bits,
    x: &Rounded,
    first: usize,
    sums: &mut [[f32; PANEL]],
    dot: bool,
) {
    macro_rules! rows {
        ($lines:expr, $sums:expr, $first:expr, $($count:literal)*) => {
            match ($sums.len(), bits, dot) {
                $(
                    ($count, Bits::Eight, true) => with_dot::<$count, 8>($lines, x, $first, $sums),
                    ($count, Bits::Four, true) => with_dot::<$count, 4>($lines, x, $first, $sums),
                    ($count, Bits::Eight, false) => {
                        panel::<$count, 8, false>($lines, x, $first, $sums)
                    }
                    ($count, Bits::Four, false) => {
                        panel::<$count, 4, false>($lines, x, $first, $sums)
                    }
                )*
                (count, ..) => unreachable!("{count} rows"),
            }
        };
    }
    for (number, sums) in sums.chunks_mut(4).enumerate() {
        // SAFETY: the same contract.
        unsafe { rows!(lines, sums, first + 4 * number, 1 2 3 4) }
    }
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn with_dot<const ROWS: usize, const BITS: usize>(
    lines: &[Line],
    x: &Rounded,
    first: usize,
    sums: &mut [[f32; PANEL]],
) {
    // SAFETY: the same contract.
    unsafe { panel::<ROWS, BITS, true>(lines, x, first, sums) }
}

/// # Safety
/// With `DOT`, the processor must have the dot product.
#[inline(always)]
unsafe fn panel<const ROWS: usize, const BITS: usize, const DOT: bool>(
    lines: &[Line],
    x: &Rounded,
    first: usize,
    sums: &mut [[f32; PANEL]],
) {
    let each = if BITS == 8 { Bits::Eight } else { Bits::Four }.lines();
    let groups = x.groups;
    assert!(lines.len() == groups / 2 * each && x.scales.len() >= (first + ROWS) * groups);
    assert!(sums.len() == ROWS);
    // SAFETY: numbers made of numbers.
    let zero = unsafe { vdupq_n_f32(0.0) };
    let mut totals = [[zero; PANEL / LANES]; ROWS];
    for group in 0..groups {
        let block = lines[group / 2 * each..].as_ptr();
        for quarter in 0..PANEL / LANES {
            // SAFETY: as asserted: so many blocks of lines, and groups of every row. A block begins
            // with its scales, 32 of them.
            unsafe {
                let whole = group_of::<ROWS, BITS, DOT>(block, x, [first, group], quarter);
                let scales = block.cast::<u16>().add(group % 2 * PANEL + quarter * LANES);
                let scale = widened(vld1_u16(scales));
                for (row, (totals, whole)) in totals.iter_mut().zip(whole).enumerate() {
                    let by = vdupq_n_f32(x.scales[(first + row) * groups + group]);
                    let product = vmulq_f32(vcvtq_f32_s32(whole), vmulq_f32(scale, by));
                    totals[quarter] = vaddq_f32(totals[quarter], product);
                }
            }
        }
    }
    for (totals, sums) in totals.iter().zip(sums) {
        for (total, sums) in totals.iter().zip(sums.chunks_exact_mut(LANES)) {
            // SAFETY: 4 numbers.
            unsafe { vst1q_f32(sums.as_mut_ptr(), *total) };
        }
    }
}

/// Sums of one group, of 4 outputs and every row.
///
/// # Safety
/// `block` must be a whole block, there must be `ROWS` rows with such a group from `first` on, and
/// with `DOT` the processor must have the dot product.
#[inline(always)]
unsafe fn group_of<const ROWS: usize, const BITS: usize, const DOT: bool>(
    block: *const Line,
    x: &Rounded,
    [first, group]: [usize; 2],
    quarter: usize,
) -> [int32x4_t; ROWS] {
    const STEPS: usize = GROUP / 4;
    let at = |row: usize| (first + row) * x.groups + group;
    let per_line = if BITS == 8 { 1 } else { 2 };
    let weights = block.wrapping_add(1 + group % 2 * STEPS / per_line);
    // SAFETY: the lines are those of the block, the values those of this group.
    unsafe {
        let mut whole: [int32x4_t; ROWS] = std::array::from_fn(|row| match BITS {
            // Weights have their sign again: nothing is to be taken away.
            8 => vdupq_n_s32(0),
            _ => vdupq_n_s32(x.start[at(row)]),
        });
        for step in 0..STEPS {
            let line = weights.wrapping_add(step / per_line).cast::<u8>();
            let both = vld1q_u8(line.add(quarter * 4 * LANES));
            let four = vreinterpretq_s8_u8(match (BITS, step % 2) {
                (8, _) => veorq_u8(both, vdupq_n_u8(128)),
                (_, 0) => vandq_u8(both, vdupq_n_u8(15)),
                _ => vshrq_n_u8::<4>(both),
            });
            for (row, whole) in whole.iter_mut().enumerate() {
                let x = x.values.as_ptr().add(at(row) * GROUP + 4 * step);
                let x = vdupq_n_s32(x.cast::<i32>().read_unaligned());
                *whole = add::<DOT>(*whole, four, vreinterpretq_s8_s32(x));
            }
        }
        whole
    }
}

/// Adds four products to each of four sums.
///
/// # Safety
/// With `DOT`, the processor must have the dot product.
#[inline(always)]
unsafe fn add<const DOT: bool>(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    if DOT {
        let mut sums = sums;
        // SAFETY: one instruction on three registers; Rust has no stable name for it.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
                sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        return sums;
    }
    // SAFETY: numbers made of numbers. A sum of two products of −128…127 and −127…127 fits.
    unsafe {
        let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
        let high = vmull_high_s8(a, b);
        vpadalq_s16(sums, vpaddq_s16(low, high))
    }
}

/// Four numbers of f16 as f32.
///
/// # Safety
/// None is needed: it is unsafe for what it is made of.
#[inline(always)]
unsafe fn widened(numbers: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: one instruction on two registers, which every 64-bit ARM has; Rust has no stable name
    // for it.
    unsafe {
        asm!(
            "fcvtl {wide:v}.4s, {numbers:v}.4h",
            wide = out(vreg) wide, numbers = in(vreg) numbers,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    wide
}
