//! `janus data`: what training begins with, one file per thing to make.

mod scenes;
mod sizes;
mod words;

use crate::args::{DataArgs, DataCommand};
use crate::report::{Failure, Verdict};

/// Runs the command.
pub fn run(args: &DataArgs) -> Result<Verdict, Failure> {
    match &args.what {
        DataCommand::Words(args) => words::run(args),
        DataCommand::Sizes(args) => sizes::run(args),
        DataCommand::Scenes(args) => scenes::run(args),
    }
}
