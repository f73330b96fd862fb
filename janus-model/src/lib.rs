//! Janus-Pro on Burn: everything that ships inside a checkpoint folder.
//!
//! One transformer reads pictures and draws them. Pictures come in through [`siglip`] and one
//! [`projector`]; they go out as codes of the image tokenizer [`vq`], predicted one by one by
//! [`gen_head`] and fed back through another projector. In between is one [`llama`] decoder.
//!
//! ```text
//! understand                                       draw
//! pixels [N,3,S,S]      text                       text
//!   │ vision_model        │ processor                │ processor
//! [N,576,1024]          ids [B,T]                  ids [2B,T]  (guided, and the twin)
//!   │ aligner             │ embed_text               │ embed_text
//! [N,576,D] ── spliced ─ [B,T,D]                   [2B,T,D] ◄─────────── embed_codes
//!                         │ language_model            │ language_model       │
//!                       [B,T,D]                     [2B,D]                   │
//!                         │ lm_head                   │ gen_head             │
//!                       logits [B,V]                logits [2B,C] ─ choose ─ code [B]
//!                                                     576 codes ─ gen_vision_model ─ pixels
//! ```
//!
//! Read in this order: [`config`] (sizes, from either `config.json` dialect), [`janus`] (the parts
//! joined), then any part. [`checkpoint`] finds and names weights, [`load`] puts them into a
//! model, [`processor`] turns conversations and pictures into plain numbers. [`ops`] holds the
//! operations whose speed matters, [`precision`] says which number format goes where, [`tables`]
//! what becomes of tables that a graphics card cannot bind.
//!
//! # Shape letters
//! B batch · T tokens · D width of the language model · V vocabulary · C image codes ·
//! N pictures · S side in pixels · W width of the vision tower · H heads · d width of a head ·
//! g side of the code grid · e width of a code.
//!
//! # What always holds
//! - Parameters carry the names of the original checkpoint; [`checkpoint::keys`] knows the others.
//! - Linear weights are `[out, in]` in the file's format; on the CPU they stay in the mapped file.
//! - Norms, softmax and rotation are computed in f32.
//! - Inside `forward` shapes are taken for granted and a wrong one panics; the doors where they
//!   are checked are [`JanusConfig::validate`], the processor and [`Janus::load`].
//! - Nothing here prints, samples, loops over steps or chooses a device.

pub mod adapters;
pub mod capacity;
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
pub mod packed;
pub mod parameters;
pub mod precision;
pub mod processor;
pub mod projector;
pub mod rope;
pub mod siglip;
pub mod tables;
pub mod vq;

pub use config::JanusConfig;
pub use error::{Error, ErrorKind};
pub use janus::{Janus, Parts};
pub use load::{LoadOptions, LoadReport};
pub use precision::{Family, Precision};
pub use tables::TextTables;
