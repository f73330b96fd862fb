//! The two dialects of `config.json`.

use serde_json::Value;

use super::fields::{Fields, shown};
use super::{ConfigError, Dialect, JanusConfig};
use crate::gen_head::GenHeadConfig;
use crate::llama::LlamaConfig;
use crate::projector::ProjectorConfig;
use crate::siglip::VisionConfig;
use crate::vq::VqConfig;

/// Parses either dialect, told apart by the name of the language part.
pub(super) fn parse(text: &str) -> Result<(JanusConfig, Dialect), ConfigError> {
    let value: Value = serde_json::from_str(text).map_err(|source| ConfigError::Json { source })?;
    let root = Fields::root(&value)?;
    root.only("model_type", &["multi_modality", "janus"])?;
    if root.get("auto_map").is_some() || root.get("trust_remote_code").is_some() {
        tracing::warn!("config.json asks for remote code; it is ignored, nothing of it is run");
    }
    if root.get("language_config").is_some() {
        Ok((original(&root)?, Dialect::Original))
    } else if root.get("text_config").is_some() {
        let config = hugging_face(&root).map_err(ConfigError::in_hugging_face_names)?;
        Ok((config, Dialect::HuggingFace))
    } else {
        Err(ConfigError::field(
            "language_config",
            "missing, and so is text_config: this is not a Janus configuration",
        ))
    }
}

/// DeepSeek's dialect: named classes imply sizes; `params` may override every one of them.
fn original(root: &Fields) -> Result<JanusConfig, ConfigError> {
    for name in [
        "aligner_config",
        "gen_aligner_config",
        "gen_head_config",
        "gen_vision_config",
        "vision_config",
    ] {
        if !root.object(name)?.present() {
            return Err(ConfigError::field(name, "missing"));
        }
    }
    let vision = original_vision(&root.object("vision_config")?)?;
    let gen_vision = original_vq(&root.object("gen_vision_config")?, vision.image_size)?;
    let language = llama(&root.object("language_config")?)?;
    let head = root.object("gen_head_config")?;
    head.only("cls", &["vision_head"])?;
    let head = head.object("params")?;
    Ok(JanusConfig {
        aligner: original_projector(&root.object("aligner_config")?)?,
        gen_aligner: original_projector(&root.object("gen_aligner_config")?)?,
        gen_head: GenHeadConfig {
            hidden_size: head.need("n_embed")?,
            embed_dim: head.need("image_token_embed")?,
            codes: head.need("image_token_size")?,
        },
        vision,
        gen_vision,
        language,
    })
}

fn original_vision(part: &Fields) -> Result<VisionConfig, ConfigError> {
    part.only("cls", &["CLIPVisionTower"])?;
    let params = part.object("params")?;
    params.only("model_name", &["siglip_large_patch16_384"])?;
    params.only("select_feature", &["same"])?;
    let base = VisionConfig::siglip_large_384();
    let hidden_size = params.int("width")?.unwrap_or(base.hidden_size);
    let ratio = params.float("mlp_ratio")?.unwrap_or(4.0);
    let layers = params.int("layers")?.unwrap_or(base.num_hidden_layers);
    Ok(VisionConfig {
        image_size: params.int("image_size")?.unwrap_or(base.image_size),
        patch_size: params.int("patch_size")?.unwrap_or(base.patch_size),
        hidden_size,
        num_hidden_layers: kept_layers(&params, layers)?,
        num_attention_heads: params.int("heads")?.unwrap_or(base.num_attention_heads),
        intermediate_size: scaled(hidden_size, ratio),
        layer_norm_eps: params.float("layer_norm_eps")?.unwrap_or(base.layer_norm_eps),
    })
}

/// `select_layer` counts kept blocks, from the end when negative: −1 keeps all of them, and so
/// does a number above their count.
fn kept_layers(params: &Fields, layers: usize) -> Result<usize, ConfigError> {
    let Some(value) = params.get("select_layer") else { return Ok(layers) };
    let total = i64::try_from(layers).unwrap_or(i64::MAX);
    value
        .as_i64()
        .map(|n| if n < 0 { total.saturating_add(n).saturating_add(1) } else { n.min(total) })
        .filter(|n| (1..=total).contains(n))
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| {
            ConfigError::field(
                params.at("select_layer"),
                format!("{} keeps no block of the {layers} there are", shown(value)),
            )
        })
}

