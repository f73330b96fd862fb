//! Training the image tokenizer: pictures to codes and back, judged by pixels, by what a network
//! sees in them, and by a critic that learns along.
//!
//! ```text
//! pictures ─ augment ─► x ─ encoder ─ nearest code ─ decoder ─► x̂ ─► losses ─► gradients ─► VqModel
//!                       └──────────────── critic ◄───────────────┘     (straight through the code)
//! ```
//! The recipe is LlamaGen's (arXiv 2406.06525), from which Janus took its tokenizer as it is. Read:
//! [`losses`], then [`discriminator`] and [`lpips`], the two judges; [`training`] joins them under
//! [`crate::strategy`].
//!
//! As in the original, the tokenizer is updated first, and the critic by the same reconstructions,
//! which it sees as they were before. Other than there, the critic sleeps before its first step:
//! its loss would have the weight 0, and its optimizer would count steps that move nothing.

pub mod augment;
mod config;
pub mod discriminator;
mod local;
pub mod losses;
pub mod lpips;
mod merge;
mod revive;
mod soft;
pub mod training;
pub mod usage;

pub use augment::AugmentConfig;
pub use config::TokenizerConfig;
pub use discriminator::{Critic, CriticConfig};
pub use losses::LossConfig;
pub use lpips::{Lpips, LpipsConfig, LpipsError};
pub use training::{Pair, TokenizerTraining};

/// Canonical name of the image tokenizer.
pub(crate) const PART: &str = "gen_vision_model";
/// In front of its tensors.
pub const PREFIX: &str = "gen_vision_model.";
/// In front of the critic's.
pub const CRITIC: &str = "critic.";
