//! A small world in which everything is known.
//!
//! ```text
//! seed, split, number ─ chance ─► Scene ─ draw ─────► picture of any size
//!                                   │  ├─ captions ──► what is said of it, in varied words
//!                                   │  └─ questions ─► questions, each with its one right answer
//!                                   └─ split: which combinations are only for scores
//! dataset: all of it as files that can be trained on
//! judge: what a picture shows, and whether that was asked for
//! exam: fresh tasks of the test split, and marks for what a model does
//! ```
//! One to four [`Object`]s, each of a [`Shape`], a [`Colour`] and a radius, on a [`Tint`]; none
//! touch. A [`Theme`] says what a scene is for: the six categories of GenEval, and mixed ones.
//!
//! # What always holds
//! - A scene depends on seed, split and its number, and on nothing before it; so do its texts.
//! - The same scene has the same bytes on every machine.
//! - What is said is true of the scene, and so is every answer.
//! - No combination that is held out is in any training scene ([`split`]).

mod captions;
mod chance;
mod dataset;
mod draw;
pub mod exam;
pub mod judge;
mod look;
mod map;
mod questions;
mod scene;
pub mod split;
mod told;
mod words;

pub use captions::{canonical, caption, prompt};
pub use chance::Chance;
pub use dataset::{DataSet, DataSetError, Written};
pub use look::{Colour, Look, Place, Shape, Size, Tint};
pub use questions::{About, Asked, question, questions};
pub use scene::{Background, Object, Relation, SIDE, Scene, Theme};
pub use split::Split;
pub use told::told;

#[cfg(test)]
mod tests;
