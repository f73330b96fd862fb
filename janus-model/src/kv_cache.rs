//! Keys and values of the tokens already seen: allocated once, written in place, larger on request.
//! Beside packed weights they are packed, too.
//!
//! Burn's caches grow by concatenation, which copies everything at every step. Here each layer
//! owns two `[B, H_kv, capacity, d]` buffers; a step overwrites `T` columns. The write is in
//! place as long as nobody else holds the buffer, so the views handed to attention must be
//! dropped before the next step, which [`crate::llama`] does; `tests/parity` asserts it.

use burn::tensor::{Device, Tensor};

use crate::llama::LlamaConfig;
use crate::ops;
use crate::packed::{self, Kept};
use crate::precision::CacheFormat;

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
    keys: Buffer,
    values: Buffer,
}

/// `[B, H_kv, capacity, d]`.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // two per layer, nearly always the large one
enum Buffer {
    Tensor(Option<Tensor<4>>), // None only while being written
    Packed(Kept),
}

impl KvCache {
    /// Room for `capacity` tokens of `batch` rows.
    pub fn new(
        config: &LlamaConfig,
        batch: usize,
        capacity: usize,
        format: CacheFormat,
        device: &Device,
    ) -> Self {
        let shape = [batch, config.num_key_value_heads, capacity, config.head_dim];
        let empty = || match format {
            CacheFormat::Float(dtype) => {
                Buffer::Tensor(Some(Tensor::zeros(shape, (device, dtype))))
            }
            CacheFormat::Packed => Buffer::Packed(Kept::new(shape)),
        };
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
            layer.keys.enlarge(self.len, capacity);
            layer.values.enlarge(self.len, capacity);
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
        let alone = |buffer: &Buffer| match buffer {
            Buffer::Tensor(buffer) => buffer.as_ref().is_some_and(Tensor::can_mut),
            Buffer::Packed(_) => true,
        };
        self.layers.iter().all(|layer| alone(&layer.keys) && alone(&layer.values))
    }

    /// Keys and values of every layer that are not packed, for inspection. Holding on to them makes
    /// the next write copy.
    pub fn buffers(&self) -> Vec<Tensor<4>> {
        let buffers = self.layers.iter().flat_map(|layer| [&layer.keys, &layer.values]);
        let tensor = |buffer: &Buffer| match buffer {
            Buffer::Tensor(buffer) => buffer.clone(),
            Buffer::Packed(_) => None,
        };
        buffers.filter_map(tensor).collect()
    }
}

impl LayerCache {
    /// Writes `T` tokens at `start`.
    ///
    /// # Shapes
    /// - `keys`, `values`: `[B, H_kv, T, d]`
    ///
    /// # Panics
    /// When the buffer is full.
    pub(crate) fn append(&mut self, start: usize, keys: Tensor<4>, values: Tensor<4>) {
        self.keys.write(start, keys);
        self.values.write(start, values);
    }

    /// Causal attention of the `T` newest of `total` tokens; see [`ops::attention_cached`].
    ///
    /// # Shapes
    /// `q` and output: `[B, H, T, d]`
    pub(crate) fn attend(&self, q: Tensor<4>, total: usize) -> Tensor<4> {
        match (&self.keys, &self.values) {
            (Buffer::Packed(keys), Buffer::Packed(values)) if q.dims()[2] <= packed::STEP => {
                packed::attend(q, keys, values, total)
            }
            (Buffer::Tensor(Some(keys)), Buffer::Tensor(Some(values))) => {
                ops::attention_cached(q, keys.clone(), values.clone(), total)
            }
            _ => {
                let (keys, values) = self.held(total, &q);
                ops::attention_cached(q, keys, values, total)
            }
        }
    }

    /// Keys and values of the first `total` tokens, `[B, H_kv, total, d]`, in the dtype of `q`.
    pub(crate) fn held(&self, total: usize, q: &Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        (self.keys.held(total, q), self.values.held(total, q))
    }
}

impl Buffer {
    /// Takes a tensor out, so that it has one owner while it is written.
    fn write(&mut self, start: usize, new: Tensor<4>) {
        let slot = match self {
            Self::Tensor(slot) => slot,
            Self::Packed(kept) => return kept.write(start, new),
        };
        let buffer = slot.take().expect("the buffer is put back by every write");
        assert!(start + new.dims()[2] <= buffer.dims()[2], "the key-value cache is full");
        *slot = Some(ops::put(buffer, new, start));
    }

    fn held(&self, total: usize, q: &Tensor<4>) -> Tensor<4> {
        match self {
            Self::Packed(kept) => kept.held(total, &q.device(), q.dtype()),
            Self::Tensor(buffer) => {
                let buffer = buffer.clone().expect("the buffer is put back by every write");
                buffer.slice_dim(2, 0..total).cast(q.dtype())
            }
        }
    }

    /// Replaces a buffer by a larger one with the same first `len` tokens.
    fn enlarge(&mut self, len: usize, capacity: usize) {
        let slot = match self {
            Self::Tensor(slot) => slot,
            Self::Packed(kept) => return *kept = kept.enlarged(len, capacity),
        };
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
}
