//! Rotary positions, half-split: with `x = [a, b]` cut in the middle of a head,
//! `rotate(x) = [a·cos − b·sin, b·cos + a·sin]`, angle `p · θ^(−2j/d)` for pair `j`.
//!
//! This is the statement of the convention; [`crate::ops::rotate`] computes it. Burn's own
//! `RotaryEncoding` turns neighbouring elements instead, which is another network. Angles are rounded
//! to f32 exactly where PyTorch rounds them: at position 600 one unit in the last place of an angle is
//! 6e-5.
//!
//! Original: `LlamaRotaryEmbedding` of transformers; paper: <https://arxiv.org/abs/2104.09864>.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::ops;

/// Where each token stands in its sequence, counted from 0.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one per pass, on the stack
pub enum Positions {
    /// Every row holds `start, start + 1, …`.
    From(usize),
    /// Row by row, `[B, T]`; for batches padded on the left.
    Each(Tensor<2, Int>),
}

/// Tables of cos and sin for every position a model may see.
#[derive(Clone, Debug)]
pub struct Rope {
    cos: Tensor<2>, // [positions, d/2], f32
    sin: Tensor<2>,
}

/// The two factors for the tokens at hand, `[1 or B, 1, T, d/2]`.
#[derive(Clone, Debug)]
pub struct RopeSlice {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rope {
    /// Tables for positions `0..positions` of heads of `head_dim` (even) elements.
    pub fn new(theta: f64, head_dim: usize, positions: usize, device: &Device) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f32> = (0..half).map(|j| frequency(theta, j, head_dim)).collect();
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        // cos and sin of the f32 angle, rounded once: computed in f64.
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles().map(|a| f(f64::from(a)) as f32).collect();
            Tensor::from_data(TensorData::new(values, [positions, half]), device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Number of positions the tables cover.
    pub fn positions(&self) -> usize {
        self.cos.dims()[0]
    }

    /// Factors for `tokens` tokens.
    ///
    /// # Panics
    /// When a position lies outside the tables.
    pub fn at(&self, positions: &Positions, tokens: usize) -> RopeSlice {
        let [_, half] = self.cos.dims();
        let pick = |table: &Tensor<2>| match positions {
            Positions::From(start) => {
                table.clone().slice_dim(0, *start..start + tokens).reshape([1, 1, tokens, half])
            }
            Positions::Each(ids) => {
                let [batch, _] = ids.dims();
                let rows = table.clone().select(0, ids.clone().reshape([batch * tokens]));
                rows.reshape([batch, 1, tokens, half])
            }
        };
        RopeSlice { cos: pick(&self.cos), sin: pick(&self.sin) }
    }
}

impl RopeSlice {
    /// Cosines and sines, each `[1 or B, 1, T, d/2]`.
    pub fn factors(&self) -> (Tensor<4>, Tensor<4>) {
        (self.cos.clone(), self.sin.clone())
    }

    /// Rotates queries or keys, in f32 where they are narrower.
    ///
    /// # Shapes
    /// `x` and output: `[B, H, T, d]`
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        ops::rotate(x, self.cos.clone(), self.sin.clone())
    }
}

/// `1 / θ^(2j/d)` with the intermediate roundings of PyTorch's f32.
fn frequency(theta: f64, j: usize, head_dim: usize) -> f32 {
    let exponent = (2 * j) as f32 / head_dim as f32;
    1.0 / (theta.powf(f64::from(exponent)) as f32)
}
