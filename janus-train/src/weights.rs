//! Weights of something that begins from nothing, and parts of a model by name.
//!
//! A fresh tensor is a function of the seed and its name: the same bits in every run, whatever
//! else the model has, and nothing is kept until somebody reads it.

use std::fmt;
use std::path::Path;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::store::burn_pack::Error;
use burn::tensor::{Bytes, DType};
use janus_model::checkpoint::LazyTensor;
use janus_model::load::{fill_part, part_names};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::data::random::hash;
use crate::step::named;

/// Numbers made at a time by one thread; even, as they come in pairs.
const CHUNK: usize = 1 << 16;

/// How a fresh tensor is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// The same number everywhere.
    Constant(f32),
    /// Gauss's bell.
    Normal {
        /// Its middle.
        mean: f32,
        /// Standard deviation.
        deviation: f32,
    },
    /// Evenly between `-bound` and `bound`.
    Uniform {
        /// See above.
        bound: f32,
    },
    /// As [`Law::Uniform`], each row then divided by its length.
    UnitRows {
        /// See above; the lengths make it matter to nobody but the last bit.
        bound: f32,
    },
}

/// LLaMA's: matrices N(0, 0.02), norms 1, biases 0. By the canonical name and the shape.
///
/// 0.02 is 1/√inputs of 2,500; where there are fewer, that is taken. A decoder of width 256 that
/// begins with 0.02 has outputs of a third of their inputs in every layer, and stands still for
/// hundreds of steps in which the other has learnt what a text is about.
pub fn llama(name: &str, shape: &[usize]) -> Law {
    match (name.rsplit('.').next(), shape) {
        (Some("bias"), _) => Law::Constant(0.0),
        (_, [.., _, inputs]) => {
            Law::Normal { mean: 0.0, deviation: (*inputs as f32).sqrt().recip().max(0.02) }
        }
        _ => Law::Constant(1.0),
    }
}

/// SigLIP's, for towers and the aligner: matrices U(±√(6/(inputs + outputs))), patches
/// N(0, 1/√inputs), positions and words N(0, 1/√width); norms 1, biases 0. LLaMA's 0.02 is far too
/// little for a narrow tower: its pixels would hardly be heard, and shapes not learnt.
pub fn siglip(name: &str, shape: &[usize]) -> Law {
    const ROWS: [&str; 3] = ["pos_embed", ".positions", ".embed.weight"];
    let bell = |inputs: usize| Law::Normal { mean: 0.0, deviation: (inputs as f32).sqrt().recip() };
    match shape {
        [.., width] if ROWS.iter().any(|end| name.ends_with(end)) => bell(*width),
        [outputs, inputs] => {
            // Queries, keys and values are three matrices in one.
            let outputs = if name.ends_with("qkv.weight") { outputs / 3 } else { *outputs };
            Law::Uniform { bound: (6.0 / (outputs + inputs) as f32).sqrt() }
        }
        [_, inputs @ ..] if inputs.len() == 3 => bell(inputs.iter().product()),
        _ => llama(name, shape),
    }
}

/// The image tokenizer's: convolutions U(±1/√inputs), PyTorch's default, which LlamaGen leaves as
/// it is; the codebook U(±1/codes), then rows of unit length; norms 1, biases 0.
pub fn tokenizer(name: &str, shape: &[usize]) -> Law {
    match shape {
        [codes, _] => Law::UnitRows { bound: 1.0 / *codes as f32 },
        [_, inputs @ ..] if inputs.len() == 3 => {
            let inputs: usize = inputs.iter().product();
            Law::Uniform { bound: (inputs as f32).sqrt().recip() }
        }
        _ => llama(name, shape),
    }
}

