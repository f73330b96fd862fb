//! Norms, SwiGLU, the loss and the optimizer's step, as tensor operations.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, IndexingUpdateOp, Shape};

use super::cast;
use crate::ops::AdamWStep;

/// See [`crate::ops::rms_norm`] and [`crate::ops::layer_norm`], which is centred. Statistics in
/// f32, like the weights.
pub fn norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    centred: bool,
    epsilon: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (y, _) = normal::<B>(x, centred, epsilon);
    match centred {
        // As PyTorch's: scaled and moved in f32.
        true => {
            let y = B::float_mul(y, row::<B>(weight, DType::F32));
            cast::<B>(B::float_add(y, row::<B>(bias, DType::F32)), dtype)
        }
        // As transformers': back in the narrow dtype first.
        false => B::float_mul(cast::<B>(y, dtype), row::<B>(weight, dtype)),
    }
}

/// Gradients by `x`, the weight, and the bias (0 without one).
pub fn norm_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    gradient: FloatTensor<B>,
    centred: bool,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (dtype, kept, width) = (x.dtype(), weight.dtype(), x.shape()[1]);
    let gradient = cast::<B>(gradient, DType::F32);
    let (normal, scale) = normal::<B>(x, centred, epsilon);
    let slope = B::float_mul(gradient.clone(), row::<B>(weight, DType::F32));
    let along = B::float_mean_dim(B::float_mul(slope.clone(), normal.clone()), 1);
    let rest = B::float_sub(slope.clone(), B::float_mul(normal.clone(), along));
    let rest = match centred {
        true => B::float_sub(rest, B::float_mean_dim(slope, 1)),
        false => rest,
    };
    let vector = |x| {
        let sum = B::float_reshape(B::float_sum_dim(x, 0), Shape::new([width]));
        cast::<B>(sum, kept)
    };
    let by_weight = vector(B::float_mul(gradient.clone(), normal));
    (cast::<B>(B::float_mul(rest, scale), dtype), by_weight, vector(gradient))
}

/// `[rows, D]` with mean square 1, and what made it so, `[rows, 1]`.
fn normal<B: Backend>(
    x: FloatTensor<B>,
    centred: bool,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let x = cast::<B>(x, DType::F32);
    let x = match centred {
        true => B::float_sub(x.clone(), B::float_mean_dim(x, 1)),
        false => x,
    };
    let square = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let scale = B::float_recip(B::float_sqrt(B::float_add_scalar(square, epsilon.into())));
    (B::float_mul(x, scale.clone()), scale)
}

/// See [`crate::ops::logit_loss`]; the slope is `softmax − 1[target]`.
pub fn logit_loss<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let targets = B::int_reshape(targets, Shape::new([logits.shape()[0], 1]));
    let most = B::float_max_dim(logits.clone(), 1); // [n, 1]
    let below = B::float_sub(logits, most);
    let chosen = B::float_gather(1, below.clone(), targets.clone()); // [n, 1]
    let shares = B::float_exp(below); // [n, V]
    let whole = B::float_sum_dim(shares.clone(), 1); // [n, 1]
    let loss = B::float_sum(B::float_sub(B::float_log(whole.clone()), chosen));
    let softmax = B::float_div(shares, whole);
    let ones = B::float_ones(targets.shape(), &softmax.device(), DType::F32.into());
    let slope = B::float_scatter(1, softmax, targets, B::float_neg(ones), IndexingUpdateOp::Add);
    (B::float_reshape(loss, Shape::new([1])), slope)
}

/// Squares of `[rows, width]` summed over each row, `[rows]`.
pub fn square_sums<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let rows = x.shape()[0];
    let sums = B::float_sum_dim(B::float_mul(x.clone(), x), 1);
    B::float_reshape(sums, Shape::new([rows]))
}

/// `silu(gate) · up`.
pub fn swiglu<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let open = B::sigmoid(gate.clone());
    B::float_mul(B::float_mul(gate, open), up)
}

/// Gradients by `gate` and `up`: `g·up·s·(1 + gate·(1 − s))` and `g·gate·s`.
pub fn swiglu_backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let open = B::sigmoid(gate.clone());
    let gradient = B::float_mul(gradient, open.clone());
    let by_up = B::float_mul(gradient.clone(), gate.clone());
    let closed = B::float_add_scalar(B::float_neg(open), 1.0.into());
    let slope = B::float_add_scalar(B::float_mul(gate, closed), 1.0.into());
    (B::float_mul(B::float_mul(gradient, up), slope), by_up)
}

/// See [`crate::ops::adamw`].
pub fn adamw<B: Backend>(
    weight: FloatTensor<B>,
    gradient: FloatTensor<B>,
    moment_1: FloatTensor<B>,
    moment_2: FloatTensor<B>,
    step: AdamWStep,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let times = |x: FloatTensor<B>, factor: f64| B::float_mul_scalar(x, factor.into());
    let square = B::float_mul(gradient.clone(), gradient.clone());
    let moment_1 = B::float_add(times(moment_1, step.beta_1), times(gradient, 1.0 - step.beta_1));
    let moment_2 = B::float_add(times(moment_2, step.beta_2), times(square, 1.0 - step.beta_2));
    let scale = B::float_div_scalar(B::float_sqrt(moment_2.clone()), step.rest_2.sqrt().into());
    let scale = B::float_add_scalar(scale, step.epsilon.into());
    let weight = if step.decay == 0.0 { weight } else { times(weight, 1.0 - step.decay) };
    let change = times(B::float_div(moment_1.clone(), scale), step.rate / step.rest_1);
    (B::float_sub(weight, change), moment_1, moment_2)
}

fn row<B: Backend>(vector: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    let width = vector.shape()[0];
    B::float_reshape(cast::<B>(vector, dtype), Shape::new([1, width]))
}
