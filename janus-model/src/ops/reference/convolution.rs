//! Convolution and GroupNorm as Burn has them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Shape, Slice};

use super::cast;
use crate::ops::{Convolution, GroupRule};

/// See [`crate::ops::conv2d`]. Padding that differs from side to side is laid around `x` first.
pub fn conv2d<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    rule: Convolution,
) -> FloatTensor<B> {
    let (x, options) = padded::<B>(x, rule);
    let (weight, bias) = (cast::<B>(weight, x.dtype()), cast::<B>(bias, x.dtype()));
    B::conv2d(x, weight, Some(bias), options)
}

/// Gradients by `x`, the weight and the bias.
pub fn conv2d_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    gradient: FloatTensor<B>,
    rule: Convolution,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let ([count, channels, height, width], kept) = (x.shape().dims::<4>(), weight.dtype());
    let [top, left, ..] = rule.padding;
    let (x, options) = padded::<B>(x, rule);
    let weight = cast::<B>(weight, x.dtype());
    let by_x = B::conv2d_x_backward(x.clone(), weight.clone(), gradient.clone(), options.clone());
    let by_x = if rule.even() {
        by_x
    } else {
        let inside = [0..count, 0..channels, top..top + height, left..left + width];
        B::float_slice(by_x, &inside.map(Slice::from))
    };
    let by_weight = B::conv2d_weight_backward(x, weight, gradient.clone(), options);
    let outputs = gradient.shape()[1];
    let by_bias = [0, 2, 3].into_iter().fold(gradient, |sum, axis| B::float_sum_dim(sum, axis));
    let by_bias = B::float_reshape(by_bias, Shape::new([outputs]));
    (by_x, cast::<B>(by_weight, kept), cast::<B>(by_bias, kept))
}

fn padded<B: Backend>(x: FloatTensor<B>, rule: Convolution) -> (FloatTensor<B>, ConvOptions<2>) {
    let [top, left, bottom, right] = rule.padding;
    let options = |padding| ConvOptions::new([rule.stride; 2], padding, [1, 1], 1);
    if rule.even() {
        return (x, options([top, left]));
    }
    let [count, channels, height, width] = x.shape().dims::<4>();
    let shape = [count, channels, top + height + bottom, left + width + right];
    let zeros = B::float_zeros(Shape::new(shape), &x.device(), x.dtype().into());
    let inside = [0..count, 0..channels, top..top + height, left..left + width].map(Slice::from);
    (B::float_slice_assign(zeros, &inside, x), options([0, 0]))
}

/// See [`crate::ops::group_norm`]; everything in f32.
pub fn group_norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    rule: GroupRule,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let z = scaled::<B>(normal::<B>(x, rule).0, weight, bias);
    let y = if rule.swish { B::float_mul(z.clone(), B::sigmoid(z)) } else { z };
    cast::<B>(y, dtype)
}

/// Gradients by `x`, the weight and the bias.
pub fn group_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    gradient: FloatTensor<B>,
    rule: GroupRule,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (dtype, kept) = (x.dtype(), weight.dtype());
    let [count, channels, height, width] = x.shape().dims::<4>();
    let (normal, scale) = normal::<B>(x, rule);
    let gradient = cast::<B>(gradient, DType::F32);
    let gradient = if rule.swish {
        let z = scaled::<B>(normal.clone(), weight.clone(), bias);
        let open = B::sigmoid(z.clone());
        let closed = B::float_add_scalar(B::float_neg(open.clone()), 1.0.into());
        let slope = B::float_add_scalar(B::float_mul(z, closed), 1.0.into());
        B::float_mul(B::float_mul(gradient, open), slope)
    } else {
        gradient
    };
    let vector = |x: FloatTensor<B>| {
        let sum = [0, 2, 3].into_iter().fold(x, |sum, axis| B::float_sum_dim(sum, axis));
        cast::<B>(B::float_reshape(sum, Shape::new([channels])), kept)
    };
    let by_weight = vector(B::float_mul(gradient.clone(), normal.clone()));
    let by_bias = vector(gradient.clone());
    let groups = Shape::new([count, rule.groups, channels * height * width / rule.groups]);
    let slope = B::float_mul(gradient, wide::<B>(weight));
    let [slope, normal] = [slope, normal].map(|x| B::float_reshape(x, groups.clone()));
    let along = B::float_mean_dim(B::float_mul(slope.clone(), normal.clone()), 2);
    let level = B::float_mean_dim(slope.clone(), 2);
    let rest = B::float_sub(B::float_sub(slope, level), B::float_mul(normal, along));
    let by_x = B::float_mul(rest, scale);
    let by_x = B::float_reshape(by_x, Shape::new([count, channels, height, width]));
    (cast::<B>(by_x, dtype), by_weight, by_bias)
}

/// Mean 0 and mean square 1 in every group, `[N, C, H, W]`, and what made it so, `[N, groups, 1]`.
fn normal<B: Backend>(x: FloatTensor<B>, rule: GroupRule) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let size = shape.num_elements() / (shape[0] * rule.groups);
    let x = B::float_reshape(cast::<B>(x, DType::F32), Shape::new([shape[0], rule.groups, size]));
    let x = B::float_sub(x.clone(), B::float_mean_dim(x, 2));
    let square = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 2);
    let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(square, rule.epsilon.into())));
    (B::float_reshape(B::float_mul(x, scale.clone()), shape), scale)
}

fn scaled<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> FloatTensor<B> {
    B::float_add(B::float_mul(x, wide::<B>(weight)), wide::<B>(bias))
}

fn wide<B: Backend>(vector: FloatTensor<B>) -> FloatTensor<B> {
    let channels = vector.shape()[0];
    B::float_reshape(cast::<B>(vector, DType::F32), Shape::new([1, channels, 1, 1]))
}
