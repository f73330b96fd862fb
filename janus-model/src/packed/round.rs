//! Which whole numbers stand for weights, and for activations.

use half::f16;

use super::{BLOCK, Bits, GROUP, Line, PANEL};
use crate::ops::simd::widest;

/// Rounds a row of weights into its lane of a panel.
pub(super) fn weights(lines: &mut [Line], lane: usize, bits: Bits, weights: &[f32]) {
    let blocks = lines.chunks_exact_mut(bits.lines());
    for (lines, weights) in blocks.zip(weights.chunks_exact(BLOCK)) {
        for (group, weights) in weights.chunks_exact(GROUP).enumerate() {
            let mut rounded = [0i8; GROUP];
            let scale = match bits {
                Bits::Eight => eight(weights, &mut rounded),
                Bits::Four => four(weights, &mut rounded),
            };
            let at = 2 * (group * PANEL + lane);
            lines[0].0[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            put(lines, lane, bits, group, &rounded);
        }
    }
}

fn put(lines: &mut [Line], lane: usize, bits: Bits, group: usize, rounded: &[i8; GROUP]) {
    for (step, four) in rounded.as_chunks::<4>().0.iter().enumerate() {
        let step = group * (GROUP / 4) + step;
        let four = four.map(|weight| (i32::from(weight) + bits.offset()) as u8);
        for (k, byte) in four.into_iter().enumerate() {
            match bits {
                Bits::Eight => lines[1 + step].0[lane * 4 + k] = byte,
                Bits::Four => lines[1 + step / 2].0[lane * 4 + k] |= byte << (4 * (step % 2)),
            }
        }
    }
}

widest! {
    /// The scale that lets the largest be 127.
    fn eight(weights: &[f32], rounded: &mut [i8; GROUP]) -> f16 {
        let _ = FMA;
        let largest = weights.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
        let scale = f16::from_f32(largest / 127.0);
        nearest(weights, scale, [-127.0, 127.0], rounded);
        scale
    }
}

widest! {
    /// Of several scales the one with the least squared error: it lets the largest weight be
    /// somewhere around −8, and is then the best for what the weights were rounded to.
    fn four(weights: &[f32], rounded: &mut [i8; GROUP]) -> f16 {
        let _ = FMA;
        let farther = |most: f32, w: &f32| if w.abs() > most.abs() { *w } else { most };
        let largest = weights.iter().fold(0.0f32, farther);
        if largest == 0.0 {
            rounded.fill(0);
            return f16::ZERO;
        }
        // Least is −1, so that even what is no number leaves a scale behind.
        let (mut most, mut best) = (-1.0f32, 0.0f32);
        for tenths in -9..=6 {
            let inverse = (-8.0 + tenths as f32 * 0.1) / largest;
            let (mut met, mut square) = ([0.0f32; 16], [0.0f32; 16]);
            for some in weights.as_chunks::<16>().0 {
                for lane in 0..16 {
                    let whole = (some[lane] * inverse).round_ties_even().clamp(-8.0, 7.0);
                    met[lane] += whole * some[lane];
                    square[lane] += whole * whole;
                }
            }
            let (met, square) = (met.iter().sum::<f32>(), square.iter().sum::<f32>());
            // Σ(w − d·q)² with the best d = Σwq / Σq² is Σw² less this.
            let gain = met * met / square;
            if gain > most {
                (most, best) = (gain, met / square);
            }
        }
        let scale = f16::from_f32(best);
        nearest(weights, scale, [-8.0, 7.0], rounded);
        scale
    }
}

#[inline(always)]
fn nearest(weights: &[f32], scale: f16, [least, most]: [f32; 2], rounded: &mut [i8; GROUP]) {
    let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    for (rounded, weight) in rounded.iter_mut().zip(weights) {
        *rounded = (weight * inverse).round_ties_even().clamp(least, most) as i8;
    }
}

widest! {
    /// Rounds a group of activations so that the largest is 127; its scale, and the sum of what it
    /// was rounded to. What is no number, or infinite, makes the scale no number.
    pub(super) fn activations(x: &[f32], values: &mut [i8]) -> (f32, i32) {
        let _ = FMA;
        let largest = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        if !x.iter().all(|x| x.is_finite()) {
            return (f32::NAN, 0);
        }
        let (scale, inverse) = match largest / 127.0 {
            0.0 => (0.0, 0.0),
            scale => (scale, 127.0 / largest),
        };
        let mut sum = 0;
        for (value, x) in values.iter_mut().zip(x) {
            *value = (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
            sum += i32::from(*value);
        }
        (scale, sum)
    }
}
