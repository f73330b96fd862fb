//! Keys or values in 8 bits, beside weights in as many or fewer, and attention of a step over them.
//!
//! Where products round activations to 8 bits, what is kept of them for later tokens can be kept so:
//! 32 numbers of a head share a scale in bf16. A step reads 2·total·d·17/16 bytes of a head against
//! 4·T·total·d FLOP, half of what it reads of bf16. Queries and all sums are f32.

use std::fmt;

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::bf16;
use rayon::prelude::*;

use super::GROUP;
use super::round::ROUND;
use crate::ops::portions::in_portions;
use crate::ops::shared::Shared;
use crate::ops::simd::{fold, multiply_add, softmax, widest};

/// Tokens that a step may add; more are a prompt, whose attention is one of matrices.
pub(crate) const STEP: usize = 8;

/// Keys or values of one layer, `[B, H_kv, capacity, d]`.
#[derive(Clone)]
pub(crate) struct Kept {
    numbers: Vec<i8>,
    /// One for each [`GROUP`] numbers of a head, and for what is left of it.
    scales: Vec<bf16>,
    shape: [usize; 4],
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "int8 {:?}", self.shape)
    }
}

impl Kept {
    /// Room for so many tokens.
    pub fn new(shape: [usize; 4]) -> Self {
        let [batch, heads, capacity, width] = shape;
        let rows = batch * heads * capacity;
        let scales = vec![bf16::ZERO; rows * width.div_ceil(GROUP)];
        Self { numbers: vec![0; rows * width], scales, shape }
    }

    /// Bytes of so many heads' numbers for one token each.
    pub fn bytes(heads: u64, width: u64) -> u64 {
        heads * (width + 2 * width.div_ceil(GROUP as u64))
    }

    /// The same with room for more tokens, the first `len` as they are.
    pub fn enlarged(&self, len: usize, capacity: usize) -> Self {
        let [batch, heads, old, width] = self.shape;
        let mut new = Self::new([batch, heads, capacity, width]);
        let groups = width.div_ceil(GROUP);
        for head in 0..batch * heads {
            let (from, to) = (head * old, head * capacity);
            new.numbers[to * width..][..len * width]
                .copy_from_slice(&self.numbers[from * width..][..len * width]);
            new.scales[to * groups..][..len * groups]
                .copy_from_slice(&self.scales[from * groups..][..len * groups]);
        }
        new
    }

    /// Writes the tokens from `start` on.
    ///
    /// # Shapes
    /// `new`: `[B, H_kv, T, d]`
    ///
    /// # Panics
    /// When there is no room.
    pub fn write(&mut self, start: usize, new: Tensor<4>) {
        let [batch, heads, capacity, width] = self.shape;
        let tokens = new.dims()[2];
        assert_eq!(new.dims(), [batch, heads, tokens, width], "keys and values: shape");
        assert!(start + tokens <= capacity, "the key-value cache is full");
        let data = new.into_data().convert::<f32>();
        let new = data.as_slice::<f32>().expect("they were just made f32");
        let groups = width.div_ceil(GROUP);
        let heads = self.numbers.par_chunks_mut((capacity * width).max(1));
        let heads = heads.zip(self.scales.par_chunks_mut((capacity * groups).max(1)));
        // A step's few rows are not worth waking anybody.
        let least = if tokens <= STEP { usize::MAX } else { 1 };
        let heads = heads.zip(new.par_chunks((tokens * width).max(1))).with_min_len(least);
        heads.for_each(|((numbers, scales), new)| {
            let numbers = &mut numbers[start * width..][..tokens * width];
            let scales = &mut scales[start * groups..][..tokens * groups];
            round(new, numbers, scales, width);
        });
    }

