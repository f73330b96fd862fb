//! One report for everything in which a checkpoint and a model disagree.
//!
//! Loading is strict in both directions: a tensor the model misses is as wrong as one it would
//! ignore, and a partial load can look healthy for a long time. All differences are collected
//! first, so that one run shows the whole picture (usually: another model's files).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
    /// Parts of the model that are whole, where the others are absent altogether; else none.
    pub parts: Vec<String>,
    /// Folder of the checkpoint, where one is known.
    pub dir: Option<PathBuf>,
}

/// Parts none of whose tensors is missing, where of all others every tensor is.
fn whole_parts(expected: &[(String, Vec<usize>)], missing: &[(String, Vec<usize>)]) -> Vec<String> {
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (which, names) in [expected, missing].into_iter().enumerate() {
        for (name, _) in names {
            let part = name.split_once('.').map_or(name.as_str(), |(part, _)| part);
            counts.entry(part).or_default()[which] += 1;
        }
    }
    if counts.values().any(|[all, missing]| ![0, *all].contains(missing)) {
        return Vec::new();
    }
    let whole = counts.into_iter().filter(|(_, [_, missing])| *missing == 0);
    whole.map(|(part, _)| part.to_owned()).collect()
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
        if mismatch.unused.is_empty() && mismatch.shape.is_empty() {
            mismatch.parts = whole_parts(expected, &mismatch.missing);
        }
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
        if self.missing_half().is_none() && !self.parts.is_empty() {
            let parts = self.parts.join(", ");
            return Some(format!(
                "these files hold {parts} and nothing else: parts that training can begin from, \
                 under [init.parts] of a recipe"
            ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_parts_alone_are_told_from_pieces() {
        let expected = [("a.x", 1), ("a.y", 1), ("b.x", 1), ("c.x", 1)];
        let expected = expected.map(|(name, n)| (name.to_owned(), vec![n]));
        let only = |kept: &[&str]| {
            let missing = expected.iter().filter(|(name, _)| !kept.contains(&name.as_str()));
            whole_parts(&expected, &missing.cloned().collect::<Vec<_>>())
        };
        assert_eq!(only(&["a.x", "a.y"]), ["a"]);
        assert_eq!(only(&["a.x", "a.y", "c.x"]), ["a", "c"]);
        assert!(only(&["a.x", "c.x"]).is_empty(), "half a part is none");
        assert!(only(&[]).is_empty());
    }
}
