//! What the image tokenizer and its critic learn from.
//!
//! ```text
//! tokenizer  MSE(x̂, x) + LPIPS(x̂, x) + codebook + β·commitment + w·(−mean D(x̂))
//! critic     w · ½ (mean max(0, 1 − D(x)) + mean max(0, 1 + D(x̂)))
//! ```
//! `w` is 0 before a step of the recipe. Source: LlamaGen (arXiv 2406.06525) and its published
//! training code; the codebook's losses are VQ-VAE's (arXiv 1711.00937), whose straight-through
//! gradient is [`janus_model::vq::Quantizer::quantize`].

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Int, Tensor};
use janus_model::vq::VqModel;
use serde::{Deserialize, Serialize};

use super::discriminator::Critic;
use super::lpips::Lpips;

/// Weights of the terms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// Mean squared error of pixels.
    pub reconstruction: f64,
    /// LPIPS; not used where its networks are not given.
    pub perceptual: f64,
    /// What draws codes to latents.
    pub codebook: f64,
    /// β, what draws latents to codes.
    pub commitment: f64,
    /// w, what the critic says.
    pub adversarial: f64,
    /// The first step, counted from 1, in which the critic is asked, and learns.
    pub adversarial_from: u64,
}

/// One number each, not weighted.
#[derive(Clone, Debug)]
pub struct TokenizerLoss {
    /// What is to become smaller, weighted.
    pub total: Tensor<1>,
    /// Name and value of each term that is in it.
    pub terms: Vec<(&'static str, Tensor<1>)>,
    /// `[N, 3, S, S]`, without a way back to the weights.
    pub pictures: Tensor<4>,
    /// All codes of the pictures.
    pub codes: Tensor<1, Int>,
}

impl LossConfig {
    /// Whether the critic has a say in a step, counted from 0.
    pub fn is_adversarial(&self, step: u64) -> bool {
        self.adversarial > 0.0 && step + 1 >= self.adversarial_from
    }

    /// The tokenizer's loss on pictures; without a critic, that has no say.
    ///
    /// # Shapes
    /// - `pixels`: `[N, 3, S, S]` in [-1, 1]
    /// - `seen`: the same, as the encoder sees them
    pub fn tokenizer(
        &self,
        vq: &VqModel,
        critic: Option<&Critic>,
        lpips: Option<&Lpips>,
        pixels: &Tensor<4>,
        seen: Tensor<4>,
    ) -> TokenizerLoss {
        let (pictures, quantized) = vq.reconstruct(seen);
        let squares = (pictures.clone() - pixels.clone()).square().mean();
        let mut terms = vec![
            ("reconstruction", self.reconstruction, squares),
            ("codebook", self.codebook, quantized.codebook),
            ("commitment", self.commitment, quantized.commitment),
        ];
        if let Some(lpips) = lpips {
            let distance = lpips.distance(pixels.clone(), pictures.clone());
            terms.push(("perceptual", self.perceptual, distance));
        }
        if let Some(critic) = critic {
            // It only judges here: its own gradients would be thrown away.
            let judged = critic.clone().no_grad().forward(pictures.clone());
            terms.push(("adversarial", self.adversarial, -judged.mean()));
        }
        let weighted = terms.iter().map(|(_, weight, term)| term.clone() * *weight);
        let total = weighted.reduce(|sum, term| sum + term).expect("there are terms");
        let terms = terms.into_iter().map(|(name, _, term)| (name, term.detach())).collect();
        TokenizerLoss { total, terms, pictures: pictures.detach(), codes: quantized.codes }
    }

    /// The critic's loss, weighted as in the tokenizer's.
    pub fn critic(&self, critic: &Critic, real: Tensor<4>, made: Tensor<4>) -> Tensor<1> {
        let real = relu(1.0 - critic.forward(real)).mean();
        let made = relu(critic.forward(made) + 1.0).mean();
        (real + made) * (0.5 * self.adversarial)
    }
}
