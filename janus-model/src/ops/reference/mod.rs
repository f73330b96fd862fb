//! Plain bodies of [`super::JanusOps`]: slow, right, differentiable, the judge of every kernel.

mod attention;
mod convolution;
mod training;

pub use attention::{attention_rows, attention_rows_backward, rotate};
pub use convolution::{conv2d, conv2d_backward, group_norm, group_norm_backward};
pub use training::{adamw, logit_loss, norm, norm_backward, square_sums, swiglu, swiglu_backward};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Shape, Slice};

use super::Added;

/// `x · Wᵀ`, the weight cast to the dtype of `x` first where they differ.
pub fn linear<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let weight = if weight.dtype() == x.dtype() {
        weight
    } else {
        let dtype = x.dtype();
        B::float_cast(weight, dtype.into())
    };
    B::float_matmul(x, B::float_swap_dims(weight, 0, 1))
}

/// See [`super::JanusOps::plus`].
pub fn plus<B: Backend>(
    y: FloatTensor<B>,
    bias: FloatTensor<B>,
    onto: FloatTensor<B>,
    added: Added,
) -> FloatTensor<B> {
    let mut y = y;
    if added.bias {
        let width = bias.shape()[0];
        y = B::float_add(y, B::float_reshape(bias, Shape::new([1, width])));
    }
    if added.onto {
        y = B::float_add(y, onto);
    }
    y
}

/// See [`super::JanusOps::put`].
pub fn put<B: Backend>(cache: FloatTensor<B>, new: FloatTensor<B>, start: usize) -> FloatTensor<B> {
    let [batch, heads, tokens, width] = new.shape().dims::<4>();
    let place = [0..batch, 0..heads, start..start + tokens, 0..width].map(Slice::from);
    let new = cast::<B>(new, cache.dtype());
    B::float_slice_assign(cache, &place, new)
}

/// See [`super::JanusOps::product`].
pub fn product<B: Backend>(
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    turned: [bool; 2],
) -> FloatTensor<B> {
    let turn = |x, turned: bool| if turned { B::float_swap_dims(x, 0, 1) } else { x };
    B::float_matmul(turn(a, turned[0]), turn(b, turned[1]))
}

/// Attention over what the cache holds, as Burn computes it: keys and values cut to `total` tokens,
/// repeated for the query heads that share them.
pub fn attention_cached<B: Backend>(
    q: FloatTensor<B>,
    keys: FloatTensor<B>,
    values: FloatTensor<B>,
    total: usize,
) -> FloatTensor<B> {
    let [_, heads, tokens, _] = q.shape().dims::<4>();
    let [batch, kv_heads, _, width] = keys.shape().dims::<4>();
    let group = heads / kv_heads;
    let held = |cache: FloatTensor<B>| {
        let part = [0..batch, 0..kv_heads, 0..total, 0..width].map(Slice::from);
        let part = B::float_slice(cache, &part);
        if group == 1 {
            return part;
        }
        let part = B::float_reshape(part, Shape::new([batch, kv_heads, 1, total, width]));
        let part = B::float_expand(part, Shape::new([batch, kv_heads, group, total, width]));
        B::float_reshape(part, Shape::new([batch, heads, total, width]))
    };
    let (keys, values) = (cast::<B>(held(keys), q.dtype()), cast::<B>(held(values), q.dtype()));
    let options = AttentionModuleOptions { is_causal: tokens > 1, ..Default::default() };
    B::attention(q, keys, values, None, None, options)
}

/// `g · (Φ(x) + x·φ(x))`, in f32.
pub fn gelu_erf_backward<B: Backend>(
    x: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> FloatTensor<B> {
    use std::f64::consts::{FRAC_1_SQRT_2, TAU};
    let dtype = x.dtype();
    let x = B::float_cast(x, DType::F32.into());
    let below = B::float_erf(B::float_mul_scalar(x.clone(), FRAC_1_SQRT_2.into()));
    let below = B::float_add_scalar(B::float_mul_scalar(below, 0.5.into()), 0.5.into()); // Φ
    let square = B::float_mul(x.clone(), x.clone());
    let density = B::float_exp(B::float_mul_scalar(square, (-0.5).into()));
    let density = B::float_mul_scalar(density, (1.0 / TAU.sqrt()).into()); // φ
    let slope = B::float_add(below, B::float_mul(x, density));
    B::float_mul(B::float_cast(slope, dtype.into()), gradient)
}

/// In another dtype, or as it is.
pub(super) fn cast<B: Backend>(tensor: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if tensor.dtype() == dtype { tensor } else { B::float_cast(tensor, dtype.into()) }
}
