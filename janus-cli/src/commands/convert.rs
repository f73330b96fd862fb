//! `janus convert`: the same model under other names, in another number format.
//!
//! Everything is written into a folder beside DST and moved into place at the end. A new DST appears
//! by one rename, whole or not at all; in a folder that exists (`--force`) whole files are replaced
//! one after another.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use janus_model::JanusConfig;
use janus_model::adapters::{AdapterReport, merged};
use janus_model::checkpoint::{
    CheckpointError, LazyTensor, Naming, SaveOptions, WeightFile, main_dtype, save,
};
use serde_json::json;

use crate::args::{ConvertArgs, Names};
use crate::choice::{Choice, naming};
use crate::companions::Companions;
use crate::device;
use crate::folder::Folder;
use crate::progress::Progress;
use crate::report::{self, Exit, Failure, Verdict};
use crate::units::{count, plural, size, torch_name};

/// Runs the command.
pub fn run(args: &ConvertArgs) -> Result<Verdict, Failure> {
    let limits = args.limits.limits();
    let mut src = Choice::find(&args.src, &limits)?;
    src.add(&args.lora, &limits)?;
    let target = Target::check(&src.base, &args.dst, args.force)?;
    let folder = Folder::open(&src.base, &limits)?;
    if let Some(mismatch) = folder.mismatch.clone() {
        let failure = Failure::from(CheckpointError::Mismatch(mismatch));
        return Err(folder.hint().into_iter().fold(failure, Failure::hint));
    }
    let config = folder.true_config();
    config.check_dialect(args.names.dialect()).map_err(janus_model::Error::from)?;
    let companions = Companions::read(&folder.checkpoint.dir, &folder.config)?;
    let (tensors, left_out) = tensors(&folder, args.names);
    let dtype = args.dtype.map_or_else(|| main_dtype(&tensors), |wish| wish.dtype());
    let wish = args.dtype.map(|wish| wish.dtype());
    let (tensors, merged) =
        merged(tensors, &config, (&src.adapters, &limits), wish, &device::idle())?;
    let staging = Staging::create(&target)?;
    let total = tensors.iter().map(|tensor| tensor.byte_len() as u64).sum();
    let written = tensors.len();
    let files = {
        let progress = Progress::new(total);
        let tensors = tensors.into_iter().map(|tensor| progress.watch(tensor)).collect();
        let options = SaveOptions {
            naming: args.names.naming(),
            dtype: wish,
            max_shard_bytes: args.max_shard_size,
            ..SaveOptions::default()
        };
        let saved = save(&staging.path, tensors, &options);
        progress.finish();
        saved.map_err(|error| target.name_in(error, &staging.path))?
    };
    write_small_files(&staging, &config, &companions, args.names, dtype)?;
    staging.publish(&target)?;
    notes(&folder, &companions, args.names);
    let summary = Summary { files, tensors: written, left_out, dtype, merged };
    summary.print(args)?;
    Ok(Verdict::Yes)
}

/// What is written, and which tensors of SRC are not.
fn tensors(folder: &Folder, names: Names) -> (Vec<LazyTensor>, usize) {
    let stays_original = names == Names::Original && folder.checkpoint.naming == Naming::Original;
    if stays_original {
        // Names stay, so tensors that janus never loads can stay, too.
        return (folder.checkpoint.raw().to_vec(), 0);
    }
    (folder.canonical.tensors.clone(), folder.canonical.dropped.len())
}

fn write_small_files(
    staging: &Staging,
    config: &JanusConfig,
    companions: &Companions,
    names: Names,
    dtype: DType,
) -> Result<(), Failure> {
    let text = config.to_json(names.dialect(), torch_name(dtype), companions.ids());
    staging.write("config.json", text.as_bytes())?;
    if let (Names::Hf, Some(ids)) = (names, companions.ids()) {
        staging.write("generation_config.json", config.generation_json(ids).as_bytes())?;
    }
    for (name, content) in companions.files(names, config.image_tokens())? {
        staging.write(&name, &content)?;
    }
    Ok(())
}

