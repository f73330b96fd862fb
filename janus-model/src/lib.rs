//! Janus-Pro on Burn: architecture, processors and checkpoints.

pub mod checkpoint;
pub mod processor;
