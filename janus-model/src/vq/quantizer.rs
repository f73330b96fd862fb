//! Nearest row of an L2-normalised codebook.
//!
//! Both sides are normalised: `id = argmin ‖z/‖z‖ − e/‖e‖‖²`, first minimum on ties. transformers
//! skips the normalisation when it encodes, which gives other codes; this follows the original.
//! Always in f32: the distance of neighbours drowns in bf16 rounding.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{DType, Device, Int, Tensor};

use super::VqConfig;

/// The codebook.
#[derive(Module, Debug)]
pub struct Quantizer {
    /// The rows.
    pub embedding: Codebook,
    grid: usize,
}

/// Named as in the checkpoint, `quantize.embedding.weight`.
#[derive(Module, Debug)]
pub struct Codebook {
    /// `[codes, e]`, not necessarily of unit length.
    pub weight: Param<Tensor<2>>,
}

/// What [`Quantizer::quantize`] makes of latents.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// `[N, e, h, w]` in f32: rows of the codebook in the forward pass, the normalised latents in
    /// the backward pass.
    pub latents: Tensor<4>,
    /// `[N·h·w]`, picture by picture in raster order.
    pub codes: Tensor<1, Int>,
    /// Mean square of what is between codes and latents; only the codebook feels it.
    pub codebook: Tensor<1>,
    /// The same number; only the latents feel it. Not weighted.
    pub commitment: Tensor<1>,
}

impl Quantizer {
    pub(super) fn new(config: &VqConfig, device: &Device) -> Self {
        let bound = 1.0 / config.num_embeddings as f64;
        let uniform = Initializer::Uniform { min: -bound, max: bound };
        let weight = uniform.init([config.num_embeddings, config.embed_dim], device);
        Self { embedding: Codebook { weight }, grid: config.grid() }
    }

    /// Codes of latents.
    ///
    /// # Shapes
    /// - `latents`: `[N, e, g, g]`
    /// - output: `[N, g·g]`, raster order
    pub fn nearest(&self, latents: Tensor<4>) -> Tensor<2, Int> {
        let [n, width, height, breadth] = latents.dims();
        let places = height * breadth;
        let z = latents.cast(DType::F32).flatten::<3>(2, 3).swap_dims(1, 2);
        let z = unit(z.reshape([n * places, width])); // [N·g·g, e]
        closest(z, self.rows()).reshape([n, places])
    }

    /// Latents snapped to their codes, as training sees it: what lies behind gets the gradient of
    /// the code as if it were the latent itself, and the two losses draw both towards each other.
    ///
    /// # Shapes
    /// - `latents`: `[N, e, h, w]`, any grid
    pub fn quantize(&self, latents: Tensor<4>) -> Quantized {
        let [n, width, height, breadth] = latents.dims();
        let z = directions(latents); // [N·h·w, e]
        let rows = self.rows(); // [codes, e]
        let codes = closest(z.clone().detach(), rows.clone().detach());
        let snapped = rows.select(0, codes.clone()); // [N·h·w, e]
        let apart = |a: &Tensor<2>, b: &Tensor<2>| (a.clone() - b.clone().detach()).square().mean();
        let (codebook, commitment) = (apart(&snapped, &z), apart(&z, &snapped));
        let through = z.clone() + (snapped - z).detach();
        let latents = through.reshape([n, height, breadth, width]).permute([0, 3, 1, 2]);
        Quantized { latents, codes, codebook, commitment }
    }

    /// Latents of codes.
    ///
    /// # Shapes
    /// - `codes`: `[N, g·g]`
    /// - output: `[N, e, g, g]` in f32, rows of unit length
    pub fn lookup(&self, codes: Tensor<2, Int>) -> Tensor<4> {
        let [n, places] = codes.dims();
        let rows = self.rows().select(0, codes.reshape([n * places])); // [N·g·g, e]
        let width = rows.dims()[1];
        rows.reshape([n, self.grid, self.grid, width]).permute([0, 3, 1, 2])
    }

    fn rows(&self) -> Tensor<2> {
        unit(self.embedding.weight.val().cast(DType::F32))
    }
}

/// `[N, e, h, w]` to `[N·h·w, e]` in f32, of unit length.
pub(super) fn directions(latents: Tensor<4>) -> Tensor<2> {
    let [n, width, height, breadth] = latents.dims();
    let z = latents.cast(DType::F32).permute([0, 2, 3, 1]);
    unit(z.reshape([n * height * breadth, width]))
}

/// The row closest to each of `z`, the first on ties. `[n, e]` and `[codes, e]` to `[n]`.
fn closest(z: Tensor<2>, rows: Tensor<2>) -> Tensor<1, Int> {
    let squares = |t: &Tensor<2>| t.clone().square().sum_dim(1);
    let cross = z.clone().matmul(rows.clone().transpose()); // [n, codes]
    let distance = squares(&z) + squares(&rows).transpose() - cross * 2.0;
    distance.argmin(1).squeeze_dim(1)
}

/// Rows divided by their length, as `torch.nn.functional.normalize`.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    x / length
}
