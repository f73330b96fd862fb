//! The image tokenizer VQ-16: pictures to a grid of codes and back.
//!
//! A convolutional encoder halves the picture once per level, a quantiser snaps each of the
//! remaining places to the nearest of the L2-normalised codebook rows, a decoder undoes it.
//! Understanding never uses it; drawing uses the decoder, training the encoder.
//!
//! Original: `janus/models/vq_model.py`, from LlamaGen <https://arxiv.org/abs/2406.06525>.

mod blocks;
mod decoder;
mod encoder;
mod quantizer;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Int, Tensor};

pub use blocks::{AttnBlock, MidBlock, ResBlock, Sampler};
pub use decoder::VqDecoder;
pub use encoder::{Level, VqEncoder};
pub use quantizer::{Quantized, Quantizer};

use blocks::convolve;

use crate::config::{ConfigError, in_range};

/// Groups of every GroupNorm; channel counts are multiples of it.
pub const NORM_GROUPS: usize = 32;
/// ε of every GroupNorm.
pub const NORM_EPS: f64 = 1e-6;

/// Sizes of the image tokenizer.
#[derive(Clone, Debug, PartialEq)]
pub struct VqConfig {
    /// Side of the picture, in pixels.
    pub image_size: usize,
    /// Rows of the codebook.
    pub num_embeddings: usize,
    /// Width of a codebook row.
    pub embed_dim: usize,
    /// Channels of the first level at multiplier 1.
    pub base_channels: usize,
    /// Channels of each level, as multiples of the base, from the highest resolution.
    pub channel_multiplier: Vec<usize>,
    /// Residual blocks per encoder level; the decoder has one more.
    pub num_res_blocks: usize,
    /// Channels between the convolutions and the quantiser.
    pub latent_channels: usize,
}

/// The image tokenizer. See the [module documentation](self).
#[derive(Module, Debug)]
pub struct VqModel {
    /// Picture to latent.
    pub encoder: VqEncoder,
    /// Latent to picture.
    pub decoder: VqDecoder,
    /// Codebook.
    pub quantize: Quantizer,
    /// 1×1, latent to code width.
    pub quant_conv: Conv2d,
    /// 1×1, code width to latent.
    pub post_quant_conv: Conv2d,
}

impl VqConfig {
    /// The published tokenizer.
    pub fn vq_16() -> Self {
        Self {
            image_size: 384,
            num_embeddings: 16_384,
            embed_dim: 8,
            base_channels: 128,
            channel_multiplier: vec![1, 1, 2, 2, 4],
            num_res_blocks: 2,
            latent_channels: 256,
        }
    }

    /// How much smaller a side of the code grid is than a side of the picture.
    pub fn factor(&self) -> usize {
        1 << (self.channel_multiplier.len().max(1) - 1)
    }

    /// Side of the code grid.
    pub fn grid(&self) -> usize {
        self.image_size / self.factor()
    }

    /// Channels of level `index`, 0 being the highest resolution.
    pub(crate) fn channels(&self, index: usize) -> usize {
        self.base_channels * self.channel_multiplier[index]
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let at = |name: &str| format!("gen_vision_config.params.{name}");
        in_range("vision_config.params.image_size", self.image_size, 1, 4096)?;
        in_range(&at("image_token_size"), self.num_embeddings, 1, 1 << 24)?;
        in_range(&at("n_embed"), self.embed_dim, 1, 4096)?;
        in_range(&at("ch"), self.base_channels, 1, 4096)?;
        in_range(&at("num_res_blocks"), self.num_res_blocks, 1, 64)?;
        in_range(&at("z_channels"), self.latent_channels, 1, 1 << 14)?;
        // The first convolution gives `ch` channels, every level a multiple of them.
        if !self.base_channels.is_multiple_of(NORM_GROUPS) {
            return Err(ConfigError::field(
                at("ch"),
                format!("{} channels cannot be cut into {NORM_GROUPS} groups", self.base_channels),
            ));
        }
        let levels = self.channel_multiplier.len();
        if !(1..=12).contains(&levels) {
            let problem = format!("{levels} levels is outside 1..=12");
            return Err(ConfigError::field(at("encoder_ch_mult"), problem));
        }
        for multiplier in &self.channel_multiplier {
            in_range(&at("encoder_ch_mult"), *multiplier, 1, 64)?;
        }
        let (pixels, factor) = (self.image_size, self.factor());
        if pixels % factor != 0 {
            return Err(ConfigError::field(
                at("encoder_ch_mult"),
                format!("a picture of {pixels} pixels is not divisible by {factor}"),
            ));
        }
        Ok(())
    }

