//! The model a command works with, on its device.

use std::fs;

use janus_infer::Engine;
use janus_model::checkpoint::{Checkpoint, Fingerprint};
use janus_model::processor::{FileError, ProcessorError, read_file};
use janus_model::{Error, JanusConfig, LoadOptions, Parts};
use sha2::{Digest, Sha256};

use crate::args::ModelArgs;
use crate::device::DeviceChoice;
use crate::report::{self, Failure};

/// A model in memory.
pub struct Loaded {
    pub engine: Engine,
    /// What to type after `--device` to get the same one.
    pub device: String,
}

impl Loaded {
    /// Loads the half of the model that a command needs.
    ///
    /// # Errors
    /// A device that cannot be used; a folder that is no whole model.
    pub fn open(args: &ModelArgs, parts: Parts) -> Result<Self, Failure> {
        let found = args.device.open()?;
        if args.device == DeviceChoice::Auto {
            report::note(&format!("using {} ({})", found.id(), found.name));
        } else if found.software {
            report::note(&format!(
                "{} is {}, a software imitation of a graphics card",
                found.id(),
                found.name
            ));
        }
        let options = LoadOptions {
            parts,
            dtype: args.dtype.map(|wish| wish.dtype()),
            limits: args.limits.limits(),
            ..LoadOptions::default()
        };
        let (engine, loaded) = Engine::load(&args.model, &found.device, &options)?;
        if loaded.tables_on_host {
            let why = "the text tables stay with the processor: this device cannot bind them";
            report::note(why);
        }
        Ok(Self { engine, device: found.id() })
    }
}

/// What tells this model from others: its folder's name, for people, and its fingerprint. Reads
/// a sample of the weights.
///
/// # Errors
/// A folder without a model.
pub fn identity(args: &ModelArgs) -> Result<(String, Fingerprint), Failure> {
    let checkpoint = Checkpoint::open(&args.model, &args.limits.limits())?;
    let (config, _) = JanusConfig::from_dir(&checkpoint.dir).map_err(Error::from)?;
    let fingerprint = Fingerprint::of(&config, &checkpoint.canonical()?.tensors)?;
    // `.` has no name of its own.
    let folder = fs::canonicalize(&args.model).unwrap_or_else(|_| args.model.clone());
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((name, fingerprint))
}

/// Above any tokenizer.
const MAX_RULES_BYTES: u64 = 64 << 20;

/// What tells the rest of a model's folder from others: how words and pictures become numbers.
///
/// # Errors
/// A folder without a model, or files of it that cannot be read.
pub fn rules(args: &ModelArgs) -> Result<String, Failure> {
    let dir = Checkpoint::open(&args.model, &args.limits.limits())?.dir;
    let mut hash = Sha256::new();
    let names = ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"];
    for name in names.into_iter().chain(["processor_config.json"]) {
        match read_file(&dir.join(name), MAX_RULES_BYTES) {
            Ok(bytes) => hash.update([&(bytes.len() as u64).to_le_bytes()[..], &bytes].concat()),
            // Not every folder has all of them.
            Err(FileError::Missing { .. }) => hash.update([0]),
            Err(error) => return Err(ProcessorError::from(error).into()),
        }
    }
    Ok(format!("{:x}", hash.finalize()))
}
