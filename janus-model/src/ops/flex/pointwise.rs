//! Functions of single numbers, forward and back, in parallel and in one pass over memory.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;
use rayon::prelude::*;

use super::{numbers, whole};
use crate::ops::shared::in_pieces;
use crate::ops::simd::{exp, multiply_add, sigmoid, widest};

/// Numbers per parallel piece: 64 KiB, so that a piece stays in the nearest cache.
const PIECE: usize = 1 << 14;

/// `y + bias + onto` of `[rows, out]`, in place where nobody else holds `y`.
pub fn plus(
    y: FloatTensor<Flex>,
    bias: Option<FloatTensor<Flex>>,
    onto: Option<FloatTensor<Flex>>,
) -> FloatTensor<Flex> {
    let mut y = whole(y);
    let [bias, onto] = [bias, onto].map(|tensor| tensor.map(|tensor| tensor.to_contiguous()));
    let (bias, onto) = (bias.as_ref().map(numbers), onto.as_ref().map(numbers));
    let (count, width) = (y.layout().num_elements(), y.layout().shape()[1].max(1));
    assert!(bias.is_none_or(|bias| bias.len() == width), "plus: as many numbers as columns");
    assert!(onto.is_none_or(|onto| onto.len() == count), "plus: as many numbers");
    let each = (PIECE / width).max(1) * width;
    let piece = |(piece, y): (usize, &mut [f32])| {
        plus_rows(y, width, bias, onto.map(|onto| &onto[piece * each..][..y.len()]));
    };
    let values = &mut y.storage_mut::<f32>()[..count];
    match count <= each {
        true => values.chunks_mut(each).enumerate().for_each(piece),
        false => values.par_chunks_mut(each).enumerate().for_each(piece),
    }
    y
}

/// `silu(gate) · up`.
pub fn swiglu(gate: FloatTensor<Flex>, up: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let shape = gate.layout().shape().clone();
    let [gate, up] = [gate, up].map(|tensor| tensor.to_contiguous());
    let (gate, up) = (numbers(&gate), numbers(&up));
    // A decoding step fits into one piece: waking other threads would cost more.
    let [y] = in_pieces(gate.len(), PIECE, |piece, [y]| {
        let [gate, up] = [gate, up].map(|x| &x[piece * PIECE..][..y.len()]);
        swiglu_piece(y, gate, up);
    });
    FloatTensor::<Flex>::from_data(TensorData::new(y, shape))
}

/// Gradients by `gate` and by `up`.
pub fn swiglu_backward(
    gate: FloatTensor<Flex>,
    up: FloatTensor<Flex>,
    gradient: FloatTensor<Flex>,
) -> [FloatTensor<Flex>; 2] {
    let shape = gate.layout().shape().clone();
    let [gate, up, gradient] = [gate, up, gradient].map(|tensor| tensor.to_contiguous());
    let (gate, up, gradient) = (numbers(&gate), numbers(&up), numbers(&gradient));
    let by = in_pieces(gate.len(), PIECE, |piece, [by_gate, by_up]| {
        let [gate, up, gradient] =
            [gate, up, gradient].map(|x| &x[piece * PIECE..][..by_gate.len()]);
        swiglu_back(by_gate, by_up, gate, up, gradient);
    });
    by.map(|values| FloatTensor::<Flex>::from_data(TensorData::new(values, shape.clone())))
}

/// `x · Φ(x)`.
pub fn gelu(x: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let (shape, x) = (x.layout().shape().clone(), x.to_contiguous());
    let x = numbers(&x);
    let [y] = in_pieces(x.len(), PIECE, |piece, [y]| gelu_piece(y, &x[piece * PIECE..][..y.len()]));
    FloatTensor::<Flex>::from_data(TensorData::new(y, shape))
}

/// `g · (Φ(x) + x·φ(x))`.
pub fn gelu_backward(x: FloatTensor<Flex>, gradient: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let shape = x.layout().shape().clone();
    let [x, gradient] = [x, gradient].map(|tensor| tensor.to_contiguous());
    let (x, gradient) = (numbers(&x), numbers(&gradient));
    let [by] = in_pieces(x.len(), PIECE, |piece, [by]| {
        let [x, gradient] = [x, gradient].map(|x| &x[piece * PIECE..][..by.len()]);
        gelu_back(by, x, gradient);
    });
    FloatTensor::<Flex>::from_data(TensorData::new(by, shape))
}

/// Φ(x), the share of a normal distribution below x, within 2e-7.
///
/// For t = |x|/√2, erfc(t)·e^(t²) is smooth and falls like 1/t, so it is close to a polynomial in
/// 1 / (1 + 0.4t); this one was fitted to it, within 3e-8 of itself everywhere.
#[inline(always)]
fn below<const FMA: bool>(x: f32) -> f32 {
    const TERMS: [f32; 10] = [
        2.640_540_5e-5,
        0.225_082_58,
        0.231_355_2,
        0.177_416_1,
        0.268_638_3,
        -0.068_568_03,
        0.275_789_65,
        -0.063_687_22,
        -0.074_748_65,
        0.028_695_703,
    ];
    let u = 1.0 / multiply_add::<FMA>(0.4 * std::f32::consts::FRAC_1_SQRT_2, x.abs(), 1.0);
    let mut sum = 0.0;
    for term in TERMS.iter().rev() {
        sum = multiply_add::<FMA>(sum, u, *term);
    }
    let tail = 0.5 * sum * exp::<FMA>(-0.5 * x * x);
    if x < 0.0 { tail } else { 1.0 - tail }
}

widest! {
    fn plus_rows(y: &mut [f32], width: usize, bias: Option<&[f32]>, onto: Option<&[f32]>) {
        let _ = FMA;
        if let Some(bias) = bias {
            for y in y.chunks_exact_mut(width) {
                y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        }
        if let Some(onto) = onto {
            y.iter_mut().zip(onto).for_each(|(y, onto)| *y += onto);
        }
    }
}

widest! {
    fn swiglu_piece(y: &mut [f32], gate: &[f32], up: &[f32]) {
        let (gate, up) = (&gate[..y.len()], &up[..y.len()]);
        for i in 0..y.len() {
            y[i] = gate[i] * sigmoid::<FMA>(gate[i]) * up[i];
        }
    }
}

widest! {
    fn swiglu_back(
        by_gate: &mut [f32],
        by_up: &mut [f32],
        gate: &[f32],
        up: &[f32],
        gradient: &[f32],
    ) {
        let count = by_gate.len();
        let (by_up, gate) = (&mut by_up[..count], &gate[..count]);
        let (up, gradient) = (&up[..count], &gradient[..count]);
        for i in 0..count {
            let (x, g, open) = (gate[i], gradient[i], sigmoid::<FMA>(gate[i]));
            by_gate[i] = g * up[i] * open * multiply_add::<FMA>(x, 1.0 - open, 1.0);
            by_up[i] = g * x * open;
        }
    }
}

widest! {
    fn gelu_piece(y: &mut [f32], x: &[f32]) {
        let x = &x[..y.len()];
        for i in 0..y.len() {
            y[i] = x[i] * below::<FMA>(x[i]);
        }
    }
}

widest! {
    fn gelu_back(by: &mut [f32], x: &[f32], gradient: &[f32]) {
        let (x, gradient) = (&x[..by.len()], &gradient[..by.len()]);
        for i in 0..by.len() {
            let density = 0.398_942_3 * exp::<FMA>(-0.5 * x[i] * x[i]);
            by[i] = gradient[i] * multiply_add::<FMA>(x[i], density, below::<FMA>(x[i]));
        }
    }
}
