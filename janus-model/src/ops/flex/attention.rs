//! Attention of a few new tokens over the key-value cache, where it lies.
//!
//! Burn's attention wants keys and values of exactly the tokens held, so a cache with room to spare
//! would be copied whole at every step: at 600 tokens of the 1B model and two rows that is 470 MB.
//! Here each head reads its rows of the cache once: 2·total·d numbers of 4 or 2 bytes against
//! 4·T·total·d FLOP. Everything is computed in f32. Heads run in parallel. A cache of bf16 is read in
//! [pairs](super::attention_pairs).

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, TensorData};
use half::bf16;

use super::attention_pairs::{self, Held};
use super::rows::{Widen, tile};
use crate::ops::Instructions;
use crate::ops::portions::in_portions;
use crate::ops::shared::Shared;
use crate::ops::simd::{ask, exp, largest, multiply_add};

/// Elements of a key that meet those of a query at once.
const LANES: usize = 64;
/// Elements that are asked for ahead, a page of bf16.
const AHEAD: usize = 2048;

/// Sizes of one call.
#[derive(Clone, Copy)]
pub struct Size {
    /// Tokens held, and how many of them are new.
    pub total: usize,
    pub tokens: usize,
    /// Of a head.
    pub width: usize,
}

/// `[B, H, T, d]` in f32 over the first `total` of `[B, H_kv, capacity, d]` in f32 or bf16; nothing
/// where it is anything else, or does not lie in one piece.
pub fn attention_cached(
    q: &FloatTensor<Flex>,
    keys: &FloatTensor<Flex>,
    values: &FloatTensor<Flex>,
    total: usize,
) -> Option<FloatTensor<Flex>> {
    let plain =
        |cache: &FloatTensor<Flex>| cache.is_contiguous() && cache.layout().start_offset() == 0;
    if q.dtype() != DType::F32 || !plain(keys) || !plain(values) {
        return None;
    }
    let (q, cache) = (q.to_contiguous(), keys.layout().shape().dims::<4>());
    match (keys.dtype(), values.dtype()) {
        (DType::F32, DType::F32) => {
            Some(attend_plain(&q, keys.storage::<f32>(), values.storage::<f32>(), cache, total))
        }
        (DType::BF16, DType::BF16) => {
            Some(attend_narrow(&q, keys.storage::<bf16>(), values.storage::<bf16>(), cache, total))
        }
        _ => None,
    }
}

/// In pairs, where the processor can.
fn attend_narrow(
    q: &FloatTensor<Flex>,
    keys: &[bf16],
    values: &[bf16],
    cache: [usize; 4],
    total: usize,
) -> FloatTensor<Flex> {
    attend(q, cache, total, |q, first, next, y, size, weights| {
        let held = first..first + size.total * size.width;
        let (keys, values) = (&keys[held.clone()], &values[held]);
        let pairs = Held { keys, values, next: keys.as_ptr().wrapping_add(next - first) };
        if !attention_pairs::one_head(q, pairs, y, size, weights) {
            one_head(q, keys, values, y, size);
        }
    })
}

fn attend_plain<W: Widen>(
    q: &FloatTensor<Flex>,
    keys: &[W],
    values: &[W],
    cache: [usize; 4],
    total: usize,
) -> FloatTensor<Flex> {
    attend(q, cache, total, |q, first, _, y, size, _| {
        let held = first..first + size.total * size.width;
        one_head(q, &keys[held.clone()], &values[held], y, size);
    })
}

/// `head` is called for every head of every row with its queries, the places in the cache of its
/// first number and of the next head's, and its part of the result.
fn attend(
    q: &FloatTensor<Flex>,
    [_, kv_heads, capacity, _]: [usize; 4],
    total: usize,
    head: impl Fn(&[f32], usize, usize, &mut [f32], Size, &mut Vec<f32>) + Sync,
) -> FloatTensor<Flex> {
    let [batch, heads, tokens, width] = q.layout().shape().dims::<4>();
    assert!(tokens <= total && total <= capacity, "attention: the cache is shorter than asked");
    let (size, group) = (Size { total, tokens, width }, heads / kv_heads);
    let first = |at: usize| (at / heads * kv_heads + at % heads / group) * capacity * width;
    let q = super::numbers(q);
    let (mut y, each) = (vec![0.0; q.len()], tokens * width);
    let shared = Shared::new(&mut y);
    in_portions(batch * heads, Vec::new, |weights, at| {
        // SAFETY: every head has its own part of the result.
        let y = unsafe { std::slice::from_raw_parts_mut(shared.at(at * each), each) };
        head(&q[at * each..][..each], first(at), first(at + 1), y, size, weights);
    });
    FloatTensor::<Flex>::from_data(TensorData::new(y, [batch, heads, tokens, width]))
}

