//! The model a command works with, on its device.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use janus_infer::Engine;
use janus_model::checkpoint::Checkpoint;
use janus_model::{LoadOptions, Parts};
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
            precision: None,
        };
        let (engine, _) = Engine::load(&args.model, &found.device, &options)?;
        Ok(Self { engine, device: found.id() })
    }
}

/// Samples of each weight file that [`fingerprint`] reads, and bytes of each.
const SAMPLES: (u64, u64) = (64, 4096);

/// What tells a model from others: the rules of its folder, and samples of its weights. Training
/// changes weights everywhere, so samples tell in milliseconds what all bytes tell in minutes.
///
/// # Errors
/// A folder without a model.
pub fn fingerprint(args: &ModelArgs) -> Result<String, Failure> {
    let checkpoint = Checkpoint::open(&args.model, &args.limits.limits())?;
    let mut hash = Sha256::new();
    let rules =
        ["config.json", "tokenizer.json", "preprocessor_config.json", "processor_config.json"];
    for name in rules {
        let path = checkpoint.dir.join(name);
        if path.is_file() {
            sample(&path, &mut hash).map_err(|error| Failure::io(&path, "read", &error))?;
        }
        hash.update(name);
    }
    for file in &checkpoint.files {
        let path = checkpoint.dir.join(&file.name);
        sample(&path, &mut hash).map_err(|error| Failure::io(&path, "read", &error))?;
    }
    Ok(format!("{:x}", hash.finalize()))
}

/// Length and evenly spread blocks of a file; all of a small one.
fn sample(path: &Path, hash: &mut Sha256) -> io::Result<()> {
    let (samples, size) = SAMPLES;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    hash.update(length.to_le_bytes());
    let step = (length / samples).max(size);
    let mut block = Vec::new();
    for start in (0..samples).map(|number| number * step).take_while(|start| *start < length) {
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.by_ref().take(size).read_to_end(&mut block)?;
        hash.update(&block);
    }
    Ok(())
}
