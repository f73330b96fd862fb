//! All sizes of a model, read from either dialect of `config.json`.
//!
//! * original (DeepSeek): parts are named classes with `params`, which imply most sizes;
//! * Hugging Face: every size is spelled out.
//!
//! Nothing here is fixed to 1B or 7B. Each part's own numbers live beside the part
//! ([`VisionConfig`], [`LlamaConfig`], …); this module joins, checks and writes them.
//!
//! Source: published `config.json` files; spec tables of Janus-Pro (arXiv 2501.17811, table 1).

mod fields;
mod generation;
mod names;
mod read;
mod write;

pub(crate) use fields::{in_range, positive, shown};

use std::path::Path;

pub use fields::ConfigError;
use fields::read_capped;
pub use generation::GenerationConfig;
pub use write::TokenIds;

use crate::gen_head::GenHeadConfig;
use crate::llama::LlamaConfig;
use crate::projector::ProjectorConfig;
use crate::siglip::VisionConfig;
use crate::vq::VqConfig;

/// Which dialect a configuration was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// DeepSeek's own `config.json`.
    Original,
    /// Hugging Face transformers' `config.json`.
    HuggingFace,
}

/// Sizes of a whole Janus model.
#[derive(Clone, Debug, PartialEq)]
pub struct JanusConfig {
    /// Understanding encoder.
    pub vision: VisionConfig,
    /// Understanding encoder → language model.
    pub aligner: ProjectorConfig,
    /// Image tokenizer.
    pub gen_vision: VqConfig,
    /// Image codes → language model.
    pub gen_aligner: ProjectorConfig,
    /// Language model → image codes.
    pub gen_head: GenHeadConfig,
    /// Language model.
    pub language: LlamaConfig,
}

/// Largest `config.json` that is read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

impl JanusConfig {
    /// Janus-Pro-1B (and Janus-1.3B, the same network with other token ids).
    pub fn pro_1b() -> Self {
        Self::pro(2048, 5632, 24, 16)
    }

    /// Janus-Pro-7B.
    pub fn pro_7b() -> Self {
        Self::pro(4096, 11008, 30, 32)
    }

    /// A preset by the name of the published model, in lower case.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "janus-pro-1b" | "janus-1.3b" => Some(Self::pro_1b()),
            "janus-pro-7b" => Some(Self::pro_7b()),
            _ => None,
        }
    }

    fn pro(width: usize, inner: usize, layers: usize, heads: usize) -> Self {
        Self {
            vision: VisionConfig::siglip_large_384(),
            aligner: ProjectorConfig { input_dim: 1024, output_dim: width, depth: 2 },
            gen_vision: VqConfig::vq_16(),
            gen_aligner: ProjectorConfig { input_dim: 8, output_dim: width, depth: 2 },
            gen_head: GenHeadConfig { hidden_size: width, embed_dim: width, codes: 16384 },
            language: LlamaConfig {
                vocab_size: 102_400,
                hidden_size: width,
                intermediate_size: inner,
                num_hidden_layers: layers,
                num_attention_heads: heads,
                num_key_value_heads: heads,
                head_dim: width / heads,
                max_position_embeddings: 16_384,
                rope_theta: 10_000.0,
                rms_norm_eps: 1e-6,
                tie_word_embeddings: false,
            },
        }
    }

    /// Reads `config.json` from a model folder.
    ///
    /// # Errors
    /// A file that is missing, too large, not JSON, or that describes an impossible model;
    /// the error names the field by its path, such as `vision_config.params.image_size`.
    pub fn from_dir(dir: &Path) -> Result<(Self, Dialect), ConfigError> {
        Self::from_file(&dir.join("config.json"))
    }

    /// Reads one configuration file. See [`JanusConfig::from_dir`].
    pub fn from_file(path: &Path) -> Result<(Self, Dialect), ConfigError> {
        let text = read_capped(path, MAX_CONFIG_BYTES)?;
        Self::from_json(&text).map_err(|e| e.in_file(path))
    }

    /// Parses the text of a `config.json` and checks every number; errors name the fields of its
    /// dialect.
    pub fn from_json(text: &str) -> Result<(Self, Dialect), ConfigError> {
        let (config, dialect) = read::parse(text)?;
        config.validate().map_err(|error| match dialect {
            Dialect::Original => error,
            Dialect::HuggingFace => error.in_hugging_face_names(),
        })?;
        Ok((config, dialect))
    }

    /// Tokens that one picture takes in an understanding prompt.
    pub fn image_tokens(&self) -> usize {
        self.vision.num_tokens()
    }

    /// Codes of one drawn picture, in raster order.
    pub fn image_codes(&self) -> usize {
        self.gen_vision.grid() * self.gen_vision.grid()
    }

    /// Checks ranges and agreement between the parts before anything is allocated.
    ///
    /// # Errors
    /// Names the first field that is out of range or disagrees with another, by its path in the
    /// original dialect.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.vision.validate()?;
        self.gen_vision.validate()?;
        self.language.validate()?;
        self.aligner.validate("aligner_config")?;
        self.gen_aligner.validate("gen_aligner_config")?;
        self.gen_head.validate()?;
        let width = ("language_config.hidden_size", self.language.hidden_size);
        let vision = ("vision_config.params.width", self.vision.hidden_size);
        let code = ("gen_vision_config.params.n_embed", self.gen_vision.embed_dim);
        let codes = ("gen_vision_config.params.image_token_size", self.gen_vision.num_embeddings);
        for (field, value, other) in [
            ("aligner_config.params.input_dim", self.aligner.input_dim, vision),
            ("aligner_config.params.n_embed", self.aligner.output_dim, width),
            ("gen_aligner_config.params.input_dim", self.gen_aligner.input_dim, code),
            ("gen_aligner_config.params.n_embed", self.gen_aligner.output_dim, width),
            ("gen_head_config.params.n_embed", self.gen_head.hidden_size, width),
            ("gen_head_config.params.image_token_size", self.gen_head.codes, codes),
        ] {
            if value != other.1 {
                return Err(ConfigError::disagree(field, value, other.0, other.1));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
