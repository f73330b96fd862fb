//! `janus plot scores`: marks of models, category by category.

use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Series, check, open, write};
use crate::args::PlotScoresArgs;
use crate::chart::{self, Bars, Spread};
use crate::report::{self, Exit, Failure, Verdict};

/// Largest file of marks that is read; real ones have 1 kB.
const MAX_FILE: u64 = 1 << 20;

/// Runs the command.
pub fn run(args: &PlotScoresArgs) -> Result<Verdict, Failure> {
    check(&args.file)?;
    let series = Series::all(&args.series)?;
    let marks: Result<Vec<Vec<_>>, _> = series
        .iter()
        .map(|series| series.paths.iter().map(|path| read(path, args.of.key())).collect())
        .collect();
    let marks = marks?;
    let categories = categories(&marks[0][0]);
    let bars: Result<Vec<_>, _> = series
        .iter()
        .zip(&marks)
        .map(|(series, files)| group(series, files, &categories))
        .collect();
    let bars = bars?;
    let title = args.file.title.as_deref().unwrap_or(args.of.key());
    write(&args.file.output, chart::bars(title, &categories, &bars))?;
    match args.json {
        true => report::print_json(&as_json(args, &categories, &bars))?,
        false => report::print(&as_text(args, &categories, &bars))?,
    }
    Ok(Verdict::Yes)
}

/// The overall mark first.
fn categories(marks: &Map<String, Value>) -> Vec<String> {
    let parts = marks.keys().filter(|name| *name != "overall");
    std::iter::once("overall").chain(parts.map(String::as_str)).map(str::to_owned).collect()
}

fn group(
    series: &Series,
    files: &[Map<String, Value>],
    categories: &[String],
) -> Result<Bars, Failure> {
    let value = |name: &String| {
        let values = files.iter().zip(&series.paths).map(|(marks, path)| {
            marks.get(name).and_then(Value::as_f64).ok_or_else(|| none(path, name))
        });
        Ok(Spread::of(&values.collect::<Result<Vec<_>, Failure>>()?))
    };
    let values = categories.iter().map(value).collect::<Result<_, Failure>>()?;
    Ok(Bars { label: series.label.clone(), values })
}

fn none(path: &Path, what: &str) -> Failure {
    Failure::new(Exit::BadData, format!("{}: no marks of {what}", path.display()))
        .hint("what is read is what `janus eval scenes --json` prints")
}

/// One half of the marks in a file.
fn read(path: &Path, key: &str) -> Result<Map<String, Value>, Failure> {
    let mut text = Vec::new();
    let read = open(path)?.take(MAX_FILE).read_to_end(&mut text);
    read.map_err(|error| Failure::io(path, "read", &error))?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| {
        Failure::new(Exit::BadData, format!("{}: no JSON: {error}", path.display()))
            .hint("what is read is what `janus eval scenes --json` prints")
    })?;
    value[key].as_object().cloned().ok_or_else(|| none(path, key))
}

fn as_json(args: &PlotScoresArgs, categories: &[String], bars: &[Bars]) -> Value {
    let series = bars.iter().map(|group| {
        let marks = categories.iter().zip(&group.values).map(|(name, value)| {
            (name.clone(), json!({ "mean": value.mean, "deviation": value.deviation }))
        });
        json!({ "label": group.label, "marks": marks.collect::<Map<_, _>>() })
    });
    json!({
        "path": args.file.output, "of": args.of.key(), "series": series.collect::<Vec<_>>(),
    })
}

/// The path, and a table: a row for each category.
fn as_text(args: &PlotScoresArgs, categories: &[String], bars: &[Bars]) -> String {
    let mut text = format!("{}\n", args.file.output.display());
    for (at, category) in categories.iter().enumerate() {
        let _ = write!(text, "  {category:<18}");
        for group in bars {
            let Spread { mean, deviation } = group.values[at];
            let _ = write!(text, "  {}: {mean:.3} ± {deviation:.3}", group.label);
        }
        text.push('\n');
    }
    text
}
