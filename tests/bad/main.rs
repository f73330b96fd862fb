//! Bad inputs, by their row in the catalogue.

mod config;
mod config_words;
mod images;
mod index;
mod pickle;
mod tokenizer;
mod weights;
