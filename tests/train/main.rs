//! Training: data, one step, a run. One file per topic.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a failing test may panic

#[path = "../common/mod.rs"]
mod common;

mod data_bad;
mod data_common;
mod data_formats;
mod data_layout;
mod data_loader;
mod data_shards;
mod data_speed;
mod encoder;
mod evaluate;
mod fields;
mod finetune;
mod golden;
mod gradients;
mod job;
mod lora;
mod parts;
mod parts_common;
mod reference;
mod run_common;
mod run_damage;
mod run_full;
mod run_hostile;
mod run_keep;
mod run_model;
mod run_moments;
mod run_refuse;
mod run_resume;
mod start;
mod steps;
mod tokenizer;
mod words;
