//! Which files of a folder hold the weights, and what each of them is.
//!
//! | Looked for, in this order | Meaning |
//! |---|---|
//! | `model.safetensors` | all tensors |
//! | `model.safetensors.index.json` | names of shards, safetensors |
//! | `pytorch_model.bin` | all tensors, pickled (the official releases) |
//! | `pytorch_model.bin.index.json` | names of shards, pickled |
//!
//! A path to a single weight file works too, and so does the `models--org--name` folder of the
//! Hugging Face cache (its `refs/main` names the snapshot; without that file there must be only
//! one). Files are only followed out of the model folder inside that cache, where snapshots link to
//! `../../blobs`. A file's format must be what its name says; content alone decides only for files
//! without a known extension.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    error::{CheckpointError, Impostor, shown},
    json::UniqueMap,
    lazy::LazyTensor,
    limits::Limits,
    mapped::{MappedFile, ReadAt, require_regular},
    pickle, safetensors,
};
use crate::error::printable;

/// Container format of a weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `*.safetensors`
    Safetensors,
    /// `*.bin`, `*.pt`, `*.pth`: zip archive with a pickle.
    Pickle,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Pickle => "PyTorch pickle",
        })
    }
}

/// One weight file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightFile {
    /// File name without folder.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Container format.
    pub format: Format,
}

/// What is wrong with a shard index, or between it and its shards.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// Not JSON, or not an index.
    #[error("not a shard index: {reason}")]
    NotAnIndex {
        /// The parser's complaint.
        reason: String,
    },
    /// No tensors at all.
    #[error("the weight map is empty")]
    Empty,
    /// A shard name with a path in it.
    #[error(
        "tensor {}: shard name must be a plain file name, found {}",
        shown(tensor),
        shown(shard)
    )]
    NotPlainName {
        /// First tensor that names it.
        tensor: String,
        /// The name.
        shard: String,
    },
    /// More shards or tensors than the limit.
    #[error("{what}: {value}, the limit is {limit}")]
    TooMany {
        /// The quantity.
        what: &'static str,
        /// Its value.
        value: usize,
        /// Cap.
        limit: usize,
    },
    /// A named shard does not exist.
    #[error(
        "shard {shard} is missing (it should hold {} and {others} other tensors)",
        shown(tensor)
    )]
    MissingShard {
        /// File name.
        shard: String,
        /// First tensor expected in it.
        tensor: String,
        /// How many more.
        others: usize,
    },
    /// A shard lacks a tensor that the index places there.
    #[error("tensor {} is listed for shard {shard}, which does not hold it", shown(tensor))]
    NotInShard {
        /// The tensor.
        tensor: String,
        /// File name.
        shard: String,
    },
    /// A tensor lies in a shard without being listed there.
    #[error("shard {shard} holds tensor {}, which the index does not list there", shown(tensor))]
    NotListed {
        /// The tensor.
        tensor: String,
        /// File name.
        shard: String,
    },
    /// A tensor lies in two shards.
    #[error("tensor {} is in two shards, {first} and {second}", shown(tensor))]
    InTwoShards {
        /// The tensor.
        tensor: String,
        /// First file name.
        first: String,
        /// Second file name.
        second: String,
    },
}

impl IndexError {
    pub(super) fn is_missing_shard(&self) -> bool {
        matches!(self, Self::MissingShard { .. })
    }
}

const SINGLE: [(&str, Format); 2] =
    [("model.safetensors", Format::Safetensors), ("pytorch_model.bin", Format::Pickle)];
const LOOKED_FOR: &str = "model.safetensors, model.safetensors.index.json, pytorch_model.bin, \
                          pytorch_model.bin.index.json";

/// Where the weights lie and everything in them.
pub(crate) struct Found {
    pub(crate) dir: PathBuf,
    pub(crate) files: Vec<WeightFile>,
    pub(crate) tensors: Vec<LazyTensor>,
    /// How many of the tensors each file holds, in the order of both.
    pub(crate) counts: Vec<usize>,
}

impl Found {
    fn one(dir: PathBuf, file: WeightFile, tensors: Vec<LazyTensor>) -> Self {
        let counts = vec![tensors.len()];
        Self { dir, files: vec![file], tensors, counts }
    }
}

/// Finds and opens the weights at `path`, a folder or a weight file.
///
/// # Errors
/// Nothing found, links that leave the folder, bad index, bad weight files.
pub(crate) fn find(path: &Path, limits: &Limits) -> Result<Found, CheckpointError> {
    let metadata = fs::metadata(path).map_err(|error| CheckpointError::io(path, "open", error))?;
    if !metadata.is_dir() {
        require_regular(path, &metadata)?;
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        // The caller chose this very file, so a link is followed wherever it leads.
        let (file, tensors) = open_file(path, limits)?;
        return Ok(Found::one(dir, file, tensors));
    }
    let dir = cache_snapshot(path)?.unwrap_or_else(|| path.to_owned());
    for (name, _) in SINGLE {
        if exists(&dir.join(name)) {
            let (file, tensors) = open_member(&dir, name, limits)?;
            return Ok(Found::one(dir, file, tensors));
        }
        let index = format!("{name}.index.json");
        if exists(&dir.join(&index)) {
            return open_shards(dir, &index, limits);
        }
    }
    Err(CheckpointError::NoWeights { path: dir, looked_for: LOOKED_FOR })
}

