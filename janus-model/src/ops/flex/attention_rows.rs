//! Attention of whole rows, forward and back; see [`crate::ops::attention_rows`].
//!
//! A few queries at a time meet the keys they can see: their scores and weights, `[64, seen]`, stay
//! in the cache and are worked out again on the way back, so nothing of `[T, T]` ever reaches
//! memory, and documents packed into one row cost what they would cost alone. Heads are read where
//! they lie in `[B, T, H, d]` and turned to their positions on the way. Heads that share keys
//! and values are one piece of work, pieces run in parallel.
//!
//! For T tokens that see all before them, a head of width d takes 2·T²·d FLOP forward and 5·T²·d
//! back, against 4·T·d numbers read and written.

use std::ops::Range;

use burn::backend::Flex;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::TensorData;
use rayon::prelude::*;

use super::integers;
use super::rotation::turn;
use super::share::{Heads, Matrix, product};
use super::tiles::Sink;
use crate::ops::products::{Products, products};
use crate::ops::shared::Shared;
use crate::ops::simd::{multiply_add, softmax, sum, widest};

/// Queries at a time.
const BLOCK: usize = 64;

/// Cosines and sines, `[1 or B, 1, T, d/2]`.
pub type Turn = (FloatTensor<Flex>, FloatTensor<Flex>);

/// Everything a piece of work reads.
pub struct Attention {
    q: Heads,
    k: Heads,
    v: Heads,
    turn: Option<Turn>,
    /// The first key that each query of each row sees, where it sees none after itself.
    first: Option<Vec<Vec<usize>>>,
    products: Products,
}

/// What one head works with.
struct Scratch {
    keys: Vec<f32>,    // [T, d], turned
    queries: Vec<f32>, // [T, d], turned and scaled
    weights: Vec<f32>, // [BLOCK, seen]
    slopes: Vec<f32>,  // the same, on the way back
}

impl Attention {
    /// Nothing where a document comes back after another one: then a query does not see one piece.
    pub fn new(
        q: FloatTensor<Flex>,
        k: FloatTensor<Flex>,
        v: FloatTensor<Flex>,
        turn: Option<Turn>,
        documents: Option<IntTensor<Flex>>,
    ) -> Option<Self> {
        let first = match documents {
            Some(documents) => Some(first_seen(documents)?),
            None => None,
        };
        let turn = turn.map(|(cos, sin)| (cos.to_contiguous(), sin.to_contiguous()));
        let [q, k, v] = [q, k, v].map(Heads::new);
        Some(Self { q, k, v, turn, first, products: products() })
    }

    /// Every token sees itself and all before it, as it was turned.
    pub fn causal(q: FloatTensor<Flex>, k: FloatTensor<Flex>, v: FloatTensor<Flex>) -> Self {
        let [q, k, v] = [q, k, v].map(Heads::new);
        let [batch, tokens, ..] = q.size;
        let first = Some(vec![vec![0; tokens]; batch]);
        Self { q, k, v, turn: None, first, products: products() }
    }

    /// `[B, T, H, d]`.
    pub fn forward(&self) -> FloatTensor<Flex> {
        let [batch, tokens, heads, width] = self.q.size;
        let mut y = vec![0.0; batch * tokens * heads * width];
        let shared = Shared::new(&mut y);
        self.each_group(|row, kv_head, group| {
            let mut scratch = self.scratch(row, kv_head);
            for head in group {
                self.turn_queries(row, head, &mut scratch);
                let y = shared.at((row * tokens * heads + head) * width);
                self.head_forward(row, kv_head, &mut scratch, y);
            }
        });
        tensor(y, self.q.size)
    }