/// A tensor that is made of the seed and its own name when it is read.
pub fn fresh(seed: u64, name: &str, shape: &[usize], law: Law) -> LazyTensor {
    let digest: [u8; 32] = Sha256::digest(name).into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    let key = hash(&[seed, u64::from_le_bytes(first)]);
    let count: usize = shape.iter().product();
    let width = shape.last().copied().unwrap_or(1).max(1);
    let make = move || {
        let mut values = vec![0.0f32; count];
        let chunks = values.par_chunks_mut(CHUNK).enumerate();
        chunks.for_each(|(chunk, values)| fill(values, key, chunk, law));
        if let Law::UnitRows { .. } = law {
            values.par_chunks_mut(width).for_each(to_unit);
        }
        Ok::<_, Error>(Bytes::from_elems(values))
    };
    LazyTensor::deferred(name.to_owned(), DType::F32, shape.to_vec(), None, count * 4, make)
}

/// Numbers `chunk * CHUNK ..` of a tensor.
fn fill(values: &mut [f32], key: u64, chunk: usize, law: Law) {
    let first = (chunk * CHUNK / 2) as u64;
    for (pair, number) in values.chunks_mut(2).zip(first..) {
        // 53 bits, in (0, 1].
        let even =
            |part: u64| ((hash(&[key, number, part]) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let both = match law {
            Law::Constant(value) => [value; 2],
            Law::Normal { mean, deviation } => {
                // Box and Muller.
                let length = (-2.0 * even(0).ln()).sqrt() * f64::from(deviation);
                let (sin, cos) = (std::f64::consts::TAU * even(1)).sin_cos();
                [cos, sin].map(|part| (f64::from(mean) + length * part) as f32)
            }
            Law::Uniform { bound } | Law::UnitRows { bound } => {
                [0, 1].map(|part| ((even(part) * 2.0 - 1.0) * f64::from(bound)) as f32)
            }
        };
        pair.copy_from_slice(&both[..pair.len()]);
    }
}

/// Divides a row by its length.
pub(crate) fn to_unit(row: &mut [f32]) {
    let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
    row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
}

/// A part of a model with fresh weights, by the names behind `prefix`.
///
/// # Errors
/// None but those of the device.
pub fn begin<M: Module>(
    mut part: M,
    prefix: &str,
    seed: u64,
    law: impl Fn(&str, &[usize]) -> Law,
) -> Result<M, janus_model::Error> {
    let names = part_names(&part, prefix).into_iter();
    let tensors = names.map(|(name, shape)| fresh(seed, &name, &shape, law(&name, &shape)));
    fill_part(&mut part, prefix, tensors.collect(), Path::new(prefix))?;
    Ok(part)
}

/// The same part, ready to learn: every parameter asks for gradients and has the id of its name.
pub fn learning<M: Module>(part: M, prefix: &str) -> M {
    named(part.set_require_grad(true), prefix).train()
}

/// A part of a model that learns, with its optimizer.
pub struct Pupil<M: Module> {
    /// Absent during an update only.
    part: Option<M>,
    /// What is remembered of its gradients.
    pub optimizer: ModuleOptimizer,
}

impl<M: Module> fmt::Debug for Pupil<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pupil")
    }
}

impl<M: Module> Pupil<M> {
    /// A part as [`learning`] makes it.
    pub fn new(part: M, optimizer: ModuleOptimizer) -> Self {
        Self { part: Some(part), optimizer }
    }

    /// The part.
    ///
    /// # Panics
    /// Where an update panicked before.
    pub fn part(&self) -> &M {
        self.part.as_ref().expect("a part between updates")
    }

    /// Moves the weights.
    pub fn update(&mut self, gradients: GradientsParams, rate: f64) {
        if let Some(part) = self.part.take() {
            self.part = Some(self.optimizer.step(rate, part, gradients));
        }
    }