/// Whether something of this name is there, be it a dangling link (which is an error later).
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// In the cache folder of a model, the snapshot that `refs/main` names, or the only one.
fn cache_snapshot(path: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let reference = path.join("refs").join("main");
    if !is_cache_name(path) {
        return Ok(None);
    }
    if !exists(&reference) {
        return only_snapshot(path);
    }
    let revision = read_capped(&reference, 256)?;
    let revision = String::from_utf8_lossy(&revision).trim().to_owned();
    if revision.is_empty() || !revision.chars().all(|c| c.is_ascii_alphanumeric()) {
        let found = Impostor::Unknown;
        return Err(CheckpointError::NotWeights { path: reference, found });
    }
    Ok(Some(path.join("snapshots").join(revision)))
}

/// A download by revision leaves no `refs/main`; then the choice must be plain.
fn only_snapshot(path: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let snapshots = path.join("snapshots");
    if !snapshots.is_dir() {
        return Ok(None);
    }
    let io = |source| CheckpointError::io(&snapshots, "list", source);
    let mut found = Vec::new();
    for entry in fs::read_dir(&snapshots).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_dir() {
            found.push(entry.file_name());
        }
    }
    found.sort();
    match found.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(snapshots.join(only))),
        several => Err(CheckpointError::SeveralSnapshots {
            path: path.to_owned(),
            snapshots: several.iter().map(|name| name.to_string_lossy().into_owned()).collect(),
        }),
    }
}

fn is_cache_name(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("models--"))
}

/// Opens a file of the model folder, refusing links that leave it.
fn open_member(
    dir: &Path,
    name: &str,
    limits: &Limits,
) -> Result<(WeightFile, Vec<LazyTensor>), CheckpointError> {
    let path = dir.join(name);
    stays_inside(dir, &path)?;
    open_file(&path, limits)
}

/// A member may be a link within its folder, or within the cache folder of the same model.
fn stays_inside(dir: &Path, path: &Path) -> Result<(), CheckpointError> {
    let resolve = |path: &Path| {
        fs::canonicalize(path).map_err(|error| CheckpointError::io(path, "resolve", error))
    };
    let (home, target) = (resolve(dir)?, resolve(path)?);
    if target.starts_with(&home) {
        return Ok(());
    }
    let snapshots = home.parent().filter(|parent| parent.ends_with("snapshots"));
    let model = snapshots.and_then(Path::parent).filter(|model| is_cache_name(model));
    match model {
        Some(model) if target.starts_with(model.join("blobs")) => Ok(()),
        _ => Err(CheckpointError::LinkLeaves { path: path.to_owned() }),
    }
}

