//! `janus train`: the stages of a recipe, one after the other.

use std::path::{Path, PathBuf};

use janus_train::config::{RECIPES, Source, TrainConfig};

use crate::args::TrainArgs;
use crate::report::{self, Exit, Failure, Verdict};
use crate::training::{self, Stage};

/// Runs the command.
pub fn run(args: &TrainArgs) -> Result<Verdict, Failure> {
    if args.list {
        let names: String = RECIPES.iter().map(|(name, _)| format!("{name}\n")).collect();
        return report::print(&names).map(|()| Verdict::Yes);
    }
    if let Some(name) = &args.show {
        return report::print(text(name)?).map(|()| Verdict::Yes);
    }
    let stages = stages(args)?;
    training::run(stages, &args.run)
}

/// The text of a recipe that comes with janus.
fn text(name: &str) -> Result<&'static str, Failure> {
    let known = RECIPES.iter().find(|(known, _)| *known == name);
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

fn stages(args: &TrainArgs) -> Result<Vec<Stage>, Failure> {
    let mut stages: Vec<Stage> = Vec::new();
    let several = args.recipes.len() > 1;
    for typed in &args.recipes {
        let mut config = read(typed)?;
        if !args.data.is_empty() {
            config.data = args.data.iter().map(Source::of).collect();
        }
        // The first starts where it was told to, each other one from the end of the one before.
        config.start = match (stages.last(), &args.start) {
            (Some(before), _) if !args.run.dry_run => Some(before.output.clone()),
            (_, Some(start)) => Some(training::start(start, &args.run)?),
            _ => config.start,
        };
        let config = training::with(config, &args.run)?;
        let output = match (&args.run.output, several) {
            (Some(output), true) => output.join(&config.name),
            (Some(output), false) => output.clone(),
            (None, _) => PathBuf::from(&config.name),
        };
        stages.push(Stage { config, output });
    }
    Ok(stages)
}
