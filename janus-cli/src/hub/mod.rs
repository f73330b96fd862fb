//! Models by name: the cache that all Hugging Face programs share, and the hub that fills it.
//!
//! ```text
//! name ─ names ─> Repo ─┬─ cache ─> snapshot folder, if it is there
//!                       └─ client ─> listing ─ names::needed ─ download ─> cache or a plain folder
//! ```
//! The layout is huggingface_hub's, so that Python finds what we fetch and we find what it did:
//! `models--org--name/{blobs,refs,snapshots}` with blobs named by their hash. That name is also
//! what makes a download trustworthy: a file whose bytes do not hash to it never gets it.
//!
//! Only `janus pull` goes to the network. `--model` looks into the cache and nowhere else.

pub mod address;
pub mod cache;
pub mod client;
pub mod download;
pub mod names;

pub use cache::Cache;
pub use client::{Client, RemoteFile};
pub use names::Repo;

use crate::report::Failure;

/// Why a transfer ended early.
#[derive(Debug)]
pub enum Stop {
    /// It cannot go on.
    Failed(Failure),
    /// Somebody asked; what has arrived is kept.
    Interrupted,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// An environment variable that says something.
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Whether an environment variable says yes.
pub fn is_on(name: &str) -> bool {
    let yes = ["1", "on", "yes", "true"];
    setting(name).is_some_and(|value| yes.iter().any(|yes| value.eq_ignore_ascii_case(yes)))
}

/// Whether the environment forbids the network.
pub fn is_offline() -> bool {
    is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE")
}
