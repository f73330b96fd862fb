//! Codes that tell of their own square only.
//!
//! An encoder of 3×3 convolutions lets every code tell of its neighbours, too: on the scenes of
//! janus-tiny the same plain ground is a dozen codes, by what lies around it. A large model learns
//! that; to a small one it is noise.
//!
//! So the taps that reach out are zero, and stay so: of a convolution all but the middle one, of one
//! that halves (which sees the pixels 0, 1 and 2 from its own first one on) the last row and column.
//! Attention gives nothing. The network is the same as ever, to whoever loads it. Norms still see
//! the whole picture: a mean and a strength, which codes may drop.

use burn::module::Param;
use burn::nn::conv::Conv2d;
use burn::tensor::{DType, Tensor, TensorData};
use janus_model::vq::{ResBlock, VqModel};

/// The tokenizer with an encoder that keeps to squares.
pub fn kept(mut vq: VqModel) -> VqModel {
    let encoder = &mut vq.encoder;
    middle(&mut encoder.conv_in);
    for level in &mut encoder.conv_blocks {
        level.res.iter_mut().for_each(block);
        level.attn.iter_mut().for_each(|attn| nothing(&mut attn.proj_out));
        if let Some(sampler) = &mut level.downsample {
            only(&mut sampler.conv, |x, y| x < 2 && y < 2);
        }
    }
    let mid = &mut encoder.mid;
    [&mut mid.block_1, &mut mid.block_2].into_iter().for_each(block);
    nothing(&mut mid.attn_1.proj_out);
    middle(&mut encoder.conv_out);
    vq
}

fn block(block: &mut ResBlock) {
    [&mut block.conv1, &mut block.conv2].into_iter().for_each(middle);
}

fn middle(conv: &mut Conv2d) {
    only(conv, |x, y| (x, y) == (1, 1));
}

fn nothing(conv: &mut Conv2d) {
    only(conv, |_, _| false);
    conv.bias = conv.bias.take().map(|bias| bias.map(|bias| masked(bias, &[0.0], [1])));
}

/// Zeroes the taps that are not wanted.
fn only(conv: &mut Conv2d, wanted: impl Fn(usize, usize) -> bool) {
    let weight: &Param<Tensor<4>> = &conv.weight;
    conv.weight = weight.clone().map(|weight| {
        let [_, _, height, width] = weight.dims();
        let taps = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let mask: Vec<f32> = taps.map(|(x, y)| f32::from(wanted(x, y))).collect();
        masked(weight, &mask, [1, 1, height, width])
    });
}

/// The product, as a weight of its own: what learns must not remember how it came about.
fn masked<const D: usize>(weight: Tensor<D>, mask: &[f32], shape: [usize; D]) -> Tensor<D> {
    let (device, tracked) = (weight.device(), weight.is_require_grad());
    let mask = Tensor::from_data(TensorData::new(mask.to_vec(), shape), (&device, DType::F32));
    (weight.detach() * mask).detach().set_require_grad(tracked)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};
    use janus_model::vq::VqConfig;

    use super::*;

    /// What lies in one square changes the latents of no other, but for what norms see: a mean, to which
    /// a square is one part in sixteen. Measured 6.2e-2 of its own change.
    #[test]
    fn squares_keep_to_themselves() {
        let device = Device::flex();
        let config = VqConfig {
            base_channels: 32,
            channel_multiplier: vec![1, 2],
            num_res_blocks: 1,
            latent_channels: 32,
            num_embeddings: 16,
            embed_dim: 4,
            ..VqConfig::vq_16()
        };
        // Norms as in training; only their mean reaches out.
        let vq = config.init(&device).with_norm_epsilon(crate::tokenizer::soft::EPSILON);
        let change = |vq: &VqModel| {
            let pixels =
                Tensor::<4>::random([1, 3, 8, 8], Distribution::Uniform(-1.0, 1.0), &device);
            let mut other = pixels.clone().slice([0..1, 0..3, 2..4, 4..6]);
            other = other.flip([2, 3]);
            let other = pixels.clone().slice_assign([0..1, 0..3, 2..4, 4..6], other);
            let change = vq.latents(pixels) - vq.latents(other);
            let change = change.abs().sum_dim(1).into_data(); // [1, 1, 4, 4]
            change.iter::<f32>().collect::<Vec<_>>()
        };
        // Of the largest change, that of each place.
        let shares = |changes: Vec<f32>| {
            let most = changes.iter().copied().fold(0.0, f32::max);
            changes.into_iter().map(|change| change / most).collect::<Vec<_>>()
        };
        let (before, after) = (shares(change(&vq)), shares(change(&kept(vq))));
        println!("measured {before:?} {after:?}");
        let others = |shares: &[f32]| {
            let others = (0..16).filter(|at| *at != 6).map(|at| shares[at]);
            others.fold(0.0, f32::max)
        };
        assert!(others(&before) > 0.3, "{before:?}");
        assert!(after[6] == 1.0 && others(&after) < 0.15, "{after:?}");
    }
}
