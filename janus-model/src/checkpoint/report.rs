//! One report for everything in which a checkpoint and a model disagree.
//!
//! Loading is strict in both directions: a tensor the model misses is as wrong as one it would
//! ignore, and a partial load can look healthy for a long time. All differences are collected
//! first, so that one run shows the whole picture (usually: another model's files).

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    path::{Path, PathBuf},
};

use super::{error::shown, lazy::LazyTensor};

/// Names shown per kind of difference; the value keeps all of them.
const SHOWN: usize = 20;
/// The table whose rows are as wide as the decoder.
const TABLE: &str = "language_model.model.embed_tokens.weight";
/// Stands in for the table where that is missing.
const NORM: &str = "language_model.model.norm.weight";
const LAYERS: &str = "language_model.model.layers.";

/// A tensor that has one shape in the model and another in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeDifference {
    /// Canonical name.
    pub name: String,
    /// Shape in the model.
    pub expected: Vec<usize>,
    /// Shape in the checkpoint.
    pub found: Vec<usize>,
}

impl ShapeDifference {
    /// Whether one shape is the other transposed, the mark of `[in, out]` linear weights.
    #[must_use]
    pub fn is_transposed(&self) -> bool {
        self.expected.len() == 2 && self.expected.iter().rev().eq(&self.found)
    }
}

/// All differences between what a model expects and what a checkpoint holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Expected by the model, absent from the checkpoint: name and shape.
    pub missing: Vec<(String, Vec<usize>)>,
    /// In the checkpoint, unknown to the model: name and shape.
    pub unused: Vec<(String, Vec<usize>)>,
    /// In both, but of different shapes; those that tell the decoder's width first.
    pub shape: Vec<ShapeDifference>,
    /// Number of decoder layers in the model and in the checkpoint, where they differ.
    pub layers: Option<(usize, usize)>,
    /// Folder of the checkpoint, where one is known.
    pub dir: Option<PathBuf>,
}

impl Mismatch {
    /// Compares the names and shapes a model expects with the tensors found.
    ///
    /// # Errors
    /// The differences, if there are any.
    pub fn check(expected: &[(String, Vec<usize>)], found: &[LazyTensor]) -> Result<(), Box<Self>> {
        let mut rest: HashMap<&str, &LazyTensor> =
            found.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let mut mismatch = Self::default();
        for (name, shape) in expected {
            match rest.remove(name.as_str()) {
                None => mismatch.missing.push((name.clone(), shape.clone())),
                Some(tensor) if tensor.shape.to_vec() != *shape => {
                    let (name, expected) = (name.clone(), shape.clone());
                    let found = tensor.shape.to_vec();
                    mismatch.shape.push(ShapeDifference { name, expected, found });
                }
                Some(_) => {}
            }
        }
        let unused = found.iter().filter(|tensor| rest.contains_key(tensor.name.as_str()));
        mismatch.unused =
            unused.map(|tensor| (tensor.name.clone(), tensor.shape.to_vec())).collect();
        // Those that tell the size of a model come first, where a cut list still shows them.
        mismatch.shape.sort_by_key(|difference| ![TABLE, NORM].contains(&difference.name.as_str()));
        let wanted = layers(expected.iter().map(|(name, _)| name.as_str()));
        let held = layers(found.iter().map(|tensor| tensor.name.as_str()));
        mismatch.layers = wanted.zip(held).filter(|(wanted, held)| wanted != held);
        if mismatch.is_empty() { Ok(()) } else { Err(Box::new(mismatch)) }
    }

