//! What Hugging Face calls the fields that the checks name in the original's words.

use super::ConfigError;

/// Beginnings of field paths, original → Hugging Face; the first that fits counts.
const HUGGING_FACE: [(&str, &str); 22] = [
    ("language_config.", "text_config."),
    ("vision_config.params.width", "vision_config.hidden_size"),
    ("vision_config.params.layers", "vision_config.num_hidden_layers"),
    ("vision_config.params.heads", "vision_config.num_attention_heads"),
    ("vision_config.params.", "vision_config."),
    // Both dialects give the image tokenizer the side of the vision tower.
    ("gen_vision_config.params.image_token_size", "vq_config.num_embeddings"),
    ("gen_vision_config.params.n_embed", "vq_config.embed_dim"),
    ("gen_vision_config.params.ch", "vq_config.base_channels"),
    ("gen_vision_config.params.encoder_ch_mult", "vq_config.channel_multiplier"),
    ("gen_vision_config.params.z_channels", "vq_config.latent_channels"),
    ("gen_vision_config.params.", "vq_config."),
    ("aligner_config.params.input_dim", "vision_config.hidden_size"),
    ("aligner_config.params.n_embed", "vision_config.projection_dim"),
    ("aligner_config.params.", "vision_config."),
    ("gen_aligner_config.params.input_dim", "vq_config.embed_dim"),
    ("gen_aligner_config.params.n_embed", "vq_config.projection_dim"),
    ("gen_aligner_config.params.depth", "vq_config.num_hidden_layers"),
    ("gen_aligner_config.params.", "vq_config."),
    ("gen_head_config.params.n_embed", "vq_config.image_token_embed_dim"),
    ("gen_head_config.params.image_token_embed", "vq_config.projection_dim"),
    ("gen_head_config.params.image_token_size", "vq_config.num_embeddings"),
    ("gen_head_config.params.", "vq_config."),
];

impl ConfigError {
    /// The same error with the names that a Hugging Face file has. Its own names stay.
    pub(super) fn in_hugging_face_names(self) -> Self {
        match self {
            Self::Field { field, problem } => Self::Field { field: translated(field), problem },
            Self::Disagree { field, value, other, other_value } => {
                let (field, other) = (translated(field), translated(other));
                Self::Disagree { field, value, other, other_value }
            }
            other => other,
        }
    }
}

fn translated(field: String) -> String {
    let fits = |(from, to): &(&str, &str)| {
        let rest = field.strip_prefix(from)?;
        let whole = from.ends_with('.') || rest.is_empty();
        whole.then(|| format!("{to}{rest}"))
    };
    HUGGING_FACE.iter().find_map(fits).unwrap_or(field)
}
