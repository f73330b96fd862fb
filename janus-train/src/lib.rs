//! How a Janus is trained. So far: the objective and the learning-rate schedule; data, the step
//! loop and checkpoints of a run are still to come (see `CHANGELOG.md`).
//!
//! The paper trains in three stages with one loss: cross-entropy over answer tokens and over image
//! codes, every supervised token counting the same ([`objective`]), under AdamW at a constant
//! rate after a linear warm-up ([`schedule`]).

pub mod accumulate;
pub mod batch;
pub mod clip;
pub mod learner;
pub mod lora;
pub mod objective;
pub mod optim;
pub mod recompute;
pub mod schedule;
pub mod stage;
pub mod step;
