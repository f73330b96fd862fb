//! One file per command: resolve what was typed, call the library, show what it says.

pub mod ask;
pub mod batch;
pub mod bench;
pub mod chat;
pub mod convert;
pub mod data;
pub mod devices;
pub mod doctor;
pub mod estimate;
pub mod eval;
pub mod finetune;
pub mod generate;
pub mod inspect;
pub mod pages;
pub mod plot;
pub mod pull;
pub mod train;
