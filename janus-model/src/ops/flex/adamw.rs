//! One step of AdamW where weight and moments lie; see [`crate::ops::adamw`].
//!
//! Reads four numbers and writes three per weight, 28 bytes; as tensor operations it would be some
//! twelve passes, each with a buffer of its own.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use rayon::prelude::*;

use super::{numbers, whole};
use crate::ops::AdamWStep;
use crate::ops::simd::widest;

const PIECE: usize = 1 << 14;

/// New weight and moments, in place where nobody else holds them.
pub fn adamw(
    tensors: [FloatTensor<Flex>; 4],
    step: AdamWStep,
) -> (FloatTensor<Flex>, FloatTensor<Flex>, FloatTensor<Flex>) {
    let [mut weight, gradient, mut moment_1, mut moment_2] = tensors.map(whole);
    let count = weight.layout().num_elements();
    let parts = weight.storage_mut::<f32>()[..count]
        .par_chunks_mut(PIECE)
        .zip(numbers(&gradient).par_chunks(PIECE))
        .zip(moment_1.storage_mut::<f32>()[..count].par_chunks_mut(PIECE))
        .zip(moment_2.storage_mut::<f32>()[..count].par_chunks_mut(PIECE));
    parts.for_each(|(((weight, gradient), moment_1), moment_2)| {
        piece(weight, gradient, moment_1, moment_2, step);
    });
    (weight, moment_1, moment_2)
}

widest! {
    /// In the order of operations of the reference body.
    fn piece(
        weight: &mut [f32],
        gradient: &[f32],
        moment_1: &mut [f32],
        moment_2: &mut [f32],
        step: AdamWStep,
    ) {
        let _ = FMA;
        let [beta_1, beta_2] = [step.beta_1, step.beta_2].map(|beta| beta as f32);
        let [new_1, new_2] = [step.beta_1, step.beta_2].map(|beta| (1.0 - beta) as f32);
        let (root, epsilon) = (step.rest_2.sqrt() as f32, step.epsilon as f32);
        let (keep, rate) = ((1.0 - step.decay) as f32, (step.rate / step.rest_1) as f32);
        let count = weight.len();
        let (gradient, moment_1) = (&gradient[..count], &mut moment_1[..count]);
        let moment_2 = &mut moment_2[..count];
        for i in 0..count {
            let g = gradient[i];
            moment_1[i] = moment_1[i] * beta_1 + g * new_1;
            moment_2[i] = moment_2[i] * beta_2 + g * g * new_2;
            let scale = moment_2[i].sqrt() / root + epsilon;
            weight[i] = weight[i] * keep - moment_1[i] / scale * rate;
        }
    }
}