fn notes(folder: &Folder, companions: &Companions, names: Names) {
    if !companions.has_tokenizer() {
        report::note("SRC has no tokenizer.json: only weights and config.json were written");
    }
    if names == Names::Original && folder.checkpoint.naming != Naming::Original {
        report::note(
            "Hugging Face files lack the unused pooling head and usage buffer; DeepSeek's own code \
             will call them newly initialised, which does no harm",
        );
    }
}

struct Summary {
    files: Vec<WeightFile>,
    tensors: usize,
    left_out: usize,
    dtype: DType,
    merged: Vec<AdapterReport>,
}

impl Summary {
    fn print(&self, args: &ConvertArgs) -> Result<(), Failure> {
        let bytes = self.files.iter().map(|file| file.bytes).sum();
        let names = match args.names {
            Names::Original => "original",
            Names::Hf => "huggingface",
        };
        if args.json {
            let files: Vec<_> =
                self.files.iter().map(|f| json!({"name": f.name, "bytes": f.bytes})).collect();
            let told = json!({
                "path": args.dst, "names": names, "dtype": torch_name(self.dtype),
                "tensors_read": self.tensors, "tensors_left_out": self.left_out,
                "bytes": bytes, "files": files,
            });
            let merged: Vec<_> = self.merged.iter().map(|adapter| adapter.dir.clone()).collect();
            return report::print_json(&naming(&merged, told));
        }
        let merged: String =
            self.merged.iter().map(|a| format!("; {} merged", a.dir.display())).collect();
        let left_out = match self.left_out {
            0 => String::new(),
            n => format!("; {} never used by Janus left out", count(n)),
        };
        report::print(&format!(
            "{}: {}, {}, {names} names, {}, from {}{left_out}{merged}\n",
            args.dst.display(),
            plural(self.files.len(), "file"),
            size(bytes),
            torch_name(self.dtype),
            plural(self.tensors, "tensor"),
        ))
    }
}

/// Where the model is to appear.
struct Target {
    path: PathBuf,
    /// The folder exists and has something in it.
    occupied: bool,
}

impl Target {
    fn check(src: &Path, dst: &Path, force: bool) -> Result<Self, Failure> {
        let shown = dst.display();
        let is_same = fs::canonicalize(dst)
            .is_ok_and(|dst| fs::canonicalize(src).is_ok_and(|src| src == dst));
        if is_same {
            let message = format!("{shown} is both SRC and DST");
            return Err(Failure::new(Exit::Usage, message).hint("write into another folder"));
        }
        let occupied = match fs::read_dir(dst) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let message = format!("{shown} is a file; a model needs a folder");
                return Err(Failure::new(Exit::CannotCreate, message));
            }
            Err(error) => return Err(Failure::io(dst, "read", &error)),
        };
        if occupied && !force {
            let message = format!("{shown} exists and is not empty");
            return Err(Failure::new(Exit::CannotCreate, message)
                .hint("--force replaces the model files in it, and leaves others alone"));
        }
        Ok(Self { path: dst.to_owned(), occupied })
    }

    /// The same error, about the folder the user knows.
    fn name_in(&self, error: CheckpointError, staging: &Path) -> Failure {
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
struct Staging {
    path: PathBuf,
    shown: PathBuf,
}

impl Staging {
    fn create(target: &Target) -> Result<Self, Failure> {
        let cannot = |error: io::Error| {
            Failure::new(
                Exit::CannotCreate,
                format!("{}: cannot create: {error}", target.path.display()),
            )
        };
        // Inside a folder that exists, which may be a mount point: renames work within one only.
        let name = format!(".janus-convert.tmp-{}", std::process::id());
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

    fn write(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let put = || -> io::Result<()> {
            let mut file = File::create(self.path.join(name))?;
            file.write_all(content)?;
            file.sync_all()
        };
        put().map_err(|error| Failure::io(&self.shown.join(name), "write", &error))
    }

    /// Moves everything to where readers look: the folder at once, or, into a folder that exists,
    /// file by file with the weights first.
    fn publish(self, target: &Target) -> Result<(), Failure> {
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
