//! The model a command works with, on its device.

use std::path::{Path, PathBuf};

use janus_infer::Engine;
use janus_model::{LoadOptions, Parts};

use crate::args::ModelArgs;
use crate::device::DeviceChoice;
use crate::hub::{Cache, Repo};
use crate::report::{self, Exit, Failure};

/// The folder that is meant by what was typed after `--model`: itself if it is there, else the
/// model of that name in the cache. Nothing is ever downloaded here.
///
/// # Errors
/// The name of a model that is not in the cache.
pub fn resolve(typed: &Path) -> Result<PathBuf, Failure> {
    let repo = typed.to_str().and_then(|text| text.parse::<Repo>().ok());
    // A link that leads nowhere is a broken folder, not a name.
    let (Some(repo), Err(_)) = (repo, std::fs::symlink_metadata(typed)) else {
        return Ok(typed.to_owned());
    };
    let cache = Cache::usual();
    if let Some(folder) = cache.as_ref().and_then(|cache| cache.find(&repo, None)) {
        return Ok(folder);
    }
    let place = cache.map_or_else(String::new, |cache| format!(" {}", cache.root.display()));
    let message = format!(
        "{}: there is no such folder here, and no such model in the cache{place}",
        typed.display()
    );
    Err(Failure::new(Exit::Missing, message).hint(repo.advice()))
}

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
        let folder = resolve(&args.model)?;
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
        let (engine, _) = Engine::load(&folder, &found.device, &options)?;
        Ok(Self { engine, device: found.id() })
    }
}