    /// The first `total` tokens as they were rounded, `[B, H_kv, total, d]`.
    pub fn held(&self, total: usize, device: &Device, dtype: DType) -> Tensor<4> {
        let [batch, heads, _, width] = self.shape;
        let mut values = vec![0.0f32; batch * heads * total * width];
        let each = values.par_chunks_mut((total * width).max(1)).enumerate();
        each.for_each(|(head, to)| widen(self.head(head, total), to));
        Tensor::from_data(TensorData::new(values, [batch, heads, total, width]), (device, dtype))
    }

    /// The first tokens of a head, counted over all rows of a batch.
    fn head(&self, head: usize, total: usize) -> Head<'_> {
        let [_, _, capacity, width] = self.shape;
        let groups = width.div_ceil(GROUP);
        Head {
            numbers: &self.numbers[head * capacity * width..][..total * width],
            scales: &self.scales[head * capacity * groups..][..total * groups],
            width,
            next: self.numbers.as_ptr().wrapping_add((head + 1) * capacity * width),
        }
    }
}

/// Causal attention of the `T` newest tokens over the first `total`; heads run in parallel.
///
/// # Shapes
/// `q` and output: `[B, H, T, d]`
pub(crate) fn attend(q: Tensor<4>, keys: &Kept, values: &Kept, total: usize) -> Tensor<4> {
    let ([batch, heads, tokens, width], device, dtype) = (q.dims(), q.device(), q.dtype());
    let kv_heads = keys.shape[1];
    assert_eq!([keys.shape, values.shape], [[batch, kv_heads, keys.shape[2], width]; 2]);
    assert!(tokens <= total && total <= keys.shape[2], "the key-value cache is shorter than asked");
    let data = q.into_data().convert::<f32>();
    let q = data.as_slice::<f32>().expect("they were just made f32");
    let (mut y, each) = (vec![0.0f32; q.len()], tokens * width);
    let shared = Shared::new(&mut y);
    let room = || vec![0.0; total];
    in_portions(batch * heads, room, |weights, at| {
        let head = at / heads * kv_heads + at % heads / (heads / kv_heads);
        // SAFETY: every head has its own part of the result.
        let y = unsafe { std::slice::from_raw_parts_mut(shared.at(at * each), each) };
        let (keys, values) = (keys.head(head, total), values.head(head, total));
        one_head(&q[at * each..][..each], keys, values, y, weights);
    });
    Tensor::from_data(TensorData::new(y, [batch, heads, tokens, width]), (&device, dtype))
}

/// Tokens of one head.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub numbers: &'a [i8],
    pub scales: &'a [bf16],
    pub width: usize,
    /// Where the numbers of the head that comes next are.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub next: *const i8,
}

impl<'a> Head<'a> {
    /// Whether so many tokens are there.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub fn holds(&self, tokens: usize) -> bool {
        self.numbers.len() == tokens * self.width
            && self.scales.len() == tokens * self.width.div_ceil(GROUP)
    }

    #[inline(always)]
    fn at(&self, token: usize) -> (&'a [i8], &'a [bf16]) {
        let groups = self.width.div_ceil(GROUP);
        (
            &self.numbers[token * self.width..][..self.width],
            &self.scales[token * groups..][..groups],
        )
    }
}

/// A scale in f32: its bits are the upper half of those.
#[inline(always)]
pub(super) fn wide(scale: bf16) -> f32 {
    f32::from_bits(u32::from(scale.to_bits()) << 16)
}

widest! {
    /// Rounds rows of so many numbers, group by group, so that the largest of a group is 127 or a
    /// little less. What is no number, or infinite, makes the scale of its group no number.
    fn round(from: &[f32], numbers: &mut [i8], scales: &mut [bf16], width: usize) {
        let _ = FMA;
        let groups = width.div_ceil(GROUP);
        let rows = numbers.chunks_exact_mut(width).zip(scales.chunks_exact_mut(groups));
        for (from, (numbers, scales)) in from.chunks_exact(width).zip(rows) {
            let rounded = numbers.chunks_mut(GROUP).zip(scales);
            for (from, (numbers, scale)) in from.chunks(GROUP).zip(rounded) {
                *scale = round_group(from, numbers);
            }
        }
    }
}

