//! Norms that are almost lines: how a tokenizer of few channels learns at all.
//!
//! The tokenizer's norms cut any number of channels into 32 groups. With two channels to a group,
//! as a small model has where pictures are large, a map without contrast leaves them as ±1: tint is
//! lost just before the last convolution, and so is its gradient. (The original has four channels
//! there, where two numbers survive.) With an epsilon of about 1 a norm of small values is a line,
//! and the pictures come through from the first step on.
//!
//! ```text
//! (x − μ) / √(σ² + ε)  =  (s·x − s·μ) / √(s²·σ² + s²·ε)
//! ```
//! So a run that trains with ε = 2²⁰ · 10⁻⁶ is a run with the checkpoint's 10⁻⁶ whose streams are
//! smaller by s = 2⁻¹⁰, which costs no bit. Only the optimizer sees the difference. What is kept is
//! always of the checkpoint's kind: [`harden`] and [`soften`] translate.
//!
//! Residual branches then begin as zero and streams keep their strength, which [`law`] sees to: with
//! PyTorch's start a stream is halved by every convolution in it, and the branches drown it.
//!
//! Latents are divided by their length, and of what a fresh encoder sees brightness is most by far:
//! all of them would point one way or the other, and hue be learnt from nearly nothing. So
//! [`whiten`] gives every direction the same share of the first pictures, before the first step.

use burn::module::Param;
use burn::store::burn_pack::Error;
use burn::tensor::{Bytes, DType, Tensor, TensorData};
use janus_model::checkpoint::{LazyTensor, cast};
use janus_model::vq::{NORM_EPS, VqModel};

use crate::weights::{Law, tokenizer};

/// What streams are larger by while training.
const SCALE: f32 = 1024.0;
/// Epsilon of the norms while training.
pub const EPSILON: f64 = NORM_EPS * (SCALE as f64) * (SCALE as f64);

/// What a convolution does to the streams, by its canonical name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Reads what is no stream and writes one: its weight and bias have the stream's size.
    Into,
    /// Reads one and writes one: only its bias has.
    Along,
    /// Ends before the next norm is reached, or begins behind the last.
    Outside,
}

impl Place {
    fn of(name: &str) -> Self {
        let mut parts = name.rsplit('.').skip(1);
        match (parts.next(), parts.next()) {
            (Some("conv_in" | "conv1" | "conv2" | "proj_out"), _) => Self::Into,
            (Some("nin_shortcut"), _) | (Some("conv"), Some("downsample" | "upsample")) => {
                Self::Along
            }
            _ => Self::Outside,
        }
    }
}

/// Weights of a fresh tokenizer: branches that give nothing yet, streams that neither grow nor fade.
pub fn law(name: &str, shape: &[usize]) -> Law {
    let branch = name.contains(".conv2.") || name.contains(".proj_out.");
    let stream = |name: &str| {
        Place::of(name) == Place::Along
            || ["conv_in", "conv_out", "quant_conv"].iter().any(|part| name.contains(part))
    };
    match tokenizer(name, shape) {
        Law::Uniform { .. } if branch => Law::Constant(0.0),
        Law::Uniform { bound } if stream(name) => Law::Uniform { bound: bound * 3.0f32.sqrt() },
        law => law,
    }
}

/// The tokenizer with latents of these pictures around zero, all directions of the same strength and
/// none with another: `L⁻¹ (z − μ)` where `L Lᵀ` is their covariance.
///
/// # Shapes
/// - `pixels`: `[N, 3, S, S]` in [-1, 1], on a device without gradients
pub fn whiten(mut vq: VqModel, still: &VqModel, pixels: Tensor<4>) -> VqModel {
    let latents = still.latents(pixels).swap_dims(0, 1).flatten::<2>(1, 3); // [e, N·g·g]
    let ([width, count], latents) = (latents.dims(), doubles(latents));
    let means: Vec<f64> =
        latents.chunks(count).map(|row| row.iter().sum::<f64>() / count as f64).collect();
    let covariance = |i: usize, j: usize| {
        let (a, b) = (&latents[i * count..][..count], &latents[j * count..][..count]);
        let products = a.iter().zip(b).map(|(a, b)| (a - means[i]) * (b - means[j]));
        products.sum::<f64>() / count as f64
    };
    let root = cholesky(width, covariance);
    let conv = &mut vq.quant_conv;
    let inputs = conv.weight.dims()[1];
    conv.weight = changed(&conv.weight, |weight| solve(&root, weight, inputs));
    conv.bias = conv.bias.as_ref().map(|bias| {
        let around = |bias: Vec<f64>| bias.iter().zip(&means).map(|(b, mean)| b - mean).collect();
        changed(bias, |bias| solve(&root, around(bias), 1))
    });
    vq
}

