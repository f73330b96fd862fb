//! The real binary: what it prints, where, and with which exit code.
//!
//! Snapshots lie in `snapshots/`; `INSTA_UPDATE=always cargo test -p janus-cli` rewrites them.

#![allow(clippy::unwrap_used)] // a failing test may panic

mod ask;
mod bad_pictures;
mod batch;
mod bench;
mod chat;
#[cfg(unix)]
mod chat_terminal;
mod convert;
mod data_scenes;
mod data_sizes;
mod data_words;
mod default_model;
mod devices;
mod doctor;
mod edit;
mod estimate;
mod eval;
mod eval_scenes;
mod generate;
mod generate_again;
mod generate_files;
#[cfg(unix)]
mod generate_live;
mod help;
mod hub;
mod inspect;
mod lora;
mod pages;
#[path = "../common/pictures.rs"]
mod pictures;
mod pipe;
mod plot;
mod pull;
#[cfg(unix)]
mod readme;
mod train;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

/// `tests/fixtures`.
pub fn fixtures() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    std::fs::canonicalize(path).unwrap()
}

/// One folder of each tiny model, and every format between them.
pub const MODELS: [(&str, &str); 4] = [
    ("tiny-pro", "original"),
    ("tiny-pro", "hf"),
    ("tiny-odd", "hf"),
    ("tiny-odd", "original-bin"),
];

/// The command in a plain environment, run in a folder so that output has no absolute paths.
pub fn janus(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_janus"));
    command.current_dir(folder);
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        let hub = name.starts_with("HF_") || name.to_ascii_uppercase().ends_with("_PROXY");
        if name.starts_with("JANUS_") || name == "COLUMNS" || hub {
            command.env_remove(&key);
        }
    }
    // No test shall find the default model by chance.
    command.env("JANUS_MODEL", "");
    // Makes any use of Burn's default device a panic.
    command.env("BURN_DEVICE", "none").env("NO_COLOR", "1");
    command
}

/// What a run left behind.
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// The rest.
    pub stderr: String,
}

impl Ran {
    /// Runs a command to its end.
    pub fn new(mut command: Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code().expect("ended by a signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Stdout as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}\n{self}"))
    }

    /// The error object on stderr.
    pub fn error(&self) -> Value {
        assert_eq!(self.stdout, "", "stdout must stay clean");
        let json: Value =
            serde_json::from_str(&self.stderr).unwrap_or_else(|e| panic!("{e}\n{self}"));
        json["error"].clone()
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// Runs `janus` with these words.
pub fn run(folder: &Path, words: &[&str]) -> Ran {
    let mut command = janus(folder);
    command.args(words);
    Ran::new(command)
}

/// A temporary folder with a copy of a fixture in `model`.
pub fn copy_of(fixture: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(fixtures().join(fixture)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    folder
}

/// Name, type, shape and bytes of each tensor of a safetensors file.
pub type Tensors = BTreeMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)>;

/// All tensors of all safetensors files of a folder.
pub fn read_tensors(folder: &Path) -> Tensors {
    let mut all = Tensors::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            for (name, view) in file.tensors() {
                let value = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
                assert!(all.insert(name.clone(), value).is_none(), "{name} twice");
            }
        }
    }
    all
}

/// Replaces `model.safetensors`.
pub fn write_tensors(folder: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let path = folder.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).unwrap();
}
