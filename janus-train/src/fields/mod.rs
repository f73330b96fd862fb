//! Training the understanding encoder from maps: of each token of a picture, what lies in its field.
//!
//! ```text
//! picture ─ vision_model ─► [N, tokens, W] ─ words ─► [N, tokens, words]
//!                                                            │ of each word, whether it holds there
//! "grey, grey, red circle, …" ─ by commas ─ words ───────────┴─► loss
//! ```
//! `L = −1/n · Σ log σ(±ẑ)`, summed over words, averaged over fields. Pairs of picture and caption
//! ([`crate::encoder`]) teach an encoder that starts from nothing only where thousands are compared
//! at once; maps do where somebody knows them, as in drawn scenes: every token has a teacher of its
//! own. What is kept is `vision_model`; the words are thrown away.

mod config;
mod training;

pub use config::FieldsConfig;
pub use training::{FieldsTraining, Seer};

/// Canonical name of the understanding encoder.
pub(crate) const PART: &str = "vision_model";
/// In front of what is thrown away.
pub const HEADS: &str = "heads.";