fn doubles<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().iter::<f64>().collect()
}

fn changed<const D: usize>(
    param: &Param<Tensor<D>>,
    by: impl FnOnce(Vec<f64>) -> Vec<f64>,
) -> Param<Tensor<D>> {
    param.clone().map(|tensor| {
        let (shape, device, asks) = (tensor.dims(), tensor.device(), tensor.is_require_grad());
        let values: Vec<f32> = by(doubles(tensor)).into_iter().map(|v| v as f32).collect();
        let data = TensorData::new(values, shape);
        Tensor::from_data(data, (&device, DType::F32)).set_require_grad(asks)
    })
}

/// Rows of the lower triangle whose square is this matrix, made regular where it is not.
fn cholesky(size: usize, matrix: impl Fn(usize, usize) -> f64) -> Vec<Vec<f64>> {
    let least = 1e-12 * (0..size).map(|i| matrix(i, i)).sum::<f64>() + f64::MIN_POSITIVE;
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(size);
    for i in 0..size {
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut row: Vec<f64> = Vec::with_capacity(i + 1);
        for (j, above) in rows.iter().enumerate() {
            row.push((matrix(i, j) - product(&row, above)) / above[j]);
        }
        row.push((matrix(i, i) - product(&row, &row)).max(least).sqrt());
        rows.push(row);
    }
    rows
}

/// `L⁻¹ B` for a matrix of `columns` columns.
fn solve(root: &[Vec<f64>], mut b: Vec<f64>, columns: usize) -> Vec<f64> {
    for (i, row) in root.iter().enumerate() {
        let (done, rest) = b.split_at_mut(i * columns);
        let target = &mut rest[..columns];
        for (factor, above) in row.iter().zip(done.chunks(columns)) {
            target.iter_mut().zip(above).for_each(|(value, above)| *value -= factor * above);
        }
        target.iter_mut().for_each(|value| *value /= row[i]);
    }
    b
}

/// Weights of training as those of a checkpoint.
pub fn harden(tensors: Vec<LazyTensor>) -> Vec<LazyTensor> {
    scaled(tensors, SCALE.recip())
}

/// Weights of a checkpoint as those of training.
pub fn soften(tensors: Vec<LazyTensor>) -> Vec<LazyTensor> {
    scaled(tensors, SCALE)
}

fn scaled(tensors: Vec<LazyTensor>, factor: f32) -> Vec<LazyTensor> {
    let one = |tensor: LazyTensor| match (Place::of(&tensor.name), tensor.name.ends_with(".bias")) {
        (Place::Into, _) | (Place::Along, true) => times(tensor, factor),
        _ => tensor,
    };
    tensors.into_iter().map(one).collect()
}

