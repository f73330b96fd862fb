//! Latent to picture: the encoder in reverse with one more residual block per level.
//! Level 0 is the **lowest** resolution.

use burn::module::Module;
use burn::nn::GroupNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use super::VqConfig;
use super::blocks::{MidBlock, Sampler, conv3, convolve, group_norm, norm};
use super::encoder::Level;

/// The decoder.
#[derive(Module, Debug)]
pub struct VqDecoder {
    /// 3×3, from the latent channels.
    pub conv_in: Conv2d,
    /// At the lowest resolution.
    pub mid: MidBlock,
    /// From the lowest resolution up.
    pub conv_blocks: Vec<Level>,
    /// Before the last activation.
    pub norm_out: GroupNorm,
    /// 3×3, to RGB.
    pub conv_out: Conv2d,
}

impl VqDecoder {
    pub(super) fn new(config: &VqConfig, device: &Device) -> Self {
        let last = config.channel_multiplier.len() - 1;
        let deepest = config.channels(last);
        let level = |i: usize| {
            let output = config.channels(last - i);
            let input = if i == 0 { deepest } else { config.channels(last - i + 1) };
            let mut level =
                Level::blocks([input, output], config.num_res_blocks + 1, i == 0, device);
            level.upsample = (i != last).then(|| Sampler::up(output, device));
            level
        };
        let highest = config.channels(0);
        Self {
            conv_in: conv3(config.latent_channels, deepest, device),
            mid: MidBlock::new(deepest, device),
            conv_blocks: (0..=last).map(level).collect(),
            norm_out: norm(highest, device),
            conv_out: conv3(highest, 3, device),
        }
    }

    pub(super) fn norms(&mut self) -> Vec<&mut GroupNorm> {
        let levels = self.conv_blocks.iter_mut().flat_map(Level::norms);
        levels.chain(self.mid.norms()).chain([&mut self.norm_out]).collect()
    }

    /// # Shapes
    /// - `latents`: `[N, z, g, g]`
    /// - output: `[N, 3, S, S]`
    pub fn forward(&self, latents: Tensor<4>) -> Tensor<4> {
        let x = self.mid.forward(convolve(&self.conv_in, latents));
        let x = self.conv_blocks.iter().fold(x, |x, level| level.forward(x));
        convolve(&self.conv_out, group_norm(&self.norm_out, x, true))
    }
}
