//! RMSNorm and LayerNorm over the last axis, forward and back, each in one pass over memory.
//!
//! `x̂ = (x − mean) / √(mean((x − mean)²) + ε)`, the mean being 0 for RMSNorm; `y = x̂·w (+ b)`. Back:
//! `dx = (g − mean(g) − x̂·mean(g·x̂)) / √…` with `g = dy·w`, of which RMSNorm lacks the middle term;
//! `dw = Σ dy·x̂`, `db = Σ dy`, summed in an order that does not depend on the threads.
//!
//! 8 bytes a number forward, 12 back: as fast as memory.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;

use super::numbers;
use crate::ops::shared::{Shared, in_pieces};
use crate::ops::simd::{sum, widest};

/// Rows per parallel piece.
const PIECE: usize = 32;

/// `[rows, D]` to the same; `bias` makes it a LayerNorm.
pub fn forward(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    bias: Option<FloatTensor<Flex>>,
    epsilon: f64,
) -> FloatTensor<Flex> {
    let [x, weight] = [x, weight].map(|tensor| tensor.to_contiguous());
    let bias = bias.map(|bias| bias.to_contiguous());
    let [rows, width] = [0, 1].map(|axis| x.layout().shape()[axis]);
    let (x, weight, bias) = (numbers(&x), numbers(&weight), bias.as_ref().map(numbers));
    let piece = PIECE * width.max(1);
    // A decoding step has a row or two: waking other threads would cost more.
    let [y] = in_pieces(x.len(), piece, |index, [y]| {
        forward_rows(y, &x[index * piece..][..y.len()], weight, bias, epsilon as f32);
    });
    FloatTensor::<Flex>::from_data(TensorData::new(y, [rows, width]))
}

/// Gradients by `x`, by the weight and by the bias, the last one 0 for RMSNorm.
pub fn backward(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    gradient: FloatTensor<Flex>,
    centred: bool,
    epsilon: f64,
) -> [FloatTensor<Flex>; 3] {
    let [x, weight, gradient] = [x, weight, gradient].map(|tensor| tensor.to_contiguous());
    let [rows, width] = [0, 1].map(|axis| x.layout().shape()[axis]);
    let (x, weight, gradient) = (numbers(&x), numbers(&weight), numbers(&gradient));
    let piece = PIECE * width.max(1);
    let mut parts = vec![0.0; rows.div_ceil(PIECE) * 2 * width];
    let shared = Shared::new(&mut parts);
    let [by_x] = in_pieces(x.len(), piece, |index, [by_x]| {
        let [x, gradient] = [x, gradient].map(|x| &x[index * piece..][..by_x.len()]);
        // SAFETY: every piece has a part of its own.
        let parts =
            unsafe { std::slice::from_raw_parts_mut(shared.at(index * 2 * width), 2 * width) };
        backward_rows(by_x, parts, x, weight, gradient, centred, epsilon as f32);
    });
    let mut sums = vec![0.0f32; 2 * width];
    for part in parts.chunks_exact((2 * width).max(1)) {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    let by_bias = sums.split_off(width);
    let vector = |values| FloatTensor::<Flex>::from_data(TensorData::new(values, [width]));
    let by_x = FloatTensor::<Flex>::from_data(TensorData::new(by_x, [rows, width]));
    [by_x, vector(sums), vector(by_bias)]
}

/// The mean of a row, where it is taken away, and what the rest is multiplied with.
#[inline(always)]
fn moments(x: &[f32], centred: bool, epsilon: f32) -> (f32, f32) {
    let count = x.len() as f32;
    let mean = if centred { sum(x.len(), |i| x[i]) / count } else { 0.0 };
    let square = sum(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / count;
    (mean, 1.0 / (square + epsilon).sqrt())
}

widest! {
    fn forward_rows(y: &mut [f32], x: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32) {
        let _ = FMA;
        let width = weight.len();
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let (mean, scale) = moments(x, bias.is_some(), epsilon);
            match bias {
                Some(bias) => {
                    let bias = &bias[..width];
                    for i in 0..width {
                        y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
                    }
                }
                None => {
                    for i in 0..width {
                        y[i] = x[i] * scale * weight[i];
                    }
                }
            }
        }
    }
}

widest! {
    fn backward_rows(
        by_x: &mut [f32],
        parts: &mut [f32],
        x: &[f32],
        weight: &[f32],
        gradient: &[f32],
        centred: bool,
        epsilon: f32,
    ) {
        let _ = FMA;
        let width = weight.len();
        let (by_weight, by_bias) = parts.split_at_mut(width);
        let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width));
        for (by_x, (x, gradient)) in by_x.chunks_exact_mut(width).zip(rows) {
            let (mean, scale) = moments(x, centred, epsilon);
            let count = width as f32;
            let along =
                sum(width, |i| gradient[i] * weight[i] * (x[i] - mean)) * scale * scale / count;
            let level = if centred { sum(width, |i| gradient[i] * weight[i]) / count } else { 0.0 };
            let by_bias = &mut by_bias[..width];
            for i in 0..width {
                let below = x[i] - mean;
                by_x[i] = (gradient[i] * weight[i] - level - below * along) * scale;
                by_weight[i] += gradient[i] * below * scale;
                by_bias[i] += gradient[i];
            }
        }
    }
}