    /// Gradients by queries, keys and values.
    pub fn backward(&self, gradient: FloatTensor<Flex>) -> [FloatTensor<Flex>; 3] {
        let gradient = Heads::new(gradient);
        let mut by = [self.q.size, self.k.size, self.v.size]
            .map(|size| vec![0.0; size.iter().product::<usize>()]);
        let [by_q, by_k, by_v] = by.each_mut().map(|by| Shared::new(by));
        let ([_, tokens, heads, width], kv_heads) = (self.q.size, self.k.size[2]);
        self.each_group(|row, kv_head, group| {
            let mut scratch = self.scratch(row, kv_head);
            let mut keys = vec![0.0; tokens * width];
            let offset = (row * tokens * kv_heads + kv_head) * width;
            let values = by_v.at(offset);
            for head in group {
                self.turn_queries(row, head, &mut scratch);
                let mut queries = vec![0.0; tokens * width];
                let [q, k] = [&mut queries, &mut keys].map(|by| by.as_mut_slice());
                self.head_backward([row, head, kv_head], &gradient, &mut scratch, q, k, values);
                let scale = 1.0 / (width as f32).sqrt();
                let to = by_q.at((row * tokens * heads + head) * width);
                self.turn_back(row, &queries, scale, to, heads * width);
            }
            self.turn_back(row, &keys, 1.0, by_k.at(offset), kv_heads * width);
        });
        let [q, k, v] = by;
        [tensor(q, self.q.size), tensor(k, self.k.size), tensor(v, self.v.size)]
    }

    /// Every row and head of keys, with the heads of queries that share it.
    fn each_group(&self, run: impl Fn(usize, usize, Range<usize>) + Sync) {
        let ([batch, _, heads, _], kv_heads) = (self.q.size, self.k.size[2]);
        let group = heads / kv_heads;
        (0..batch * kv_heads).into_par_iter().for_each(|piece| {
            let (row, kv_head) = (piece / kv_heads, piece % kv_heads);
            run(row, kv_head, kv_head * group..(kv_head + 1) * group);
        });
    }

    /// # Safety
    /// As [`product`].
    unsafe fn product(&self, at: *mut f32, stride: usize, add: bool, a: Matrix, b: Matrix) {
        // SAFETY: the same contract.
        unsafe { product(self.products, Sink { at, stride, add }, a, b) }
    }

    fn scratch(&self, row: usize, kv_head: usize) -> Scratch {
        let [_, tokens, _, width] = self.q.size;
        let mut keys = vec![0.0; tokens * width];
        self.turned(row, self.k.head(row, kv_head), 1.0, &mut keys);
        let [queries, weights, slopes] = [tokens * width, 0, 0].map(|size| vec![0.0; size]);
        Scratch { keys, queries, weights, slopes }
    }

    fn turn_queries(&self, row: usize, head: usize, scratch: &mut Scratch) {
        let scale = 1.0 / (self.q.size[3] as f32).sqrt();
        self.turned(row, self.q.head(row, head), scale, &mut scratch.queries);
    }

    /// Weights of some queries over the keys `seen`, `[queries, seen]`.
    fn weights(&self, row: usize, queries: Range<usize>, seen: Range<usize>, s: &mut Scratch) {
        let ([_, tokens, _, width], count) = (self.q.size, seen.len());
        let lines = |values| Matrix::new(values, [tokens, width], [width, 1]);
        let (q, k) = (lines(&s.queries).rows(queries.clone()), lines(&s.keys).rows(seen.clone()));
        s.weights.resize(BLOCK * count.max(s.weights.len() / BLOCK), 0.0);
        // SAFETY: the buffer has room for BLOCK × count and is borrowed for this call alone.
        unsafe { self.product(s.weights.as_mut_ptr(), count, false, q, k.turned()) };
        for (line, query) in s.weights.chunks_exact_mut(count).zip(queries) {
            match &self.first {
                Some(first) => {
                    let (from, to) = (first[row][query] - seen.start, query + 1 - seen.start);
                    line[..from].fill(0.0);
                    line[to..].fill(0.0);
                    softmax(&mut line[from..to]);
                }
                None => softmax(line),
            }
        }
    }