/// The best body for this processor.
fn one_head<W: Widen>(q: &[f32], keys: &[W], values: &[W], y: &mut [f32], size: Size) {
    #[cfg(target_arch = "x86_64")]
    {
        let there = Instructions::get();
        if there.avx512 {
            // SAFETY: the features are there.
            return unsafe { x86::one_head_avx512(q, keys, values, y, size) };
        }
        if there.avx2 {
            // SAFETY: the features are there.
            return unsafe { x86::one_head_avx2(q, keys, values, y, size) };
        }
    }
    body::<W, { cfg!(target_arch = "aarch64") }>(q, keys, values, y, size);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Size, Widen, body};

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,fma,avx2")]
    pub fn one_head_avx512<W: Widen>(
        q: &[f32],
        keys: &[W],
        values: &[W],
        y: &mut [f32],
        size: Size,
    ) {
        body::<W, true>(q, keys, values, y, size);
    }

    #[target_feature(enable = "fma,avx2")]
    pub fn one_head_avx2<W: Widen>(q: &[f32], keys: &[W], values: &[W], y: &mut [f32], size: Size) {
        body::<W, true>(q, keys, values, y, size);
    }
}

/// Token `t` of the `T` newest sees all but the `T − 1 − t` newest keys.
#[inline(always)]
fn body<W: Widen, const FMA: bool>(q: &[f32], keys: &[W], values: &[W], y: &mut [f32], size: Size) {
    let scale = 1.0 / (size.width as f32).sqrt();
    let mut weights = vec![0.0f32; size.total];
    for t in 0..size.tokens {
        let seen = size.total - size.tokens + t + 1;
        let q = &q[t * size.width..][..size.width];
        let weights = &mut weights[..seen];
        for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(size.width)) {
            ask(key.as_ptr().wrapping_add(AHEAD), size_of_val(key));
            let mut score = [0.0];
            tile::<W, FMA, 1, LANES>(key, q, &mut score);
            *weight = score[0] * scale;
        }
        let highest = largest(weights);
        weights.iter_mut().for_each(|weight| *weight = exp::<FMA>(*weight - highest));
        let sum: f32 = weights.iter().sum();
        let y = &mut y[t * size.width..][..size.width];
        mix::<W, FMA>(weights, values, y);
        y.iter_mut().for_each(|y| *y /= sum);
    }
}

/// Adds values by their weights, four at a time, so that sums are not carried to memory and back
/// for each.
#[inline(always)]
fn mix<W: Widen, const FMA: bool>(weights: &[f32], values: &[W], y: &mut [f32]) {
    const TOGETHER: usize = 4;
    let width = y.len();
    let fours = weights.chunks_exact(TOGETHER);
    let rest = fours.remainder();
    let (body, last) = values.split_at(width * (weights.len() - rest.len()));
    for (weights, values) in fours.zip(body.chunks_exact(TOGETHER * width)) {
        ask(values.as_ptr().wrapping_add(AHEAD), size_of_val(values));
        let values: [&[W]; TOGETHER] = std::array::from_fn(|k| &values[k * width..][..width]);
        for (i, y) in y.iter_mut().enumerate() {
            for (weight, values) in weights.iter().zip(values) {
                *y = multiply_add::<FMA>(*weight, values[i].widen(), *y);
            }
        }
    }
    for (weight, value) in rest.iter().zip(last.chunks_exact(width)) {
        for (y, value) in y.iter_mut().zip(value) {
            *y = multiply_add::<FMA>(*weight, value.widen(), *y);
        }
    }
}
