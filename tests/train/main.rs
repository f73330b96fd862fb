//! Training: data, one step, a run. One file per topic.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a failing test may panic

#[path = "../common/mod.rs"]
mod common;

mod gradients;
mod lora;
mod reference;
mod steps;
