//! How a Janus is trained, from a recipe or a few wishes to a model folder.
//!
//! ```text
//! config, finetune: a recipe ─► trainer: Job ─► Burn's SupervisedTraining around strategy ─► run
//!
//! files ─ data ─► Batch ─ step ─► Sum of losses ─ accumulate ─► gradients ─ clip ─ optim ─► weights
//!                          │                          └ recompute: one block at a time
//!                       stage: what trains        strategy: the order of all this
//!                                                 run: checkpoints, whole or not there
//! ```
//! Begin with [`trainer`], which joins everything, then [`step`], [`data`] and [`run`]. The image
//! tokenizer and the understanding encoder train apart ([`parts`]), under the same strategy; where
//! there is nothing yet, [`words`] learns a vocabulary and [`sizes`] says how large a model is.
//! [`scenes`] is a small world to train on, in which everything is known.
//!
//! The paper trains in three stages with one loss: cross-entropy over answer tokens and over image
//! codes, every supervised token counting the same ([`objective`]), under AdamW at a constant
//! rate after a linear warm-up ([`schedule`]). [`config`] reads the recipes in `stages/`.
//!
//! What holds everywhere: the same recipe and checkpoint give the same next step; nothing is cut
//! silently; a loss or gradient that is no number never reaches a weight; nothing prints.
//!
//! Not here: choosing tokens (`janus-infer`), devices and terminals (`janus-cli`).

pub mod accumulate;
pub mod batch;
pub mod clip;
pub mod config;
pub mod data;
pub mod encoder;
pub mod evaluate;
mod failpoint;
pub mod fields;
pub mod finetune;
pub mod frozen;
pub mod learner;
pub mod lora;
pub mod metrics;
pub mod objective;
pub mod optim;
pub mod parts;
pub mod recompute;
pub mod run;
pub mod scenes;
pub mod schedule;
pub mod sizes;
pub mod spikes;
pub mod stage;
pub mod start;
pub mod step;
pub mod strategy;
pub mod tokenizer;
pub mod trainer;
pub mod weights;
pub mod words;
