//! `janus doctor`: whether this machine, and a model, are fit for use; and every setting in force.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor, TensorData};
use clap::CommandFactory;
use janus_model::precision::{Family, Precision};
use serde_json::{Value, json};

use crate::args::{Cli, DoctorArgs};
use crate::choice::Choice;
use crate::commands::devices::short;
use crate::device::{self, Backend, Found};
use crate::folder::{Component, Folder};
use crate::hub::address::printable;
use crate::hub::{Cache, setting};
use crate::machine::{self, Memory};
use crate::report::{self, Failure, Verdict};
use crate::units::size;

/// Variables that other programs share with this one.
const SHARED: [&str; 14] = [
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "NO_COLOR",
    "RAYON_NUM_THREADS",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];
/// Below this, nobody can keep a model or a picture.
const LITTLE_SPACE: u64 = 1 << 30;

/// Something that is not as it should be, and what to do about it.
struct Problem {
    what: String,
    hint: String,
}

/// Runs the command.
pub fn run(args: &DoctorArgs) -> Result<Verdict, Failure> {
    device::pin("flex");
    let mut problems = Vec::new();
    let devices = devices(args.software, &mut problems);
    let folders = folders(&mut problems);
    let variables = variables(&mut problems);
    let named = args.model.as_ref().filter(|path| !path.as_os_str().is_empty());
    let model = named.map(|path| look_at(path, args, &mut problems));
    let limits: Vec<(&str, u64)> = args
        .limits
        .table()
        .into_iter()
        .chain(args.pictures.table())
        .chain(args.input.table())
        .collect();
    let problems_json: Vec<Value> =
        problems.iter().map(|p| json!({"problem": p.what, "hint": p.hint})).collect();
    if args.json {
        report::print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"), "features": features(),
            "processor": processor_json(), "devices": devices_json(&devices),
            "folders": folders_json(&folders), "model": model,
            "limits": limits.iter().map(limit_json).collect::<Vec<_>>(),
            "environment": variables.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<serde_json::Map<_, _>>(),
            "problems": problems_json, "ok": problems.is_empty(),
        }))?;
    } else {
        let mut text = format!("janus {}\n", env!("CARGO_PKG_VERSION"));
        processor_text(&mut text);
        devices_text(&mut text, &devices);
        folders_text(&mut text, &folders);
        if let Some(model) = &model {
            model_text(&mut text, model);
        }
        settings_text(&mut text, &limits, &variables);
        report::print(&text)?;
        for problem in &problems {
            report::problem(&problem.what, &problem.hint);
        }
        if problems.is_empty() {
            report::print("\nno problem found\n")?;
        }
    }
    Ok(if problems.is_empty() { Verdict::Yes } else { Verdict::No })
}

// --- this program and the processor -----------------------------------------------------------

fn features() -> Vec<&'static str> {
    Backend::ALL.into_iter().filter(|backend| backend.compiled()).map(Backend::name).collect()
}

fn processor_json() -> Value {
    let memory = Memory::now();
    let instructions: serde_json::Map<String, Value> =
        machine::instructions().into_iter().map(|(name, has)| (name.into(), has.into())).collect();
    json!({
        "threads": machine::threads(None), "memory": memory.total, "memory_available": memory.available,
        "architecture": std::env::consts::ARCH, "system": std::env::consts::OS,
        "instructions": instructions,
    })
}

fn processor_text(text: &mut String) {
    let memory = Memory::now();
    let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    let has = |wanted: bool| {
        let list = machine::instructions();
        let names: Vec<&str> = list.iter().filter(|(_, has)| *has == wanted).map(|i| i.0).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(" ") }
    };
    line(text, "built with", &features().join(" "));
    line(
        text,
        "processor",
        &format!("{architecture}, {system}, {} threads", machine::threads(None)),
    );
    line(text, "instructions", &format!("{} (without: {})", has(true), has(false)));
    let (total, available) = (size(memory.total), size(memory.available));
    line(text, "memory", &format!("{total}, {available} available"));
}

fn line(text: &mut String, label: &str, value: &str) {
    let _ = writeln!(text, "{label:<14} {value}");
}

// --- devices ----------------------------------------------------------------------------------

