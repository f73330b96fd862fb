//! `janus train`: stages of a model, and networks that are trained apart, one after the other.

use std::path::{Path, PathBuf};

use janus_train::config::{RECIPES, Source, TrainConfig};
use janus_train::parts::{RECIPES as PARTS, part_of};

use crate::args::TrainArgs;
use crate::report::{self, Exit, Failure, Verdict};
use crate::training::{self, Stage, Work};

/// Runs the command.
pub fn run(args: &TrainArgs) -> Result<Verdict, Failure> {
    if args.list {
        let names: String =
            RECIPES.iter().chain(&PARTS).map(|(name, _)| format!("{name}\n")).collect();
        return report::print(&names).map(|()| Verdict::Yes);
    }
    if let Some(name) = &args.show {
        return report::print(text(name)?).map(|()| Verdict::Yes);
    }
    training::run(works(args)?, &args.run)
}

/// The text of a recipe that comes with janus.
fn text(name: &str) -> Result<&'static str, Failure> {
    let known = RECIPES.iter().chain(&PARTS).find(|(known, _)| *known == name);
    known.map(|(_, text)| *text).ok_or_else(|| {
        let message = format!("{name}: there is no recipe of that name, and no such file");
        Failure::new(Exit::Missing, message).hint("`janus train --list` shows all names")
    })
}

/// A recipe by its file or its name.
fn read(typed: &str) -> Result<TrainConfig, Failure> {
    let path = Path::new(typed);
    match path.exists() || typed.ends_with(".toml") {
        true => Ok(TrainConfig::read(path)?),
        false => Ok(TrainConfig::from_toml(text(typed)?)?),
    }
}

/// What is to be done, in the order of the command line.
fn works(args: &TrainArgs) -> Result<Vec<Work>, Failure> {
    let mut works: Vec<Work> = Vec::new();
    for typed in &args.recipes {
        let path = Path::new(typed);
        let work = match path.exists() && part_of(path)?.is_some() {
            true => part(path, args),
            false => stage(typed, works.last(), args)?,
        };
        works.push(work);
    }
    Ok(works)
}

/// Where a run goes: OUTPUT itself, or a folder in it where there are several.
fn output(args: &TrainArgs, name: &str) -> PathBuf {
    match (&args.run.output, args.recipes.len()) {
        (Some(output), 1) => output.clone(),
        (Some(output), _) => output.join(name),
        (None, _) => PathBuf::from(name),
    }
}

/// A network that is trained apart.
fn part(path: &Path, args: &TrainArgs) -> Work {
    let text = |value: String| toml::Value::String(value).to_string();
    let data = args.data.iter().enumerate();
    let data =
        data.map(|(at, path)| format!("data.{at}={{path={}}}", text(path.display().to_string())));
    let overrides = data.chain(args.run.set.iter().cloned()).collect();
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    Work::Part { recipe: path.to_owned(), overrides, output: output(args, &name) }
}

fn stage(typed: &str, before: Option<&Work>, args: &TrainArgs) -> Result<Work, Failure> {
    let mut config = read(typed)?;
    if !args.data.is_empty() {
        config.data = args.data.iter().map(Source::of).collect();
    }
    // The first starts where it was told to, each other one from the end of the one before.
    config.start = match (before, &args.start) {
        (Some(Work::Stage(before)), _) if !args.run.dry_run => Some(before.output.clone()),
        (_, Some(start)) => Some(training::start(start, &args.run)?),
        _ => config.start,
    };
    if config.start.is_some() {
        config.init = None;
    }
    let config = training::with(config, &args.run)?;
    let output = output(args, &config.name);
    Ok(Work::Stage(Box::new(Stage { config, output })))
}
