//! Janus-Pro on Burn: everything that ships inside a checkpoint folder.

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod gen_head;
pub mod janus;
pub mod kv_cache;
pub mod linear;
pub mod llama;
pub mod load;
pub mod ops;
pub mod precision;
pub mod processor;
pub mod projector;
pub mod rope;
pub mod siglip;
pub mod vq;

pub use config::JanusConfig;
pub use error::{Error, ErrorKind};
pub use janus::{Janus, Parts};
pub use load::{LoadOptions, LoadReport};
pub use precision::{Family, Precision};
