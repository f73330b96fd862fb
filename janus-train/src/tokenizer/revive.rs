//! Codes that nobody chooses, moved to where latents are.
//!
//! A code that is never the nearest gets no gradient and stays what chance made it. Over millions of
//! pictures most codes are found at some time; over thousands a codebook may shrink to a dozen rows.
//! Ours, and off unless a recipe asks for it: the original leaves idle codes alone.

use burn::tensor::{DType, Tensor, TensorData};
use janus_model::vq::VqModel;

use super::usage::Usage;
use crate::data::random::hash;

/// Rows of the codebook, and the latents they are moved to.
#[derive(Debug)]
pub struct Moves {
    codes: Vec<usize>,
    /// One after the other, of unit length.
    rows: Vec<f32>,
}

impl Moves {
    /// Gives every code that no step of the last `window` chose one of the `latents`, `[n, e]`, by
    /// chance.
    pub fn find(
        usage: &mut Usage,
        (seed, step, window): (u64, u64, u64),
        latents: impl FnOnce() -> Tensor<2>,
    ) -> Option<Self> {
        let codes = usage.idle(step, window);
        if codes.is_empty() {
            return None;
        }
        let moves = Self::onto(codes, &latents(), (seed, step));
        // As if chosen now, or they would be moved again before they had their time.
        usage.see(step, moves.codes.iter().map(|code| *code as i64));
        Some(moves)
    }

    /// Gives each of these codes one of the `latents`, `[n, e]`, by chance.
    pub fn onto(codes: Vec<usize>, latents: &Tensor<2>, (seed, step): (u64, u64)) -> Self {
        let latents = latents.clone();
        let [count, width] = latents.dims();
        let latents: Vec<f32> = latents.into_data().convert::<f32>().iter::<f32>().collect();
        let chosen = |code: &usize| {
            let at = (hash(&[seed, step, *code as u64]) % count as u64) as usize;
            &latents[at * width..][..width]
        };
        let rows = codes.iter().flat_map(chosen).copied().collect();
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
        let moves = Moves::find(&mut usage, (1, 9, 5), latents);
        let moves = moves.expect("codes 1 and 3 are idle");
        let found = moves.apply(vq).quantize.embedding.weight.val().into_data();
        let found: Vec<f32> = found.iter::<f32>().collect();
        assert_eq!(found, [1.0, 0.0, 0.6, 0.8, -1.0, 0.0, 0.6, 0.8]);
        assert!(
            Moves::find(&mut usage, (1, 10, 5), || unreachable!("all have their time")).is_none()
        );
    }
}
