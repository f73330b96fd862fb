//! Sizes of a model that is to be trained from nothing, out of a few lines of TOML.
//!
//! Names are those of Hugging Face's `config.json`. What follows from other sizes cannot be given:
//! the rows of the text tables are the tokens of the vocabulary, everything meets in the width of
//! the decoder.

use std::path::Path;

use janus_model::JanusConfig;
use janus_model::config::ConfigError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::{RecipeError, read};

/// Sizes as they are chosen. What is not given is as in Janus-Pro.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Weight of guidance that pictures are drawn with where nobody asks for another: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f32>,
    /// Understanding encoder, and the adaptor behind it.
    pub vision_config: VisionSizes,
    /// Image tokenizer, and the adaptor behind it.
    pub vq_config: VqSizes,
    /// Decoder.
    pub text_config: TextSizes,
}

/// Of the understanding encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionSizes {
    /// Side of a picture in pixels, read or drawn.
    pub image_size: usize,
    /// Side of a patch, which becomes one token.
    pub patch_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Inner width of the MLP by the width of a token: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mlp_ratio: Option<f64>,
    /// Layers of the understanding adaptor: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
}

/// Of the image tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqSizes {
    /// Different codes.
    pub num_embeddings: usize,
    /// Channels of the first level, a multiple of 32.
    pub base_channels: usize,
    /// Channels of each level by those of the first; each level but the last halves the side.
    pub channel_multiplier: Vec<usize>,
    /// Channels between convolutions and codes.
    pub latent_channels: usize,
    /// Width of a code: 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embed_dim: Option<usize>,
    /// Residual blocks of a level: 2, and one more in the decoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_res_blocks: Option<usize>,
    /// Layers of the generation adaptor: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_hidden_layers: Option<usize>,
}

/// Of the decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSizes {
    /// Width of a token.
    pub hidden_size: usize,
    /// Inner width of the MLP.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Heads of keys and values: as many as there are heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head: the width of a token by the heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Base of the rotation: 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// ε of the norms: 1e-6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rms_norm_eps: Option<f64>,
    /// Whether the text head is the text table: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tie_word_embeddings: Option<bool>,
}

impl Sizes {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`RecipeError`].
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        read::file(path)
    }

    /// Reads their text.
    ///
    /// # Errors
    /// The first thing that is no TOML or no size, with its line.
    pub fn from_toml(text: &str) -> Result<Self, RecipeError> {
        read::parse(text)
    }

    /// The whole model, for a vocabulary of so many tokens.
    ///
    /// # Errors
    /// A size that is out of range, or disagrees with another, by the name it has here.
    pub fn config(&self, tokens: usize) -> Result<JanusConfig, ConfigError> {
        let width = self.text_config.hidden_size;
        let with = |sizes: Value, more: Value| -> Map<String, Value> {
            let maps = [sizes, more].map(|value| value.as_object().cloned().unwrap_or_default());
            maps.into_iter().flatten().collect()
        };
        let adapted = json!({"projection_dim": width, "image_token_embed_dim": width});
        let value = json!({
            "model_type": "janus",
            "vision_config": with(json!(self.vision_config), json!({"projection_dim": width})),
            "vq_config": with(json!(self.vq_config), adapted),
            "text_config": with(json!(self.text_config), json!({"vocab_size": tokens})),
        });
        Ok(JanusConfig::from_json(&value.to_string())?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = "
        [vision_config]
        image_size = 64
        patch_size = 8
        hidden_size = 96
        num_hidden_layers = 2
        num_attention_heads = 4
        [vq_config]
        num_embeddings = 1024
        base_channels = 32
        channel_multiplier = [1, 1, 2, 2]
        latent_channels = 64
        [text_config]
        hidden_size = 256
        intermediate_size = 704
        num_hidden_layers = 4
        num_attention_heads = 8
        max_position_embeddings = 1024
    ";

    fn config(text: &str) -> Result<JanusConfig, String> {
        let sizes = Sizes::from_toml(text).map_err(|error| error.to_string())?;
        sizes.config(1000).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_meets_in_the_width_of_the_decoder() {
        let found = config(TINY).unwrap();
        assert_eq!((found.image_tokens(), found.image_codes()), (64, 64));
        assert_eq!((found.aligner.input_dim, found.aligner.output_dim), (96, 256));
        assert_eq!((found.gen_aligner.input_dim, found.gen_aligner.output_dim), (8, 256));
        let head = &found.gen_head;
        assert_eq!((head.hidden_size, head.embed_dim, head.codes), (256, 256, 1024));
        let language = &found.language;
        assert_eq!((language.vocab_size, language.head_dim), (1000, 32));
        assert_eq!((language.num_key_value_heads, language.tie_word_embeddings), (8, false));
        assert_eq!(found.vision.intermediate_size, 384);
    }

    #[test]
    fn every_size_counts() {
        let more = "mlp_ratio = 2.0\ndepth = 1\n[vq_config]\nembed_dim = 4\nnum_res_blocks = 1\nnum_hidden_layers = 3\n";
        let text = TINY.replace("[vq_config]", more).replace(
            "[text_config]",
            "[text_config]\nnum_key_value_heads = 2\nhead_dim = 16\nrope_theta = 5e3\nrms_norm_eps = 1e-5\ntie_word_embeddings = true",
        );
        let found = config(&text).unwrap();
        assert_eq!((found.vision.intermediate_size, found.aligner.depth), (192, 1));
        let vq = &found.gen_vision;
        assert_eq!((vq.embed_dim, vq.num_res_blocks, found.gen_aligner.depth), (4, 1, 3));
        let language = &found.language;
        assert_eq!((language.num_key_value_heads, language.head_dim), (2, 16));
        assert_eq!((language.rope_theta, language.rms_norm_eps), (5e3, 1e-5));
        assert!(language.tie_word_embeddings);
    }

    #[test]
    fn errors_name_what_was_written() {
        let error = |from: &str, to: &str| config(&TINY.replace(from, to)).unwrap_err();
        let missing = error("patch_size = 8", "");
        assert!(missing.contains("vision_config: missing field `patch_size`"), "{missing}");
        let unknown = error("patch_size = 8", "patch_size = 8\nvocab_size = 7");
        assert!(unknown.contains("unknown field `vocab_size`"), "{unknown}");
        let groups = error("base_channels = 32", "base_channels = 20");
        assert!(groups.contains("vq_config.base_channels"), "{groups}");
        let patches = error("patch_size = 8", "patch_size = 65");
        assert!(patches.contains("vision_config"), "{patches}");
        let heads = error("num_attention_heads = 8", "num_attention_heads = 7");
        assert!(heads.contains("text_config.num_attention_heads"), "{heads}");
    }
}
