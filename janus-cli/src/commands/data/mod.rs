//! `janus data`: something to train on, one file per kind.

mod scenes;

use crate::args::{DataArgs, DataCommand};
use crate::report::{Failure, Verdict};

/// Runs the command.
pub fn run(args: &DataArgs) -> Result<Verdict, Failure> {
    match &args.what {
        DataCommand::Scenes(args) => scenes::run(args),
    }
}
