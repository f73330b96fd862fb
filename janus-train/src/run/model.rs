//! The model in a checkpoint: an ordinary folder that every command loads.
//!
//! Weights carry the names of the model that training started from, and the small files beside
//! them (sizes, tokenizer, picture rules, template) are copied from it unchanged. Weights that
//! never move are written once per run, to `frozen/`, and every checkpoint links that file as the
//! first of two shards: 7B in stage 1 would otherwise write 14 GB each time for a few hundred MB.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use janus_model::checkpoint::{
    Checkpoint, CheckpointError, LazyTensor, Limits, Naming, SaveOptions, save,
};
use janus_model::config::Dialect;
use janus_model::processor::{FileError, ProcessorError, read_file};
use janus_model::{Error, JanusConfig};

use super::{Role, Run, RunError, Staging, files};

/// What a model folder may hold beside its weights; all but the first may be absent.
const SMALL_FILES: [&str; 13] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "LICENSE-MODEL",
    "LICENSE-CODE",
    "NOTICE",
];
/// Largest of them, in bytes: a tokenizer has several million.
const MAX_SMALL_BYTES: u64 = 64 << 20;
const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const INDEX: &str = "model.safetensors.index.json";

/// The small files of the model that a run started from, read once.
#[derive(Clone, Debug)]
pub struct Companions {
    dir: PathBuf,
    files: Vec<(&'static str, Vec<u8>)>,
    naming: Naming,
}

impl Companions {
    /// Reads them beside the weights at `start`, or where weights could be: a folder with the sizes
    /// of a model that begins from nothing has none, and new weights then take the names that
    /// belong to its `config.json`.
    ///
    /// # Errors
    /// No model is there, or a file cannot be read.
    pub fn read(start: &Path) -> Result<Self, RunError> {
        let (dir, naming) = match Checkpoint::open(start, &Limits::default()) {
            Ok(checkpoint) => (checkpoint.dir, checkpoint.naming),
            Err(CheckpointError::NoWeights { .. }) if start.join(SMALL_FILES[0]).is_file() => {
                (start.to_owned(), naming_of(start)?)
            }
            Err(error) => return Err(Error::from(error).into()),
        };
        let mut files = Vec::new();
        for name in SMALL_FILES {
            match read_file(&dir.join(name), MAX_SMALL_BYTES) {
                Ok(bytes) => files.push((name, bytes)),
                Err(FileError::Missing { .. }) if name != SMALL_FILES[0] => {}
                Err(error) => return Err(Error::from(ProcessorError::from(error)).into()),
            }
        }
        Ok(Self { dir, files, naming })
    }

    /// The folder they were read from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Who named the weights of that model.
    pub fn naming(&self) -> Naming {
        self.naming
    }
}

/// The names that transformers or DeepSeek's code would look for.
fn naming_of(dir: &Path) -> Result<Naming, RunError> {
    let (_, dialect) = JanusConfig::from_dir(dir).map_err(Error::from)?;
    Ok(match dialect {
        Dialect::Original => Naming::Original,
        Dialect::HuggingFace => Naming::HuggingFace,
    })
}

/// Weights that never move, on disk.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    path: PathBuf,
    pub(super) bytes: u64,
    sha256: String,
    names: Names,
}

/// Names and bytes of the tensors in a file.
type Names = Vec<(String, u64)>;