#[inline(always)]
fn round_group(from: &[f32], numbers: &mut [i8]) -> bf16 {
    let mut size = 0u32;
    for x in from {
        size = size.max(x.to_bits() & 0x7fff_ffff);
    }
    if size > f32::MAX.to_bits() {
        return bf16::NAN;
    }
    // Up to the next bf16, or the largest might become 128.
    let scale = (f32::from_bits(size) / 127.0).to_bits().saturating_add(0xffff) >> 16 << 16;
    let scale = f32::from_bits(scale);
    let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
    for (number, x) in numbers.iter_mut().zip(from) {
        *number = (x * inverse + ROUND).to_bits() as i8;
    }
    bf16::from_bits((scale.to_bits() >> 16) as u16)
}

widest! {
    fn widen(rows: Head<'_>, to: &mut [f32]) {
        let _ = FMA;
        for (token, to) in to.chunks_exact_mut(rows.width).enumerate() {
            let (numbers, scales) = rows.at(token);
            for ((to, numbers), scale) in to.chunks_mut(GROUP).zip(numbers.chunks(GROUP)).zip(scales) {
                for (to, number) in to.iter_mut().zip(numbers) {
                    *to = f32::from(*number) * wide(*scale);
                }
            }
        }
    }
}

/// The best body for this processor and width.
fn one_head(q: &[f32], keys: Head<'_>, values: Head<'_>, y: &mut [f32], weights: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use super::kept_x86::{avx2, avx512};
        use crate::ops::Instructions;
        let there = Instructions::get();
        macro_rules! groups {
            ($($count:literal)*) => {
                match (keys.width / GROUP, keys.width % GROUP) {
                    // SAFETY: the features are there.
                    $(($count, 0) if there.avx512 => return unsafe {
                        avx512::one_head::<$count>(q, keys, values, y, weights)
                    },)*
                    // SAFETY: the features are there.
                    $(($count, 0) if there.avx2 => return unsafe {
                        avx2::one_head::<$count>(q, keys, values, y, weights)
                    },)*
                    _ => (),
                }
            };
        }
        groups!(1 2 3 4);
    }
    portable(q, keys, values, y, weights);
}

widest! {
    /// The body that all others are near. Token `t` of the `T` newest sees all but the
    /// `T − 1 − t` newest keys.
    fn portable(q: &[f32], keys: Head<'_>, values: Head<'_>, y: &mut [f32], weights: &mut [f32]) {
        let (width, total) = (keys.width, weights.len());
        let (tokens, scale) = (q.len() / width, 1.0 / (width as f32).sqrt());
        for (t, (q, y)) in q.chunks_exact(width).zip(y.chunks_exact_mut(width)).enumerate() {
            let weights = &mut weights[..total - tokens + t + 1];
            for (token, weight) in weights.iter_mut().enumerate() {
                let (key, scales) = keys.at(token);
                *weight = score::<FMA>(q, key, scales) * scale;
            }
            softmax(weights);
            mix::<FMA>(weights, values, y);
        }
    }
}

/// A query times a key, in lanes.
#[inline(always)]
fn score<const FMA: bool>(q: &[f32], key: &[i8], scales: &[bf16]) -> f32 {
    let mut lanes = [0.0f32; GROUP];
    for ((q, key), scale) in q.chunks(GROUP).zip(key.chunks(GROUP)).zip(scales) {
        let by = wide(*scale);
        for ((lane, q), key) in lanes.iter_mut().zip(q).zip(key) {
            *lane = multiply_add::<FMA>(f32::from(*key) * by, *q, *lane);
        }
    }
    fold(&mut lanes)
}