    /// Changes the part by hand; what is remembered of its gradients stays.
    pub fn change(&mut self, by: impl FnOnce(M) -> M) {
        self.part = self.part.take().map(by);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn values(seed: u64, name: &str, shape: &[usize], law: Law) -> Vec<f32> {
        let bytes = fresh(seed, name, shape, law).to_bytes().unwrap();
        bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Golden, worked out by another program: a run that somebody repeats next year must begin with
    /// the same bits.
    #[test]
    fn the_bits_never_change() {
        let found = values(7, "a.weight", &[2, 2], Law::Uniform { bound: 1.0 });
        let found: Vec<u32> = found.into_iter().map(f32::to_bits).collect();
        assert_eq!(found, [0x3f6c_217a, 0xbd4c_9a4c, 0x3f02_4bc0, 0x3f48_a807]);
    }

    #[test]
    fn seed_and_name_are_all_there_is() {
        let law = Law::Normal { mean: 0.0, deviation: 0.02 };
        let first = values(7, "a.weight", &[3, 5], law);
        assert_eq!(first, values(7, "a.weight", &[3, 5], law));
        assert_eq!(first, values(7, "a.weight", &[5, 3], law), "the shape has no part in it");
        assert_ne!(first, values(8, "a.weight", &[3, 5], law));
        assert_ne!(first, values(7, "b.weight", &[3, 5], law));
        let longer = values(7, "a.weight", &[3, CHUNK + 1], law);
        assert_eq!(longer[..15], first);
        assert_eq!(longer.iter().filter(|v| **v == 0.0).count(), 0);
    }

    #[test]
    fn the_numbers_have_the_laws_they_claim() {
        let n = 200_000;
        let mean = |v: &[f32]| v.iter().map(|x| f64::from(*x)).sum::<f64>() / v.len() as f64;
        let square =
            |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / v.len() as f64;
        let bell = values(1, "x", &[n], Law::Normal { mean: 0.5, deviation: 0.1 });
        assert!((mean(&bell) - 0.5).abs() < 0.0012, "{}", mean(&bell));
        assert!((square(&bell) - 0.26).abs() < 0.002, "{}", square(&bell));
        let far = bell.iter().filter(|x| (**x - 0.5).abs() > 0.196).count() as f64 / n as f64;
        assert!((far - 0.05).abs() < 0.003, "{far}");
        let even = values(1, "x", &[n], Law::Uniform { bound: 2.0 });
        assert!(mean(&even).abs() < 0.013 && (square(&even) - 4.0 / 3.0).abs() < 0.015);
        assert!(even.iter().all(|x| x.abs() <= 2.0));
        let rows = values(1, "x", &[100, 8], Law::UnitRows { bound: 0.01 });
        for row in rows.chunks(8) {
            assert!((square(row) * 8.0 - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn norms_and_biases_are_told_by_name_and_shape() {
        let matrix = |deviation| Law::Normal { mean: 0.0, deviation };
        assert_eq!(llama("a.norm.weight", &[8]), Law::Constant(1.0));
        assert_eq!(llama("a.bias", &[8]), Law::Constant(0.0));
        assert_eq!(llama("a.weight", &[8, 64]), matrix(0.125));
        assert_eq!(llama("a.pos_embed", &[1, 8, 16]), matrix(0.25));
        assert_eq!(llama("a.weight", &[8, 4096]), matrix(0.02));
        let bell = Law::Normal { mean: 0.0, deviation: 0.25 };
        assert_eq!(siglip("v.patch_embed.proj.weight", &[9, 4, 2, 2]), bell);
        assert_eq!(siglip("v.pos_embed", &[1, 8, 16]), bell);
        assert_eq!(siglip("heads.text.embed.weight", &[99, 16]), bell);
        assert_eq!(siglip("v.attn.qkv.weight", &[54, 6]), Law::Uniform { bound: 0.5 });
        assert_eq!(siglip("v.attn.proj.weight", &[18, 6]), Law::Uniform { bound: 0.5 });
        assert_eq!(siglip("v.norm.weight", &[9]), Law::Constant(1.0));
        assert_eq!(siglip("v.norm.bias", &[9]), Law::Constant(0.0));
        assert_eq!(tokenizer("q.weight", &[4, 8]), Law::UnitRows { bound: 0.25 });
        assert_eq!(tokenizer("c.weight", &[9, 4, 2, 2]), Law::Uniform { bound: 0.25 });
        assert_eq!(tokenizer("n.weight", &[9]), Law::Constant(1.0));
    }
}
