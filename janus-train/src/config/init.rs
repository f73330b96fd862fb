//! A model out of parts: what a run starts from where no finished model is there.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Sizes and small files of one folder, weights of others, and chance for the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitConfig {
    /// A model folder; of its weights, if it has any, nothing is read.
    pub model: PathBuf,
    /// Where parts come from.
    #[serde(default)]
    pub parts: InitParts,
}

/// Where parts come from, each a model folder or the folder of a run that trained it. What is not
/// here begins with random weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InitParts {
    /// Understanding encoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision_model: Option<PathBuf>,
    /// Understanding adaptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aligner: Option<PathBuf>,
    /// Image tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_vision_model: Option<PathBuf>,
    /// Generation adaptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_aligner: Option<PathBuf>,
    /// Image head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_head: Option<PathBuf>,
    /// Embeddings of image codes; without any, they begin as the codebook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_embed: Option<PathBuf>,
    /// Decoder with text table and text head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_model: Option<PathBuf>,
}

impl InitParts {
    /// Name and folder of every part that is given.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let all = [
            ("vision_model", &self.vision_model),
            ("aligner", &self.aligner),
            ("gen_vision_model", &self.gen_vision_model),
            ("gen_aligner", &self.gen_aligner),
            ("gen_head", &self.gen_head),
            ("gen_embed", &self.gen_embed),
            ("language_model", &self.language_model),
        ];
        all.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?)))
    }
}

impl InitConfig {
    /// Its paths.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let Self { model, parts } = self;
        let InitParts {
            vision_model,
            aligner,
            gen_vision_model,
            gen_aligner,
            gen_head,
            gen_embed,
            language_model,
        } = parts;
        let parts = [
            vision_model,
            aligner,
            gen_vision_model,
            gen_aligner,
            gen_head,
            gen_embed,
            language_model,
        ];
        std::iter::once(model).chain(parts.into_iter().flatten())
    }
}
