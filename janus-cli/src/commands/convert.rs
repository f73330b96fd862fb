//! `janus convert`: the same model under other names, in another number format.
//!
//! Everything is written into a folder beside DST and moved into place at the end. A new DST appears
//! by one rename, whole or not at all; in a folder that exists (`--force`) whole files are replaced
//! one after another.

use burn::tensor::DType;
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
use crate::target::{Staging, Target};
use crate::units::{WeightType, count, plural, size, torch_name};

/// Runs the command.
pub fn run(args: &ConvertArgs) -> Result<Verdict, Failure> {
    if let Some(bits) = args.dtype.and_then(WeightType::packed) {
        let message = format!("no file holds {} weights", bits.name());
        let hint = "they are rounded in seconds when a model is loaded: --dtype int8 or int4 there";
        return Err(Failure::new(Exit::Usage, message).hint(hint));
    }
    let limits = args.limits.limits();
    let mut src = Choice::find(&args.src, &limits)?;
    src.add(&args.lora, &limits)?;
    let target = Target::other_than(&src.base, &args.dst, args.force)?;
    let folder = Folder::open(&src.base, &limits)?;
    if let Some(mismatch) = folder.mismatch.clone() {
        let failure = Failure::from(CheckpointError::Mismatch(mismatch));
        return Err(folder.hint().into_iter().fold(failure, Failure::hint));
    }
    let config = folder.true_config();
    config.check_dialect(args.names.dialect()).map_err(janus_model::Error::from)?;
    let companions = Companions::read(&folder.checkpoint.dir, &folder.config)?;
    let (tensors, left_out) = tensors(&folder, args.names);
    let wish = args.dtype.and_then(WeightType::dtype);
    let dtype = wish.unwrap_or_else(|| main_dtype(&tensors));
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
    companions.write(&staging, &config, args.names, dtype)?;
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