struct Examined {
    found: Found,
    /// Whether its product was right; `None` where it was not asked.
    right: Option<bool>,
}

fn devices(software: bool, problems: &mut Vec<Problem>) -> Vec<Examined> {
    let all = Backend::ALL.into_iter().flat_map(Backend::devices);
    let examined: Vec<Examined> = all
        .map(|found| {
            let right = (!found.software || software).then(|| multiplies_right(&found));
            Examined { found, right }
        })
        .collect();
    for device in examined.iter().filter(|device| device.right == Some(false)) {
        let (id, name) = (device.found.id(), &device.found.name);
        problems.push(Problem {
            what: format!("{id} ({name}) multiplies matrices wrongly, or not at all"),
            hint: "update its driver, or choose another --device".into(),
        });
    }
    if !examined.iter().any(|device| device.found.is_automatic()) {
        problems.push(Problem {
            what: "no device that --device auto would take".into(),
            hint: "install a janus built with the feature `cpu`, or a graphics driver".into(),
        });
    }
    examined
}

/// Rows, inner size and columns of the test: no multiples of each other.
const SIZES: [usize; 3] = [17, 40, 23];

/// Whole numbers, which every format holds exactly; sums that f16 and bf16 may round.
fn multiplies_right(found: &Found) -> bool {
    let [rows, inner, columns] = SIZES;
    let value = |i: usize, step: usize| ((i * step) % 7) as f32 - 3.0;
    let left: Vec<f32> = (0..rows * inner).map(|i| value(i, 3)).collect();
    let right: Vec<f32> = (0..inner * columns).map(|i| value(i, 5)).collect();
    let dtype = found.precision(None).map_or(DType::F32, |precision| precision.compute);
    let device = found.device.clone();
    let (a, b) = (left.clone(), right.clone());
    let product = device::quietly(move || {
        let a = Tensor::<2>::from_data(TensorData::new(a, [rows, inner]), &device).cast(dtype);
        let b = Tensor::<2>::from_data(TensorData::new(b, [inner, columns]), &device).cast(dtype);
        a.matmul(b).cast(DType::F32).into_data().try_to_vec::<f32>().ok()
    });
    let Some(Some(product)) = product else { return false };
    let expected = (0..rows * columns).map(|at| {
        let (row, column) = (at / columns, at % columns);
        (0..inner).map(|k| left[row * inner + k] * right[k * columns + column]).sum::<f32>()
    });
    product.len() == rows * columns
        && product.iter().zip(expected).all(|(got, want)| (got - want).abs() <= want.abs() / 100.0)
}

/// Why a device uses the formats it does.
fn why(found: &Found, precision: Precision) -> &'static str {
    match (Family::of(&found.device), precision.compute) {
        (Family::Cpu, _) => "weights stay as in the file; processors are fastest in f32",
        (Family::NdArray, _) => "it knows nothing else",
        (Family::Cuda | Family::Metal, DType::BF16) => "as the model was trained",
        (_, DType::F16) => "half the memory of f32, and it has no bf16",
        _ => "it has no shorter format",
    }
}

fn devices_json(devices: &[Examined]) -> Vec<Value> {
    let memory = Memory::now();
    let describe = |device: &Examined| {
        let found = &device.found;
        let host = matches!(found.backend, Backend::Cpu | Backend::NdArray);
        let precision = found.precision(None);
        json!({
            "device": found.id(), "name": found.name, "software": found.software,
            "weights": precision.map(|p| short(p.weights)),
            "compute": precision.map(|p| short(p.compute)),
            "why": precision.map(|p| why(found, p)), "memory": host.then_some(memory.total),
            "multiplies_right": device.right,
        })
    };
    devices.iter().map(describe).collect()
}

fn devices_text(text: &mut String, devices: &[Examined]) {
    text.push_str("\ndevices\n");
    for device in devices {
        let found = &device.found;
        let test = match device.right {
            Some(true) => "works",
            Some(false) => "DOES NOT WORK",
            None => "software, not tested (see --software)",
        };
        let formats = found.precision(None).map_or_else(String::new, |p| {
            let (weights, compute) = (short(p.weights), short(p.compute));
            format!("; weights {weights}, arithmetic {compute}: {}", why(found, p))
        });
        let _ = writeln!(text, "  {:<12} {}: {test}{formats}", found.id(), found.name);
    }
}

