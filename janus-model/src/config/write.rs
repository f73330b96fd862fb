//! `config.json` in either dialect, such that reading it again gives the same sizes.

use serde_json::{Map, Value, json};

use super::{ConfigError, Dialect, GenerationConfig, JanusConfig};
use crate::projector::ProjectorConfig;
use crate::siglip::VisionConfig;
use crate::vq::VqConfig;

/// Token ids that Hugging Face's configuration repeats from the tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenIds {
    /// Begin of sentence.
    pub bos: i32,
    /// End of sentence.
    pub eos: i32,
    /// Padding.
    pub pad: i32,
    /// Place of one image token.
    pub image_placeholder: i32,
    /// Begin of image.
    pub begin_of_image: i32,
}

impl JanusConfig {
    /// Whether the dialect has words for these sizes: Hugging Face's has one number for the width
    /// of the image head and the output of the generation aligner.
    ///
    /// # Errors
    /// The two sizes that would have to be one.
    pub fn check_dialect(&self, dialect: Dialect) -> Result<(), ConfigError> {
        let (head, aligner) = (self.gen_head.embed_dim, self.gen_aligner.output_dim);
        if dialect == Dialect::HuggingFace && head != aligner {
            let fields = ["image_token_embed", "n_embed"];
            let [field, other] = fields.map(|name| format!("gen_head_config.params.{name}"));
            return Err(ConfigError::disagree(&field, head, &other, aligner));
        }
        Ok(())
    }

    /// The configuration as JSON text, where [`JanusConfig::check_dialect`] allows it. `ids` are
    /// needed by the Hugging Face dialect only.
    pub fn to_json(&self, dialect: Dialect, dtype: &str, ids: Option<TokenIds>) -> String {
        let value = match dialect {
            Dialect::Original => self.original(dtype),
            Dialect::HuggingFace => self.hugging_face(dtype, ids),
        };
        // A `Value` always serialises.
        serde_json::to_string_pretty(&value).unwrap_or_default() + "\n"
    }

    /// `generation_config.json` of the Hugging Face dialect; where no weight of guidance is
    /// advised, it is that of Janus.
    pub fn generation_json(&self, ids: TokenIds, advice: GenerationConfig) -> String {
        // As written: 1.1 is not 1.10000002384.
        let weight = advice.guidance_scale.map(|weight| weight.to_string());
        let weight = weight.and_then(|weight| weight.parse().ok()).unwrap_or(json!(5));
        let value = json!({
            "bos_token_id": ids.bos, "eos_token_id": ids.eos, "pad_token_id": ids.pad,
            "guidance_scale": weight,
            "generation_kwargs": {"boi_token_id": ids.begin_of_image},
        });
        serde_json::to_string_pretty(&value).unwrap_or_default() + "\n"
    }

    fn original(&self, dtype: &str) -> Value {
        let head = &self.gen_head;
        json!({
            "model_type": "multi_modality",
            "architectures": ["MultiModalityCausalLM"],
            "torch_dtype": dtype,
            "vision_config": {"cls": "CLIPVisionTower", "model_type": "vision", "params": original_vision(&self.vision)},
            "aligner_config": {"cls": "MlpProjector", "model_type": "aligner", "params": projector(&self.aligner)},
            "gen_vision_config": {"cls": "VQ-16", "model_type": "gen_vision", "params": original_vq(&self.gen_vision)},
            "gen_aligner_config": {"cls": "MlpProjector", "model_type": "gen_aligner", "params": projector(&self.gen_aligner)},
            "gen_head_config": {"cls": "vision_head", "model_type": "gen_head", "params": {
                "n_embed": head.hidden_size, "image_token_embed": head.embed_dim, "image_token_size": head.codes,
            }},
            "language_config": self.llama(dtype),
        })
    }

