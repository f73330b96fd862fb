//! Keys and values on their way into a cache and out of it, `[B, H, capacity, d]` in f32 or bf16.
//!
//! Heads are read and written where they lie, in parallel, in one pass: Burn would turn them, round them and
//! copy them into their place one after the other, on one thread. 6 to 8 bytes a number.

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, TensorData};
use half::bf16;
use rayon::prelude::*;

use super::rows::Widen;
use super::share::Heads;
use super::whole;
use crate::ops::shared::in_pieces;
use crate::ops::simd::widest;

/// Numbers that one thread writes alone: a decoding step has no more, and waking another costs more.
const PIECE: usize = 1 << 14;

/// `new`, `[B, H, T, d]`, from token `start` on, in place where nobody else holds the cache.
pub fn put(cache: FloatTensor<Flex>, new: FloatTensor<Flex>, start: usize) -> FloatTensor<Flex> {
    let mut cache = whole(cache);
    let [batch, heads, capacity, width] = cache.layout().shape().dims::<4>();
    let count = cache.layout().num_elements();
    // As [B, T, H, d].
    let new = Heads::new(Flex::float_swap_dims(new, 1, 2));
    let tokens = new.size[1];
    assert_eq!(new.size, [batch, tokens, heads, width], "cache: shapes differ");
    assert!(start + tokens <= capacity, "cache: there is no room");
    let size = Size { capacity, width, start };
    match cache.dtype() {
        DType::BF16 => size.put(&new, &mut cache.storage_mut::<bf16>()[..count], round),
        _ => size.put(&new, &mut cache.storage_mut::<f32>()[..count], <[f32]>::copy_from_slice),
    }
    cache
}

#[derive(Clone, Copy)]
struct Size {
    capacity: usize,
    width: usize,
    start: usize,
}

impl Size {
    /// Token after token of every head, by `write`.
    fn put<W: Send>(self, new: &Heads, cache: &mut [W], write: impl Fn(&mut [W], &[f32]) + Sync) {
        let Self { capacity, width, start } = self;
        let [_, tokens, heads, _] = new.size;
        let head = |(at, cache): (usize, &mut [W])| {
            let head = new.head(at / heads, at % heads);
            let places = cache[start * width..].chunks_exact_mut(width).take(tokens);
            places.enumerate().for_each(|(token, to)| write(to, head.row(token)));
        };
        let each = (capacity * width).max(1);
        match new.size.iter().product::<usize>() <= PIECE {
            true => cache.chunks_exact_mut(each).enumerate().for_each(head),
            false => cache.par_chunks_exact_mut(each).enumerate().for_each(head),
        }
    }
}

/// What a cache holds, in f32: `[B, H, total, d]` of `[B, H, capacity, d]`.
pub fn held(cache: FloatTensor<Flex>, total: usize) -> FloatTensor<Flex> {
    let cache = whole(cache);
    match cache.dtype() {
        DType::BF16 => widened(cache.storage::<bf16>(), cache.layout().shape().dims(), total),
        DType::F16 => widened(cache.storage::<half::f16>(), cache.layout().shape().dims(), total),
        _ => widened(cache.storage::<f32>(), cache.layout().shape().dims(), total),
    }
}

fn widened<W: Widen>(
    cache: &[W],
    [batch, heads, capacity, width]: [usize; 4],
    total: usize,
) -> FloatTensor<Flex> {
    let each = total * width;
    let [held] = in_pieces(batch * heads * each, each, |head, [held]| {
        let cache = &cache[head * capacity * width..][..each];
        held.iter_mut().zip(cache).for_each(|(to, number)| *to = number.widen());
    });
    FloatTensor::<Flex>::from_data(TensorData::new(held, [batch, heads, total, width]))
}

widest! {
    /// To the nearest bf16, ties to even; what is no number stays none.
    fn round(to: &mut [bf16], from: &[f32]) {
        let _ = FMA;
        for (to, x) in to.iter_mut().zip(from) {
            let bits = x.to_bits();
            let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            let none = bits >> 16 | 0x40;
            *to = bf16::from_bits(if x.is_nan() { none } else { rounded } as u16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the crate of these numbers rounds them, one by one.
    #[test]
    fn rounding_is_to_the_nearest() {
        let bits = (0..1u32 << 16).map(|i| i.wrapping_mul(0x9e37_79b1)).chain([0x7f7f_ffff, 0]);
        let ties = (0..512u32).map(|i| 0x3f80_0000 + (i << 15));
        let from: Vec<f32> = bits.chain(ties).map(f32::from_bits).collect();
        let mut to = vec![bf16::ZERO; from.len()];
        round(&mut to, &from);
        for (to, from) in to.iter().zip(&from) {
            assert_eq!(to.to_bits(), bf16::from_f32(*from).to_bits(), "{from:e}");
        }
    }
}
