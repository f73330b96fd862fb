//! The model a command works with, on its device.

use std::path::PathBuf;

use janus_infer::memory::{Place, Workload, forecast, pictures_at_once};
use janus_infer::{Engine, Guidance};
use janus_model::adapters::AdapterFiles;
use janus_model::capacity::largest_tensor;
use janus_model::checkpoint::{Checkpoint, Fingerprint};
use janus_model::config::GenerationConfig;
use janus_model::processor::{FileError, ProcessorError, read_file};
use janus_model::{Error, Family, JanusConfig, LoadOptions, Parts};
use sha2::{Digest, Sha256};

use crate::args::ModelArgs;
use crate::choice::{Choice, folder_name};
use crate::device::DeviceChoice;
use crate::machine;
use crate::metadata::Adapter;
use crate::report::{self, Failure};
use crate::units::{WeightType, size};

/// A model in memory.
pub struct Loaded {
    pub engine: Engine,
    /// What to type after `--device` to get the same one.
    pub device: String,
    /// Adapters on the model, as they were named.
    pub adapters: Vec<PathBuf>,
    place: Place,
    /// Bytes that could be had before anything was loaded, where that is known.
    memory: Option<u64>,
    /// Bytes of the largest tensor, where there is such a limit.
    tensor: Option<u64>,
}

impl Loaded {
    /// Loads the half of the model that a command needs.
    ///
    /// # Errors
    /// A device that cannot be used; a folder that is no whole model.
    pub fn open(args: &ModelArgs, parts: Parts) -> Result<Self, Failure> {
        let choice = Choice::of(args)?;
        machine::start_threads(args.threads());
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
        let limits = args.limits.limits();
        let stored = || Checkpoint::open(&choice.base, &limits).map(|found| found.bits());
        let dtype = match args.dtype {
            None => stored()?.map(WeightType::Packed),
            wish => wish,
        };
        let options = LoadOptions {
            parts,
            dtype: args.dtype.and_then(WeightType::dtype),
            packed: args.dtype.and_then(WeightType::packed),
            products: args.products(dtype)?,
            limits,
            adapters: choice.adapters,
            ..LoadOptions::default()
        };
        let memory = found.memory();
        let (engine, loaded) = Engine::load(&choice.base, &found.device, &options)?;
        for adapter in loaded.adapters.iter().filter(|adapter| adapter.layers.is_empty()) {
            let dir = adapter.dir.display();
            report::note(&format!("{dir} changes nothing here: its layers are of the other half"));
        }
        if loaded.tables_on_host {
            let why = "the text tables stay with the processor: this device cannot bind them";
            report::note(why);
        }
        let place = Place {
            family: Family::of(&found.device),
            precision: engine.janus().precision(),
            file: loaded.file,
            tables_on_host: loaded.tables_on_host,
        };
        let tensor = largest_tensor(&found.device);
        let adapters = options.adapters;
        Ok(Self { engine, device: found.id(), adapters, place, memory, tensor })
    }

    /// How many of `wanted` pictures to draw together: as many as fit and bring something.
    /// Says so where not even one is expected to fit.
    pub fn pictures_at_once(&self, prompt: usize, guidance: Guidance, wanted: usize) -> usize {
        let config = self.engine.janus().config();
        let bounds = (self.memory, self.tensor);
        let wanted = wanted.min(most_at_once(self.place.family));
        let count = pictures_at_once(config, &self.place, (prompt, guidance), wanted, bounds);
        let work = Workload::drawing(config, prompt, count, guidance);
        let needed = forecast(config, &self.place, &work).total();
        if let Some(memory) = self.memory.filter(|memory| needed > *memory) {
            let (needed, memory) = (size(needed), size(memory));
            report::note(&format!(
                "this takes about {needed} of memory, and {memory} can be had: it may be slow, or \
                 fail; `janus estimate` shows what would fit"
            ));
        }
        count
    }
}

/// Beyond this, drawing more pictures together gains nothing and shows the first one late. On the
/// CPU as measured: docs/benchmarks.md.
fn most_at_once(family: Family) -> usize {
    match family {
        Family::Cpu | Family::NdArray => 8,
        Family::Cuda | Family::Metal | Family::Portable => 16,
    }
}

/// The weight of guidance that the makers of a model advise, else that of Janus.
///
/// # Errors
/// A folder that is not there; a file of advice that cannot be used.
pub fn usual_guidance(args: &ModelArgs) -> Result<f32, Failure> {
    let advice = GenerationConfig::from_dir(&Choice::of(args)?.base)?;
    Ok(advice.guidance_scale.unwrap_or(Guidance::WORDS))
}

/// What tells a model from others.
pub struct Identity {
    /// The name of its folder, for people.
    pub name: String,
    /// Of its own weights.
    pub fingerprint: Fingerprint,
    /// What is on it.
    pub adapters: Vec<Adapter>,
}

impl Identity {
    /// Reads a sample of the weights, and all of the adapters.
    ///
    /// # Errors
    /// A folder without a model; no adapter.
    pub fn of(args: &ModelArgs) -> Result<Self, Failure> {
        let limits = args.limits.limits();
        let choice = Choice::of(args)?;
        let checkpoint = Checkpoint::open(&choice.base, &limits)?;
        let (config, _) = JanusConfig::from_dir(&checkpoint.dir).map_err(Error::from)?;
        let fingerprint = checkpoint.fingerprint(&config)?;
        let adapter = |dir: &PathBuf| -> Result<Adapter, Failure> {
            let files = AdapterFiles::open(dir, &limits)?;
            Ok(Adapter { name: folder_name(dir), fingerprint: files.fingerprint()? })
        };
        let adapters = choice.adapters.iter().map(adapter).collect::<Result<_, _>>()?;
        Ok(Self { name: choice.name, fingerprint, adapters })
    }
}

/// Above any tokenizer.
const MAX_RULES_BYTES: u64 = 64 << 20;

/// What tells the rest of a model's folder from others: how words and pictures become numbers.
///
/// # Errors
/// A folder without a model, or files of it that cannot be read.
pub fn rules(args: &ModelArgs) -> Result<String, Failure> {
    let dir = Checkpoint::open(&Choice::of(args)?.base, &args.limits.limits())?.dir;
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
