//! The sigmoid loss: of every pair of picture and caption, whether they belong together.
//!
//! `L = 1/n · Σᵢⱼ log(1 + exp(−yᵢⱼ (exp(t)·xᵢ·zⱼ + b)))`, where y is 1 for a pair and −1 for
//! pictures and captions of different pairs; x and z are of unit length; t and b are learnt.
//! Source: arXiv 2303.15343, algorithm 1.
//!
//! Its gradients are simple enough to be written down, so that a large batch takes the memory of a
//! few rows of pairs at a time, and the towers need no graph of each other.

use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Int, Tensor};

/// The loss of a batch, and its gradients.
#[derive(Clone, Debug)]
pub struct PairLoss {
    /// `[1]`.
    pub loss: Tensor<1>,
    /// Share of the pictures whose own caption fits best, `[1]`.
    pub found: Tensor<1>,
    /// With respect to the pictures' features, `[n, e]`.
    pub pictures: Tensor<2>,
    /// With respect to the captions', `[n, e]`.
    pub captions: Tensor<2>,
    /// With respect to t, `[1]`.
    pub temperature: Tensor<1>,
    /// With respect to b, `[1]`.
    pub bias: Tensor<1>,
}

/// The loss of `n` pairs, `rows` pictures at a time. No graph is made.
///
/// # Shapes
/// - `pictures`, `captions`: `[n, e]`, rows of unit length; the same row is a pair
/// - `temperature`, `bias`: `[1]`
pub fn pairs(
    pictures: &Tensor<2>,
    captions: &Tensor<2>,
    (temperature, bias): (&Tensor<1>, &Tensor<1>),
    rows: usize,
) -> PairLoss {
    let [n, _] = pictures.dims();
    let device = pictures.device();
    let zero = || Tensor::<1>::zeros([1], &device);
    let scale = temperature.clone().exp().reshape([1, 1]);
    let bias = bias.clone().reshape([1, 1]);
    let own = Tensor::<1, Int>::arange(0..n as i64, &device).reshape([1, n]);
    let mut sum = PairLoss {
        loss: zero(),
        found: zero(),
        pictures: pictures.zeros_like(),
        captions: captions.zeros_like(),
        temperature: zero(),
        bias: zero(),
    };
    let mut slopes = Vec::new();
    for first in (0..n).step_by(rows.max(1)) {
        let last = (first + rows.max(1)).min(n);
        let some = pictures.clone().slice_dim(0, first..last); // [r, e]
        let scaled = some.clone().matmul(captions.clone().transpose()) * scale.clone(); // [r, n]
        let fits = scaled.clone() + bias.clone();
        let here = Tensor::<1, Int>::arange(first as i64..last as i64, &device);
        let here = here.reshape([last - first, 1]);
        let y = here.clone().equal(own.clone()).float() * 2.0 - 1.0; // [r, n]
        let best = fits.clone().argmax(1).equal(here).float();
        let likely = fits * y.clone();
        let slope = sigmoid(-likely.clone()) * y * (-1.0 / n as f64); // [r, n]
        sum.loss = sum.loss - log_sigmoid(likely).sum() / n as f64;
        sum.found = sum.found + best.sum() / n as f64;
        sum.temperature = sum.temperature + (slope.clone() * scaled).sum();
        sum.bias = sum.bias + slope.clone().sum();
        slopes.push(slope.clone().matmul(captions.clone()) * scale.clone());
        sum.captions = sum.captions + slope.transpose().matmul(some) * scale.clone();
    }
    sum.pictures = Tensor::cat(slopes, 0);
    sum
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    /// By hand: two orthogonal pairs, exp(t) = 1, b = 0. Fits are 1 on the diagonal and 0 beside.
    #[test]
    fn two_pairs_by_hand() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[1.0, 0.0], [0.0, 1.0]], &device);
        let zero = Tensor::<1>::zeros([1], &device);
        for rows in [1, 2, 9] {
            let loss = pairs(&x, &x, (&zero, &zero), rows);
            let expected = (1.0 + (-1.0f64).exp()).ln() + 2.0f64.ln();
            assert!((f64::from(values(loss.loss)[0]) - expected).abs() < 1e-6);
            assert_eq!(values(loss.found), [1.0]);
            // σ(−1) = 0.26894: pairs are drawn together, others apart with a half.
            let slope = |v: f32| (v * 1e4).round() / 1e4;
            let found: Vec<f32> = values(loss.pictures).into_iter().map(slope).collect();
            assert_eq!(found, [-0.1345, 0.25, 0.25, -0.1345]);
            assert!((values(loss.bias)[0] - (0.5 - 0.26894)).abs() < 1e-4);
            assert!((values(loss.temperature)[0] + 0.26894).abs() < 1e-4);
        }
    }
}
