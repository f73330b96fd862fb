//! What the folder of an adapter holds, and whether it fits the model that it is for.

use std::collections::BTreeMap;

use janus_model::adapters::{AdapterFiles, AdapterReport};
use janus_model::checkpoint::Limits;
use janus_model::{Error, JanusConfig, Parts, Precision};
use serde_json::json;

use super::Lines;
use crate::args::InspectArgs;
use crate::choice::Choice;
use crate::device;
use crate::report::{self, Failure, Verdict};
use crate::units::{count, plural};

/// Shows it. The answer is "no" where it does not fit its base; a base that is not there is none.
pub fn run(args: &InspectArgs, limits: &Limits) -> Result<Verdict, Failure> {
    let files = AdapterFiles::open(&args.model, limits)?;
    let fit = fit(&files, limits);
    let ok = !matches!(fit, Fit::Bad(_));
    if args.json {
        report::print_json(&as_json(args, &files, &fit)?)?;
    } else {
        report::print(&as_text(args, &files, &fit)?)?;
    }
    Ok(if ok { Verdict::Yes } else { Verdict::No })
}

/// What is known of the adapter on its base.
enum Fit {
    /// The base is not here.
    Unknown(String),
    Bad(Failure),
    Good(AdapterReport),
}

fn fit(files: &AdapterFiles, limits: &Limits) -> Fit {
    let config = Choice::find(&files.dir, limits)
        .and_then(|choice| Ok(JanusConfig::from_dir(&choice.base).map_err(Error::from)?.0));
    let config = match config {
        Ok(config) => config,
        Err(failure) => return Fit::Unknown(failure.parts().0),
    };
    // A model of this shape, none of whose weights is ever computed.
    let mut janus = config.init(Parts::All, Precision::F32, &device::idle());
    match janus.load_adapter(&files.dir, limits) {
        Ok(report) => Fit::Good(report),
        Err(error) => Fit::Bad(error.into()),
    }
}

/// Layers by the last part of their names, such as `q_proj`, and what a mere number counts.
fn kinds(files: &AdapterFiles) -> BTreeMap<&str, usize> {
    let mut kinds = BTreeMap::new();
    for pair in &files.pairs {
        let name = pair.module.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        let start = name.rfind('.').map_or(0, |dot| dot + 1);
        *kinds.entry(&pair.module[start..]).or_insert(0) += 1;
    }
    kinds
}

fn ranks(files: &AdapterFiles) -> (usize, usize) {
    let ranks = || files.pairs.iter().map(|pair| pair.rank());
    (ranks().min().unwrap_or(0), ranks().max().unwrap_or(0))
}

fn as_json(
    args: &InspectArgs,
    files: &AdapterFiles,
    fit: &Fit,
) -> Result<serde_json::Value, Failure> {
    let config = &files.config;
    let layer = |pair: &janus_model::adapters::Pair| {
        let scale = config.scale_of(&pair.module, pair.rank());
        json!({"name": pair.module, "rank": pair.rank(), "scale": scale})
    };
    let (fits, problem) = match fit {
        Fit::Unknown(why) => (None, Some(why.clone())),
        Fit::Bad(failure) => (Some(false), Some(failure.parts().0)),
        Fit::Good(_) => (Some(true), None),
    };
    Ok(json!({
        "path": args.model, "kind": "adapter", "ok": fits != Some(false),
        "base": config.base, "fits_base": fits, "problem": problem,
        "rank": config.rank, "alpha": config.alpha, "rslora": config.root,
        "layers": files.pairs.iter().map(layer).collect::<Vec<_>>(),
        "values": files.values(), "fingerprint": files.fingerprint()?,
    }))
}

fn as_text(args: &InspectArgs, files: &AdapterFiles, fit: &Fit) -> Result<String, Failure> {
    let config = &files.config;
    let mut lines = Lines::default();
    lines.add("adapter", args.model.display().to_string());
    lines.add("base", config.base.as_deref().map_or("not said".into(), |base| format!("{base:?}")));
    lines.add(
        "fits",
        match fit {
            Fit::Unknown(why) => format!("unknown: {why}"),
            Fit::Bad(failure) => format!("no: {}", failure.parts().0),
            Fit::Good(report) => format!("yes, {} of it", plural(report.layers.len(), "layer")),
        },
    );
    let (least, most) = ranks(files);
    let others = match least == most {
        true => String::new(),
        false => format!(" (layers have {least} to {most})"),
    };
    lines.add("rank", format!("{}{others}", config.rank));
    let root = if config.root { ", over the root of the rank" } else { "" };
    let other = match config.alpha_pattern.len() {
        0 => String::new(),
        n => format!(" ({n} of other alpha)"),
    };
    lines.add("alpha", format!("{}{root}{other}", config.alpha));
    let kinds: Vec<String> = kinds(files).iter().map(|(k, n)| format!("{k} {n}")).collect();
    lines.add("layers", format!("{}: {}", files.pairs.len(), kinds.join(", ")));
    lines.add("values", count(files.values()));
    lines.add("fingerprint", files.fingerprint()?);
    Ok(lines.0)
}
