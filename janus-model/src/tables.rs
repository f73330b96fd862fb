//! Where the two text tables live: `embed_tokens` and `lm_head`, by far the largest tensors.
//!
//! A graphics interface binds a buffer of limited size to a kernel: 128 MiB by WebGPU's default,
//! one or two GiB with many drivers, no limit with CUDA. The tables of 7B take 0.84 GB each in
//! f16, twice that in f32. Where they do not fit, they stay with the processor, which takes its
//! rows out of the mapped file: a step moves one row of either width across, and the weights of
//! the tables take no memory on the card at all.

use burn::nn::EmbeddingConfig;
use burn::tensor::{DType, Device};

use crate::capacity::largest_tensor;
use crate::error::Error;
use crate::janus::{Janus, Parts};
use crate::linear::LinearConfig;

/// Where the text tables are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextTables {
    /// On the device, unless it cannot bind them.
    #[default]
    Auto,
    /// With the processor.
    Host,
}

/// The processor, where this build can compute on it.
fn host() -> Option<Device> {
    #[cfg(feature = "cpu")]
    return Some(Device::flex());
    #[cfg(not(feature = "cpu"))]
    None
}

/// Bytes of one text table.
pub fn table_bytes(config: &crate::llama::LlamaConfig, dtype: DType) -> u64 {
    (config.vocab_size * config.hidden_size) as u64 * dtype.size() as u64
}

/// Whether a parameter, by its path, is a text table.
pub(crate) fn is_table(path: &str) -> bool {
    matches!(path, "language_model.model.embed_tokens.weight" | "language_model.lm_head.weight")
}

impl Janus {
    /// Moves the text tables of a model without weights to where they belong.
    ///
    /// # Errors
    /// [`Error::TablesTooLarge`] where they fit nowhere: this build cannot use the processor.
    pub(crate) fn place_tables(
        &mut self,
        wish: TextTables,
        parts: Parts,
        device: &Device,
    ) -> Result<(), Error> {
        let config = &self.config().language;
        let bytes = table_bytes(config, self.precision().weights);
        let limit = largest_tensor(device);
        if wish == TextTables::Auto && limit.is_none_or(|limit| bytes <= limit) {
            return Ok(());
        }
        let Some(host) = host() else {
            return Err(Error::TablesTooLarge { bytes, limit: limit.unwrap_or(0) });
        };
        let (rows, width) = (config.vocab_size, config.hidden_size);
        self.language_model.model.embed_tokens = EmbeddingConfig::new(rows, width).init(&host);
        self.language_model.lm_head =
            (parts != Parts::Generation).then(|| LinearConfig::no_bias(width, rows).init(&host));
        Ok(())
    }

    /// Whether the text tables are kept away from the rest.
    pub fn has_tables_on_host(&self) -> bool {
        self.language_model.model.embed_tokens.weight.lazy_device() != self.device()
    }
}
