//! Attention of a few new tokens over the key-value cache, where it lies.
//!
//! Burn's attention wants keys and values of exactly the tokens held, so a cache with room to spare
//! would be copied whole at every step: at 600 tokens of the 1B model and two rows that is 470 MB.
//! Here each head reads its rows of the cache once: 2·total·d·4 bytes against 4·T·total·d FLOP.
//! Softmax in f32. Heads run in parallel.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;
use rayon::prelude::*;

use crate::ops::simd::multiply_add;

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Size {
    heads: usize,
    group: usize,
    tokens: usize,
    capacity: usize,
    total: usize,
    width: usize,
}

/// `[B, H, T, d]` over the first `total` of `[B, H_kv, capacity, d]`; all f32.
pub fn attention_cached(
    q: FloatTensor<Flex>,
    keys: &FloatTensor<Flex>,
    values: &FloatTensor<Flex>,
    total: usize,
) -> FloatTensor<Flex> {
    let q = q.to_contiguous();
    let (shape, cache) = (q.layout().shape().clone(), keys.layout().shape());
    let [batch, heads, tokens, width] = [0, 1, 2, 3].map(|at| shape[at]);
    let (kv_heads, capacity) = (cache[1], cache[2]);
    assert!(tokens <= total && total <= capacity, "attention: the cache is shorter than asked");
    let size = Size { heads, group: heads / kv_heads, tokens, capacity, total, width };
    let (q, keys, values) = (q.storage::<f32>(), keys.storage::<f32>(), values.storage::<f32>());
    let mut y = vec![0.0; batch * heads * tokens * width];
    y.par_chunks_mut(tokens * width).enumerate().for_each(|(at, y)| {
        let (row, head) = (at / size.heads, at % size.heads);
        let first = (row * kv_heads + head / size.group) * size.capacity * size.width;
        let held = first..first + size.total * size.width;
        let q = &q[at * tokens * width..][..tokens * width];
        one_head(q, &keys[held.clone()], &values[held], y, size);
    });
    FloatTensor::<Flex>::from_data(TensorData::new(y, [batch, heads, tokens, width]))
}

/// The best body for this processor.
fn one_head(q: &[f32], keys: &[f32], values: &[f32], y: &mut [f32], size: Size) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just detected.
            return unsafe { x86::one_head_avx512(q, keys, values, y, size) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just detected.
            return unsafe { x86::one_head_avx2(q, keys, values, y, size) };
        }
    }
    body::<{ cfg!(target_arch = "aarch64") }>(q, keys, values, y, size);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Size, body};

    #[target_feature(enable = "avx512f,avx512vl,fma,avx2")]
    pub fn one_head_avx512(q: &[f32], keys: &[f32], values: &[f32], y: &mut [f32], size: Size) {
        body::<true>(q, keys, values, y, size);
    }

    #[target_feature(enable = "fma,avx2")]
    pub fn one_head_avx2(q: &[f32], keys: &[f32], values: &[f32], y: &mut [f32], size: Size) {
        body::<true>(q, keys, values, y, size);
    }
}

/// Token `t` of the `T` newest sees all but the `T − 1 − t` newest keys.
#[inline(always)]
fn body<const FMA: bool>(q: &[f32], keys: &[f32], values: &[f32], y: &mut [f32], size: Size) {
    let scale = 1.0 / (size.width as f32).sqrt();
    let mut weights = vec![0.0f32; size.total];
    for t in 0..size.tokens {
        let seen = size.total - size.tokens + t + 1;
        let q = &q[t * size.width..][..size.width];
        let weights = &mut weights[..seen];
        for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(size.width)) {
            *weight = dot::<FMA>(q, key) * scale;
        }
        let highest = weights.iter().fold(f32::NEG_INFINITY, |m, w| m.max(*w));
        let mut sum = 0.0;
        for weight in weights.iter_mut() {
            *weight = (*weight - highest).exp();
            sum += *weight;
        }
        let y = &mut y[t * size.width..][..size.width];
        for (weight, value) in weights.iter().zip(values.chunks_exact(size.width)) {
            for (y, value) in y.iter_mut().zip(value) {
                *y = multiply_add::<FMA>(*weight, *value, *y);
            }
        }
        y.iter_mut().for_each(|y| *y /= sum);
    }
}

/// In lanes, so that the compiler may use vector registers.
#[inline(always)]
fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 32;
    let mut lanes = [0.0f32; LANES];
    let (a_body, a_rest) = a.split_at(a.len() - a.len() % LANES);
    let (b_body, b_rest) = b.split_at(a_body.len());
    for (a, b) in a_body.chunks_exact(LANES).zip(b_body.chunks_exact(LANES)) {
        for i in 0..LANES {
            lanes[i] = multiply_add::<FMA>(a[i], b[i], lanes[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}