    /// Random weights.
    pub fn init(&self, device: &Device) -> VqModel {
        let pointwise = |input, output| Conv2dConfig::new([input, output], [1, 1]).init(device);
        VqModel {
            encoder: VqEncoder::new(self, device),
            decoder: VqDecoder::new(self, device),
            quantize: Quantizer::new(self, device),
            quant_conv: pointwise(self.latent_channels, self.embed_dim),
            post_quant_conv: pointwise(self.embed_dim, self.latent_channels),
        }
    }
}

impl VqModel {
    /// The same weights behind norms of another epsilon, where the checkpoint's is [`NORM_EPS`]: for
    /// training, which may begin where a norm is almost a line.
    pub fn with_norm_epsilon(mut self, epsilon: f64) -> Self {
        let nets = [self.encoder.norms(), self.decoder.norms()];
        nets.into_iter().flatten().for_each(|norm| norm.epsilon = epsilon);
        self
    }

    /// Latents before quantisation.
    ///
    /// # Shapes
    /// - `pixels`: `[N, 3, S, S]` in [-1, 1]
    /// - output: `[N, e, g, g]`
    pub fn latents(&self, pixels: Tensor<4>) -> Tensor<4> {
        convolve(&self.quant_conv, self.encoder.forward(pixels))
    }

    /// Latents as the codebook sees them, place by place and of unit length.
    ///
    /// # Shapes
    /// - `pixels`: `[N, 3, S, S]` in [-1, 1]
    /// - output: `[N·g·g, e]` in f32
    pub fn directions(&self, pixels: Tensor<4>) -> Tensor<2> {
        quantizer::directions(self.latents(pixels))
    }

    /// Pictures through the whole tokenizer, as training sees it; any size that the levels halve.
    ///
    /// # Shapes
    /// - `pixels`: `[N, 3, H, W]` in [-1, 1]
    /// - output: the same shape, not clamped; and what the quantiser made
    pub fn reconstruct(&self, pixels: Tensor<4>) -> (Tensor<4>, Quantized) {
        let quantized = self.quantize.quantize(self.latents(pixels));
        let pictures =
            self.decoder.forward(convolve(&self.post_quant_conv, quantized.latents.clone()));
        (pictures, quantized)
    }

    /// Codes of pictures, in raster order.
    ///
    /// # Shapes
    /// - `pixels`: `[N, 3, S, S]` in [-1, 1]
    /// - output: `[N, g·g]`
    pub fn encode(&self, pixels: Tensor<4>) -> Tensor<2, Int> {
        self.quantize.nearest(self.latents(pixels))
    }

    /// Pictures of codes.
    ///
    /// # Shapes
    /// - `codes`: `[N, g·g]`, each below the codebook's size
    /// - output: `[N, 3, S, S]`, nominally in [-1, 1], not clamped
    pub fn decode(&self, codes: Tensor<2, Int>) -> Tensor<4> {
        let latents = self.quantize.lookup(codes); // [N, e, g, g]
        // The codebook is f32 everywhere, the convolutions are what the device does best.
        let latents = latents.cast(self.post_quant_conv.weight.val().dtype());
        self.decoder.forward(convolve(&self.post_quant_conv, latents))
    }
}
