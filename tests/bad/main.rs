//! Bad inputs, by their row in the catalogue.

mod images;
mod tokenizer;
