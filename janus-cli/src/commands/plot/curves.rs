//! `janus plot curves`: numbers of runs, step by step.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Value, json};

use super::{Series, check, open, write};
use crate::args::PlotCurvesArgs;
use crate::chart::{self, Line, Spread};
use crate::report::{self, Exit, Failure, Verdict};

/// Longest line that is read, in bytes; those of runs are below 1 kB.
const MAX_LINE: u64 = 1 << 16;

/// Runs the command.
pub fn run(args: &PlotCurvesArgs) -> Result<Verdict, Failure> {
    check(&args.file)?;
    let series = Series::all(&args.series)?;
    let lines: Result<Vec<_>, _> = series.iter().map(|series| line(series, args)).collect();
    let lines = lines?;
    let title = args.file.title.as_deref().unwrap_or(&args.of);
    write(&args.file.output, chart::lines(title, &args.of, &lines))?;
    match args.json {
        true => report::print_json(&as_json(args, &series, &lines))?,
        false => report::print(&format!("{}\n", args.file.output.display()))?,
    }
    Ok(Verdict::Yes)
}

fn as_json(args: &PlotCurvesArgs, series: &[Series], lines: &[Line]) -> Value {
    let ends = series.iter().zip(lines).map(|(series, line)| {
        let (step, at) = line.points.last().copied().unwrap_or_default();
        json!({
            "label": line.label, "runs": series.paths.len(), "step": step,
            "mean": at.mean, "deviation": at.deviation,
        })
    });
    json!({ "path": args.file.output, "of": args.of, "series": ends.collect::<Vec<_>>() })
}

/// Runs of one kind at the steps that all of them have.
fn line(series: &Series, args: &PlotCurvesArgs) -> Result<Line, Failure> {
    let runs: Result<Vec<_>, _> = series.paths.iter().map(|path| read(path, &args.of)).collect();
    let runs: Vec<_> = runs?.iter().map(|run| smooth(run, args.smooth as usize)).collect();
    let (first, others) = runs.split_first().expect("a series has a path");
    let points = first.iter().filter_map(|(step, value)| {
        let others: Option<Vec<f64>> = others.iter().map(|run| run.get(step).copied()).collect();
        let mut values = others?;
        values.push(*value);
        Some((*step as f64, Spread::of(&values)))
    });
    let points: Vec<_> = points.collect();
    match points.is_empty() {
        true => Err(Failure::new(
            Exit::BadData,
            format!("{}: its runs have no step in common", series.label),
        )),
        false => Ok(Line { label: series.label.clone(), points }),
    }
}

/// Mean of the last `over` values at each step.
fn smooth(run: &BTreeMap<u64, f64>, over: usize) -> BTreeMap<u64, f64> {
    let values: Vec<f64> = run.values().copied().collect();
    let mean = |at: usize| {
        let window = &values[(at + 1).saturating_sub(over)..=at];
        window.iter().sum::<f64>() / window.len() as f64
    };
    run.keys().enumerate().map(|(at, step)| (*step, mean(at))).collect()
}

/// Step and value of every line that has the value. A step that is there twice counts as it is last.
fn read(path: &Path, name: &str) -> Result<BTreeMap<u64, f64>, Failure> {
    let file = if path.is_dir() { path.join("metrics.jsonl") } else { path.to_owned() };
    let mut reader = BufReader::new(open(&file)?);
    let (mut found, mut text) = (BTreeMap::new(), Vec::new());
    for number in 1.. {
        text.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut text);
        let read = read.map_err(|error| Failure::io(&file, "read", &error))? as u64;
        // Nothing more, or half a line: of a run that goes on, or that was killed.
        if text.last() != Some(&b'\n') && read < MAX_LINE {
            break;
        }
        let line: Value = serde_json::from_slice(&text).map_err(|error| {
            let message = format!("{}: line {number}: no JSON: {error}", file.display());
            Failure::new(Exit::BadData, message)
        })?;
        let value = [&line[name], &line["terms"][name]].into_iter().find_map(Value::as_f64);
        if let (Some(step), Some(value)) = (line["step"].as_u64(), value) {
            found.insert(step, value);
        }
    }
    match found.is_empty() {
        true => Err(Failure::new(Exit::BadData, format!("{}: no {name}", file.display()))
            .hint("--of names a number of metrics.jsonl: loss, loss_image, rate, …")),
        false => Ok(found),
    }
}
