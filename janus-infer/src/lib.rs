//! Janus-Pro inference: how tokens are chosen, and in what order the model is called.
//!
//! ```text
//! question, pictures ─ processor ─► ids, pixels ─► Prompt ─┐           ┌─► TextStream ─► text
//!                                            chat::Writing ─┴─ ids [B] ─┘
//! prompt ─ processor ─► ids ─► ImageRequest ─► generate::Drawing ─► codes ─ pixels ─► pictures
//!       pictures, to be changed ─► Sources ─┘
//! ```
//! Decoding is built in floors, each usable without the one above:
//!
//! 1. [`sampling`]: one pure choice, logits to an index; [`guidance`]: two or three rows to one;
//! 2. `decoder`: one step of the language model with its cache; `padding`: unequal prompts;
//! 3. [`editing`]: pictures to start from; [`generate`] and [`chat`]: the two loops. [`Drawing`] and [`Writing`] are their state, fresh
//!    per request: call `step` yourself, or let [`draw`] and [`write`] do it with a callback that
//!    can break off;
//! 4. [`stream`]: ids to text; [`memory`], [`flop`]: what a request will need;
//!    [`engine`]: folder and words in, pictures and text out; [`conversation`]: turns that are
//!    read once; [`gallery`]: many pictures, each handed over when it is finished; [`preview`]:
//!    what an unfinished one shows.
//!
//! Letters in shapes: B batch, T tokens, D width, V vocabulary, C codes, N pictures, R rows of the
//! language model's batch (N, 2N under guidance, 3N from pictures).
//!
//! What holds everywhere: chance is a pure function of (seed, stream, step); logits reach the host
//! once per step, as f32; a cache never grows while an answer is written; nothing prints.
//!
//! Not here: weights' names and files' formats (`janus-model`), choosing a device, HTTP, terminals
//! (`janus-cli`).

pub mod chat;
pub mod conversation;
mod decoder;
pub mod editing;
pub mod engine;
pub mod error;
pub mod flop;
pub mod gallery;
pub mod generate;
pub mod guidance;
pub mod memory;
mod padding;
pub mod preview;
pub mod sampling;
pub mod stream;

pub use chat::{Answer, FinishReason, NewToken, Prompt, TextRequest, Writing, write};
pub use conversation::Chat;
pub use editing::Sources;
pub use engine::{AskOptions, Engine, Question, Reply};
pub use error::InferError;
pub use gallery::{DrawEvent, DrawOptions, DrawProgress, Gallery, Manner, Order, Picture};
pub use generate::{Drawing, Drawn, ImageRequest, ImageSpec, Progress, draw};
pub use guidance::Guidance;
pub use sampling::{Sampler, Sampling};
pub use stream::TextStream;
