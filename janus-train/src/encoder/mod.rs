//! Training the understanding encoder: pictures and captions that belong together meet.
//!
//! ```text
//! picture ─ vision_model ─ pool ─► [n, e] ─┐
//!                                          ├─ every picture with every caption ─► sigmoid loss
//! caption ─ text tower ──────────► [n, e] ─┘
//! ```
//! Sigmoid contrastive pre-training (SigLIP, arXiv 2303.15343). What is kept is `vision_model`;
//! pool and text tower are [`towers::Heads`], needed to learn and then thrown away, as Janus has no
//! use for them. Read: [`loss`], [`towers`]; [`training`] joins them under [`crate::strategy`].
//!
//! Memory is bounded at any batch: see [`training`].

mod config;
pub mod loss;
pub mod towers;
pub mod training;

pub use config::{EncoderConfig, Pooling, TextConfig};
pub use towers::Towers;
pub use training::EncoderTraining;

/// Canonical name of the understanding encoder.
pub(crate) const PART: &str = "vision_model";
/// In front of what is thrown away.
pub const HEADS: &str = "heads.";
