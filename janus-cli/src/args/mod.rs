//! Exactly what was typed. Nothing is looked up here; values are checked as far as they can be
//! without touching a file or a device.

mod answer;
mod ask;
mod batch;
mod bench;
mod chat;
mod convert;
mod data;
mod devices;
mod doctor;
mod estimate;
mod eval;
mod generate;
mod inspect;
mod model;
mod pages;
mod plot;
mod pull;
mod train;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use answer::AnswerArgs;
pub use ask::AskArgs;
pub use batch::{BatchArgs, InputLimitArgs, OnError};
pub use bench::BenchArgs;
pub use chat::ChatArgs;
pub use convert::{ConvertArgs, Names};
pub use data::{DataArgs, DataCommand, DataScenesArgs, DataSizesArgs, DataWordsArgs};
pub use devices::DevicesArgs;
pub use doctor::DoctorArgs;
pub use estimate::EstimateArgs;
pub use eval::{EvalArgs, EvalCommand, EvalLossArgs, EvalScenesArgs};
pub use generate::{FileArgs, GenerateArgs, Show};
pub use inspect::{Against, InspectArgs};
pub use model::{ImageArgs, ImageLimitArgs, LimitArgs, ModelArgs, SamplingArgs};
pub use pages::{CompletionsArgs, ManArgs};
pub use plot::{PlotArgs, PlotCommand, PlotCurvesArgs, PlotFileArgs, PlotScoresArgs};
pub use pull::PullArgs;
pub use train::{FinetuneArgs, RunArgs, TrainArgs};

use crate::report;

/// Understand and draw images with Janus-Pro.
#[derive(Debug, Parser)]
#[command(
    name = "janus",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 ok, 1 the answer is no, 2 usage, 65 bad data, 66 input missing, \
                  69 network, 70 a bug, 73 cannot create, 74 input or output failed, 75 \
                  interrupted and what was finished is kept, 78 bad configuration, 130 interrupted."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One variant per command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer a question, about pictures if there are any.
    Ask(AskArgs),
    /// Talk with the model, about pictures too.
    Chat(ChatArgs),
    /// Draw pictures.
    Generate(GenerateArgs),
    /// Answer questions about every picture of a folder, or every line of a file.
    Batch(BatchArgs),
    /// Download a model, or go on with a download.
    Pull(PullArgs),
    /// Show what a model folder holds and whether it is whole.
    Inspect(InspectArgs),
    /// Write a model under other tensor names or in another number format.
    Convert(ConvertArgs),
    /// List the devices a model can run on.
    Devices(DevicesArgs),
    /// Forecast the memory that a model will take, before anything is loaded.
    Estimate(EstimateArgs),
    /// Say whether this machine, and a model, are fit for use.
    Doctor(DoctorArgs),
    /// Measure how fast a model runs here, stage by stage.
    Bench(BenchArgs),
    /// Train a model through the stages of a recipe, or go on with a run.
    Train(TrainArgs),
    /// Teach a model your own pictures, answers or edits, or go on with that.
    Finetune(FinetuneArgs),
    /// Measure how good a model is.
    Eval(EvalArgs),
    /// Make what training begins with: data, vocabularies, sizes of models.
    Data(DataArgs),
    /// Draw charts of runs and of marks.
    Plot(PlotArgs),
    /// Print a script that completes commands and flags in a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands.
    Man(ManArgs),
}

impl Command {
    /// Whether the answer, and errors, are to be JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::Ask(args) => args.json,
            Self::Chat(args) => args.json,
            Self::Batch(args) => args.json,
            Self::Generate(args) => args.json,
            Self::Inspect(args) => args.json,
            Self::Devices(args) => args.json,
            Self::Convert(args) => args.json,
            Self::Estimate(args) => args.json,
            Self::Bench(args) => args.json,
            Self::Pull(args) => args.json,
            Self::Doctor(args) => args.json,
            Self::Train(args) => args.run.json,
            Self::Finetune(args) => args.run.json,
            Self::Eval(args) => args.json(),
            Self::Data(args) => args.json(),
            Self::Plot(args) => args.json(),
            Self::Completions(_) | Self::Man(_) => false,
        }
    }
}

impl Cli {
    /// Parses the command line; on errors, help and version prints what is due.
    pub fn read() -> Result<Self, ExitCode> {
        let words: Vec<OsString> = std::env::args_os().collect();
        let json = words.iter().skip(1).take_while(|w| *w != "--").any(|word| word == "--json");
        Self::try_parse_from(words).map_err(|error| report::usage(&error, json))
    }
}