fn times(tensor: LazyTensor, factor: f32) -> LazyTensor {
    let (name, shape) = (tensor.name.clone(), tensor.shape.to_vec());
    let tensor = cast(tensor, DType::F32);
    let length = tensor.byte_len();
    LazyTensor::deferred(name, DType::F32, shape, None, length, move || {
        let bytes = tensor.to_bytes()?;
        let (values, _) = bytes.as_chunks::<4>();
        let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes) * factor);
        Ok::<_, Error>(Bytes::from_elems(values.collect::<Vec<f32>>()))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::{Device, Distribution, Tensor};
    use janus_model::load::part_tensors;
    use janus_model::vq::{VqConfig, VqModel};

    use super::*;
    use crate::parts::kept::filled;
    use crate::tokenizer::PREFIX;
    use crate::weights::begin;

    fn small() -> VqModel {
        let sizes = VqConfig { num_embeddings: 16, latent_channels: 32, ..VqConfig::vq_16() };
        let sizes = VqConfig { base_channels: 32, num_res_blocks: 1, ..sizes };
        VqConfig { channel_multiplier: vec![2, 1], ..sizes }.init(&Device::flex())
    }

    fn apart(a: &Tensor<4>, b: &Tensor<4>) -> f32 {
        (a.clone() - b.clone()).abs().max().into_scalar::<f32>()
    }

    /// Every kind of weight away from zero, so that each has its part in the sum.
    fn dense(name: &str, shape: &[usize]) -> Law {
        match tokenizer(name, shape) {
            Law::Constant(value) => Law::Normal { mean: value, deviation: 0.2 },
            law => law,
        }
    }

    #[test]
    fn the_hardened_tokenizer_is_the_same_function() {
        let soft = begin(small(), PREFIX, 3, dense).unwrap().with_norm_epsilon(EPSILON);
        let hard = filled(small(), PREFIX, harden(part_tensors(&soft, PREFIX)), None).unwrap();
        let pixels =
            Tensor::random([2, 3, 16, 16], Distribution::Uniform(-1.0, 1.0), &Device::flex());
        let ((a, codes_a), (b, codes_b)) =
            (soft.reconstruct(pixels.clone()), hard.reconstruct(pixels.clone()));
        let codes = |q: janus_model::vq::Quantized| q.codes.into_data();
        assert_eq!(codes(codes_a), codes(codes_b));
        assert_eq!(apart(&a, &b), 0.0);
        // The test would see a wrong epsilon.
        let (wrong, _) = hard.with_norm_epsilon(EPSILON).reconstruct(pixels);
        assert!(apart(&a, &wrong) > 0.01);
    }

    #[test]
    fn white_latents_have_every_direction_alike() {
        let vq = begin(small(), PREFIX, 3, law).unwrap().with_norm_epsilon(EPSILON);
        let pixels =
            Tensor::random([8, 3, 16, 16], Distribution::Uniform(-1.0, 1.0), &Device::flex());
        // Mostly brightness, as pictures are.
        let grey = pixels.clone().mean_dim(1);
        let pixels = pixels * 0.1 + grey;
        let covariance = |vq: &VqModel| {
            let rows = vq.latents(pixels.clone()).swap_dims(0, 1).flatten::<2>(1, 3);
            let count = rows.dims()[1];
            let rows = rows.clone() - rows.mean_dim(1);
            rows.clone().matmul(rows.transpose()) / count as f64
        };
        let off = |vq: &VqModel| {
            let found = covariance(vq);
            let one = Tensor::<2>::eye(found.dims()[0], &found.device());
            (found - one).abs().max().into_scalar::<f32>()
        };
        let white = whiten(vq.clone(), &vq, pixels.clone());
        // Measured: 1.2e-7.
        assert!(off(&white) < 1e-5);
        assert!(off(&vq) > 0.5);
        let mean = white.latents(pixels.clone()).swap_dims(0, 1).flatten::<2>(1, 3).mean_dim(1);
        assert!(mean.abs().max().into_scalar::<f32>() < 1e-4);
    }

    #[test]
    fn there_and_back_is_where_it_was() {
        let tensors = part_tensors(&begin(small(), PREFIX, 3, dense).unwrap(), PREFIX);
        let back = soften(harden(tensors.clone()));
        for (before, after) in tensors.iter().zip(&back) {
            assert_eq!(before.name, after.name);
            let bytes = [before, after].map(|tensor| tensor.to_bytes().unwrap().to_vec());
            assert_eq!(bytes[0], bytes[1], "{}", before.name);
        }
    }

    #[test]
    fn branches_begin_as_nothing_and_streams_at_full_strength() {
        let conv = [8, 3, 1, 1];
        let plain = Law::Uniform { bound: 3.0f32.sqrt().recip() };
        assert_eq!(law("a.mid.0.conv2.weight", &conv), Law::Constant(0.0));
        assert_eq!(law("a.mid.1.proj_out.weight", &conv), Law::Constant(0.0));
        assert_eq!(law("a.mid.0.conv1.weight", &conv), plain);
        let full = |name: &str| match law(name, &conv) {
            Law::Uniform { bound } => (bound - 1.0).abs() < 1e-6,
            _ => false,
        };
        for name in ["conv_in", "conv_out", "nin_shortcut", "upsample.conv", "post_quant_conv"] {
            assert!(full(&format!("a.{name}.weight")), "{name}");
        }
        assert_eq!(law("a.norm1.weight", &[8]), Law::Constant(1.0));
    }
}