    /// Whether there is no difference.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.shape.is_empty()
    }

    /// The same, of the checkpoint in `dir`.
    #[must_use]
    pub fn in_dir(mut self: Box<Self>, dir: &Path) -> Box<Self> {
        self.dir = Some(dir.to_owned());
        self
    }

    /// What the pattern of differences suggests; `None` if there is no difference.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        // Sizes first: matrices of two sizes can look transposed by chance.
        if let Some(sizes) = self.other_size() {
            return Some(format!("{sizes}: they belong to a Janus of another size"));
        }
        let transposed = self.shape.iter().filter(|difference| difference.is_transposed()).count();
        if transposed > 0 {
            return Some(format!(
                "{transposed} matrices are transposed: this file stores linear weights as \
                 [in, out], Janus stores them as [out, in]"
            ));
        }
        let same_rank =
            |difference: &ShapeDifference| difference.expected.len() == difference.found.len();
        let only_shapes = self.missing.is_empty() && self.unused.is_empty();
        if only_shapes && !self.shape.is_empty() && self.shape.iter().all(same_rank) {
            return Some("the weights belong to a Janus of another size than config.json".into());
        }
        let what = self.missing_half().unwrap_or("these files do not hold a whole Janus model");
        (!self.missing.is_empty()).then(|| what.into())
    }

    /// What can still be done where only one half of the model is incomplete.
    fn missing_half(&self) -> Option<&'static str> {
        let within = |parts: &[&str]| {
            let part = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
            self.missing.iter().all(|(name, _)| parts.contains(&part(name).as_str()))
        };
        let only_missing = self.unused.is_empty() && self.shape.is_empty();
        if !only_missing {
            return None;
        }
        if within(&["gen_vision_model", "gen_aligner", "gen_head", "gen_embed"]) {
            return Some("these files lack what draws pictures; they can answer questions");
        }
        within(&["vision_model", "aligner"])
            .then_some("these files lack what looks at pictures; they can draw")
    }

    /// Width and number of layers, where `config.json` and the weights disagree about them.
    fn other_size(&self) -> Option<String> {
        let (says, has) = match (self.widths(), self.layers) {
            (Some(width), Some(layers)) => (
                format!("width {} and {} layers", width.0, layers.0),
                format!("width {} and {} layers", width.1, layers.1),
            ),
            (Some((says, has)), None) => (format!("width {says}"), format!("width {has}")),
            (None, Some((says, has))) => (format!("{says} layers"), format!("{has} layers")),
            (None, None) => return None,
        };
        Some(format!("config.json says {says}, the weights have {has}"))
    }

    /// Width of the decoder in the model and in the checkpoint, if they differ.
    fn widths(&self) -> Option<(usize, usize)> {
        let find = |name| self.shape.iter().find(|difference| difference.name == name);
        let difference = find(TABLE).or_else(|| find(NORM))?;
        let widths = (*difference.expected.last()?, *difference.found.last()?);
        (widths.0 != widths.1).then_some(widths)
    }
}

/// Number of decoder layers among these names; `None` if there are none, or holes between them.
fn layers<'a>(names: impl Iterator<Item = &'a str>) -> Option<usize> {
    let index = |name: &'a str| name.strip_prefix(LAYERS)?.split('.').next()?.parse().ok();
    let indices: BTreeSet<usize> = names.filter_map(index).collect();
    (*indices.last()? == indices.len() - 1).then_some(indices.len())
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missing, unused, shape) = (self.missing.len(), self.unused.len(), self.shape.len());
        if let Some(dir) = &self.dir {
            write!(f, "{}: ", dir.display())?;
        }
        write!(
            f,
            "the checkpoint does not fit the model: {missing} missing, {unused} unused, {shape} of \
             another shape"
        )?;
        let row = |f: &mut fmt::Formatter<'_>, (name, shape): &(String, Vec<usize>)| {
            write!(f, "{} {shape:?}", shown(name))
        };
        section(f, "missing", &self.missing, row)?;
        section(f, "unused", &self.unused, row)?;
        section(f, "shape", &self.shape, |f, difference| {
            let (expected, found) = (&difference.expected, &difference.found);
            let note = if difference.is_transposed() { " (transposed)" } else { "" };
            let name = shown(&difference.name);
            write!(f, "{name}: model expects {expected:?}, file has {found:?}{note}")
        })
    }
}

impl std::error::Error for Mismatch {}

fn section<T>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    rows: &[T],
    row: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for item in rows.iter().take(SHOWN) {
        write!(f, "\n  {title}: ")?;
        row(f, item)?;
    }
    match rows.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => write!(f, "\n  {title}: … and {more} more"),
        _ => Ok(()),
    }
}
