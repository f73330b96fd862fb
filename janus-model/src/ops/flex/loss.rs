//! The loss of logits with its gradient in their place, and what clipping asks of gradients.
//!
//! One pass over each row while it lies in the cache, rows in parallel; as tensor operations it
//! would be seven passes, each with a buffer of its own.

use burn::backend::Flex;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::TensorData;
use rayon::prelude::*;

use super::{integers, numbers, whole};
use crate::ops::simd::{exp, largest, sum, widest};

const PIECE: usize = 1 << 14;

/// What each row should have given.
pub struct Targets(Vec<i64>);

impl Targets {
    /// Nothing where the numbers are of an unusual size.
    pub fn read(targets: &IntTensor<Flex>) -> Option<Self> {
        integers(targets).map(Self)
    }
}

/// Σ ln Σ eˣ − x[target], `[1]`, and softmax − 1[target], `[n, V]`, where the logits were.
pub fn logit_loss(
    logits: FloatTensor<Flex>,
    Targets(targets): Targets,
) -> (FloatTensor<Flex>, FloatTensor<Flex>) {
    let mut logits = whole(logits);
    let [rows, words] = [0, 1].map(|axis| logits.layout().shape()[axis]);
    assert_eq!(targets.len(), rows, "logit_loss: a target for each row");
    let losses: Vec<f32> = logits.storage_mut::<f32>()[..rows * words]
        .par_chunks_mut(words.max(1))
        .zip(&targets)
        .map(|(row, target)| row_loss(row, *target as usize))
        .collect();
    // In f64: thousands of rows are added up.
    let loss = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() as f32;
    (FloatTensor::<Flex>::from_data(TensorData::new(vec![loss], [1])), logits)
}

/// Squares summed over each row.
pub fn square_sums(x: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let x = x.to_contiguous();
    let [rows, width] = [0, 1].map(|axis| x.layout().shape()[axis]);
    let sums: Vec<f32> = numbers(&x).par_chunks(width.max(1)).map(row_squares).collect();
    FloatTensor::<Flex>::from_data(TensorData::new(sums, [rows]))
}

/// `x · factor`.
pub fn scaled(x: FloatTensor<Flex>, factor: f32) -> FloatTensor<Flex> {
    let mut x = whole(x);
    let count = x.layout().num_elements();
    let pieces = x.storage_mut::<f32>()[..count].par_chunks_mut(PIECE);
    pieces.for_each(|piece| piece.iter_mut().for_each(|x| *x *= factor));
    x
}

widest! {
    fn row_loss(row: &mut [f32], target: usize) -> f32 {
        let most = largest(row);
        let chosen = row[target] - most;
        row.iter_mut().for_each(|x| *x = exp::<FMA>(*x - most));
        let now: &[f32] = row;
        let whole = sum(now.len(), |i| now[i]);
        let share = 1.0 / whole;
        row.iter_mut().for_each(|x| *x *= share);
        row[target] -= 1.0;
        whole.ln() - chosen
    }
}

widest! {
    fn row_squares(row: &[f32]) -> f32 {
        let _ = FMA;
        sum(row.len(), |i| row[i] * row[i])
    }
}
