//! Which whole numbers stand for weights, and for activations.

use half::f16;

use super::{BLOCK, Bits, GROUP, Line, PANEL};
use crate::ops::simd::{LANES, fold, widest};

const _: () = assert!(GROUP == LANES, "a group is rounded lane by lane");

/// Adding it rounds to a whole number, ties to even, which then stands in the lowest bits.
pub(super) const ROUND: f32 = 12_582_912.0;

widest! {
    /// Rounds a row of weights into its lane of a panel, which is still zero.
    pub(super) fn weights(lines: &mut [Line], lane: usize, bits: Bits, weights: &[f32]) {
        let _ = FMA;
        let blocks = lines.chunks_exact_mut(bits.lines());
        for (lines, weights) in blocks.zip(weights.chunks_exact(BLOCK)) {
            for (group, weights) in weights.as_chunks::<GROUP>().0.iter().enumerate() {
                let scale = match bits {
                    Bits::Eight => eight(weights),
                    Bits::Four => four(weights),
                };
                let at = 2 * (group * PANEL + lane);
                lines[0].0[at..at + 2].copy_from_slice(&scale.to_le_bytes());
                put(lines, lane, bits, group, &nearest(weights, scale, bits));
            }
        }
    }
}

/// The scale that lets the largest be 127.
#[inline(always)]
fn eight(weights: &[f32; GROUP]) -> f16 {
    f16::from_f32(largest(weights) / 127.0)
}

/// Of several scales the one with the least squared error: it lets the largest weight be somewhere
/// around −8, and is then the best for what the weights were rounded to.
#[inline(always)]
fn four(weights: &[f32; GROUP]) -> f16 {
    let size = largest(weights);
    if size == 0.0 {
        return f16::ZERO;
    }
    let signed = if weights.contains(&size) { size } else { -size };
    let (mut most, mut best) = (-1.0f32, 0.0f32);
    for tenths in -9..=6 {
        let inverse = (-8.0 + tenths as f32 * 0.1) / signed;
        let (mut met, mut square) = ([0.0f32; GROUP], [0.0f32; GROUP]);
        for lane in 0..GROUP {
            let whole = (weights[lane] * inverse + ROUND - ROUND).clamp(-8.0, 7.0);
            met[lane] = whole * weights[lane];
            square[lane] = whole * whole;
        }
        let (met, square) = (fold(&mut met), fold(&mut square));
        // Σ(w − d·q)² with the best d = Σwq / Σq² is Σw² less this.
        let gain = met * met / square;
        if gain > most {
            (most, best) = (gain, met / square);
        }
    }
    f16::from_f32(best)
}

/// What weights become in steps of `scale`, with their offset.
#[inline(always)]
fn nearest(weights: &[f32; GROUP], scale: f16, bits: Bits) -> [u8; GROUP] {
    let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    let (least, most) = match bits {
        Bits::Eight => (-127.0, 127.0),
        Bits::Four => (-8.0, 7.0),
    };
    weights.map(|weight| {
        let whole = ((weight * inverse).clamp(least, most) + ROUND).to_bits();
        whole.wrapping_add(bits.offset() as u32) as u8
    })
}

#[inline(always)]
fn put(lines: &mut [Line], lane: usize, bits: Bits, group: usize, weights: &[u8; GROUP]) {
    let at = lane * 4..lane * 4 + 4;
    let steps = weights.as_chunks::<4>().0;
    match bits {
        Bits::Eight => {
            let lines = &mut lines[1 + group * steps.len()..];
            for (line, step) in lines.iter_mut().zip(steps) {
                line.0[at.clone()].copy_from_slice(step);
            }
        }
        Bits::Four => {
            let lines = &mut lines[1 + group * steps.len() / 2..];
            for (line, [low, high]) in lines.iter_mut().zip(steps.as_chunks::<2>().0) {
                let both: [u8; 4] = std::array::from_fn(|k| low[k] | high[k] << 4);
                line.0[at.clone()].copy_from_slice(&both);
            }
        }
    }
}

/// The largest size, lane by lane and then halving.
#[inline(always)]
fn largest(values: &[f32; GROUP]) -> f32 {
    let mut sizes = values.map(f32::abs);
    let mut half = GROUP / 2;
    while half > 0 {
        for lane in 0..half {
            sizes[lane] = sizes[lane].max(sizes[lane + half]);
        }
        half /= 2;
    }
    sizes[0]
}

widest! {
    /// Rounds a row of activations, group by group, so that the largest of a group is 127: values,
    /// scales, and the sums of what they were rounded to. What is no number, or infinite, makes
    /// the scale of its group no number.
    pub(super) fn activations(
        x: &[f32],
        values: &mut [i8],
        scales: &mut [f32],
        sums: &mut [i32],
    ) {
        let _ = FMA;
        let (groups, rest) = x.as_chunks::<GROUP>();
        let mut last = [0.0f32; GROUP];
        last[..rest.len()].copy_from_slice(rest);
        let last = if rest.is_empty() { &[][..] } else { std::slice::from_ref(&last) };
        let to = values.as_chunks_mut::<GROUP>().0.iter_mut().zip(scales.iter_mut().zip(sums));
        for (x, (values, (scale, sum))) in groups.iter().chain(last).zip(to) {
            (*scale, *sum) = whole_numbers(x, values);
        }
    }
}

/// One group: its scale, and the sum of its whole numbers.
#[inline(always)]
fn whole_numbers(x: &[f32; GROUP], values: &mut [i8; GROUP]) -> (f32, i32) {
    // No number is larger than any, which `max` would pass over.
    let size = x.iter().fold(0u32, |most, x| most.max(x.to_bits() & 0x7fff_ffff));
    if size > f32::MAX.to_bits() {
        return (f32::NAN, 0);
    }
    let size = f32::from_bits(size);
    let inverse = if size == 0.0 { 0.0 } else { 127.0 / size };
    let mut sum = 0;
    for (value, x) in values.iter_mut().zip(x) {
        *value = (x * inverse + ROUND).to_bits() as i8;
        sum += i32::from(*value);
    }
    (size / 127.0, sum)
}
