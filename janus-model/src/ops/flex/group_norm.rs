//! GroupNorm, with swish behind it or not, forward and back; see [`crate::ops::group_norm`].
//!
//! Each group of channels of each picture is one contiguous piece, read twice forward (statistics,
//! result) and three times back; pieces run in parallel.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;

use super::numbers;
use crate::ops::GroupRule;
use crate::ops::shared::{Shared, in_pieces};
use crate::ops::simd::{sigmoid, sum, widest};

/// `[N, C, H, W]` to the same.
pub fn forward(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    bias: FloatTensor<Flex>,
    rule: GroupRule,
) -> FloatTensor<Flex> {
    let shape = x.layout().shape().clone();
    let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.to_contiguous());
    let (x, weight, bias) = (numbers(&x), numbers(&weight), numbers(&bias));
    let (channels, places) = (shape[1], shape[2] * shape[3]);
    let group = channels / rule.groups;
    let size = (group * places).max(1);
    let [y] = in_pieces(x.len(), size, |piece, [y]| {
        let x = &x[piece * size..][..y.len()];
        let first = piece % rule.groups * group;
        let (mean, scale) = moments(x, places, rule.epsilon);
        let lines = y.chunks_exact_mut(places).zip(x.chunks_exact(places));
        for (channel, (y, x)) in (first..).zip(lines) {
            // y = a·x + b
            let a = weight[channel] * scale;
            line(y, x, a, bias[channel] - a * mean, rule.swish);
        }
    });
    FloatTensor::<Flex>::from_data(TensorData::new(y, shape))
}

/// Gradients by `x`, the weight and the bias.
pub fn backward(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    bias: FloatTensor<Flex>,
    gradient: FloatTensor<Flex>,
    rule: GroupRule,
) -> [FloatTensor<Flex>; 3] {
    let shape = x.layout().shape().clone();
    let [x, weight, bias, gradient] =
        [x, weight, bias, gradient].map(|tensor| tensor.to_contiguous());
    let (x, gradient) = (numbers(&x), numbers(&gradient));
    let (weight, bias) = (numbers(&weight), numbers(&bias));
    let (pictures, channels, places) = (shape[0], shape[1], shape[2] * shape[3]);
    let group = channels / rule.groups;
    let mut parts = vec![0.0; 2 * pictures * channels];
    let shared = Shared::new(&mut parts);
    let size = (group * places).max(1);
    let [by_x] = in_pieces(x.len(), size, |piece, [by_x]| {
        let [x, gradient] = [x, gradient].map(|x| &x[piece * size..][..by_x.len()]);
        let first = piece % rule.groups * group;
        let (mean, scale) = moments(x, places, rule.epsilon);
        let (mut level, mut along) = (0.0f64, 0.0f64);
        let lines = by_x.chunks_exact_mut(places).zip(x.chunks_exact(places));
        for (at, ((by_x, x), gradient)) in lines.zip(gradient.chunks_exact(places)).enumerate() {
            let (channel, index) = (first + at, piece / rule.groups * channels + first + at);
            let (w, b) = (weight[channel], bias[channel]);
            // Into `by_x` goes the gradient by the normalised number, before the weight.
            let (by_bias, by_weight) =
                through_swish(by_x, x, gradient, [w, b, mean, scale], rule.swish);
            level += f64::from(w * by_bias);
            along += f64::from(w * by_weight);
            // SAFETY: this piece alone has these channels of this picture.
            unsafe {
                *shared.at(index) = by_weight;
                *shared.at(pictures * channels + index) = by_bias;
            }
        }
        let count = x.len() as f64;
        let (level, along) = ((level / count) as f32, (along / count) as f32);
        let lines = by_x.chunks_exact_mut(places).zip(x.chunks_exact(places));
        for (channel, (by_x, x)) in (first..).zip(lines) {
            finish(by_x, x, [weight[channel], mean, scale, level, along]);
        }
    });
    let total = |parts: &[f32]| {
        let mut sums = vec![0.0f32; channels];
        for part in parts.chunks_exact(channels.max(1)) {
            sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        FloatTensor::<Flex>::from_data(TensorData::new(sums, [channels]))
    };
    let (by_weight, by_bias) = parts.split_at(pictures * channels);
    let (by_weight, by_bias) = (total(by_weight), total(by_bias));
    [FloatTensor::<Flex>::from_data(TensorData::new(by_x, shape)), by_weight, by_bias]
}

/// Mean, and 1 / √(variance + ε); lines are summed in f32, their sums in f64.
fn moments(x: &[f32], places: usize, epsilon: f64) -> (f32, f32) {
    let count = x.len() as f64;
    let whole = |shift: f32, square: bool| {
        let lines = x.chunks_exact(places.max(1));
        lines.map(|line| f64::from(line_sum(line, shift, square))).sum::<f64>() / count
    };
    let mean = whole(0.0, false) as f32;
    (mean, (1.0 / (whole(mean, true) + epsilon).sqrt()) as f32)
}

widest! {
    fn line_sum(x: &[f32], shift: f32, square: bool) -> f32 {
        let _ = FMA;
        match square {
            true => sum(x.len(), |i| (x[i] - shift) * (x[i] - shift)),
            false => sum(x.len(), |i| x[i]),
        }
    }
}

widest! {
    fn line(y: &mut [f32], x: &[f32], a: f32, b: f32, swish: bool) {
        let x = &x[..y.len()];
        if swish {
            for i in 0..y.len() {
                let z = a * x[i] + b;
                y[i] = z * sigmoid::<FMA>(z);
            }
        } else {
            for i in 0..y.len() {
                y[i] = a * x[i] + b;
            }
        }
    }
}

widest! {
    /// Returns the sums of what is written, and of it times the normalised number.
    fn through_swish(
        to: &mut [f32],
        x: &[f32],
        gradient: &[f32],
        numbers: [f32; 4],
        swish: bool,
    ) -> (f32, f32) {
        let [weight, bias, mean, scale] = numbers;
        let (x, gradient) = (&x[..to.len()], &gradient[..to.len()]);
        if swish {
            for i in 0..to.len() {
                let z = (x[i] - mean) * scale * weight + bias;
                let open = sigmoid::<FMA>(z);
                to[i] = gradient[i] * open * (1.0 + z * (1.0 - open));
            }
        } else {
            to.copy_from_slice(gradient);
        }
        let to: &[f32] = to;
        (sum(to.len(), |i| to[i]), sum(to.len(), |i| to[i] * (x[i] - mean)) * scale)
    }
}

widest! {
    /// `(g·w − level − x̂·along) / σ`.
    fn finish(by_x: &mut [f32], x: &[f32], numbers: [f32; 5]) {
        let _ = FMA;
        let [weight, mean, scale, level, along] = numbers;
        let x = &x[..by_x.len()];
        for i in 0..by_x.len() {
            let normal = (x[i] - mean) * scale;
            by_x[i] = (by_x[i] * weight - level - normal * along) * scale;
        }
    }
}
