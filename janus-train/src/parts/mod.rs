//! The two networks that a Janus is given and that can be trained apart: the image tokenizer and
//! the understanding encoder. Someone who trains from nothing needs both.
//!
//! ```text
//! stages/tokenizer.toml ─► tokenizer ─┐
//! stages/encoder.toml   ─► encoder   ─┴─ strategy: checkpoints, guard, metrics ─► run folder
//!                                                        [init.parts] of a stage ◄──┘
//! ```
//! A recipe with `part = "tokenizer"`, `"encoder"` or `"fields"` at its top is one of these, read as strictly
//! as a stage's. [`run`] trains, [`describe`] tells what that would take; what is learnt, and how,
//! is in [`crate::tokenizer`], [`crate::encoder`] and [`crate::fields`].

mod describe;
mod error;
pub(crate) mod kept;
pub(crate) mod numbers;
mod recipe;

use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use toml::Table;

pub use describe::{Description, Memory, Network};
pub use error::PartError;
pub use recipe::{Common, PartBatch};
pub(crate) use recipe::{Opened, Recipe, data, identity, read, valid};

use crate::config::{RecipeError, read as reader};
use crate::encoder::EncoderConfig;
use crate::fields::FieldsConfig;
use crate::run::{Allow, Keep, Run};
use crate::schedule::Schedule;
use crate::strategy::{End, Plan, Watcher, train};
use crate::tokenizer::TokenizerConfig;

/// Recipes of ours: name, text.
pub const RECIPES: [(&str, &str); 2] = [
    ("tokenizer", include_str!("../../stages/tokenizer.toml")),
    ("encoder", include_str!("../../stages/encoder.toml")),
];

/// A network that is trained apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Pictures to codes and back.
    Tokenizer,
    /// Pictures to features.
    Encoder,
    /// The same, from maps of what lies where.
    Fields,
}

/// Which part a recipe trains; `None` for a stage of a whole model.
///
/// # Errors
/// The file cannot be read, is no TOML, or names another part.
pub fn part_of(path: &Path) -> Result<Option<Part>, RecipeError> {
    #[derive(Deserialize)]
    struct Head {
        part: Option<Part>,
        // Whatever else there is has a reader of its own.
        #[serde(flatten)]
        _rest: Table,
    }
    Ok(reader::file::<Head>(path)?.part)
}

/// Trains the part that a recipe is about, in a run folder, from wherever that stands to the end.
///
/// `overrides` are `key=value`, as for a stage.
///
/// # Errors
/// See [`PartError`]. Whatever happens, the folder holds the last checkpoint that was whole.
pub fn run(
    path: &Path,
    overrides: &[String],
    output: &Path,
    device: &Device,
    watcher: &mut Watcher,
) -> Result<End, PartError> {
    match part_of(path)? {
        Some(Part::Tokenizer) => {
            go::<TokenizerConfig>(&read(path, overrides)?, output, device, watcher)
        }
        Some(Part::Encoder) => {
            go::<EncoderConfig>(&read(path, overrides)?, output, device, watcher)
        }
        Some(Part::Fields) => go::<FieldsConfig>(&read(path, overrides)?, output, device, watcher),
        None => Err(PartError::NoPart),
    }
}

/// What a recipe would train, and what that would take. Nothing is loaded.
///
/// # Errors
/// The recipe, its data or the folder of its model cannot be used.
pub fn describe(
    path: &Path,
    overrides: &[String],
    device: &Device,
) -> Result<Description, PartError> {
    match part_of(path)? {
        Some(Part::Tokenizer) => read::<TokenizerConfig>(path, overrides)?.describe(device),
        Some(Part::Encoder) => read::<EncoderConfig>(path, overrides)?.describe(device),
        Some(Part::Fields) => read::<FieldsConfig>(path, overrides)?.describe(device),
        None => Err(PartError::NoPart),
    }
}

fn go<R: Recipe>(
    recipe: &R,
    output: &Path,
    device: &Device,
    watcher: &mut Watcher,
) -> Result<End, PartError> {
    let Common { seed, steps, products, schedule, save, guard, valid, .. } = recipe.common();
    let Opened { mut training, identity } = recipe.open(device)?;
    let keep = Keep { last: save.keep, best: save.best, every: save.keep_every as u64 };
    let mut run = Run::open(output, keep)?;
    run.preflight(recipe.describe(device)?.checkpoint)?;
    recipe::leave(recipe, output)?;
    let plan = Plan {
        identity,
        schedule: Schedule {
            peak: schedule.rate,
            warmup: schedule.warmup,
            steps,
            shape: schedule.shape,
        },
        every: save.every as u64,
        patience: valid.patience as u64,
        products,
        guard: *guard,
        seed,
        allow: Allow::default(),
        events: None,
    };
    Ok(train(&mut training, &mut run, &plan, watcher)?)
}