    /// The keys that at least one of these queries sees.
    fn seen(&self, row: usize, queries: &Range<usize>) -> Range<usize> {
        match &self.first {
            Some(first) => first[row][queries.start]..queries.end,
            None => 0..self.q.size[1],
        }
    }

    fn head_forward(&self, row: usize, kv_head: usize, scratch: &mut Scratch, y: *mut f32) {
        let [_, tokens, heads, width] = self.q.size;
        let values = self.v.head(row, kv_head);
        for start in (0..tokens).step_by(BLOCK) {
            let queries = start..tokens.min(start + BLOCK);
            let seen = self.seen(row, &queries);
            self.weights(row, queries.clone(), seen.clone(), scratch);
            let (count, size) = (seen.len(), [queries.len(), seen.len()]);
            let weights = Matrix::new(&scratch.weights, size, [count, 1]);
            // SAFETY: `y` is this head of this row, whose tokens are `heads · width` apart.
            unsafe {
                let y = y.add(start * heads * width);
                self.product(y, heads * width, false, weights, values.rows(seen));
            }
        }
    }

    /// Adds to the gradients by the keys and values; `values` is strided as in their tensor.
    fn head_backward(
        &self,
        [row, head, kv_head]: [usize; 3],
        gradient: &Heads,
        s: &mut Scratch,
        by_queries: &mut [f32],
        by_keys: &mut [f32],
        by_values: *mut f32,
    ) {
        let ([_, tokens, _, width], kv_heads) = (self.q.size, self.k.size[2]);
        let (values, gradient) = (self.v.head(row, kv_head), gradient.head(row, head));
        for start in (0..tokens).step_by(BLOCK) {
            let queries = start..tokens.min(start + BLOCK);
            let seen = self.seen(row, &queries);
            self.weights(row, queries.clone(), seen.clone(), s);
            let (count, size) = (seen.len(), [queries.len(), seen.len()]);
            s.slopes.resize(s.weights.len(), 0.0);
            let gradient = gradient.rows(queries.clone());
            // SAFETY: `slopes` has as much room as `weights`; nobody else has it.
            unsafe {
                let to = s.slopes.as_mut_ptr();
                self.product(to, count, false, gradient, values.rows(seen.clone()).turned());
            }
            let lines = s.slopes.chunks_exact_mut(count).zip(s.weights.chunks_exact(count));
            lines.take(queries.len()).for_each(|(slopes, weights)| softmax_back(slopes, weights));
            let weights = Matrix::new(&s.weights, size, [count, 1]);
            let slopes = Matrix::new(&s.slopes, size, [count, 1]);
            let lines = |values| Matrix::new(values, [tokens, width], [width, 1]);
            let (q, k) = (lines(&s.queries).rows(queries), lines(&s.keys).rows(seen.clone()));
            // SAFETY: `by_queries` and `by_keys` are [T, d] and borrowed by this call; `by_values`
            // is this head of this row, whose tokens are `kv_heads · width` apart.
            unsafe {
                let stride = kv_heads * width;
                self.product(
                    by_values.add(seen.start * stride),
                    stride,
                    true,
                    weights.turned(),
                    gradient,
                );
                self.product(by_queries.as_mut_ptr().add(start * width), width, false, slopes, k);
                let keys = by_keys.as_mut_ptr().add(seen.start * width);
                self.product(keys, width, true, slopes.turned(), q);
            }
        }
    }

    /// A head, turned to its positions, scaled, one token after the other.
    fn turned(&self, row: usize, head: Matrix, scale: f32, to: &mut [f32]) {
        let width = self.q.size[3];
        for (token, to) in to.chunks_exact_mut(width).enumerate() {
            match self.factors(row, token) {
                Some((cos, sin)) => turn(head.row(token), cos, sin, scale, to),
                None => to.iter_mut().zip(head.row(token)).for_each(|(to, x)| *to = x * scale),
            }
        }
    }