impl Staging {
    /// Writes `model/`: all `tensors`, under canonical names, of which those that `is_frozen` says
    /// are the same as in every other checkpoint of the run.
    ///
    /// # Errors
    /// A tensor cannot be read or written.
    pub fn model(
        &mut self,
        run: &mut Run,
        companions: &Companions,
        tensors: Vec<LazyTensor>,
        is_frozen: impl Fn(&str) -> bool,
    ) -> Result<(), RunError> {
        let (still, mut trained): (Vec<_>, Vec<_>) =
            tensors.into_iter().partition(|tensor| is_frozen(&tensor.name));
        let options = SaveOptions { naming: companions.naming, ..SaveOptions::default() };
        let frozen = if still.is_empty() || trained.is_empty() {
            trained.extend(still);
            None
        } else {
            Some(run.frozen(still, &options)?)
        };
        if let Some(frozen) = &frozen {
            let known = (frozen.bytes, frozen.sha256.as_str());
            self.link(Role::Model, &format!("model/{}", SHARDS[0]), &frozen.path, known)?;
        }
        self.folder(Role::Model, "model", |folder| {
            fs::create_dir_all(folder).map_err(|error| RunError::io(folder, "create", error))?;
            match frozen {
                None => drop(save(folder, trained, &options).map_err(Error::from)?),
                Some(frozen) => beside(folder, &frozen, trained, options)?,
            }
            for (name, bytes) in &companions.files {
                let path = folder.join(name);
                fs::write(&path, bytes).map_err(|error| RunError::io(&path, "write", error))?;
            }
            Ok(())
        })
    }
}

/// Writes the trained weights as the second shard, and the index of both.
fn beside(
    folder: &Path,
    frozen: &Frozen,
    trained: Vec<LazyTensor>,
    options: SaveOptions,
) -> Result<(), RunError> {
    let single = folder.join("trained");
    let options = SaveOptions { max_shard_bytes: u64::MAX, ..options };
    save(&single, trained, &options).map_err(Error::from)?;
    let names = names_in(&single)?;
    let (from, to) = (single.join("model.safetensors"), folder.join(SHARDS[1]));
    let moved = fs::rename(&from, &to).and_then(|()| fs::remove_dir(&single));
    moved.map_err(|error| RunError::io(&to, "write", error))?;
    let index = index(&frozen.names, &names);
    let path = folder.join(INDEX);
    fs::write(&path, index).map_err(|error| RunError::io(&path, "write", error))
}

fn names_in(folder: &Path) -> Result<Names, RunError> {
    let checkpoint = Checkpoint::open(folder, &Limits::default()).map_err(Error::from)?;
    let tensors = checkpoint.raw().iter();
    Ok(tensors.map(|tensor| (tensor.name.clone(), tensor.byte_len() as u64)).collect())
}

/// The index in the form of Hugging Face.
fn index(frozen: &[(String, u64)], trained: &[(String, u64)]) -> String {
    let total: u64 = frozen.iter().chain(trained).map(|(_, bytes)| bytes).sum();
    let files = [(frozen, SHARDS[0]), (trained, SHARDS[1])];
    let map: BTreeMap<&str, &str> = files
        .iter()
        .flat_map(|(names, file)| names.iter().map(move |(name, _)| (name.as_str(), *file)))
        .collect();
    let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": map});
    format!("{index:#}\n")
}

impl Run {
    /// The frozen weights as a file, written once in the life of this process.
    ///
    /// One that an earlier process left is replaced unless it is the same byte for byte: a file
    /// that all checkpoints share must not be taken on trust.
    fn frozen(
        &mut self,
        tensors: Vec<LazyTensor>,
        options: &SaveOptions,
    ) -> Result<Frozen, RunError> {
        if let Some(frozen) = &self.frozen {
            return Ok(frozen.clone());
        }
        let folder = self.dir.join(format!(".frozen.tmp-{}", std::process::id()));
        files::remove(&folder)?;
        let options = SaveOptions { max_shard_bytes: u64::MAX, ..options.clone() };
        save(&folder, tensors, &options).map_err(Error::from)?;
        let names = names_in(&folder)?;
        let written = folder.join("model.safetensors");
        let hash =
            |path: &Path| files::hash(path).map_err(|error| RunError::io(path, "read", error));
        let (bytes, sha256) = hash(&written)?;
        let kept = self.dir.join("frozen");
        let path = kept.join("model.safetensors");
        if !path.is_file() || hash(&path)?.1 != sha256 {
            let put = fs::create_dir_all(&kept).and_then(|()| fs::rename(&written, &path));
            put.and_then(|()| files::sync_folder(&kept))
                .map_err(|error| RunError::io(&path, "write", error))?;
        }
        files::remove(&folder)?;
        let frozen = Frozen { path, bytes, sha256, names };
        self.frozen = Some(frozen.clone());
        Ok(frozen)
    }
}
