//! Heads turned to their positions, in one pass; see [`crate::rope`].
//!
//! Heads are read where they lie. 8 bytes and 3 FLOP a number: as fast as memory.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;
use rayon::prelude::*;

use super::numbers;
use crate::ops::simd::widest;

/// Numbers that one thread turns alone: a decoding step has no more, and waking another costs more.
const PIECE: usize = 1 << 14;

/// `[B, H, T, d]` by `[1 or B, 1, T, d/2]`, to contiguous `[B, H, T, d]`.
pub fn rotate(
    x: FloatTensor<Flex>,
    cos: FloatTensor<Flex>,
    sin: FloatTensor<Flex>,
) -> FloatTensor<Flex> {
    let apart = x.layout().strides()[3] != 1 || x.layout().strides().iter().any(|s| *s < 0);
    let x = if apart { x.to_contiguous() } else { x };
    let [cos, sin] = [cos, sin].map(|factor| factor.to_contiguous());
    let [batch, heads, tokens, width] = x.layout().shape().dims::<4>();
    let own = usize::from(cos.layout().shape()[0] > 1); // whether rows have factors of their own
    let (from, half) = (&x.storage::<f32>()[x.layout().start_offset()..], width / 2);
    let strides = [0, 1, 2].map(|axis| x.layout().strides()[axis].unsigned_abs());
    let (cos, sin) = (numbers(&cos), numbers(&sin));
    let mut y = vec![0.0; batch * heads * tokens * width];
    let head = |(at, y): (usize, &mut [f32])| {
        let (row, head) = (at / heads, at % heads);
        let from = &from[row * strides[0] + head * strides[1]..];
        for (token, y) in y.chunks_exact_mut(width).enumerate() {
            let factors = (own * row * tokens + token) * half;
            let factors = factors..factors + half;
            let from = &from[token * strides[2]..][..width];
            turn(from, &cos[factors.clone()], &sin[factors], 1.0, y);
        }
    };
    let each = tokens * width;
    match y.len() <= PIECE {
        true => y.chunks_exact_mut(each.max(1)).enumerate().for_each(head),
        false => y.par_chunks_exact_mut(each).enumerate().for_each(head),
    }
    FloatTensor::<Flex>::from_data(TensorData::new(y, [batch, heads, tokens, width]))
}

widest! {
    /// A head turned, and scaled. Products are rounded before they are added, as PyTorch has it.
    pub fn turn(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, y: &mut [f32]) {
        let _ = FMA;
        let half = cos.len();
        let (a, b, sin) = (&x[..half], &x[half..2 * half], &sin[..half]);
        let (first, second) = y.split_at_mut(half);
        let second = &mut second[..half];
        for i in 0..half {
            first[i] = (a[i] * cos[i] - b[i] * sin[i]) * scale;
            second[i] = (b[i] * cos[i] + a[i] * sin[i]) * scale;
        }
    }
}
