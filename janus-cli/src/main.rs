//! The `janus` command.
//!
//! ```text
//! words ─ args ─> Cli ─ one match ─> commands/* ─ one library call ─> report ─> stdout, exit code
//!                                       └ device (only where a device is needed)
//! ```
//! Data goes to stdout, everything else to stderr. No backend is touched before the arguments
//! are understood, so `janus --help` is as fast as starting a process.

mod answers;
mod args;
mod chart;
mod choice;
mod commands;
mod companions;
mod default_model;
mod device;
mod folder;
mod formats;
mod hub;
mod interrupt;
mod lines;
mod machine;
mod metadata;
mod model;
mod pictures;
mod process;
mod progress;
mod report;
mod sheet;
mod show;
mod target;
mod training;
mod units;

use std::process::ExitCode;

use args::{Cli, Command};
use report::{Failure, Verdict};

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    report::set_up();
    janus_model::ops::keep_freed_memory();
    let result = std::panic::catch_unwind(|| run(&cli.command));
    match result.unwrap_or_else(|_| Err(report::bug())) {
        Ok(verdict) => verdict.exit_code(),
        Err(failure) => failure.show(cli.command.json()),
    }
}

fn run(command: &Command) -> Result<Verdict, Failure> {
    match command {
        Command::Ask(args) => commands::ask::run(args),
        Command::Chat(args) => commands::chat::run(args),
        Command::Batch(args) => commands::batch::run(args),
        Command::Generate(args) => commands::generate::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Devices(args) => commands::devices::run(args),
        Command::Convert(args) => commands::convert::run(args),
        Command::Estimate(args) => commands::estimate::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Pull(args) => commands::pull::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Train(args) => commands::train::run(args),
        Command::Finetune(args) => commands::finetune::run(args),
        Command::Data(args) => commands::data::run(args),
        Command::Plot(args) => commands::plot::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Completions(args) => commands::pages::completions(args),
        Command::Man(args) => commands::pages::man(args),
    }
}
