//! `janus plot`: charts of runs and marks, one file per kind.

mod curves;
mod scores;

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::args::{PlotArgs, PlotCommand, PlotFileArgs};
use crate::pictures;
use crate::report::{Exit, Failure, Verdict};

/// Runs the command.
pub fn run(args: &PlotArgs) -> Result<Verdict, Failure> {
    match &args.what {
        PlotCommand::Curves(args) => curves::run(args),
        PlotCommand::Scores(args) => scores::run(args),
    }
}

/// What `LABEL=PATH,PATH` names; without a label it is called like its paths.
struct Series {
    label: String,
    paths: Vec<PathBuf>,
}

impl Series {
    fn parse(words: &str) -> Result<Self, Failure> {
        let (label, paths) = words.split_once('=').unwrap_or((words, words));
        let paths: Vec<PathBuf> = paths.split(',').map(PathBuf::from).collect();
        let empty = label.is_empty() || paths.iter().any(|path| path.as_os_str().is_empty());
        match empty {
            true => Err(Failure::new(Exit::Usage, format!("{words:?} names no series"))
                .hint("LABEL=PATH,PATH, or a path alone")),
            false => Ok(Self { label: label.to_owned(), paths }),
        }
    }

    fn all(words: &[String]) -> Result<Vec<Self>, Failure> {
        words.iter().map(|words| Self::parse(words)).collect()
    }
}

/// Refuses what is not to become an SVG file, before anything is read.
fn check(file: &PlotFileArgs) -> Result<(), Failure> {
    let ending = file.output.extension().and_then(|ending| ending.to_str());
    match ending.is_some_and(|ending| ending.eq_ignore_ascii_case("svg")) {
        true => Ok(()),
        false => {
            let message = format!("{}: charts are SVG files", file.output.display());
            Err(Failure::new(Exit::Usage, message).hint("give a name that ends in .svg"))
        }
    }
}

/// Opens a file to read.
fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let message = format!("{}: is not there", path.display());
            Failure::new(Exit::Missing, message)
                .hint("a series is LABEL=PATH,PATH, or a path alone")
        }
        _ => Failure::io(path, "open", &error),
    })
}

/// Writes the chart.
fn write(path: &Path, drawn: Result<String, Box<dyn std::error::Error>>) -> Result<(), Failure> {
    let svg = drawn.map_err(|error| {
        let message = format!("{}: cannot be drawn: {error}", path.display());
        Failure::new(Exit::BadData, message)
    })?;
    pictures::write(path, svg.as_bytes())
}
