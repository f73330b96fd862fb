//! Low-rank adapters: which layers get one, and how it begins.
//!
//! The adapter itself is part of [`janus_model::linear::Linear`]: `y = W·x + α/r · B·(A·x)`. A dense
//! change of the weight is never made, neither forward nor backward. Train it with the rules
//! `[["**.lora.*", "train"], ["**", "freeze"]]` of [`crate::stage`].

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use janus_model::Janus;
use janus_model::linear::{Linear, Lora};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::stage::{Pattern, few};

/// Settings of the adapters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// r, the rank of the change.
    pub rank: usize,
    /// α; the change is scaled by α / r.
    pub alpha: f64,
    /// Layers that get one, by canonical name, as in `language_model.**.q_proj`.
    pub targets: Vec<Pattern>,
}

/// Why adapters cannot be attached.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LoraError {
    /// A number that makes no adapter.
    #[error("lora.{field}: {value} is outside {range}")]
    Range {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        range: String,
    },
    /// Patterns that match no linear layer.
    #[error("no linear layer matches {}", few(patterns))]
    Idle {
        /// The patterns.
        patterns: Vec<String>,
    },
}

impl LoraConfig {
    /// Gives the target layers a new adapter, in f32; returns their names.
    ///
    /// A is uniform in ±1/√in, as PEFT has it, from `seed` and the name of the layer alone; B is
    /// zero, so that the model computes what it did before.
    ///
    /// # Errors
    /// [`LoraError`], and then nothing was attached.
    pub fn attach(&self, janus: &mut Janus, seed: u64) -> Result<Vec<String>, LoraError> {
        let mut layers = janus.linears_mut();
        let matched = |pattern: &Pattern| layers.iter().any(|(name, _)| pattern.matches(name));
        let idle = self.targets.iter().filter(|pattern| !matched(pattern));
        let patterns: Vec<String> = idle.cloned().map(String::from).collect();
        if !patterns.is_empty() || self.targets.is_empty() {
            return Err(LoraError::Idle { patterns });
        }
        layers.retain(|(name, _)| self.targets.iter().any(|pattern| pattern.matches(name)));
        self.check(&layers)?;
        let attach = |(name, linear): (String, &mut Linear)| {
            linear.lora = Some(self.begin(&name, linear, seed));
            name
        };
        Ok(layers.into_iter().map(attach).collect())
    }

    fn check(&self, layers: &[(String, &mut Linear)]) -> Result<(), LoraError> {
        let sides = layers.iter().flat_map(|(_, linear)| linear.weight.lazy_shape().to_vec());
        let most = sides.min().unwrap_or(0);
        if !(1..=most).contains(&self.rank) {
            let range = format!("1..={most}, the smallest side of the layers");
            return Err(LoraError::Range { field: "rank", value: self.rank as f64, range });
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            let range = "the numbers above 0".to_owned();
            return Err(LoraError::Range { field: "alpha", value: self.alpha, range });
        }
        Ok(())
    }

    fn begin(&self, name: &str, linear: &Linear, seed: u64) -> Lora {
        let (shape, device) = (linear.weight.lazy_shape(), linear.weight.lazy_device());
        let (output, input) = (shape[0], shape[1]);
        let bound = 1.0 / (input as f32).sqrt();
        let noise = noise(name, seed).map(|unit| (2.0 * unit - 1.0) * bound);
        let a: Vec<f32> = noise.take(self.rank * input).collect();
        let a = TensorData::new(a, [self.rank, input]);
        let b = TensorData::zeros::<f32, _>([output, self.rank]);
        let [a, b] = [a, b].map(|data| factor(data, &device));
        Lora { a, b, scale: self.alpha / self.rank as f64 }
    }
}

fn factor(data: TensorData, device: &Device) -> Param<Tensor<2>> {
    let value = Tensor::from_data(data, (device, DType::F32));
    Param::initialized(ParamId::new(), value).set_require_grad(true)
}

/// Numbers in [0, 1) that depend on nothing but these two: SplitMix64 from a hash of both.
fn noise(name: &str, seed: u64) -> impl Iterator<Item = f32> {
    let digest: [u8; 32] =
        Sha256::new().chain_update(seed.to_be_bytes()).chain_update(name).finalize().into();
    let mut state = digest.iter().take(8).fold(0u64, |state, byte| state << 8 | u64::from(*byte));
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) >> 40) as f32 / (1u32 << 24) as f32
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use janus_model::{JanusConfig, Parts, Precision};

    use super::*;

    fn attach(rank: usize, alpha: f64, targets: &[&str]) -> Result<Vec<String>, LoraError> {
        let targets = targets.iter().map(|t| t.to_string().try_into().unwrap()).collect();
        let mut janus = JanusConfig::pro_1b().init(Parts::All, Precision::F32, &Device::flex());
        LoraConfig { rank, alpha, targets }.attach(&mut janus, 1)
    }

    #[test]
    fn targets_are_named_by_patterns() {
        let names = attach(8, 16.0, &["language_model.**.q_proj", "aligner.**"]).unwrap();
        assert_eq!(names.len(), 24 + 2);
        assert_eq!(names[..2], ["aligner.layers.0", "aligner.layers.2"]);
        assert_eq!(names[2], "language_model.model.layers.0.self_attn.q_proj");
    }

    #[test]
    fn what_makes_no_adapter_is_refused() {
        let text = |result: Result<_, LoraError>| result.unwrap_err().to_string();
        let none = text(attach(8, 16.0, &["**.q_proj", "**.query"]));
        assert_eq!(none, "no linear layer matches `**.query`");
        let rank = text(attach(0, 16.0, &["**.q_proj"]));
        assert!(rank.starts_with("lora.rank: 0 is outside 1..=2048"), "{rank}");
        assert!(text(attach(9, 16.0, &["gen_aligner.layers.0"])).contains("1..=8"));
        assert!(text(attach(8, f64::NAN, &["**.q_proj"])).starts_with("lora.alpha"));
        assert!(attach(8, 16.0, &[]).is_err());
    }

    #[test]
    fn noise_fills_its_range_and_repeats() {
        let take = |name, seed| noise(name, seed).take(4096).collect::<Vec<_>>();
        let values = take("a", 1);
        assert_eq!(values, take("a", 1));
        assert!(values != take("a", 2) && values != take("b", 1));
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
        let mean = values.iter().sum::<f32>() / 4096.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }
}