fn original_projector(part: &Fields) -> Result<ProjectorConfig, ConfigError> {
    part.only("cls", &["MlpProjector"])?;
    let params = part.object("params")?;
    params.only("projector_type", &["mlp_gelu"])?;
    Ok(ProjectorConfig {
        input_dim: params.need("input_dim")?,
        output_dim: params.need("n_embed")?,
        depth: params.int("depth")?.unwrap_or(1),
    })
}

fn original_vq(part: &Fields, image_size: usize) -> Result<VqConfig, ConfigError> {
    part.only("cls", &["VQ-16"])?;
    let params = part.object("params")?;
    let base = VqConfig::vq_16();
    let mult = params.ints("encoder_ch_mult")?.unwrap_or(base.channel_multiplier);
    if params.ints("decoder_ch_mult")?.is_some_and(|decoder| decoder != mult) {
        return Err(ConfigError::field(
            params.at("decoder_ch_mult"),
            "differs from encoder_ch_mult, which is not supported",
        ));
    }
    Ok(VqConfig {
        image_size,
        num_embeddings: params.need("image_token_size")?,
        embed_dim: params.need("n_embed")?,
        base_channels: params.int("ch")?.unwrap_or(base.base_channels),
        channel_multiplier: mult,
        num_res_blocks: params.int("num_res_blocks")?.unwrap_or(base.num_res_blocks),
        latent_channels: params.int("z_channels")?.unwrap_or(base.latent_channels),
    })
}

/// Hugging Face's dialect; absent fields take the defaults of `transformers`.
fn hugging_face(root: &Fields) -> Result<JanusConfig, ConfigError> {
    let vision_part = root.object("vision_config")?;
    let vq_part = root.object("vq_config")?;
    let vision = hf_vision(&vision_part)?;
    let gen_vision = hf_vq(&vq_part, vision.image_size)?;
    let mut language = llama(&root.object("text_config")?)?;
    if let Some(tied) = root.bool("tie_word_embeddings")? {
        language.tie_word_embeddings = tied;
    }
    let projection = |part: &Fields| Ok(part.int("projection_dim")?.unwrap_or(2048));
    Ok(JanusConfig {
        aligner: ProjectorConfig {
            input_dim: vision.hidden_size,
            output_dim: projection(&vision_part)?,
            depth: vision_part.int("depth")?.unwrap_or(2),
        },
        gen_aligner: ProjectorConfig {
            input_dim: gen_vision.embed_dim,
            output_dim: projection(&vq_part)?,
            depth: vq_part.int("num_hidden_layers")?.unwrap_or(2),
        },
        gen_head: GenHeadConfig {
            hidden_size: vq_part.int("image_token_embed_dim")?.unwrap_or(2048),
            embed_dim: projection(&vq_part)?,
            codes: gen_vision.num_embeddings,
        },
        vision,
        gen_vision,
        language,
    })
}

fn hf_vision(part: &Fields) -> Result<VisionConfig, ConfigError> {
    // "gelu" is the erf form in transformers.
    part.only("hidden_act", &["gelu"])?;
    part.must_be_off("use_qk_norm")?;
    if part.bool("attention_bias")? == Some(false) {
        return Err(ConfigError::field(part.at("attention_bias"), "false is not supported"));
    }
    if part.int("num_channels")?.is_some_and(|n| n != 3) {
        return Err(ConfigError::field(part.at("num_channels"), "only 3 is supported"));
    }
    let base = VisionConfig::siglip_large_384();
    let hidden_size = part.int("hidden_size")?.unwrap_or(base.hidden_size);
    let vision = VisionConfig {
        image_size: part.int("image_size")?.unwrap_or(base.image_size),
        patch_size: part.int("patch_size")?.unwrap_or(base.patch_size),
        hidden_size,
        num_hidden_layers: part.int("num_hidden_layers")?.unwrap_or(base.num_hidden_layers),
        num_attention_heads: part.int("num_attention_heads")?.unwrap_or(base.num_attention_heads),
        intermediate_size: scaled(hidden_size, part.float("mlp_ratio")?.unwrap_or(4.0)),
        layer_norm_eps: part.float("layer_norm_eps")?.unwrap_or(base.layer_norm_eps),
    };
    vision.validate()?;
    match part.int("num_image_tokens")? {
        Some(n) if n != vision.num_tokens() => Err(ConfigError::disagree(
            "vision_config.num_image_tokens",
            n,
            "(image_size / patch_size)²",
            vision.num_tokens(),
        )),
        _ => Ok(vision),
    }
}

