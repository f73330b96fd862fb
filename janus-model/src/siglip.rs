//! The understanding encoder: SigLIP-L/16 at 384 px.
//!
//! A pre-LN vision transformer without class token: patches + learned positions, blocks
//! `x += Attn(LN(x)); x += MLP(LN(x))`, one final LayerNorm whose output feeds the aligner.
//! Two facts that copies of this model often get wrong: GELU is the **erf** form, and **all**
//! blocks and the final norm are used. The pooling head of the checkpoint is not.
//!
//! Original: `janus/models/siglip_vit.py`; paper: <https://arxiv.org/abs/2303.15343>.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Tensor};

use crate::config::ConfigError;
use crate::config::{in_range, positive};
use crate::linear::{Linear, LinearConfig};
use crate::ops;

/// Sizes of the encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Side of the square input, in pixels.
    pub image_size: usize,
    /// Side of one patch, in pixels.
    pub patch_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads per block.
    pub num_attention_heads: usize,
    /// Inner width of the MLP.
    pub intermediate_size: usize,
    /// ε of every LayerNorm.
    pub layer_norm_eps: f64,
}

/// The encoder. See the [module documentation](self).
#[derive(Module, Debug)]
pub struct VisionTower {
    /// Named as in the checkpoint, `vision_model.vision_tower`.
    pub vision_tower: SiglipVit,
}

/// Patches, positions, blocks, final norm.
#[derive(Module, Debug)]
pub struct SiglipVit {
    /// `[1, N, W]`.
    pub pos_embed: Param<Tensor<3>>,
    /// Cuts the picture into patches.
    pub patch_embed: PatchEmbed,
    /// Transformer blocks.
    pub blocks: Vec<VisionBlock>,
    /// Applied to the output of the last block.
    pub norm: LayerNorm,
}

/// Convolution with stride = kernel = patch.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// `[W, 3, P, P]`.
    pub proj: Conv2d,
}

/// One pre-LN block.
#[derive(Module, Debug)]
pub struct VisionBlock {
    /// Before attention.
    pub norm1: LayerNorm,
    /// Bidirectional self-attention.
    pub attn: VisionAttention,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// Two linears around GELU.
    pub mlp: VisionMlp,
}

/// Attention with one fused projection.
#[derive(Module, Debug)]
pub struct VisionAttention {
    /// `[3·W, W]`; output row = which·W + head·d + i, which ∈ {q, k, v}.
    pub qkv: Linear,
    /// `[W, W]`.
    pub proj: Linear,
    heads: usize,
}