    fn hugging_face(&self, dtype: &str, ids: Option<TokenIds>) -> Value {
        let (vision, vq) = (&self.vision, &self.gen_vision);
        let mut language = self.llama(dtype);
        let mut root = json!({
            "model_type": "janus",
            "architectures": ["JanusForConditionalGeneration"],
            "dtype": dtype,
            // transformers ties by default; Janus keeps two tables.
            "tie_word_embeddings": self.language.tie_word_embeddings,
            "vision_config": {
                "model_type": "janus_vision_model",
                "hidden_size": vision.hidden_size, "num_hidden_layers": vision.num_hidden_layers,
                "num_attention_heads": vision.num_attention_heads, "image_size": vision.image_size,
                "patch_size": vision.patch_size, "layer_norm_eps": vision.layer_norm_eps,
                "mlp_ratio": vision.mlp_ratio(),
                "projection_dim": self.aligner.output_dim, "depth": self.aligner.depth,
                "num_image_tokens": vision.num_tokens(), "hidden_act": "gelu",
                "attention_bias": true, "use_qk_norm": false,
            },
            "vq_config": {
                "model_type": "janus_vqgan",
                "embed_dim": vq.embed_dim, "num_embeddings": vq.num_embeddings,
                "latent_channels": vq.latent_channels, "base_channels": vq.base_channels,
                "channel_multiplier": vq.channel_multiplier, "num_res_blocks": vq.num_res_blocks,
                "num_patches": vq.grid(), "projection_dim": self.gen_aligner.output_dim,
                "image_token_embed_dim": self.gen_head.hidden_size,
                "num_hidden_layers": self.gen_aligner.depth, "hidden_act": "gelu", "double_latent": false,
            },
        });
        if let (Some(ids), Some(fields)) = (ids, language.as_object_mut()) {
            fields.insert("bos_token_id".into(), ids.bos.into());
            fields.insert("eos_token_id".into(), ids.eos.into());
            fields.insert("pad_token_id".into(), ids.pad.into());
            root["image_token_id"] = ids.image_placeholder.into();
        }
        root["text_config"] = language;
        root
    }

    fn llama(&self, dtype: &str) -> Value {
        let llm = &self.language;
        json!({
            "model_type": "llama",
            "vocab_size": llm.vocab_size, "hidden_size": llm.hidden_size,
            "intermediate_size": llm.intermediate_size, "num_hidden_layers": llm.num_hidden_layers,
            "num_attention_heads": llm.num_attention_heads,
            "num_key_value_heads": llm.num_key_value_heads, "head_dim": llm.head_dim,
            "max_position_embeddings": llm.max_position_embeddings,
            "rope_theta": llm.rope_theta, "rms_norm_eps": llm.rms_norm_eps,
            "tie_word_embeddings": llm.tie_word_embeddings, "torch_dtype": dtype,
        })
    }
}

fn projector(config: &ProjectorConfig) -> Value {
    json!({
        "projector_type": "mlp_gelu", "depth": config.depth,
        "input_dim": config.input_dim, "n_embed": config.output_dim,
    })
}

/// Only what differs from the named class is spelled out, as in the published files.
fn original_vision(config: &VisionConfig) -> Value {
    let base = VisionConfig::siglip_large_384();
    let mut params = Map::from_iter([
        ("model_name".to_owned(), json!("siglip_large_patch16_384")),
        ("image_size".to_owned(), json!(config.image_size)),
        ("select_feature".to_owned(), json!("same")),
        ("select_layer".to_owned(), json!(-1)),
    ]);
    if *config != base {
        params.extend([
            ("patch_size".to_owned(), json!(config.patch_size)),
            ("width".to_owned(), json!(config.hidden_size)),
            ("layers".to_owned(), json!(config.num_hidden_layers)),
            ("heads".to_owned(), json!(config.num_attention_heads)),
            ("mlp_ratio".to_owned(), json!(config.mlp_ratio())),
            ("layer_norm_eps".to_owned(), json!(config.layer_norm_eps)),
        ]);
    }
    Value::Object(params)
}

fn original_vq(config: &VqConfig) -> Value {
    let base = VqConfig::vq_16();
    let mut params = Map::from_iter([
        ("image_token_size".to_owned(), json!(config.num_embeddings)),
        ("n_embed".to_owned(), json!(config.embed_dim)),
    ]);
    let implied = VqConfig {
        image_size: config.image_size,
        num_embeddings: config.num_embeddings,
        embed_dim: config.embed_dim,
        ..base
    };
    if *config != implied {
        params.extend([
            ("ch".to_owned(), json!(config.base_channels)),
            ("encoder_ch_mult".to_owned(), json!(config.channel_multiplier)),
            ("decoder_ch_mult".to_owned(), json!(config.channel_multiplier)),
            ("z_channels".to_owned(), json!(config.latent_channels)),
            ("num_res_blocks".to_owned(), json!(config.num_res_blocks)),
        ]);
    }
    Value::Object(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// transformers takes nothing from a file that says it is made of the model's configuration, and
    /// then lacks the id that image generation asks for.
    #[test]
    fn generation_settings_stand_for_themselves() {
        let ids = TokenIds { bos: 1, eos: 2, pad: 3, image_placeholder: 4, begin_of_image: 5 };
        let advice = GenerationConfig { guidance_scale: Some(1.25) };
        let text = JanusConfig::pro_1b().generation_json(ids, advice);
        let expected = json!({
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "guidance_scale": 1.25,
            "generation_kwargs": {"boi_token_id": 5},
        });
        assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(expected));
    }
}
