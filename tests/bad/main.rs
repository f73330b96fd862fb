//! Bad inputs, by their row in the catalogue.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

mod adapters;
mod config;
mod config_words;
mod images;
mod index;
mod pickle;
#[path = "../common/pictures.rs"]
mod pictures;
mod tokenizer;
mod weights;