/// Values by their weights, summed.
#[inline(always)]
fn mix<const FMA: bool>(weights: &[f32], values: Head<'_>, y: &mut [f32]) {
    y.fill(0.0);
    for (token, weight) in weights.iter().enumerate() {
        let (numbers, scales) = values.at(token);
        for ((y, numbers), scale) in y.chunks_mut(GROUP).zip(numbers.chunks(GROUP)).zip(scales) {
            let by = weight * wide(*scale);
            for (y, number) in y.iter_mut().zip(numbers) {
                *y = multiply_add::<FMA>(by, f32::from(*number), *y);
            }
        }
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;

    fn random(shape: [usize; 4], salt: u32) -> Tensor<4> {
        let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let some = std::iter::successors(Some(salt), next).skip(1);
        let some = some.map(|x| (x >> 8) as f32 / 8_388_608.0 - 1.0);
        let values: Vec<f32> = some.take(shape.iter().product()).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn numbers(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_to_vec().expect("f32")
    }

    fn far(a: Tensor<4>, b: Tensor<4>) -> f32 {
        (a - b).abs().max().into_scalar()
    }

    fn held(kept: &Kept, total: usize) -> Tensor<4> {
        kept.held(total, &Device::flex(), DType::F32)
    }

    /// Half a step of 1/127 at most, and what the scale is rounded up by.
    #[test]
    fn what_is_kept_is_near_and_the_rest_stays() {
        for width in [1, 24, 32, 40, 64, 128] {
            let mut kept = Kept::new([2, 3, 20, width]);
            let (first, more) = (random([2, 3, 9, width], 1), random([2, 3, 2, width], 2));
            kept.write(0, first.clone());
            kept.write(9, more.clone());
            let error = far(held(&kept, 11), Tensor::cat(vec![first.clone(), more], 2));
            assert!(error < 0.5 / 127.0 * 1.01, "{width}: {error}");
            // Others are written over, those before stay.
            let before = numbers(held(&kept, 9));
            kept.write(9, random([2, 3, 11, width], 3));
            assert_eq!(numbers(held(&kept, 9)), before);
            let larger = kept.enlarged(20, 33);
            assert_eq!(numbers(held(&larger, 20)), numbers(held(&kept, 20)));
        }
    }

    #[test]
    fn scales_go_with_the_size_and_no_number_is_none() {
        let values = [1e-30f32, 3e38, 0.0, f32::INFINITY, f32::NAN, 1e-45];
        for value in values {
            let mut kept = Kept::new([1, 1, 1, 40]);
            let x = Tensor::full([1, 1, 1, 40], value, &Device::flex());
            kept.write(0, x);
            for found in numbers(held(&kept, 1)) {
                match value.is_finite() {
                    true => assert!((found - value).abs() <= value.abs() * 0.02 + 1e-37, "{value}"),
                    false => assert!(found.is_nan(), "{value}: {found}"),
                }
            }
        }
    }

    /// Measured: 3.9e-7 at most, whichever body it is.
    #[test]
    fn attention_is_that_over_what_is_held() {
        let mut worst = 0.0f32;
        for (heads, kv_heads, width) in [(4, 4, 128), (4, 2, 64), (3, 1, 40), (2, 2, 24)] {
            for (total, tokens) in [(1, 1), (5, 1), (37, 1), (40, 3), (STEP, STEP)] {
                let [mut keys, mut values] = [0; 2].map(|_| Kept::new([2, kv_heads, 50, width]));
                keys.write(0, random([2, kv_heads, total, width], 5) * 4.0);
                values.write(0, random([2, kv_heads, total, width], 6));
                let q = random([2, heads, tokens, width], 7);
                let found = attend(q.clone(), &keys, &values, total);
                let [k, v] = [&keys, &values].map(|kept| held(kept, total));
                let exact = crate::ops::attention_cached(q, k, v, total);
                worst = worst.max(far(found, exact));
            }
        }
        println!("measured {worst:.1e}");
        assert!(worst < 1e-6, "{worst:.1e}");
    }
}
