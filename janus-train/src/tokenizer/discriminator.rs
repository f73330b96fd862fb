//! The critic of reconstructions: PatchGAN, which judges overlapping patches one by one.
//!
//! 4×4 convolutions, most of them halving the sides; BatchNorm from the second on; LeakyReLU 0.2;
//! one number per patch at the end. As LlamaGen has it, after pix2pix
//! <https://arxiv.org/abs/1611.07004>.

use burn::module::{Module, Param};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::activation::leaky_relu;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::weights::{Law, llama};

const SLOPE: f64 = 0.2;
/// ε of PyTorch's BatchNorm.
const NORM_EPS: f64 = 1e-5;

/// Sizes of the critic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriticConfig {
    /// Convolutions that halve the sides.
    pub layers: usize,
    /// Channels of the first; they double up to eight times as many.
    pub width: usize,
}

/// The critic.
#[derive(Module, Debug)]
pub struct Critic {
    /// In order; the last gives one channel.
    pub layers: Vec<CriticLayer>,
}

/// One convolution and what follows it.
#[derive(Module, Debug)]
pub struct CriticLayer {
    /// 4×4.
    pub conv: Conv2d,
    /// Absent after the first and the last.
    pub norm: Option<BatchNorm>,
}

/// Normalises each channel by the pictures at hand. The original also keeps means for later use,
/// which for a critic never comes.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Of each channel.
    pub weight: Param<Tensor<1>>,
    /// Of each channel.
    pub bias: Param<Tensor<1>>,
}

impl CriticConfig {
    /// Channels of convolution `i`.
    fn channels(&self, i: usize) -> usize {
        self.width * (1 << i.min(3))
    }

    /// The smallest side of a picture that leaves a patch to judge.
    pub fn least_side(&self) -> usize {
        // Two convolutions without stride take one place each.
        3 << self.layers
    }

    /// A critic whose weights are not made yet.
    pub fn init(&self, device: &Device) -> Critic {
        let layer = |input, output, stride, norm: bool| CriticLayer {
            conv: Conv2dConfig::new([input, output], [4, 4])
                .with_stride([stride, stride])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                // The norm has a bias of its own.
                .with_bias(!norm)
                .init(device),
            norm: norm.then(|| BatchNorm {
                weight: Param::from_tensor(Tensor::ones([output], device)),
                bias: Param::from_tensor(Tensor::zeros([output], device)),
            }),
        };
        let mut layers = vec![layer(3, self.channels(0), 2, false)];
        for i in 1..=self.layers {
            let stride = if i < self.layers { 2 } else { 1 };
            layers.push(layer(self.channels(i - 1), self.channels(i), stride, true));
        }
        layers.push(layer(self.channels(self.layers), 1, 1, false));
        Critic { layers }
    }
}

/// How the critic begins: N(0, 0.02), its norms N(1, 0.02), biases 0.
pub fn law(name: &str, shape: &[usize]) -> Law {
    let bell = |mean| Law::Normal { mean, deviation: 0.02 };
    match llama(name, shape) {
        Law::Constant(1.0) => bell(1.0),
        Law::Constant(bias) => Law::Constant(bias),
        _ => bell(0.0),
    }
}

impl Critic {
    /// How real each patch looks.
    ///
    /// # Shapes
    /// - `pixels`: `[N, 3, S, S]` in [-1, 1]
    /// - output: `[N, 1, p, p]`
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<4> {
        let last = self.layers.len() - 1;
        self.layers.iter().enumerate().fold(pixels, |x, (i, layer)| {
            let x = layer.conv.forward(x);
            let x = layer.norm.iter().fold(x, |x, norm| norm.forward(x));
            if i == last { x } else { leaky_relu(x, SLOPE) }
        })
    }
}

impl BatchNorm {
    /// `[N, c, H, W]` to the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let channels = x.dims()[1];
        let mean = |x: Tensor<4>| x.mean_dim(0).mean_dim(2).mean_dim(3); // [1, c, 1, 1]
        let x = x.clone() - mean(x);
        let deviation = (mean(x.clone().square()) + NORM_EPS).sqrt();
        let each = |param: &Param<Tensor<1>>| param.val().reshape([1, channels, 1, 1]);
        x / deviation * each(&self.weight) + each(&self.bias)
    }
}