/// LayerNorm with statistics in f32, whatever the dtype around it; see [`ops::layer_norm`].
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[W]`; the checkpoint's `weight`.
    pub gamma: Param<Tensor<1>>,
    /// Shift, `[W]`; the checkpoint's `bias`.
    pub beta: Param<Tensor<1>>,
    epsilon: f64,
}

/// `fc2(gelu(fc1(x)))`.
#[derive(Module, Debug)]
pub struct VisionMlp {
    /// `[F, W]`.
    pub fc1: Linear,
    /// `[W, F]`.
    pub fc2: Linear,
}

impl VisionConfig {
    /// `siglip_large_patch16_384`.
    pub fn siglip_large_384() -> Self {
        Self {
            image_size: 384,
            patch_size: 16,
            hidden_size: 1024,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            intermediate_size: 4096,
            layer_norm_eps: 1e-6,
        }
    }

    /// Tokens per picture: (image / patch)².
    pub fn num_tokens(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// F / W, written so that `int(W · ratio)` gives F back, also after a rounding or two.
    pub(crate) fn mlp_ratio(&self) -> f64 {
        let (inner, width) = (self.intermediate_size as f64, self.hidden_size as f64);
        let ratio = inner / width;
        let short = (ratio * 1024.0).fract() == 0.0;
        if short { ratio } else { (inner + 0.5) / width }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let at = |name: &str| format!("vision_config.params.{name}");
        in_range(&at("image_size"), self.image_size, 1, 4096)?;
        in_range(&at("patch_size"), self.patch_size, 1, self.image_size)?;
        in_range(&at("width"), self.hidden_size, 1, 1 << 16)?;
        in_range(&at("layers"), self.num_hidden_layers, 1, 1024)?;
        in_range(&at("heads"), self.num_attention_heads, 1, self.hidden_size)?;
        if !(1..=1 << 20).contains(&self.intermediate_size) {
            let inner = self.intermediate_size;
            return Err(ConfigError::field(
                at("mlp_ratio"),
                format!("the inner width of {inner} is outside 1..={}", 1 << 20),
            ));
        }
        positive(&at("layer_norm_eps"), self.layer_norm_eps, 1.0)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(ConfigError::field(
                at("heads"),
                format!(
                    "{} does not divide the width {}",
                    self.num_attention_heads, self.hidden_size
                ),
            ));
        }
        Ok(())
    }

    /// Random weights.
    pub fn init(&self, device: &Device) -> VisionTower {
        let width = self.hidden_size;
        let patch = [self.patch_size; 2];
        VisionTower {
            vision_tower: SiglipVit {
                pos_embed: Initializer::Normal { mean: 0.0, std: 0.02 }
                    .init([1, self.num_tokens(), width], device),
                patch_embed: PatchEmbed {
                    proj: Conv2dConfig::new([3, width], patch).with_stride(patch).init(device),
                },
                blocks: self.blocks(device),
                norm: self.norm(device),
            },
        }
    }

    /// The blocks alone, with random weights: a transformer over anything of the same width.
    pub fn blocks(&self, device: &Device) -> Vec<VisionBlock> {
        let width = self.hidden_size;
        let block = |_| VisionBlock {
            norm1: self.norm(device),
            attn: VisionAttention {
                qkv: LinearConfig::new(width, 3 * width).init(device),
                proj: LinearConfig::new(width, width).init(device),
                heads: self.num_attention_heads,
            },
            norm2: self.norm(device),
            mlp: self.mlp(device),
        };
        (0..self.num_hidden_layers).map(block).collect()
    }

    /// One MLP, with random weights.
    pub fn mlp(&self, device: &Device) -> VisionMlp {
        VisionMlp {
            fc1: LinearConfig::new(self.hidden_size, self.intermediate_size).init(device),
            fc2: LinearConfig::new(self.intermediate_size, self.hidden_size).init(device),
        }
    }

    /// One LayerNorm.
    pub fn norm(&self, device: &Device) -> LayerNorm {
        LayerNorm {
            gamma: Initializer::Ones.init([self.hidden_size], device),
            beta: Initializer::Zeros.init([self.hidden_size], device),
            epsilon: self.layer_norm_eps,
        }
    }
}

impl VisionTower {
    /// Features of whole pictures.
    ///
    /// # Shapes
    /// - `pixels`: `[N, 3, S, S]`, normalised to [-1, 1]
    /// - output: `[N, tokens, W]`, tokens in raster order
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        self.vision_tower.forward(pixels)
    }
}

impl SiglipVit {
    /// Patch features with positions, before the first block.
    ///
    /// # Shapes
    /// - `pixels`: `[N, 3, S, S]`
    /// - output: `[N, tokens, W]`
    pub fn embed(&self, pixels: Tensor<4>) -> Tensor<3> {
        let patches = self.patch_embed.proj.forward(pixels); // [N, W, S/P, S/P]
        patches.flatten::<3>(2, 3).swap_dims(1, 2) + self.pos_embed.val() // [N, tokens, W]
    }

    /// All blocks and the final norm. Shapes as [`VisionTower::forward`].
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let x = self.embed(pixels);
        self.finish(self.blocks.iter().fold(x, |x, block| block.forward(x)))
    }

    /// The final norm, over the output of the last block. `[N, tokens, W]` to the same shape.
    pub fn finish(&self, x: Tensor<3>) -> Tensor<3> {
        self.norm.forward(x)
    }
}

impl VisionBlock {
    /// `[N, tokens, W]` to the same shape.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.attn.forward_onto(self.norm1.forward(x.clone()), x);
        self.mlp.forward_onto(self.norm2.forward(x.clone()), x)
    }
}

impl VisionAttention {
    /// `[N, tokens, W]`, added to the same.
    fn forward_onto(&self, x: Tensor<3>, onto: Tensor<3>) -> Tensor<3> {
        let [n, tokens, width] = x.dims();
        let head_width = width / self.heads;
        let qkv = self.qkv.forward(x).reshape([n, tokens, 3 * self.heads, head_width]);
        // Heads where they lie, [N, tokens, H, d] each; an axis of their own would be copied.
        let parts = [0, 1, 2]
            .map(|which| qkv.clone().slice_dim(2, which * self.heads..(which + 1) * self.heads));
        let y = ops::attention_rows(parts, None, None);
        self.proj.forward_onto(y.reshape([n, tokens, width]), onto)
    }
}

impl VisionMlp {
    /// `[N, tokens, W]` to the same shape.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(ops::gelu(self.fc1.forward(x)))
    }

    /// The same, added to `onto`.
    fn forward_onto(&self, x: Tensor<3>, onto: Tensor<3>) -> Tensor<3> {
        self.fc2.forward_onto(ops::gelu(self.fc1.forward(x)), onto)
    }
}

impl LayerNorm {
    /// Normalises the last axis. `[N, tokens, W]` to the same shape and dtype.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [n, tokens, width] = x.dims();
        let rows = x.reshape([n * tokens, width]);
        let y = ops::layer_norm(rows, self.gamma.val(), self.beta.val(), self.epsilon);
        y.reshape([n, tokens, width])
    }
}
