//! Adapters as part of the weights: in a model, or on the way from file to file.

use std::collections::HashMap;
use std::path::PathBuf;

use burn::tensor::{Bytes, DType, Device, Tensor};
use rayon::prelude::*;

use super::attach::AdapterReport;
use super::error::{AdapterError, Misfit};
use super::factors::Factors;
use crate::checkpoint::{LazyTensor, Limits, cast, lazy};
use crate::config::JanusConfig;
use crate::error::Error;
use crate::janus::{Janus, Parts};
use crate::precision::Precision;

impl Janus {
    /// Folds every adapter into its weight, in f32, rounded back to the weight's format. A weight
    /// of 8 or 4 bits has no room for it: its adapter stays beside it, with the same result.
    pub fn merge_adapters(&mut self) {
        for (_, linear) in self.linears_mut() {
            if linear.packed().is_some() {
                continue;
            }
            let Some(lora) = linear.lora.take() else { continue };
            let weight = linear.weight.clone().map(|weight: Tensor<2>| {
                let (dtype, change) = (weight.dtype(), lora.product().inner());
                let merged = weight.inner().cast(change.dtype()) + change;
                merged.cast(dtype)
            });
            linear.weight = weight;
        }
    }
}

/// The tensors of a checkpoint, under canonical names, with adapters folded in: in f32 when they
/// are drawn, and rounded to `dtype`, or to what the tensor has. Nothing else is touched.
///
/// # Errors
/// Those of [`Janus::add_adapter`], and an adapter on a weight that is not among `tensors`.
pub fn merged(
    mut tensors: Vec<LazyTensor>,
    config: &JanusConfig,
    (adapters, limits): (&[PathBuf], &Limits),
    dtype: Option<DType>,
    device: &Device,
) -> Result<(Vec<LazyTensor>, Vec<AdapterReport>), Error> {
    // Only a place for the adapters to meet: none of its weights is ever computed.
    let mut janus = config.init(Parts::All, Precision::F32, device);
    let reports: Result<Vec<AdapterReport>, Error> =
        adapters.iter().map(|dir| janus.add_adapter(dir, limits)).collect();
    let found = janus.linears_mut().into_iter().filter_map(|(name, linear)| {
        Factors::of(linear).map(|factors| (format!("{name}.weight"), factors))
    });
    let mut changes: HashMap<String, Factors> = found.collect();
    for tensor in &mut tensors {
        if let Some(change) = changes.remove(&tensor.name) {
            let dtype = dtype.unwrap_or(tensor.dtype);
            *tensor = changed(tensor.clone(), change, dtype);
        }
    }
    match changes.into_keys().min() {
        None => Ok((tensors, reports?)),
        // A text head that shares the table of the other end.
        Some(module) => {
            let path = adapters.last().cloned().unwrap_or_default();
            Err(AdapterError::Misfit { path, problems: vec![Misfit::NoLayer { module }] }.into())
        }
    }
}

fn changed(tensor: LazyTensor, change: Factors, dtype: DType) -> LazyTensor {
    let (name, shape) = (tensor.name.clone(), tensor.shape.to_vec());
    let length = change.input * change.output * dtype.size();
    let wide = cast(tensor, DType::F32);
    LazyTensor::deferred(name, dtype, shape, None, length, move || {
        let mut weight = Vec::with_capacity(change.input * change.output);
        lazy::floats(&wide.to_bytes()?, DType::F32, |value| weight.push(value));
        change.add_to(&mut weight);
        let wide: Vec<u8> = weight.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut bytes = Vec::with_capacity(length);
        lazy::convert(&wide, DType::F32, dtype, &mut bytes);
        Ok(Bytes::from_bytes_vec(bytes))
    })
}

impl Factors {
    /// Adds `s · B · A` to a weight `[out, in]`.
    fn add_to(&self, weight: &mut [f32]) {
        let rows = weight.par_chunks_exact_mut(self.input).zip(self.b.par_chunks_exact(self.rank));
        rows.for_each(|(row, b)| {
            let mut change = vec![0.0f32; self.input];
            for (b, a) in b.iter().zip(self.a.chunks_exact(self.input)) {
                change.iter_mut().zip(a).for_each(|(sum, a)| *sum += b * a);
            }
            let scale = self.scale as f32;
            row.iter_mut().zip(change).for_each(|(weight, change)| *weight += scale * change);
        });
    }
}