// --- folders ----------------------------------------------------------------------------------

struct Place {
    what: &'static str,
    path: PathBuf,
    writable: bool,
    free: Option<u64>,
}

fn folders(problems: &mut Vec<Problem>) -> Vec<Place> {
    let cache = Cache::usual().map(|cache| ("cache", cache.root, "HF_HOME or HF_HUB_CACHE"));
    let temp = ("temporary", std::env::temp_dir(), "TMPDIR");
    let mut places = Vec::new();
    for (what, path, variable) in cache.into_iter().chain([temp]) {
        let (writable, free) = (machine::is_writable(&path), machine::free_space(&path));
        let shown = path.display();
        if !writable {
            let what = format!("{shown}: the {what} folder cannot be written to");
            problems.push(Problem { what, hint: format!("choose another with {variable}") });
        } else if let Some(free) = free.filter(|free| *free < LITTLE_SPACE) {
            let what = format!("{shown}: the {what} folder has only {} left", size(free));
            let hint = format!("make room, or choose another with {variable}");
            problems.push(Problem { what, hint });
        }
        places.push(Place { what, path, writable, free });
    }
    places
}

fn folders_json(places: &[Place]) -> Vec<Value> {
    let describe =
        |p: &Place| json!({"what": p.what, "path": p.path, "writable": p.writable, "free": p.free});
    places.iter().map(describe).collect()
}

fn folders_text(text: &mut String, places: &[Place]) {
    text.push_str("\nfolders\n");
    for place in places {
        let free = place.free.map_or_else(String::new, |free| format!(", {} free", size(free)));
        let writable = if place.writable { "writable" } else { "NOT WRITABLE" };
        let path = place.path.display();
        let _ = writeln!(text, "  {:<12} {path}: {writable}{free}", place.what);
    }
}

// --- settings ---------------------------------------------------------------------------------

/// The variable that belongs to a flag.
fn variable(flag: &str) -> String {
    format!("JANUS_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

fn limit_json((flag, value): &(&str, u64)) -> Value {
    json!({"flag": format!("--{flag}"), "variable": variable(flag), "value": value})
}

/// Every variable that any flag listens to.
fn known() -> BTreeSet<String> {
    let command = Cli::command();
    let arguments = command.get_subcommands().flat_map(clap::Command::get_arguments);
    arguments.filter_map(|a| Some(a.get_env()?.to_string_lossy().into_owned())).collect()
}

/// All variables that change what janus does, and what they are set to.
fn variables(problems: &mut Vec<Problem>) -> Vec<(String, Option<String>)> {
    let known = known();
    let ours = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in ours.filter(|name| name.starts_with("JANUS_") && !known.contains(name)) {
        problems.push(Problem {
            what: format!("{name} is set, and no setting of janus is called so"),
            hint: "see `janus doctor --json` for the variables there are".into(),
        });
    }
    let names = known.into_iter().chain(SHARED.map(String::from));
    let all: BTreeSet<String> = names.collect();
    let lower = |name: &str| setting(&name.to_ascii_lowercase());
    let proxy = |name: &str| name.ends_with("PROXY").then(|| lower(name)).flatten();
    let value = |name: &str| setting(name).or_else(|| proxy(name)).map(|v| masked(name, &v));
    all.into_iter()
        .map(|name| {
            let value = value(&name);
            (name, value)
        })
        .collect()
}

/// Secrets are not shown: tokens, and passwords inside addresses.
fn masked(name: &str, value: &str) -> String {
    if name == "HF_TOKEN" {
        return "(set, not shown)".to_owned();
    }
    let value = printable(value);
    match value.rsplit_once('@') {
        Some((secret, rest)) => {
            let scheme = secret.split_once("://").map_or("", |(scheme, _)| scheme);
            let separator = if scheme.is_empty() { "" } else { "://" };
            format!("{scheme}{separator}…@{rest}")
        }
        None => value,
    }
}

fn settings_text(text: &mut String, limits: &[(&str, u64)], all: &[(String, Option<String>)]) {
    text.push_str("\nlimits on what files may claim\n");
    for (flag, value) in limits {
        let _ = writeln!(text, "  {:<12} --{flag}, {}", value, variable(flag));
    }
    text.push_str("\nenvironment\n");
    for (name, value) in all.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        let _ = writeln!(text, "  {name} = {value}");
    }
    let unset: Vec<&str> = all.iter().filter(|v| v.1.is_none()).map(|v| v.0.as_str()).collect();
    let _ = writeln!(text, "  not set: {}", unset.join(", "));
}

// --- a model ----------------------------------------------------------------------------------

/// What a model folder holds; everything that is wrong with it becomes a problem.
fn look_at(path: &Path, args: &DoctorArgs, problems: &mut Vec<Problem>) -> Value {
    let limits = args.limits.limits();
    let opened = Choice::find(path, &limits).and_then(|choice| {
        let folder = Folder::open(&choice.base, &limits)?;
        Ok((choice.base, folder))
    });
    let (path, folder) = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            let (what, hint) = failure.parts();
            problems.push(Problem { what, hint });
            return json!({"path": path, "whole": false});
        }
    };
    let missing = |prefixes: &[&str]| folder.lacks(prefixes);
    let (understanding, drawing) = (missing(&UNDERSTANDING), missing(&DRAWING));
    if let Some(mismatch) = &folder.mismatch {
        let hint = folder.hint().unwrap_or_else(|| "`janus inspect` shows all of it".into());
        problems.push(Problem { what: format!("{}: {mismatch}", path.display()), hint });
    }
    let tokenizer = match folder.processor() {
        Ok(processor) => processor.is_some(),
        Err(error) => {
            let failure = Failure::from(error);
            let (what, hint) = failure.parts();
            problems.push(Problem { what, hint });
            false
        }
    };
    if !path.join("tokenizer.json").exists() && path.is_dir() {
        let what = format!("{}: no tokenizer.json", folder.checkpoint.dir.display());
        let hint = "take all files of the model's folder, not the weights alone".to_owned();
        problems.push(Problem { what, hint });
    }
    let elements: usize = folder.components().iter().map(|part: &Component| part.elements).sum();
    json!({
        "path": path, "whole": folder.mismatch.is_none(), "elements": elements,
        "understanding_lacks": understanding, "drawing_lacks": drawing, "tokenizer": tokenizer,
    })
}

