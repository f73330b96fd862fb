//! The decoding loops: against a slow loop without cache, against themselves in other batches,
//! and against PyTorch.

mod common;
#[path = "../common/mod.rs"]
mod shared;

mod drawing;
mod editing;
mod engine;
mod pytorch;
mod stream;
mod writing;
