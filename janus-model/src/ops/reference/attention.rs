//! Attention of whole rows, with everything of `[T, T]` in memory.

use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{DType, Shape, Slice};

use super::cast;
use crate::ops::Rules;

/// What both ways share: queries (scaled) and keys, turned, `[B, H, T, d]`, and the weights.
struct Weighed<B: Backend> {
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    weights: FloatTensor<B>, // [B, H, T, T]
}

/// See [`crate::ops::attention_rows`].
pub fn attention_rows<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    documents: IntTensor<B>,
    rules: Rules,
) -> FloatTensor<B> {
    let turn = rules.turned.then_some((cos, sin));
    let documents = rules.causal.then_some(documents);
    let Weighed { v, weights, .. } = weigh::<B>(q, k, v, &turn, documents);
    B::float_swap_dims(B::float_matmul(weights, v), 1, 2) // [B, T, H, d]
}

/// Gradients by `q`, `k` and `v`.
pub fn attention_rows_backward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    documents: IntTensor<B>,
    rules: Rules,
    gradient: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let turn = rules.turned.then_some((cos, sin));
    let documents = rules.causal.then_some(documents);
    let kv_heads = k.shape()[2];
    let scale = 1.0 / (q.shape()[3] as f64).sqrt();
    let Weighed { q, k, v, weights } = weigh::<B>(q, k, v, &turn, documents);
    let turned = |x: FloatTensor<B>| B::float_swap_dims(x, 2, 3);
    let gradient = B::float_swap_dims(gradient, 1, 2); // [B, H, T, d]
    let by_v = B::float_matmul(turned(weights.clone()), gradient.clone());
    let by_weights = B::float_matmul(gradient, turned(v)); // [B, H, T, T]
    let along = B::float_sum_dim(B::float_mul(by_weights.clone(), weights.clone()), 3);
    let slopes = B::float_mul(weights, B::float_sub(by_weights, along));
    let by_q = B::float_mul_scalar(B::float_matmul(slopes.clone(), k), scale.into());
    let by_k = B::float_matmul(turned(slopes), q);
    let (by_k, by_v) = (share::<B>(by_k, kv_heads), share::<B>(by_v, kv_heads));
    let back = |x| match &turn {
        Some((cos, sin)) => rotate::<B>(x, cos.clone(), B::float_neg(sin.clone())),
        None => x,
    };
    let rows = |x| B::float_swap_dims(x, 1, 2);
    (rows(back(by_q)), rows(back(by_k)), rows(by_v))
}

fn weigh<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    turn: &Option<(FloatTensor<B>, FloatTensor<B>)>,
    documents: Option<IntTensor<B>>,
) -> Weighed<B> {
    let [batch, tokens, heads, width] = q.shape().dims::<4>();
    let turned = |x: FloatTensor<B>| {
        let x = B::float_swap_dims(x, 1, 2); // [B, H, T, d]
        match turn {
            Some((cos, sin)) => rotate::<B>(x, cos.clone(), sin.clone()),
            None => x,
        }
    };
    let q = B::float_mul_scalar(turned(q), (1.0 / (width as f64).sqrt()).into());
    let k = repeat::<B>(turned(k), heads);
    let v = repeat::<B>(B::float_swap_dims(v, 1, 2), heads);
    let scores = B::float_matmul(q.clone(), B::float_swap_dims(k.clone(), 2, 3));
    let dtype = scores.dtype();
    let scores = cast::<B>(scores, DType::F32);
    let scores = match documents {
        Some(documents) => {
            let hidden = hidden::<B>(documents, [batch, heads, tokens]);
            B::float_mask_fill(scores, hidden, f32::NEG_INFINITY.into())
        }
        None => scores,
    };
    let most = B::float_max_dim(scores.clone(), 3);
    let shares = B::float_exp(B::float_sub(scores, most));
    let whole = B::float_sum_dim(shares.clone(), 3);
    let weights = cast::<B>(B::float_div(shares, whole), dtype);
    Weighed { q, k, v, weights }
}

/// True where a query does not see a key: after itself, or of another document.
fn hidden<B: Backend>(
    documents: IntTensor<B>,
    [batch, heads, tokens]: [usize; 3],
) -> BoolTensor<B> {
    let (device, dtype) = (documents.device(), documents.dtype());
    let truth = get_device_settings::<B>(&device).bool_dtype;
    let wide = |x: IntTensor<B>, shape: [usize; 4]| {
        let x = B::int_reshape(x, Shape::new(shape));
        B::int_expand(x, Shape::new([batch, heads, tokens, tokens]))
    };
    let asked = wide(documents.clone(), [batch, 1, tokens, 1]);
    let other = B::int_not_equal(wide(documents, [batch, 1, 1, tokens]), asked, truth);
    let place = B::int_arange(0..tokens as i64, &device, dtype.into());
    let query = wide(place.clone(), [1, 1, tokens, 1]);
    let later = B::int_greater(wide(place, [1, 1, 1, tokens]), query, truth);
    B::bool_or(other, later)
}

/// As in `rope.rs`, in f32 where `x` is narrower.
pub fn rotate<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
) -> FloatTensor<B> {
    let ([batch, heads, tokens, width], dtype) = (x.shape().dims::<4>(), x.dtype());
    let x = cast::<B>(x, cos.dtype());
    let half = |part: std::ops::Range<usize>| {
        let part = [0..batch, 0..heads, 0..tokens, part].map(Slice::from);
        B::float_slice(x.clone(), &part)
    };
    let (a, b) = (half(0..width / 2), half(width / 2..width));
    let times =
        |x: &FloatTensor<B>, factor: &FloatTensor<B>| B::float_mul(x.clone(), factor.clone());
    let first = B::float_sub(times(&a, &cos), times(&b, &sin));
    let second = B::float_add(times(&b, &cos), times(&a, &sin));
    cast::<B>(B::float_cat(vec![first, second], 3), dtype)
}

/// `[B, H_kv, T, d]` once for each query head that shares it.
fn repeat<B: Backend>(x: FloatTensor<B>, heads: usize) -> FloatTensor<B> {
    let [batch, kv_heads, tokens, width] = x.shape().dims::<4>();
    if kv_heads == heads {
        return x;
    }
    let group = heads / kv_heads;
    let x = B::float_reshape(x, Shape::new([batch, kv_heads, 1, tokens, width]));
    let x = B::float_expand(x, Shape::new([batch, kv_heads, group, tokens, width]));
    B::float_reshape(x, Shape::new([batch, heads, tokens, width]))
}

/// The sum over the query heads that share one.
fn share<B: Backend>(x: FloatTensor<B>, kv_heads: usize) -> FloatTensor<B> {
    let [batch, heads, tokens, width] = x.shape().dims::<4>();
    if kv_heads == heads {
        return x;
    }
    let x = B::float_reshape(x, Shape::new([batch, kv_heads, heads / kv_heads, tokens, width]));
    B::float_reshape(B::float_sum_dim(x, 2), Shape::new([batch, kv_heads, tokens, width]))
}
