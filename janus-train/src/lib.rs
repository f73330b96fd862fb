//! How a Janus is trained. So far: the objective and the learning-rate schedule; data, the step
//! loop and checkpoints of a run are still to come (see `CHANGELOG.md`).
//!
//! The paper trains in three stages with one loss: cross-entropy over answer tokens and over image
//! codes, every supervised token counting the same ([`objective`]), under AdamW at a constant
//! rate after a linear warm-up ([`schedule`]).

pub mod batch;
pub mod data;
pub mod config;
pub mod metrics;
pub mod objective;
pub mod run;
pub mod schedule;
pub mod spikes;
pub mod strategy;

mod failpoint;
