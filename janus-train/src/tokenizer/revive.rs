//! Codes that nobody chooses, moved to where latents are.
//!
//! A code that is never the nearest gets no gradient and stays what chance made it. Over millions of
//! pictures most codes are found at some time; over thousands a codebook may shrink to a dozen rows.
//! Ours, and off unless a recipe asks for it: the original leaves idle codes alone.

use burn::tensor::{DType, Tensor, TensorData};
use janus_model::vq::VqModel;
use rayon::prelude::*;

use super::usage::Usage;
use crate::data::random::hash;
use crate::weights::to_unit;

/// Rows of the codebook, and the latents they are moved to.
#[derive(Debug)]
pub struct Moves {
    pub(super) codes: Vec<usize>,
    /// One after the other, of unit length.
    pub(super) rows: Vec<f32>,
}

impl Moves {
    /// Gives every code that no step of the last `window` chose one of the `latents`, `[n, e]`, of
    /// unit length; see [`Moves::onto`].
    pub fn find(
        vq: &VqModel,
        usage: &mut Usage,
        (seed, step, window): (u64, u64, u64),
        latents: impl FnOnce() -> Tensor<2>,
    ) -> Option<Self> {
        let idle = usage.idle(step, window);
        if idle.is_empty() {
            return None;
        }
        let moves = Self::onto(vq, idle, latents(), (seed, step));
        // As if chosen now, or they would be moved again before they had their time.
        usage.see(step, moves.codes.iter().map(|code| *code as i64));
        Some(moves)
    }

    /// Gives each of these codes one of the `latents`, `[n, e]`, of unit length: by chance, those
    /// that are far from every other code and from what was given before more likely by the square
    /// of their distance (k-means++). By their number alone nearly all would go to plain grounds.
    pub fn onto(
        vq: &VqModel,
        codes: Vec<usize>,
        latents: Tensor<2>,
        (seed, step): (u64, u64),
    ) -> Self {
        let [_, width] = latents.dims();
        let latents = floats(latents);
        let mut others = floats(vq.quantize.embedding.weight.val());
        for (code, row) in others.chunks_exact_mut(width).enumerate() {
            to_unit(row);
            if codes.binary_search(&code).is_ok() {
                // As far from everything as the centre is.
                row.fill(0.0);
            }
        }
        let mut apart: Vec<f32> = latents
            .par_chunks_exact(width)
            .map(|z| others.chunks_exact(width).map(|row| square(z, row)).fold(f32::MAX, f32::min))
            .collect();
        let mut rows = Vec::with_capacity(codes.len() * width);
        for code in &codes {
            let at = drawn(&apart, hash(&[seed, step, *code as u64]));
            let chosen = &latents[at * width..][..width];
            rows.extend_from_slice(chosen);
            for (apart, z) in apart.iter_mut().zip(latents.chunks_exact(width)) {
                *apart = apart.min(square(z, chosen));
            }
        }
        Self { codes, rows }
    }

    /// The tokenizer with these rows in its codebook.
    pub fn apply(&self, mut vq: VqModel) -> VqModel {
        let codebook = &mut vq.quantize.embedding;
        codebook.weight = codebook.weight.clone().map(|weight| {
            let ([codes, width], device) = (weight.dims(), weight.device());
            let tracked = weight.is_require_grad();
            let mut rows: Vec<f32> = weight.into_data().convert::<f32>().iter::<f32>().collect();
            for (code, row) in self.codes.iter().zip(self.rows.chunks_exact(width)) {
                rows[code * width..][..width].copy_from_slice(row);
            }
            let data = TensorData::new(rows, [codes, width]);
            Tensor::from_data(data, (&device, DType::F32)).set_require_grad(tracked)
        });
        vq
    }
}

pub(super) fn floats(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().iter::<f32>().collect()
}

fn square(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// A place, by its weight; any where all weights are 0.
fn drawn(weights: &[f32], chance: u64) -> usize {
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let mut left = total * ((chance >> 11) as f64 / (1u64 << 53) as f64);
    let found = weights.iter().position(|weight| {
        left -= f64::from(*weight);
        left < 0.0
    });
    found.unwrap_or((chance % weights.len() as u64) as usize)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use janus_model::vq::VqConfig;

    use super::*;

    /// Idle codes become latents, the others stay, and a code just moved has its time.
    #[test]
    fn only_idle_codes_move() {
        let device = Device::flex();
        let sizes = VqConfig { num_embeddings: 4, embed_dim: 2, ..VqConfig::vq_16() };
        let sizes = VqConfig { base_channels: 32, channel_multiplier: vec![1, 1], ..sizes };
        let mut vq = sizes.init(&device);
        let rows = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]];
        let codebook = &mut vq.quantize.embedding;
        codebook.weight = codebook.weight.clone().map(|_| Tensor::from_floats(rows, &device));
        let mut usage = Usage::new(4);
        usage.see(9, [0, 2].into_iter());
        let latents = || Tensor::<2>::from_floats([[0.6, 0.8]], &device);
        let moves = Moves::find(&vq, &mut usage, (1, 9, 5), latents);
        let moves = moves.expect("codes 1 and 3 are idle");
        let moved = moves.apply(vq);
        let found = moved.quantize.embedding.weight.val().into_data();
        let found: Vec<f32> = found.iter::<f32>().collect();
        assert_eq!(found, [1.0, 0.0, 0.6, 0.8, -1.0, 0.0, 0.6, 0.8]);
        let again = Moves::find(&moved, &mut usage, (1, 10, 5), || unreachable!("in their time"));
        assert!(again.is_none());
    }

    /// A thousand latents at one place, which has a code, and one far from it.
    #[test]
    fn codes_go_where_none_is() {
        let device = Device::flex();
        let sizes = VqConfig { num_embeddings: 3, embed_dim: 2, ..VqConfig::vq_16() };
        let sizes = VqConfig { base_channels: 32, channel_multiplier: vec![1, 1], ..sizes };
        let mut vq = sizes.init(&device);
        let rows = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]];
        let codebook = &mut vq.quantize.embedding;
        codebook.weight = codebook.weight.clone().map(|_| Tensor::from_floats(rows, &device));
        let mut latents = [1.0, 1e-4].repeat(1000);
        latents.extend([0.6, -0.8]);
        let latents = Tensor::<1>::from_floats(&latents[..], &device).reshape([1001, 2]);
        for seed in 0..20 {
            let moves = Moves::onto(&vq, vec![1], latents.clone(), (seed, 0));
            assert_eq!(moves.rows, [0.6, -0.8]);
            // The second finds nothing as far any more.
            let moves = Moves::onto(&vq, vec![1, 2], latents.clone(), (seed, 0));
            assert_eq!(moves.rows, [0.6, -0.8, 1.0, 1e-4]);
        }
        assert_eq!(drawn(&[0.0, 0.0], u64::MAX), 1);
        assert_eq!((drawn(&[1.0, 3.0], 0), drawn(&[1.0, 3.0], u64::MAX)), (0, 1));
    }
}
