//! A folder that appears whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use janus_model::checkpoint::CheckpointError;

use crate::report::{Exit, Failure};

/// Where files are to appear.
pub struct Target {
    path: PathBuf,
    /// The folder exists and has something in it.
    occupied: bool,
}

impl Target {
    /// A folder for a model made from that in `src`; with `force` it may hold another model.
    ///
    /// # Errors
    /// The same folder; one that is not empty; a file.
    pub fn other_than(src: &Path, dst: &Path, force: bool) -> Result<Self, Failure> {
        let is_same = fs::canonicalize(dst)
            .is_ok_and(|dst| fs::canonicalize(src).is_ok_and(|src| src == dst));
        if is_same {
            let message = format!("{} is both SRC and DST", dst.display());
            return Err(Failure::new(Exit::Usage, message).hint("write into another folder"));
        }
        let target = Self::new(dst)?;
        if target.occupied && !force {
            return Err(
                target.not_empty("--force replaces the model files in it, and leaves others alone")
            );
        }
        Ok(target)
    }

    /// A folder that is new, or empty.
    ///
    /// # Errors
    /// One that is not empty; a file.
    pub fn empty(dst: &Path) -> Result<Self, Failure> {
        let target = Self::new(dst)?;
        if target.occupied {
            return Err(target.not_empty("choose a new folder"));
        }
        Ok(target)
    }

    fn not_empty(&self, hint: &str) -> Failure {
        let message = format!("{} exists and is not empty", self.path.display());
        Failure::new(Exit::CannotCreate, message).hint(hint)
    }

    fn new(dst: &Path) -> Result<Self, Failure> {
        let occupied = match fs::read_dir(dst) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let message = format!("{} is a file; a model needs a folder", dst.display());
                return Err(Failure::new(Exit::CannotCreate, message));
            }
            Err(error) => return Err(Failure::io(dst, "read", &error)),
        };
        Ok(Self { path: dst.to_owned(), occupied })
    }

    /// The same error, about the folder the user knows.
    pub fn name_in(&self, error: CheckpointError, staging: &Path) -> Failure {
        match error {
            CheckpointError::Io { path, action, source } => {
                let path =
                    path.strip_prefix(staging).map_or(path.clone(), |name| self.path.join(name));
                Failure::io(&path, action, &source)
            }
            other => other.into(),
        }
    }
}

/// An unfinished folder; removed with all its content unless published.
pub struct Staging {
    /// Where it is until then.
    pub path: PathBuf,
    shown: PathBuf,
}

impl Staging {
    /// Makes a folder beside the target, or inside it.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(target: &Target) -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            Failure::new(
                Exit::CannotCreate,
                format!("{}: cannot create: {error}", target.path.display()),
            )
        };
        // Inside a folder that exists, which may be a mount point: renames work within one only.
        let name = format!(".janus.tmp-{}", std::process::id());
        let path = if target.path.is_dir() {
            target.path.join(name)
        } else {
            let parent = match target.path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            fs::create_dir_all(parent).map_err(cannot)?;
            parent.join(name)
        };
        fs::create_dir(&path).map_err(cannot)?;
        Ok(Self { path, shown: target.path.clone() })
    }

    /// Writes a small file.
    ///
    /// # Errors
    /// The disk is full, and the like.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let put = || -> io::Result<()> {
            let mut file = File::create(self.path.join(name))?;
            file.write_all(content)?;
            file.sync_all()
        };
        put().map_err(|error| Failure::io(&self.shown.join(name), "write", &error))
    }

    /// Moves everything to where readers look: the folder at once, or, into a folder that exists,
    /// file by file with the weights first.
    ///
    /// # Errors
    /// The folder cannot be written into.
    pub fn publish(self, target: &Target) -> Result<(), Failure> {
        let path = &target.path;
        let publish = || -> io::Result<()> {
            if !path.is_dir() {
                fs::rename(&self.path, path)?;
                return sync_folder(path.parent().unwrap_or(Path::new(".")));
            }
            let mut names: Vec<_> = fs::read_dir(&self.path)?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<_>>()?;
            names.sort_by_key(|name| name == "config.json");
            for name in &names {
                fs::rename(self.path.join(name), path.join(name))?;
            }
            if target.occupied {
                remove_stale(path, |name| names.iter().any(|new| new.to_string_lossy() == name))?;
            }
            sync_folder(path)
        };
        publish().map_err(|error| Failure::io(path, "write into", &error))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nothing is left after a success, and after a failure its cause matters more.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes files of an earlier model that would be read in place of the new ones, or beside them.
fn remove_stale(dir: &Path, is_new: impl Fn(&str) -> bool) -> io::Result<()> {
    const FIXED: [&str; 4] = [
        "model.safetensors",
        "model.safetensors.index.json",
        "generation_config.json",
        "chat_template.jinja",
    ];
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let shard = name.starts_with("model-") && name.ends_with(".safetensors");
        if (shard || FIXED.contains(&&*name)) && !is_new(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes renames durable. Windows cannot open folders and does not need this.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(path)?.sync_all()?;
    }
    Ok(())
}
