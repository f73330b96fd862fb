//! Both adaptors into the language model: `Linear, then (depth − 1) × [GELU(erf), Linear]`.
//!
//! `aligner` takes SigLIP features, `gen_aligner` takes image-code embeddings.
//! Original: `janus/models/projector.py` (`mlp_gelu`, the one kind Janus-Pro uses).

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::config::{ConfigError, in_range};
use crate::linear::{Linear, LinearConfig};
use crate::ops;

/// Sizes of a [`Projector`].
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectorConfig {
    /// Width of the features.
    pub input_dim: usize,
    /// Width of the language model.
    pub output_dim: usize,
    /// Number of linear layers.
    pub depth: usize,
}

/// An adaptor. See the [module documentation](self).
#[derive(Module, Debug)]
pub struct Projector {
    /// In the checkpoint these are `layers.0`, `layers.2`, …: the odd ones are activations.
    pub layers: Vec<Linear>,
}

impl ProjectorConfig {
    pub(crate) fn validate(&self, part: &str) -> Result<(), ConfigError> {
        in_range(&format!("{part}.params.input_dim"), self.input_dim, 1, 1 << 16)?;
        in_range(&format!("{part}.params.n_embed"), self.output_dim, 1, 1 << 16)?;
        in_range(&format!("{part}.params.depth"), self.depth, 1, 64)
    }

    /// Random weights.
    pub fn init(&self, device: &Device) -> Projector {
        let layer = |i| {
            let input = if i == 0 { self.input_dim } else { self.output_dim };
            LinearConfig::new(input, self.output_dim).init(device)
        };
        Projector { layers: (0..self.depth).map(layer).collect() }
    }
}

impl Projector {
    /// # Shapes
    /// - `x`: `[B, T, input_dim]`
    /// - output: `[B, T, output_dim]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.layers
            .iter()
            .enumerate()
            .fold(x, |x, (i, layer)| layer.forward(if i == 0 { x } else { ops::gelu(x) }))
    }
}