fn hf_vq(part: &Fields, image_size: usize) -> Result<VqConfig, ConfigError> {
    part.must_be_off("double_latent")?;
    part.only("hidden_act", &["gelu"])?;
    for name in ["in_channels", "out_channels"] {
        if part.int(name)?.is_some_and(|n| n != 3) {
            return Err(ConfigError::field(part.at(name), "only 3 is supported"));
        }
    }
    let base = VqConfig::vq_16();
    let vq = VqConfig {
        image_size,
        num_embeddings: part.int("num_embeddings")?.unwrap_or(base.num_embeddings),
        embed_dim: part.int("embed_dim")?.unwrap_or(base.embed_dim),
        base_channels: part.int("base_channels")?.unwrap_or(base.base_channels),
        channel_multiplier: part.ints("channel_multiplier")?.unwrap_or(base.channel_multiplier),
        num_res_blocks: part.int("num_res_blocks")?.unwrap_or(base.num_res_blocks),
        latent_channels: part.int("latent_channels")?.unwrap_or(base.latent_channels),
    };
    vq.validate()?;
    match part.int("num_patches")? {
        Some(n) if n != vq.grid() => Err(ConfigError::disagree(
            "vq_config.num_patches",
            n,
            "image_size / 2^(levels − 1)",
            vq.grid(),
        )),
        _ => Ok(vq),
    }
}

/// Both dialects describe the language model with LLaMA's field names and defaults.
fn llama(part: &Fields) -> Result<LlamaConfig, ConfigError> {
    part.only("model_type", &["llama"])?;
    part.only("hidden_act", &["silu"])?;
    part.must_be_off("attention_bias")?;
    part.must_be_off("mlp_bias")?;
    let hidden_size = part.int("hidden_size")?.unwrap_or(4096);
    let heads = part.int("num_attention_heads")?.unwrap_or(32);
    let head_dim = match part.int("head_dim")? {
        Some(width) => width,
        None if heads > 0 && hidden_size % heads != 0 => {
            return Err(ConfigError::field(
                part.at("num_attention_heads"),
                format!(
                    "{heads} does not divide hidden_size {hidden_size}, and there is no head_dim"
                ),
            ));
        }
        // Without heads the range check of their number speaks.
        None => hidden_size.checked_div(heads).unwrap_or(0),
    };
    Ok(LlamaConfig {
        vocab_size: part.int("vocab_size")?.unwrap_or(32_000),
        hidden_size,
        intermediate_size: part.int("intermediate_size")?.unwrap_or(11_008),
        num_hidden_layers: part.int("num_hidden_layers")?.unwrap_or(32),
        num_attention_heads: heads,
        num_key_value_heads: part.int("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        max_position_embeddings: part.int("max_position_embeddings")?.unwrap_or(2048),
        rope_theta: rope_theta(part)?,
        rms_norm_eps: part.float("rms_norm_eps")?.unwrap_or(1e-6),
        tie_word_embeddings: part.bool("tie_word_embeddings")?.unwrap_or(false),
    })
}

/// `rope_theta` beside the sizes, or inside `rope_parameters` since transformers 5.
fn rope_theta(part: &Fields) -> Result<f64, ConfigError> {
    for name in ["rope_scaling", "rope_parameters"] {
        let rope = part.object(name)?;
        rope.only("rope_type", &["default"])?;
        rope.only("type", &["default"])?;
    }
    let nested = part.object("rope_parameters")?.float("rope_theta")?;
    Ok(part.float("rope_theta")?.or(nested).unwrap_or(10_000.0))
}

/// `int(width · ratio)`, as both reference implementations compute it.
fn scaled(width: usize, ratio: f64) -> usize {
    (width as f64 * ratio) as usize
}
