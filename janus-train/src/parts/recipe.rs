//! What the recipes of all parts have in common.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use janus_model::ops::Products;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Description, PartError};
use crate::config::validate::{Checked, guard, name, optimizer, positive, save, schedule, whole};
use crate::config::{
    GuardConfig, OptimizerConfig, RecipeError, SaveConfig, ScheduleConfig, Source, ValidConfig,
    read,
};
use crate::data::{OnBad, Shuffle, Stream};
use crate::run::{Identity, hex};
use crate::strategy::Training;

/// How much one step sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartBatch {
    /// Samples of one optimizer step.
    pub size: usize,
    /// Samples that are computed at once.
    pub rows: usize,
}

/// Settings that every recipe of a part has.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// What the run is called.
    pub name: &'a str,
    /// A folder with the sizes of the model that the part is for.
    pub model: &'a Path,
    /// Number that all chance derives from.
    pub seed: u64,
    /// Optimizer steps.
    pub steps: usize,
    /// What factors of matrix products of a step are rounded to.
    pub products: Products,
    /// Learning rate by step.
    pub schedule: &'a ScheduleConfig,
    /// How gradients become changes.
    pub optimizer: &'a OptimizerConfig,
    /// How much one step sees.
    pub batch: PartBatch,
    /// When checkpoints are written.
    pub save: &'a SaveConfig,
    /// What happens to steps that would do harm.
    pub guard: &'a GuardConfig,
    /// What the run is judged by.
    pub valid: &'a ValidConfig,
    /// What happens to samples that cannot be used.
    pub on_bad: OnBad,
    /// Where samples come from.
    pub data: &'a [Source],
}

/// A recipe of a part.
pub(crate) trait Recipe: Clone + Serialize + DeserializeOwned {
    /// What it trains.
    type Training: Training;

    /// The settings that every recipe has.
    fn common(&self) -> Common<'_>;

    /// Paths other than those of data.
    fn paths(&mut self) -> Vec<&mut PathBuf>;

    /// Sources of data, those of validation, too.
    fn sources(&mut self) -> Vec<&mut Source>;

    /// Ranges of its own settings.
    fn check(&self) -> Checked;

    /// Makes or loads what is trained, and opens the data.
    fn open(&self, device: &Device) -> Result<Opened<Self::Training>, PartError>;

    /// What it would take.
    fn describe(&self, device: &Device) -> Result<Description, PartError>;
}

/// Something that is ready to be trained.
pub(crate) struct Opened<T> {
    pub training: T,
    pub identity: Identity,
}

/// Reads and checks a recipe.
pub(crate) fn read<R: Recipe>(path: &Path, overrides: &[String]) -> Result<R, PartError> {
    let mut recipe: R = read::file(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let put = |path: &mut PathBuf| *path = folder.join(&*path);
    recipe.paths().into_iter().for_each(put);
    recipe.sources().into_iter().flat_map(Source::paths).for_each(put);
    let recipe = read::with(&recipe, overrides)?;
    check(&recipe)?;
    if recipe.common().data.is_empty() {
        return Err(RecipeError::Contradiction("data: there is no source".into()).into());
    }
    Ok(recipe)
}

/// Checks every range.
pub(crate) fn check<R: Recipe>(recipe: &R) -> Checked {
    let common = recipe.common();
    name(common.name)?;
    schedule(common.steps, common.schedule)?;
    optimizer(common.optimizer)?;
    whole("batch.size", common.batch.size, 1, 1 << 20)?;
    whole("batch.rows", common.batch.rows, 1, common.batch.size)?;
    save(common.save)?;
    guard(common.guard)?;
    for (list, sources) in [("data", common.data), ("valid.data", &common.valid.data)] {
        for (at, source) in sources.iter().enumerate() {
            positive(&format!("{list}.{at}.weight"), source.weight)?;
        }
    }
    if common.valid.patience > 0 && common.valid.data.is_empty() {
        let text = "valid.patience needs valid.data: nothing else tells a best loss";
        return Err(RecipeError::Contradiction(text.into()));
    }
    recipe.check()
}

/// The data of a recipe, in an order of its own for each epoch.
pub(crate) fn data(common: &Common) -> Result<Stream, PartError> {
    let specs: Vec<_> = common.data.iter().map(|source| (source.spec(), source.weight)).collect();
    Ok(Stream::open(&specs, Shuffle::Seed(common.seed), common.on_bad)?)
}

/// The validation data, as the files have them, and how many are looked at; if there are any.
pub(crate) fn valid(common: &Common) -> Result<Option<(Stream, usize)>, PartError> {
    if common.valid.data.is_empty() {
        return Ok(None);
    }
    let sources = common.valid.data.iter();
    let specs: Vec<_> = sources.map(|source| (source.spec(), source.weight)).collect();
    let stream = Stream::open(&specs, Shuffle::Off, common.on_bad)?;
    let all = usize::try_from(stream.len()).unwrap_or(usize::MAX);
    let count = match common.valid.samples {
        0 => all,
        some => some.min(all),
    };
    Ok(Some((stream, count)))
}

/// What a run belongs to: `stage` counts from [`Identity::PARTS`], `sizes` are all sizes in words,
/// `ways` whatever else decides what a sample becomes.
pub(crate) fn identity(
    common: &Common,
    (stage, model, sizes): (u8, String, &str),
    ways: &str,
    data: &Stream,
) -> Identity {
    let digest = |text: &str| hex(Sha256::digest(text).as_slice());
    let sources: Vec<_> = common.data.iter().map(Source::nowhere).collect();
    let parts = (sources, common.batch.size, common.seed, ways, data.fingerprint());
    Identity {
        stage: Identity::PARTS + stage,
        model,
        model_sha256: digest(sizes),
        optimizer: common.optimizer.words(),
        // Plain structs always serialise.
        data_sha256: digest(&serde_json::to_string(&parts).unwrap_or_default()),
    }
}

/// The recipe as it is run, beside what comes of it.
pub(crate) fn leave<R: Recipe>(recipe: &R, output: &Path) -> Result<(), PartError> {
    // Settings that were read once can be written.
    let text = toml::to_string_pretty(recipe).unwrap_or_default();
    let path = output.join("recipe.toml");
    std::fs::write(&path, text).map_err(|source| PartError::Recipe { path, source })
}