    /// The gradient by a head before it was turned, from the one after; tokens of `to` are
    /// `stride` apart and this head's own.
    fn turn_back(&self, row: usize, by: &[f32], scale: f32, to: *mut f32, stride: usize) {
        let width = self.q.size[3];
        for (token, by) in by.chunks_exact(width).enumerate() {
            // SAFETY: every token of a head has `width` elements of its own.
            let to = unsafe { std::slice::from_raw_parts_mut(to.add(token * stride), width) };
            match self.factors(row, token) {
                Some((cos, sin)) => turn_other_way(by, cos, sin, scale, to),
                None => to.iter_mut().zip(by).for_each(|(to, by)| *to = by * scale),
            }
        }
    }

    fn factors(&self, row: usize, token: usize) -> Option<(&[f32], &[f32])> {
        let (cos, sin) = self.turn.as_ref()?;
        let ([_, tokens, _, width], shape) = (self.q.size, cos.layout().shape());
        let row = if shape[0] == 1 { 0 } else { row };
        let first = (row * tokens + token) * (width / 2);
        Some((numbers(cos, first, width / 2), numbers(sin, first, width / 2)))
    }
}

/// Some numbers of a contiguous tensor.
fn numbers(tensor: &FloatTensor<Flex>, first: usize, count: usize) -> &[f32] {
    &tensor.storage::<f32>()[tensor.layout().start_offset() + first..][..count]
}

fn tensor(values: Vec<f32>, size: [usize; 4]) -> FloatTensor<Flex> {
    FloatTensor::<Flex>::from_data(TensorData::new(values, size))
}

/// Where the document of each token begins; nothing where one comes back after another.
fn first_seen(documents: IntTensor<Flex>) -> Option<Vec<Vec<usize>>> {
    let tokens = documents.layout().shape()[1];
    let numbers = integers(&documents)?;
    numbers.chunks_exact(tokens.max(1)).map(first_in_row).collect()
}

fn first_in_row(numbers: &[i64]) -> Option<Vec<usize>> {
    let mut met = std::collections::HashSet::new();
    let mut first = Vec::with_capacity(numbers.len());
    for (place, number) in numbers.iter().enumerate() {
        let same = place > 0 && numbers[place - 1] == *number;
        if !same && !met.insert(*number) {
            return None;
        }
        first.push(if same { first[place - 1] } else { place });
    }
    Some(first)
}

widest! {
    /// From the gradient by the weights to that by the scores: `w·(g − Σ w·g)`.
    fn softmax_back(slopes: &mut [f32], weights: &[f32]) {
        let weights = &weights[..slopes.len()];
        let slopes_now: &[f32] = slopes;
        let mean = sum(weights.len(), |i| weights[i] * slopes_now[i]);
        slopes.iter_mut().zip(weights).for_each(|(g, w)| *g = w * (*g - mean));
    }
}

widest! {
    fn turn_other_way(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, to: &mut [f32]) {
        let half = cos.len();
        let (sin, a, b) = (&sin[..half], &x[..half], &x[half..2 * half]);
        let (first, second) = to.split_at_mut(half);
        let (first, second) = (&mut first[..half], &mut second[..half]);
        for i in 0..half {
            first[i] = multiply_add::<FMA>(a[i], cos[i], b[i] * sin[i]) * scale;
            second[i] = multiply_add::<FMA>(b[i], cos[i], -a[i] * sin[i]) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::first_in_row;

    #[test]
    fn documents_begin_where_their_number_first_stands() {
        assert_eq!(first_in_row(&[3, 3, 0, 0, 0, -1]), Some(vec![0, 0, 2, 2, 2, 5]));
        assert_eq!(first_in_row(&[1, 2, 1]), None);
        assert_eq!(first_in_row(&[]), Some(vec![]));
    }
}
