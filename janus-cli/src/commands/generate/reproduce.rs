//! `janus generate --reproduce`: a picture drawn again by what its file says.

use std::path::Path;

use janus_infer::{Manner, Order, Sampler};
use serde_json::json;

use super::plan::Plan;
use super::sources::Sources;
use super::studio::{Origin, Studio};
use crate::args::{GenerateArgs, ModelArgs};
use crate::choice::naming;
use crate::device::DeviceChoice;
use crate::interrupt;
use crate::metadata::{self, Adapter, Record, Unreadable};
use crate::model::{Identity, Loaded};
use crate::report::{self, Exit, Failure, Verdict};
use crate::units::weights_name;

/// Runs the command.
pub fn run(args: &GenerateArgs, path: &Path) -> Result<Verdict, Failure> {
    let record = metadata::read(path).map_err(|error| unreadable(path, error))?;
    let sampler = Sampler { seed: record.seed, stream: record.index };
    let plan = Plan::single(args, Order { prompt: record.prompt.clone(), sampler })?;
    let manner = Manner { guidance: record.guidance()?, sampling: record.sampling()?, at_once: 1 };
    let sources = Sources::read(args)?;
    if sources.record().iter().map(|s| &s.sha256).ne(record.images.iter().map(|s| &s.sha256)) {
        return Err(other_pictures(path, &record));
    }
    interrupt::listen();
    let identity = Identity::of(&args.model)?;
    let other_model = identity.fingerprint.to_string() != record.model_fingerprint
        || prints(&identity.adapters) != prints(&record.adapters);
    if other_model && !args.any_model {
        return Err(another_model(path, &record, &identity));
    }
    let loaded = Loaded::open(&as_recorded(&args.model, &record), sources.parts())?;
    let origin = (!args.files.no_metadata).then(|| Origin::new(&loaded, identity, &sources));
    let mut studio = Studio::new(args, (&plan, &sources), &manner, &loaded.engine, origin);
    if !studio.draw()? {
        report::note("stopped before the picture was finished");
        return Ok(Verdict::Interrupted);
    }
    let identical = studio.last.as_ref() == Some(&record.codes_sha256);
    if args.json {
        let told = json!({
            "images": studio.images, "complete": true, "identical": identical,
            "reproduced": path, "prompt": record.prompt, "cfg": record.cfg,
            "temperature": record.temperature, "top_k": record.top_k, "top_p": record.top_p,
            "repetition_penalty": record.repetition_penalty, "seed": record.seed,
            "device": loaded.device,
        });
        report::print_json(&naming(&loaded.adapters, told))?;
    } else {
        report::print(if identical { "identical\n" } else { "differs\n" })?;
    }
    if identical {
        return Ok(Verdict::Yes);
    }
    let dtype = weights_name(&loaded.engine.janus().precision());
    report::note(&reason(&record, other_model, &loaded.device, dtype));
    Ok(Verdict::No)
}

/// Why the same settings may give another picture.
fn reason(record: &Record, other_model: bool, device: &str, dtype: &str) -> String {
    if other_model {
        return format!("another model than {} draws other pictures", record.model);
    }
    let (then, now) =
        (format!("{} in {}", record.device, record.dtype), format!("{device} in {dtype}"));
    if then == now {
        return format!(
            "drawn on {then} then and now: another version of janus or of a driver, another \
             processor, or weights that were changed a little"
        );
    }
    format!(
        "drawn on {then}, and now on {now}: sums that are rounded differently tip a close choice, \
         and every code depends on those before it"
    )
}

/// Device and format of the record, where nothing else is asked for and the device is there.
fn as_recorded(args: &ModelArgs, record: &Record) -> ModelArgs {
    let mut args = args.clone();
    if args.device != DeviceChoice::Auto {
        return args;
    }
    let same = record.device.parse().ok().filter(|choice: &DeviceChoice| choice.open().is_ok());
    if let Some(choice) = same {
        args.device = choice;
        let asked = args.dtype.is_some() || args.rounded_steps;
        args.recorded = (!asked).then(|| record.products.unwrap_or_default());
        args.dtype = args.dtype.or(record.dtype.parse().ok());
    }
    args
}

fn other_pictures(path: &Path, record: &Record) -> Failure {
    let names: Vec<&str> = record.images.iter().map(|source| source.name.as_str()).collect();
    let from = match names.is_empty() {
        true => "words alone".to_owned(),
        false => names.join(", "),
    };
    let message =
        format!("{}: drawn from {from}, and --image gives something else", path.display());
    Failure::new(Exit::Usage, message)
        .hint("give --image for each of those pictures, unchanged and in this order")
}

/// What tells adapters apart: their names may have changed.
fn prints(adapters: &[Adapter]) -> Vec<&str> {
    adapters.iter().map(|adapter| adapter.fingerprint.as_str()).collect()
}

fn another_model(path: &Path, record: &Record, identity: &Identity) -> Failure {
    // Folders may have one name and hold two models.
    let short = |digits: &str| digits.chars().take(12).collect::<String>();
    let on = |adapters: &[Adapter]| -> String {
        let one = |a: &Adapter| format!(" with {} ({})", a.name, short(&a.fingerprint));
        adapters.iter().map(one).collect()
    };
    let now = identity.fingerprint.to_string();
    let message = format!(
        "{}: drawn with another model: {} ({}){}, and {} is {}{}",
        path.display(),
        record.model,
        short(&record.model_fingerprint),
        on(&record.adapters),
        identity.name,
        short(&now),
        on(&identity.adapters),
    );
    let hint = match now == record.model_fingerprint {
        true => "--lora names its adapters; --any-model draws with what is given",
        false => {
            "--model names the one it was drawn with (`janus inspect` shows fingerprints); \
             --any-model draws with this one"
        }
    };
    Failure::new(Exit::BadData, message).hint(hint)
}

fn unreadable(path: &Path, error: Unreadable) -> Failure {
    let shown = path.display();
    let bad = |what: String| Failure::new(Exit::BadData, format!("{shown}: {what}"));
    let hint = "--reproduce takes a PNG file as `janus generate` wrote it; programs that edit or \
                send pictures often leave out how they were made";
    match error {
        Unreadable::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Failure::new(Exit::Missing, format!("{shown}: no such file"))
        }
        Unreadable::Io(error) => Failure::io(path, "read", &error),
        Unreadable::NotAFile => bad("this is not a file".into()),
        Unreadable::NotPng(why) => bad(format!("this is no PNG file: {why}")).hint(hint),
        Unreadable::Nothing => bad("it does not say how it was drawn".into()).hint(hint),
        Unreadable::Damaged(why) => {
            bad(format!("what it says about how it was drawn cannot be used: {why}")).hint(hint)
        }
        Unreadable::Version(version) => {
            bad(format!("it says how it was drawn in version {version}, which is not known"))
                .hint("it was written by another janus; use that one, or a newer one")
        }
    }
}
