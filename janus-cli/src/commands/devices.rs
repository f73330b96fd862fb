//! `janus devices`: what is compiled in, what is there, and which `auto` takes.

use std::fmt::Write;

use burn::tensor::DType;
use serde_json::{Value, json};

use crate::args::DevicesArgs;
use crate::device::{self, Backend, DeviceChoice, Found};
use crate::report::{self, Failure, Verdict};
use crate::units::{WeightType, torch_name};

/// Runs the command.
pub fn run(args: &DevicesArgs) -> Result<Verdict, Failure> {
    if let Some(choice) = args.device {
        let found = choice.open()?;
        let auto = choice == DeviceChoice::Auto;
        match args.json {
            true => report::print_json(&describe(&found, auto))?,
            false => report::print(&row(&found, auto))?,
        }
        return Ok(Verdict::Yes);
    }
    device::pin("flex");
    let backends: Vec<(Backend, Vec<Found>)> =
        Backend::ALL.into_iter().map(|backend| (backend, backend.devices())).collect();
    let auto = backends.iter().flat_map(|(_, found)| found).find(|found| found.is_automatic());
    let auto = auto.map(Found::id);
    if args.json {
        report::print_json(&as_json(&backends, auto.as_deref()))?;
    } else {
        report::print(&as_text(&backends, auto.as_deref()))?;
    }
    Ok(Verdict::Yes)
}

fn as_json(backends: &[(Backend, Vec<Found>)], auto: Option<&str>) -> Value {
    let backends: Vec<Value> = backends
        .iter()
        .map(|(backend, found)| {
            let devices: Vec<Value> =
                found.iter().map(|found| describe(found, auto == Some(&found.id()))).collect();
            json!({"backend": backend.name(), "compiled": backend.compiled(), "devices": devices})
        })
        .collect();
    json!({"auto": auto, "backends": backends})
}

fn describe(found: &Found, auto: bool) -> Value {
    let dtypes: Vec<&str> = found.dtypes().into_iter().map(WeightType::name).collect();
    let usual = found.precision(None);
    json!({
        "device": found.id(), "name": found.name, "software": found.software, "auto": auto,
        "dtypes": dtypes,
        "default": usual.map(|p| json!({"weights": short(p.weights), "compute": short(p.compute)})),
    })
}

fn as_text(backends: &[(Backend, Vec<Found>)], auto: Option<&str>) -> String {
    let mut text = String::new();
    for (backend, found) in backends {
        if !backend.compiled() {
            let _ = writeln!(text, "  {:<10} not part of this build", backend.name());
        } else if found.is_empty() {
            let _ = writeln!(text, "  {:<10} no device found", backend.name());
        }
        for found in found {
            text += &row(found, auto == Some(&found.id()));
        }
    }
    text += "\n* taken by --device auto\n";
    text
}

fn row(found: &Found, auto: bool) -> String {
    let mark = if auto { '*' } else { ' ' };
    let software = if found.software { " (software, not a graphics card)" } else { "" };
    let dtypes: Vec<&str> = found.dtypes().into_iter().map(WeightType::name).collect();
    let usual = found.precision(None).map_or_else(String::new, |p| {
        format!("; weights {}, arithmetic {}", short(p.weights), short(p.compute))
    });
    format!("{mark} {:<10} {}{software}: {}{usual}\n", found.id(), found.name, dtypes.join(" "))
}

/// `f32`, `bf16`, `f16`.
pub fn short(dtype: DType) -> &'static str {
    match torch_name(dtype) {
        "bfloat16" => "bf16",
        "float16" => "f16",
        _ => "f32",
    }
}
