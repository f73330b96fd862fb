//! From the language model's final hidden state to logits over image codes:
//! `vision_head(GELU(output_mlp_projector(h)))`, GELU in its erf form.
//!
//! Original: `vision_head` in `janus/models/modeling_vlm.py`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::config::{ConfigError, in_range};
use crate::linear::{Linear, LinearConfig};
use crate::ops;

/// Sizes of the [`GenHead`].
#[derive(Clone, Debug, PartialEq)]
pub struct GenHeadConfig {
    /// Width of the language model.
    pub hidden_size: usize,
    /// Width between the two layers.
    pub embed_dim: usize,
    /// Number of image codes.
    pub codes: usize,
}

/// The image head. See the [module documentation](self).
#[derive(Module, Debug)]
pub struct GenHead {
    /// `[E, D]`.
    pub output_mlp_projector: Linear,
    /// `[C, E]`.
    pub vision_head: Linear,
}

impl GenHeadConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        in_range("gen_head_config.params.image_token_embed", self.embed_dim, 1, 1 << 16)?;
        in_range("gen_head_config.params.image_token_size", self.codes, 1, 1 << 24)
    }

    /// Random weights.
    pub fn init(&self, device: &Device) -> GenHead {
        GenHead {
            output_mlp_projector: LinearConfig::new(self.hidden_size, self.embed_dim).init(device),
            vision_head: LinearConfig::new(self.embed_dim, self.codes).init(device),
        }
    }
}

impl GenHead {
    /// # Shapes
    /// - `hidden`: `[B, D]`, after the final RMSNorm
    /// - output: `[B, C]`, logits
    pub fn forward(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.vision_head.forward(ops::gelu(self.output_mlp_projector.forward(hidden)))
    }
}
