//! The parity ladder: every module against PyTorch, from pixels to whole pictures, on every
//! backend compiled in, in both namings, on two tiny models of unusual shapes.
//!
//! Bounds are shares of a tensor's largest value: 1e-4 on the CPU backends, 1e-3 on wgpu. What
//! was measured stands beside each rung (worst of both models and namings); run with
//! `--nocapture` to see today's values.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;

mod adapters;
mod cache;
mod checkpoint;
mod llama;
mod load;
#[cfg(feature = "cpu")]
mod packed;
mod processor;
#[cfg(feature = "cpu")]
mod rounded;
mod siglip;
mod tables;
mod vq;