/// Opens one weight file after making sure that its content is what its name says.
fn open_file(
    path: &Path,
    limits: &Limits,
) -> Result<(WeightFile, Vec<LazyTensor>), CheckpointError> {
    let file = MappedFile::open(path)?;
    let format = format_of(&file, limits)?;
    let tensors = match format {
        Format::Safetensors => safetensors::read(&file, limits)?,
        Format::Pickle => pickle::read(&file, limits)?,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((WeightFile { name, bytes: ReadAt::len(&file), format }, tensors))
}

/// The format by name, confirmed by content.
fn format_of(file: &MappedFile, limits: &Limits) -> Result<Format, CheckpointError> {
    let path = || file.path().to_owned();
    let extension = file.path().extension().map(|extension| extension.to_string_lossy());
    let expected = match extension.as_deref() {
        Some("safetensors") => Some(Format::Safetensors),
        Some("bin" | "pt" | "pth") => Some(Format::Pickle),
        _ => None,
    };
    match (expected, sniff(&file.start()?, limits)) {
        (Some(expected), Ok(found)) if expected != found => {
            Err(CheckpointError::WrongFormat { path: path(), expected, found })
        }
        (_, Ok(found)) => Ok(found),
        // Its reader has more to say about what is wrong than "unknown".
        (Some(Format::Safetensors), Err(Impostor::Unknown | Impostor::Empty)) => {
            Ok(Format::Safetensors)
        }
        (_, Err(found)) => Err(CheckpointError::NotWeights { path: path(), found }),
    }
}

/// Recognises a format by its first bytes, and what is often mistaken for it.
pub(crate) fn sniff(start: &[u8], limits: &Limits) -> Result<Format, Impostor> {
    const LEGACY_MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    if start.is_empty() {
        return Err(Impostor::Empty);
    }
    if start.starts_with(b"version https://git-lfs") {
        return Err(Impostor::LfsPointer);
    }
    let text = start.trim_ascii_start();
    let tag = |name: &[u8]| text.get(..name.len()).is_some_and(|t| t.eq_ignore_ascii_case(name));
    if [&b"<!doctype"[..], b"<html", b"<head", b"<?xml"].into_iter().any(tag) {
        return Err(Impostor::Html);
    }
    // A believable header length and the brace that opens the header.
    if let Some((length, rest)) = start.split_first_chunk::<8>()
        && rest.first() == Some(&b'{')
        && u64::from_le_bytes(*length) <= limits.header_bytes
    {
        return Ok(Format::Safetensors);
    }
    if start.starts_with(b"PK\x03\x04") {
        return Ok(Format::Pickle);
    }
    let is_tar = start.get(257..262) == Some(b"ustar");
    if is_tar || start.get(2..).is_some_and(|rest| rest.starts_with(LEGACY_MAGIC)) {
        return Err(Impostor::LegacyTorch);
    }
    Err(Impostor::Unknown)
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: UniqueMap<String>,
}

/// The tensors that an index places in each shard.
type Plan = BTreeMap<String, Vec<String>>;

fn open_shards(dir: PathBuf, index: &str, limits: &Limits) -> Result<Found, CheckpointError> {
    let index_path = dir.join(index);
    stays_inside(&dir, &index_path)?;
    let bad = |source| CheckpointError::Index { path: index_path.clone(), source };
    let plan = parse_index(&read_capped(&index_path, limits.json_bytes)?, limits).map_err(bad)?;
    for (shard, tensors) in &plan {
        if !exists(&dir.join(shard)) {
            let (tensor, others) = (tensors[0].clone(), tensors.len() - 1);
            return Err(bad(IndexError::MissingShard { shard: shard.clone(), tensor, others }));
        }
    }
    let mut found = Found { dir, files: Vec::new(), tensors: Vec::new(), counts: Vec::new() };
    let mut homes = BTreeMap::new();
    for (shard, listed) in &plan {
        let (file, tensors) = open_member(&found.dir, shard, limits)?;
        check_shard(shard, listed, &tensors, &mut homes).map_err(bad)?;
        found.files.push(file);
        found.counts.push(tensors.len());
        found.tensors.extend(tensors);
    }
    Ok(found)
}

/// Parses an index and groups its tensors by shard.
pub(crate) fn parse_index(json: &[u8], limits: &Limits) -> Result<Plan, IndexError> {
    let raw: RawIndex = serde_json::from_slice(json).map_err(|error| {
        // The parser may quote the file.
        IndexError::NotAnIndex { reason: printable(&error.to_string(), 300) }
    })?;
    let pairs = raw.weight_map.0;
    let too_many = |what, value, limit| IndexError::TooMany { what, value, limit };
    if pairs.is_empty() {
        return Err(IndexError::Empty);
    }
    if pairs.len() > limits.tensors {
        return Err(too_many("number of tensors", pairs.len(), limits.tensors));
    }
    let mut plan = Plan::new();
    for (tensor, shard) in pairs {
        if !is_plain_name(&shard) {
            return Err(IndexError::NotPlainName { tensor, shard });
        }
        plan.entry(shard).or_default().push(tensor);
    }
    if plan.len() > limits.shards {
        return Err(too_many("number of shards", plan.len(), limits.shards));
    }
    Ok(plan)
}

/// A name that cannot leave its folder on any system: no separators, drive letters or controls.
fn is_plain_name(name: &str) -> bool {
    let bad = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':');
    !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(bad)
}

/// Compares a shard with what the index promises; `homes` remembers where each tensor was seen.
fn check_shard(
    shard: &str,
    listed: &[String],
    tensors: &[LazyTensor],
    homes: &mut BTreeMap<String, String>,
) -> Result<(), IndexError> {
    let held: BTreeSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let expected: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    let (here, owned) = (shard.to_owned(), |name: &&str| (*name).to_owned());
    for name in &held {
        if let Some(first) = homes.insert(owned(name), here.clone()) {
            return Err(IndexError::InTwoShards { tensor: owned(name), first, second: here });
        }
    }
    if let Some(tensor) = expected.difference(&held).next() {
        return Err(IndexError::NotInShard { tensor: owned(tensor), shard: here });
    }
    // A tensor that another shard is to hold is reported when that shard turns out to lack it.
    match held.difference(&expected).next() {
        Some(tensor) => Err(IndexError::NotListed { tensor: owned(tensor), shard: here }),
        None => Ok(()),
    }
}

/// Reads a small regular file, refusing it by its size before reading.
pub(crate) fn read_capped(path: &Path, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    let io = |source| CheckpointError::io(path, "read", source);
    let too_large = |value| {
        let (path, what) = (path.to_owned(), "file size");
        CheckpointError::Limit { path, what, value, limit }
    };
    let metadata = fs::metadata(path).map_err(io)?;
    require_regular(path, &metadata)?;
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(io)?.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}
