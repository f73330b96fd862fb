//! LPIPS: how different two pictures look, by the features of a network that knows objects.
//!
//! VGG-16 up to five depths; features of unit length per place; squared differences, weighted per
//! channel, averaged over places, summed over depths. Frozen. <https://arxiv.org/abs/1801.03924>
//!
//! The weights are not ours to ship: `vgg` is torchvision's `vgg16` state dict, `linear` the file
//! of the lpips package, each as PyTorch file or safetensors. What else they hold is not read.

use std::path::{Path, PathBuf};

use burn::tensor::activation::relu;
use burn::tensor::module::{conv2d, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Tensor, TensorData};
use janus_model::checkpoint::{Checkpoint, LazyTensor, Limits, cast};
use janus_model::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// Where the published weights lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LpipsConfig {
    /// torchvision's `vgg16`.
    pub vgg: PathBuf,
    /// The lpips package's `vgg.pth`.
    pub linear: PathBuf,
}

/// Numbers of VGG's convolutions in torchvision's list of layers, by depth; a pool is between.
const DEPTHS: [&[usize]; 5] = [&[0, 2], &[5, 7], &[10, 12, 14], &[17, 19, 21], &[24, 26, 28]];
/// From [-1, 1] to what VGG was trained on.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];
/// Below the length of features.
const EPS: f64 = 1e-10;

/// The network, frozen.
#[derive(Clone, Debug)]
pub struct Lpips {
    depths: Vec<Depth>,
    shift: Tensor<4>,
    scale: Tensor<4>,
}

#[derive(Clone, Debug)]
struct Depth {
    /// Kernels and biases.
    convs: Vec<(Tensor<4>, Tensor<1>)>,
    /// `[1, c, 1, 1]`.
    weights: Tensor<4>,
}

/// Why the network cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LpipsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] Error),
    /// A file holds something else.
    #[error("{path}: {problem}", path = path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl LpipsError {
    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File(error) => error.kind(),
            Self::Weights { .. } => ErrorKind::Config,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Weights { .. } => Some(
                "lpips.vgg is the state dict of torchvision's vgg16, lpips.linear the file of the \
                 lpips package; without [lpips] the perceptual term is left out"
                    .into(),
            ),
        }
    }
}

/// A weight file and the tensors in it.
struct File<'a> {
    path: &'a Path,
    checkpoint: Checkpoint,
    device: &'a Device,
}

impl<'a> File<'a> {
    fn open(path: &'a Path, device: &'a Device) -> Result<Self, LpipsError> {
        let checkpoint = Checkpoint::open(path, &Limits::default()).map_err(Error::from)?;
        Ok(Self { path, checkpoint, device })
    }

    fn wrong(&self, problem: String) -> LpipsError {
        LpipsError::Weights { path: self.path.to_owned(), problem }
    }

    /// A tensor of a shape; 0 stands for any length.
    fn tensor<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Tensor<D>, LpipsError> {
        let find = |tensor: &&LazyTensor| tensor.name == name;
        let tensor = self.checkpoint.raw().iter().find(find);
        let tensor = tensor.ok_or_else(|| self.wrong(format!("there is no tensor {name}")))?;
        let found = tensor.shape.to_vec();
        let fits = |(found, wanted): (&usize, &usize)| *wanted == 0 || found == wanted;
        let float = matches!(tensor.dtype, DType::F32 | DType::F16 | DType::BF16);
        if found.len() != D || !found.iter().zip(&shape).all(fits) || !float {
            let problem = format!("{name} is {found:?} of {:?}, not {shape:?}", tensor.dtype);
            return Err(self.wrong(problem));
        }
        let bytes = cast(tensor.clone(), DType::F32).to_bytes();
        let bytes = bytes.map_err(|error| self.wrong(format!("{name}: {error}")))?;
        let data = TensorData::from_bytes(bytes, found, DType::F32);
        Ok(Tensor::from_data(data, self.device))
    }
}

impl Lpips {
    /// Reads both files.
    ///
    /// # Errors
    /// See [`LpipsError`].
    pub fn load(config: &LpipsConfig, device: &Device) -> Result<Self, LpipsError> {
        let vgg = File::open(&config.vgg, device)?;
        let linear = File::open(&config.linear, device)?;
        let mut channels = 3;
        let mut depths = Vec::new();
        for (depth, numbers) in DEPTHS.iter().enumerate() {
            let mut convs = Vec::new();
            for number in *numbers {
                let name = |leaf| format!("features.{number}.{leaf}");
                let kernel: Tensor<4> = vgg.tensor(&name("weight"), [0, channels, 3, 3])?;
                channels = kernel.dims()[0];
                convs.push((kernel, vgg.tensor(&name("bias"), [channels])?));
            }
            let name = format!("lin{depth}.model.1.weight");
            depths.push(Depth { convs, weights: linear.tensor(&name, [1, channels, 1, 1])? });
        }
        let each = |values: [f32; 3]| {
            Tensor::from_data(TensorData::new(values.to_vec(), [1, 3, 1, 1]), device)
        };
        Ok(Self { depths, shift: each(SHIFT), scale: each(SCALE) })
    }

    /// Mean distance of pictures from others, pair by pair.
    ///
    /// # Shapes
    /// - both `[N, 3, S, S]` in [-1, 1], at least 16 pixels wide
    pub fn distance(&self, a: Tensor<4>, b: Tensor<4>) -> Tensor<1> {
        let ready = |x: Tensor<4>| (x - self.shift.clone()) / self.scale.clone();
        let (mut a, mut b) = (ready(a), ready(b));
        let mut sum: Option<Tensor<1>> = None;
        for (number, depth) in self.depths.iter().enumerate() {
            (a, b) = (depth.forward(a, number > 0), depth.forward(b, number > 0));
            let apart = (unit(a.clone()) - unit(b.clone())).square();
            // The mean over places of a sum over channels.
            let distance = (apart * depth.weights.clone()).sum_dim(1).mean();
            sum = Some(sum.map_or(distance.clone(), |sum| sum + distance));
        }
        sum.expect("there are depths")
    }
}

impl Depth {
    fn forward(&self, x: Tensor<4>, pooled: bool) -> Tensor<4> {
        let x = if pooled { max_pool2d(x, MaxPoolOptions::new([2, 2])) } else { x };
        self.convs.iter().fold(x, |x, (kernel, bias)| {
            let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
            relu(conv2d(x, kernel.clone(), Some(bias.clone()), options))
        })
    }
}

/// Features of unit length over channels.
fn unit(x: Tensor<4>) -> Tensor<4> {
    // Where all features are 0 the root has no slope; the bound leaves the value as it is.
    let length = x.clone().square().sum_dim(1).clamp_min(EPS * EPS).sqrt() + EPS;
    x / length
}
