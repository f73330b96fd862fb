//! One step: the language model at work on a batch, with what it keeps between steps.

use burn::tensor::{Device, Int, Tensor, TensorData};
use janus_model::Janus;
use janus_model::kv_cache::KvCache;
use janus_model::llama::Mask;
use janus_model::rope::{Positions, Rope};

use crate::error::InferError;
use crate::padding::Padding;

/// Cache, rotation tables and padding of one batch.
#[derive(Debug)]
pub(crate) struct Decoder {
    cache: KvCache,
    rope: Rope,
    padding: Option<Padding>,
}

impl Decoder {
    /// Goes on after the tokens that `cache` holds.
    pub fn new(janus: &Janus, cache: KvCache, padding: Option<Padding>) -> Self {
        let rope = janus.rope(cache.capacity());
        Self { cache, rope, padding }
    }

    /// Columns held.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Columns there is room for.
    pub fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// Hands the cache back.
    pub fn into_cache(self) -> KvCache {
        self.cache
    }

    /// Reads `T` more tokens and gives the final hidden state of the last one: all that either
    /// head needs, so neither ever runs over a whole prompt.
    ///
    /// # Shapes
    /// - `x`: `[B, T, D]`
    /// - output: `[B, D]`
    ///
    /// # Panics
    /// When the cache has no room.
    pub fn read(&mut self, janus: &Janus, x: Tensor<3>) -> Tensor<2> {
        let [batch, tokens, width] = x.dims();
        let start = self.cache.len();
        let (positions, mask) = match &self.padding {
            None => (Positions::From(start), Mask::Causal),
            Some(padding) => {
                let device = x.device();
                let positions = padding.positions(start, tokens, &device);
                (positions, padding.mask(start + tokens, &device))
            }
        };
        let hidden = janus.hidden(x, &self.rope, &positions, &mask, Some(&mut self.cache));
        hidden.slice_dim(1, tokens - 1..tokens).reshape([batch, width])
    }
}

/// Rows of ids, all of one length, on the device: `[B, T]`.
///
/// # Errors
/// [`InferError::Request`] for no rows, empty rows and ids the model has no row for.
pub(crate) fn upload(
    ids: &[Vec<i32>],
    rows_of_table: usize,
    device: &Device,
) -> Result<Tensor<2, Int>, InferError> {
    let tokens = ids.first().map_or(0, Vec::len);
    if tokens == 0 || ids.iter().any(|row| row.len() != tokens) {
        return Err(InferError::request("ids", "the rows are empty or differ in length"));
    }
    let known = |id: &&i32| usize::try_from(**id).is_ok_and(|id| id < rows_of_table);
    if let Some(id) = ids.iter().flatten().find(|id| !known(id)) {
        return Err(InferError::request("ids", format!("{id} is not in 0..{rows_of_table}")));
    }
    let data = TensorData::new(ids.concat(), [ids.len(), tokens]);
    Ok(Tensor::from_data(data, device))
}

/// The newest id of each row, `[B, 1]`. They were chosen from logits, so they are in range.
pub(crate) fn upload_column(ids: Vec<i32>, device: &Device) -> Tensor<2, Int> {
    let rows = ids.len();
    Tensor::from_data(TensorData::new(ids, [rows, 1]), device)
}

/// Brings f32 values to the host. This is where the host waits for the device.
pub(crate) fn download<const D: usize>(values: Tensor<D>) -> Result<Vec<f32>, InferError> {
    let device = |reason: String| InferError::Device { reason };
    let data = values.try_into_data().map_err(|e| device(format!("{e:?}")))?;
    data.try_into_vec::<f32>().map_err(|e| device(format!("{e:?}")))
}
