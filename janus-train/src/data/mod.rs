//! From files to [`crate::batch::Batch`].
//!
//! ```text
//! formats   files ─► sample by number          what is in the files, and nothing else
//! source    samples of one kind, in an order   order: a permutation without a list
//! tokens    sample ─► document                 written by the code that inference uses
//! prepare   + pictures decoded, resized        on any thread, stateless
//! mixture   which kinds and sources in a step  the ratio inside every step
//! codes     target pictures ─► codes           computed once (encoded), kept on disk
//! pack      which documents share a row
//! collate   rows ─► Batch
//! loader    all of it, ahead of the model      the cursor is its whole state
//! stream    samples alone, for other networks  the same, without documents
//! ```
//! Read in this order: [`sample`], [`formats`], [`tokens`], [`loader`].
//!
//! # What always holds
//! - The same configuration and cursor give the same steps, on any number of threads: chance is a
//!   hash of seed, epoch and sample ([`random`]), never a generator with a state.
//! - A training document begins with the prompt of the same request at inference, token for token.
//! - Nothing is cut silently: a sample is used whole, or it is bad, and bad ones are named and
//!   counted ([`budget`]).
//! - Nothing here knows a tensor or a device; the image tokenizer comes from outside
//!   ([`codes::Encode`]).

pub mod budget;
pub mod caption;
pub mod codes;
pub mod collate;
pub mod cursor;
pub mod encoded;
pub mod error;
pub mod formats;
pub mod loader;
pub mod mixture;
pub mod order;
pub mod pack;
pub mod prepare;
pub mod random;
pub mod sample;
pub mod source;
pub mod stream;
pub mod tokens;

pub use budget::OnBad;
pub use codes::{Cache, Encode};
pub use cursor::Cursor;
pub use error::{Bad, DataError};
pub use formats::{Format, Spec};
pub use loader::{Loader, Options, Step};
pub use pack::Packing;
pub use prepare::Prepare;
pub use sample::Kind;
pub use source::{Shuffle, Source};
pub use stream::Stream;
pub use tokens::{Objective, Tokens};
