//! Picture to latent: levels of residual blocks, each but the last halving both sides;
//! attention only at the lowest resolution.

use burn::module::Module;
use burn::nn::GroupNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use super::VqConfig;
use super::blocks::{AttnBlock, MidBlock, ResBlock, Sampler, conv3, convolve, group_norm, norm};

/// The encoder.
#[derive(Module, Debug)]
pub struct VqEncoder {
    /// 3×3, RGB to the base channels.
    pub conv_in: Conv2d,
    /// From the highest resolution down.
    pub conv_blocks: Vec<Level>,
    /// At the lowest resolution.
    pub mid: MidBlock,
    /// Before the last activation.
    pub norm_out: GroupNorm,
    /// 3×3, to the latent channels.
    pub conv_out: Conv2d,
}

/// One resolution of either net.
#[derive(Module, Debug)]
pub struct Level {
    /// Residual blocks.
    pub res: Vec<ResBlock>,
    /// One per residual block at the lowest resolution, else none.
    pub attn: Vec<AttnBlock>,
    /// Encoder: to the next lower resolution.
    pub downsample: Option<Sampler>,
    /// Decoder: to the next higher resolution.
    pub upsample: Option<Sampler>,
}

impl Level {
    /// Residual blocks from `input` to `output` channels, with attention where asked.
    pub(super) fn blocks(
        [input, output]: [usize; 2],
        count: usize,
        attention: bool,
        device: &Device,
    ) -> Self {
        let res = |i| ResBlock::new(if i == 0 { input } else { output }, output, device);
        let attentions = if attention { count } else { 0 };
        Self {
            res: (0..count).map(res).collect(),
            attn: (0..attentions).map(|_| AttnBlock::new(output, device)).collect(),
            downsample: None,
            upsample: None,
        }
    }

    pub(super) fn norms(&mut self) -> impl Iterator<Item = &mut GroupNorm> {
        let attentions = self.attn.iter_mut().map(|attn| &mut attn.norm);
        self.res.iter_mut().flat_map(ResBlock::norms).chain(attentions)
    }

    /// `[N, c_in, H, W]` to `[N, c_out, H', W']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = x;
        for (i, res) in self.res.iter().enumerate() {
            x = res.forward(x);
            if let Some(attn) = self.attn.get(i) {
                x = attn.forward(x);
            }
        }
        if let Some(sampler) = &self.downsample {
            x = sampler.halve(x);
        }
        match &self.upsample {
            Some(sampler) => sampler.double(x),
            None => x,
        }
    }
}

impl VqEncoder {
    pub(super) fn new(config: &VqConfig, device: &Device) -> Self {
        let last = config.channel_multiplier.len() - 1;
        let level = |i: usize| {
            let input = if i == 0 { config.base_channels } else { config.channels(i - 1) };
            let output = config.channels(i);
            let mut level =
                Level::blocks([input, output], config.num_res_blocks, i == last, device);
            level.downsample = (i != last).then(|| Sampler::down(output, device));
            level
        };
        let deepest = config.channels(last);
        Self {
            conv_in: conv3(3, config.base_channels, device),
            conv_blocks: (0..=last).map(level).collect(),
            mid: MidBlock::new(deepest, device),
            norm_out: norm(deepest, device),
            conv_out: conv3(deepest, config.latent_channels, device),
        }
    }

    pub(super) fn norms(&mut self) -> Vec<&mut GroupNorm> {
        let levels = self.conv_blocks.iter_mut().flat_map(Level::norms);
        levels.chain(self.mid.norms()).chain([&mut self.norm_out]).collect()
    }

    /// # Shapes
    /// - `pixels`: `[N, 3, S, S]`
    /// - output: `[N, z, g, g]`
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        let x = convolve(&self.conv_in, pixels);
        let x = self.conv_blocks.iter().fold(x, |x, level| level.forward(x));
        let x = self.mid.forward(x);
        convolve(&self.conv_out, group_norm(&self.norm_out, x, true))
    }
}
