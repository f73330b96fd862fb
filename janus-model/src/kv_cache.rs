//! Keys and values of the tokens already seen: allocated once, written in place, larger on request.
//!
//! Burn's caches grow by concatenation, which copies everything at every step. Here each layer
//! owns two `[B, H_kv, capacity, d]` buffers; a step overwrites `T` columns. The write is in
//! place as long as nobody else holds the buffer, so the views handed to attention must be
//! dropped before the next step, which [`crate::llama`] does; `tests/parity` asserts it.

use burn::tensor::{DType, Device, Tensor};

use crate::llama::LlamaConfig;

/// Cache of all layers of one batch.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
    capacity: usize,
}

/// Keys and values of one layer.
#[derive(Clone, Debug)]
pub struct LayerCache {
    keys: Option<Tensor<4>>, // None only while being written
    values: Option<Tensor<4>>,
}

impl KvCache {
    /// Room for `capacity` tokens of `batch` rows.
    pub fn new(
        config: &LlamaConfig,
        batch: usize,
        capacity: usize,
        dtype: DType,
        device: &Device,
    ) -> Self {
        let shape = [batch, config.num_key_value_heads, capacity, config.head_dim];
        let empty = || Some(Tensor::zeros(shape, (device, dtype)));
        let layer = |_| LayerCache { keys: empty(), values: empty() };
        Self { layers: (0..config.num_hidden_layers).map(layer).collect(), len: 0, capacity }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets everything after the first `len` tokens; the buffers stay.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for at least `capacity` tokens and keeps those held. One buffer after the other
    /// is copied, so the memory needed on top is that of one layer's keys.
    pub fn grow(&mut self, capacity: usize) {
        if capacity <= self.capacity {
            return;
        }
        for layer in &mut self.layers {
            enlarge(&mut layer.keys, self.len, capacity);
            enlarge(&mut layer.values, self.len, capacity);
        }
        self.capacity = capacity;
    }

    /// One layer, and the position its next token is written to.
    pub(crate) fn layer(&mut self, index: usize) -> (&mut LayerCache, usize) {
        (&mut self.layers[index], self.len)
    }

    /// Counts `tokens` as held, once every layer has written them.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// Whether the next write is in place: nobody else holds a buffer of any layer.
    pub fn can_write_in_place(&self) -> bool {
        let alone = |buffer: &Option<Tensor<4>>| buffer.as_ref().is_some_and(Tensor::can_mut);
        self.layers.iter().all(|layer| alone(&layer.keys) && alone(&layer.values))
    }

    /// Keys and values of every layer, for inspection. Holding on to them makes the next write
    /// copy.
    pub fn buffers(&self) -> Vec<Tensor<4>> {
        self.layers
            .iter()
            .flat_map(|layer| [&layer.keys, &layer.values])
            .flatten()
            .cloned()
            .collect()
    }
}

impl LayerCache {
    /// Writes `T` tokens at `start` and returns both buffers, whole: `[B, H_kv, capacity, d]`.
    /// They must be dropped before the next write, or that one copies.
    ///
    /// # Shapes
    /// - `keys`, `values`: `[B, H_kv, T, d]`
    ///
    /// # Panics
    /// When the buffer is full.
    pub(crate) fn append(
        &mut self,
        start: usize,
        keys: Tensor<4>,
        values: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        (write(&mut self.keys, start, keys), write(&mut self.values, start, values))
    }
}

/// Takes the buffer out, so that it is the only owner while it is written.
fn write(slot: &mut Option<Tensor<4>>, start: usize, new: Tensor<4>) -> Tensor<4> {
    let [batch, heads, tokens, width] = new.dims();
    let buffer = slot.take().expect("the buffer is put back by every write");
    assert!(start + tokens <= buffer.dims()[2], "the key-value cache is full");
    let new = new.cast(buffer.dtype());
    let buffer = buffer.slice_assign([0..batch, 0..heads, start..start + tokens, 0..width], new);
    slot.insert(buffer).clone()
}

/// Replaces a buffer by a larger one with the same first `len` columns.
fn enlarge(slot: &mut Option<Tensor<4>>, len: usize, capacity: usize) {
    let Some(old) = slot.take() else { return };
    let [batch, heads, _, width] = old.dims();
    let empty = Tensor::zeros([batch, heads, capacity, width], (&old.device(), old.dtype()));
    let new = if len == 0 {
        empty
    } else {
        let held = [0..batch, 0..heads, 0..len, 0..width];
        empty.slice_assign(held.clone(), old.slice(held))
    };
    *slot = Some(new);
}
