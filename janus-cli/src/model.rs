//! The model a command works with, on its device.

use std::fs;

use janus_infer::Engine;
use janus_model::checkpoint::{Checkpoint, Fingerprint};
use janus_model::{Error, JanusConfig, LoadOptions, Parts};

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
