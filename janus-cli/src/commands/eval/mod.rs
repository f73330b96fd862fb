//! `janus eval`: how good a model is, one file per measure.

mod loss;
mod scenes;

use crate::args::{EvalArgs, EvalCommand};
use crate::report::{Failure, Verdict};

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<Verdict, Failure> {
    match &args.what {
        EvalCommand::Loss(args) => loss::run(args),
        EvalCommand::Scenes(args) => scenes::run(args),
    }
}
