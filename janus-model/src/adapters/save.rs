//! Writing the adapters of a model as a folder that PEFT reads.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Bytes, DType};

use super::config::AdapterConfig;
use super::error::AdapterError;
use super::factors::Factors;
use super::files::{CONFIG, WEIGHTS, WRAPPED};
use crate::checkpoint::keys::{self, Export};
use crate::checkpoint::{LazyTensor, Naming, save};
use crate::error::Error;
use crate::janus::Janus;

/// How adapters are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterSave {
    /// The model they are for: a folder or the name of a model.
    pub base: Option<String>,
    /// Who named that model's layers. [`Naming::Original`] keeps query, key and value of the
    /// vision tower in one piece, as they are in memory.
    pub naming: Naming,
}

/// One layer as the file has it.
struct Module {
    name: String,
    rank: usize,
    alpha: f64,
}

impl Janus {
    /// Writes every adapter of the model into the folder `dir`, in f32. Both files appear when
    /// they are complete; a folder that did not exist appears with them.
    ///
    /// # Errors
    /// [`AdapterError::Nothing`] where no layer has an adapter; I/O errors.
    pub fn save_adapter(&self, dir: &Path, options: &AdapterSave) -> Result<(), Error> {
        let mut modules = Vec::new();
        let mut tensors = Vec::new();
        // A handle on the same tensors: nothing is changed.
        for (name, linear) in self.clone().linears_mut() {
            let Some(factors) = Factors::of(linear) else { continue };
            for (module, factors) in exported(&name, factors, options.naming) {
                let (rank, alpha) = (factors.rank, alpha(&factors));
                tensors.extend(halves(&module, factors));
                modules.push(Module { name: module, rank, alpha });
            }
        }
        if modules.is_empty() {
            return Err(AdapterError::Nothing.into());
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<String> = modules.iter().map(|module| module.name.clone()).collect();
        let config = summary(&modules, options.base.clone()).write(&names);
        save::save_beside(dir, (WEIGHTS, tensors), &[(CONFIG, config.as_bytes())])?;
        Ok(())
    }
}

/// A layer under its name in the file, or as the three that it is there.
fn exported(name: &str, factors: Factors, naming: Naming) -> Vec<(String, Factors)> {
    let module = |name: String| name.trim_end_matches(".weight").to_owned();
    match keys::export(&format!("{name}.weight"), naming) {
        Some(Export::Whole(name)) => vec![(module(name), factors)],
        Some(Export::Thirds(names)) => {
            let third = factors.b.len() / 3;
            let cut = |(i, name): (usize, String)| {
                let b = factors.b[i * third..(i + 1) * third].to_vec();
                let output = factors.output / 3;
                (module(name), Factors { b, output, ..factors.clone() })
            };
            names.into_iter().enumerate().map(cut).collect()
        }
        // No linear layer is squeezed or dropped.
        _ => Vec::new(),
    }
}

/// α, such that reading it gives the very same scale.
fn alpha(factors: &Factors) -> f64 {
    let rank = factors.rank as f64;
    let near = factors.scale * rank;
    let candidates = [near.round(), near, near.next_up(), near.next_down()];
    candidates.into_iter().find(|alpha| alpha / rank == factors.scale).unwrap_or(near)
}

fn halves(module: &str, factors: Factors) -> [LazyTensor; 2] {
    let Factors { rank, input, output, a, b, .. } = factors;
    let tensor = |half: &str, values: Vec<f32>, shape: [usize; 2]| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let name = format!("{WRAPPED}{module}.{half}.weight");
        LazyTensor::new(name, DType::F32, shape.to_vec(), None, Bytes::from_bytes_vec(bytes))
    };
    [tensor("lora_A", a, [rank, input]), tensor("lora_B", b, [output, rank])]
}

/// What most layers have, and by name what others have.
fn summary(modules: &[Module], base: Option<String>) -> AdapterConfig {
    let ranks = modules.iter().map(|module| (module.rank, module.alpha.to_bits()));
    let mut counts = BTreeMap::new();
    ranks.for_each(|kind| *counts.entry(kind).or_insert(0) += 1);
    let usual = counts.into_iter().max_by_key(|(_, count)| *count).map(|(kind, _)| kind);
    let (rank, alpha) = usual.map_or((1, 1.0), |(rank, bits)| (rank, f64::from_bits(bits)));
    let named = |module: &Module| format!("^{}", module.name);
    let other_ranks = modules.iter().filter(|module| module.rank != rank);
    let other_alphas = modules.iter().filter(|module| module.alpha != alpha);
    AdapterConfig {
        base,
        rank,
        alpha,
        rank_pattern: other_ranks.map(|module| (named(module), module.rank)).collect(),
        alpha_pattern: other_alphas.map(|module| (named(module), module.alpha)).collect(),
        root: false,
    }
}
