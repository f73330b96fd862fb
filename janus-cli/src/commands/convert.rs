//! `janus convert`: the same model under other names, in another number format.
//!
//! Everything is written into a folder beside DST and moved into place at the end. A new DST appears
//! by one rename, whole or not at all; in a folder that exists (`--force`) whole files are replaced
//! one after another.

use std::collections::HashMap;

use janus_model::Parts;
use janus_model::adapters::{AdapterReport, merged};
use janus_model::checkpoint::{
    CheckpointError, LazyTensor, Naming, SaveOptions, WeightFile, rounded, save,
};
use janus_model::load::with_tied_head;
use janus_model::packed::Bits;
use serde_json::json;

use crate::args::{ConvertArgs, Names};
use crate::choice::{Choice, naming};
use crate::companions::Companions;
use crate::device;
use crate::folder::Folder;
use crate::progress::Progress;
use crate::report::{self, Failure, Verdict};
use crate::target::{Staging, Target};
use crate::units::{WeightType, count, plural, size, torch_name};

/// Runs the command.
pub fn run(args: &ConvertArgs) -> Result<Verdict, Failure> {
    let limits = args.limits.limits();
    let mut src = Choice::find(&args.src, &limits)?;
    src.add(&args.lora, &limits)?;
    let target = Target::other_than(&src.base, &args.dst, args.force)?;
    let folder = Folder::open(&src.base, &limits)?;
    if let Some(mismatch) = folder.mismatch.clone() {
        let failure = Failure::from(CheckpointError::Mismatch(mismatch));
        return Err(folder.hint().into_iter().fold(failure, Failure::hint));
    }
    let mut config = folder.true_config();
    config.check_dialect(args.names.dialect()).map_err(janus_model::Error::from)?;
    let companions = Companions::read(&folder.checkpoint.dir, &folder.config)?;
    let (tensors, left_out) = tensors(&folder, args.names);
    let wish = args.dtype.or_else(|| folder.checkpoint.bits().map(WeightType::Packed));
    let (wish, bits) = (wish.and_then(WeightType::dtype), wish.and_then(WeightType::packed));
    let dtype = wish.unwrap_or_else(|| folder.checkpoint.main_dtype());
    let (tensors, merged) =
        merged(tensors, &config, (&src.adapters, &limits), wish, &device::idle())?;
    let tensors = match bits {
        Some(bits) => {
            // A head of 8 bits is not the table that words are looked up in.
            let tensors = with_tied_head(tensors, &config, Parts::All);
            config.language.tie_word_embeddings = false;
            // With an adapter in them, weights are no longer those of the file.
            let stored = match src.adapters.is_empty() {
                true => folder.checkpoint.packed(),
                false => HashMap::new(),
            };
            rounded(tensors, bits, &stored)
        }
        None => tensors,
    };
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
    notes(&folder, &companions, args.names, bits);
    let dtype = bits.map_or_else(|| torch_name(dtype), Bits::name);
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

fn notes(folder: &Folder, companions: &Companions, names: Names, bits: Option<Bits>) {
    if let Some(bits) = bits {
        report::note(&format!(
            "no program but janus reads {} weights as they lie here",
            bits.name()
        ));
    }
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
    dtype: &'static str,
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
                "path": args.dst, "names": names, "dtype": self.dtype,
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
            self.dtype,
            plural(self.tensors, "tensor"),
        ))
    }
}
