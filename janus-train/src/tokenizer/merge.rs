//! Codes that stand for one thing, made one.
//!
//! A norm sees the whole picture, so the latents of a plain ground lie a few degrees apart, by what is
//! on it, and `revive` gives codes to all of them: on the scenes of janus-tiny each ground was four to
//! nine codes, at random to whoever draws with them, a nat for every square of a picture. What has a
//! shape is far rarer, its codes are one for each kind of square, and they stay as they are.
//!
//! Ours, and off unless a recipe asks for it.

use std::cmp::Reverse;

use burn::tensor::Tensor;
use janus_model::vq::VqModel;

use super::revive::{Moves, floats};
use crate::data::random::hash;
use crate::weights::to_unit;

/// A code that at least one in so many squares of a step chose takes what lies around it.
const FREQUENT: u64 = 50;
/// Directions that are tried for one that is far from every code.
const TRIES: u64 = 256;

/// Moves codes that lie within `degrees` of a more frequent one to where no latent is. `counts` says
/// how often each was chosen in this step.
pub fn merged(
    vq: &VqModel,
    counts: &[u64],
    degrees: f64,
    (seed, step): (u64, u64),
) -> Option<Moves> {
    let total: u64 = counts.iter().sum();
    let weight: Tensor<2> = vq.quantize.embedding.weight.val();
    let [codes, width] = weight.dims();
    let mut rows = floats(weight);
    rows.chunks_exact_mut(width).for_each(to_unit);
    let row = |code: usize| &rows[code * width..][..width];
    let near = (degrees.to_radians().cos()) as f32;
    let mut frequent: Vec<usize> = (0..codes).filter(|c| counts[*c] * FREQUENT >= total).collect();
    frequent.retain(|code| counts[*code] > 0);
    frequent.sort_by_key(|code| (Reverse(counts[*code]), *code));
    let mut gone = vec![false; codes];
    for code in frequent {
        if gone[code] {
            continue;
        }
        for other in (0..codes).filter(|other| *other != code) {
            gone[other] |= counts[other] <= counts[code] && dot(row(code), row(other)) > near;
        }
    }
    let moved: Vec<usize> = (0..codes).filter(|code| gone[*code]).collect();
    if moved.is_empty() {
        return None;
    }
    let nearest = |direction: &[f32]| {
        let kept = (0..codes).filter(|code| !gone[*code]);
        kept.map(|code| dot(row(code), direction)).fold(-1.0, f32::max)
    };
    let tried = (0..TRIES).map(|number| direction(width, hash(&[seed, step, number])));
    let tried = tried.map(|direction| (nearest(&direction), direction));
    let (_, far) = tried.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
    let count = moved.len();
    Some(Moves { codes: moved, rows: far.repeat(count) })
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Any direction, all about as likely.
fn direction(width: usize, chance: u64) -> Vec<f32> {
    // A sum of four even numbers is near enough to a normal one.
    let even = |i: usize, j: u64| (hash(&[chance, i as u64, j]) >> 40) as f32 / (1 << 24) as f32;
    let mut row: Vec<f32> =
        (0..width).map(|i| (0..4).map(|j| even(i, j) - 0.5).sum::<f32>()).collect();
    to_unit(&mut row);
    row
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use janus_model::vq::VqConfig;

    use super::*;

    /// The frequent code stays, its neighbours go far away, and what is as near to a rare one stays.
    #[test]
    fn only_neighbours_of_frequent_codes_move() {
        let device = Device::flex();
        let sizes = VqConfig { num_embeddings: 5, embed_dim: 2, ..VqConfig::vq_16() };
        let sizes = VqConfig { base_channels: 32, channel_multiplier: vec![1, 1], ..sizes };
        let mut vq = sizes.init(&device);
        let rows = [[1.0, 0.05], [2.0, 0.0], [0.0, 1.0], [0.05, 1.0], [1.0, -0.3]];
        let codebook = &mut vq.quantize.embedding;
        codebook.weight = codebook.weight.clone().map(|_| Tensor::from_floats(rows, &device));
        let moves = merged(&vq, &[40, 57, 1, 1, 1], 5.0, (0, 0)).expect("one is near");
        assert_eq!(moves.codes, [0]);
        // Away from all that stay: in the quarter that none is in.
        assert!(moves.rows[0] < 0.0 && moves.rows[1] < 0.2, "{:?}", moves.rows);
        assert!((dot(&moves.rows, &moves.rows) - 1.0).abs() < 1e-5);
        assert!(merged(&vq, &[40, 57, 1, 1, 1], 2.0, (0, 0)).is_none());
        let all = merged(&vq, &[40, 57, 1, 1, 1], 20.0, (0, 0)).expect("two are near");
        assert_eq!(all.codes, [0, 4]);
        assert!(merged(&vq, &[0; 5], 20.0, (0, 0)).is_none());
    }
}
