//! What encoder and decoder are made of.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, PaddingConfig2d};
use burn::tensor::activation::softmax;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor};

use super::{NORM_EPS, NORM_GROUPS};
use crate::ops::{self, Convolution, GroupRule};

/// `x + conv(swish(norm(conv(swish(norm(x))))))`, the shortcut 1×1 where widths differ.
#[derive(Module, Debug)]
pub struct ResBlock {
    /// Over the input channels.
    pub norm1: GroupNorm,
    /// 3×3, input to output channels.
    pub conv1: Conv2d,
    /// Over the output channels.
    pub norm2: GroupNorm,
    /// 3×3.
    pub conv2: Conv2d,
    /// 1×1, where input and output channels differ.
    pub nin_shortcut: Option<Conv2d>,
}

/// Single-head attention over all places of the grid, added to its input.
#[derive(Module, Debug)]
pub struct AttnBlock {
    /// Before the projections.
    pub norm: GroupNorm,
    /// 1×1.
    pub q: Conv2d,
    /// 1×1.
    pub k: Conv2d,
    /// 1×1.
    pub v: Conv2d,
    /// 1×1.
    pub proj_out: Conv2d,
}

/// The middle of both nets; `mid.0`, `mid.1`, `mid.2` in the checkpoint.
#[derive(Module, Debug)]
pub struct MidBlock {
    /// First.
    pub block_1: ResBlock,
    /// Second.
    pub attn_1: AttnBlock,
    /// Third.
    pub block_2: ResBlock,
}

/// Halves or doubles both sides.
#[derive(Module, Debug)]
pub struct Sampler {
    /// 3×3.
    pub conv: Conv2d,
}

pub(super) fn conv3(input: usize, output: usize, device: &Device) -> Conv2d {
    let same = PaddingConfig2d::Explicit(1, 1, 1, 1);
    Conv2dConfig::new([input, output], [3, 3]).with_padding(same).init(device)
}

fn conv1(input: usize, output: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([input, output], [1, 1]).init(device)
}

pub(super) fn norm(channels: usize, device: &Device) -> GroupNorm {
    GroupNormConfig::new(NORM_GROUPS, channels).with_epsilon(NORM_EPS).init(device)
}

/// GroupNorm, its weights kept in f32, and swish behind it or not; see [`ops::group_norm`].
pub(super) fn group_norm(norm: &GroupNorm, x: Tensor<4>, swish: bool) -> Tensor<4> {
    let vector = |part: &Option<Param<Tensor<1>>>| part.as_ref().map(Param::val);
    let (weight, bias) = vector(&norm.gamma).zip(vector(&norm.beta)).expect("made affine");
    let rule = GroupRule { groups: norm.num_groups, epsilon: norm.epsilon, swish };
    ops::group_norm(x, weight, bias, rule)
}

/// One of the convolutions made here; see [`ops::conv2d`].
pub(super) fn convolve(conv: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    let padding = match conv.padding {
        PaddingConfig2d::Explicit(top, left, bottom, right) => [top, left, bottom, right],
        _ => [0; 4],
    };
    let bias = conv.bias.as_ref().map(Param::val).expect("made with a bias");
    ops::conv2d(x, conv.weight.val(), bias, Convolution { stride: conv.stride[0], padding })
}

impl ResBlock {
    pub(super) fn new(input: usize, output: usize, device: &Device) -> Self {
        Self {
            norm1: norm(input, device),
            conv1: conv3(input, output, device),
            norm2: norm(output, device),
            conv2: conv3(output, output, device),
            nin_shortcut: (input != output).then(|| conv1(input, output, device)),
        }
    }

    pub(super) fn norms(&mut self) -> [&mut GroupNorm; 2] {
        [&mut self.norm1, &mut self.norm2]
    }

    /// `[N, c_in, H, W]` to `[N, c_out, H, W]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let h = convolve(&self.conv1, group_norm(&self.norm1, x.clone(), true));
        let h = convolve(&self.conv2, group_norm(&self.norm2, h, true));
        match &self.nin_shortcut {
            Some(shortcut) => convolve(shortcut, x) + h,
            None => x + h,
        }
    }
}

impl AttnBlock {
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        let conv = || conv1(channels, channels, device);
        Self { norm: norm(channels, device), q: conv(), k: conv(), v: conv(), proj_out: conv() }
    }

    /// `[N, c, H, W]` to the same shape. Softmax in f32.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, channels, height, width] = x.dims();
        let y = group_norm(&self.norm, x.clone(), false);
        let flat = |conv: &Conv2d| convolve(conv, y.clone()).flatten::<3>(2, 3); // [N, c, HW]
        let (q, k, v) = (flat(&self.q), flat(&self.k), flat(&self.v));
        let scores = q.swap_dims(1, 2).matmul(k) * (channels as f64).powf(-0.5); // [N, HW, HW]
        let dtype = scores.dtype();
        let weights = softmax(scores.cast(burn::tensor::DType::F32), 2).cast(dtype);
        let y = v.matmul(weights.swap_dims(1, 2)); // [N, c, HW]
        x + convolve(&self.proj_out, y.reshape([n, channels, height, width]))
    }
}

impl MidBlock {
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        Self {
            block_1: ResBlock::new(channels, channels, device),
            attn_1: AttnBlock::new(channels, device),
            block_2: ResBlock::new(channels, channels, device),
        }
    }

    pub(super) fn norms(&mut self) -> impl Iterator<Item = &mut GroupNorm> {
        let Self { block_1, attn_1, block_2 } = self;
        block_1.norms().into_iter().chain([&mut attn_1.norm]).chain(block_2.norms())
    }

    /// `[N, c, H, W]` to the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.block_2.forward(self.attn_1.forward(self.block_1.forward(x)))
    }
}

impl Sampler {
    /// 3×3 with stride 2; zeros are added on the **right and bottom** only.
    pub(super) fn down(channels: usize, device: &Device) -> Self {
        let conv = Conv2dConfig::new([channels, channels], [3, 3])
            .with_stride([2, 2])
            .with_padding(PaddingConfig2d::Explicit(0, 0, 1, 1));
        Self { conv: conv.init(device) }
    }

    /// 3×3 after nearest-neighbour doubling.
    pub(super) fn up(channels: usize, device: &Device) -> Self {
        Self { conv: conv3(channels, channels, device) }
    }

    /// `[N, c, H, W]` to `[N, c, H/2, W/2]`.
    pub fn halve(&self, x: Tensor<4>) -> Tensor<4> {
        convolve(&self.conv, x)
    }

    /// `[N, c, H, W]` to `[N, c, 2H, 2W]`.
    pub fn double(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        let doubled = InterpolateOptions::new(InterpolateMode::Nearest)
            .with_output_size([2 * height, 2 * width]);
        convolve(&self.conv, interpolate(x, doubled))
    }
}