const UNDERSTANDING: [&str; 3] = ["vision_model", "aligner", "language_model"];
const DRAWING: [&str; 5] =
    ["gen_vision_model", "gen_aligner", "gen_head", "gen_embed", "language_model"];

fn model_text(text: &mut String, model: &Value) {
    text.push_str("\nmodel\n");
    let _ = writeln!(text, "  {:<12} {}", "folder", model["path"].as_str().unwrap_or_default());
    for (label, key) in [("understanding", "understanding_lacks"), ("drawing", "drawing_lacks")] {
        let said = match model[key].as_u64() {
            Some(0) => "whole".to_owned(),
            Some(n) => format!("lacks {n} tensors"),
            None => "cannot be read".to_owned(),
        };
        let _ = writeln!(text, "  {label:<12} {said}");
    }
    let tokenizer = if model["tokenizer"] == true { "can be used" } else { "CANNOT BE USED" };
    let _ = writeln!(text, "  {:<12} {tokenizer}", "tokenizer");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(masked("HF_TOKEN", "hf_secret"), "(set, not shown)");
        assert_eq!(masked("HTTPS_PROXY", "http://me:pa@ss@proxy:80"), "http://…@proxy:80");
        assert_eq!(masked("HTTPS_PROXY", "me:secret@proxy"), "…@proxy");
        assert_eq!(masked("HTTPS_PROXY", "http://proxy:80"), "http://proxy:80");
    }

    #[test]
    fn every_limit_has_its_variable() {
        use crate::args::{ImageLimitArgs, InputLimitArgs, LimitArgs};
        let (files, pictures, input) = <(LimitArgs, ImageLimitArgs, InputLimitArgs)>::default();
        let known = known();
        for (flag, _) in files.table().into_iter().chain(pictures.table()).chain(input.table()) {
            assert!(known.contains(&variable(flag)), "{flag}");
        }
        let limits = known.iter().filter(|name| name.starts_with("JANUS_MAX_")).count();
        assert_eq!(limits, 12, "a limit that doctor does not show: {known:?}");
    }
}
