use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use janus_train::scenes::Split;

/// `janus data`.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// What to make.
    #[command(subcommand)]
    pub what: DataCommand,
}

/// One variant per kind of data.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Draw scenes of coloured shapes, with captions, questions and answers that are all true.
    Scenes(DataScenesArgs),
}

impl DataArgs {
    /// Whether the answer, and errors, are to be JSON.
    pub fn json(&self) -> bool {
        match &self.what {
            DataCommand::Scenes(args) => args.json,
        }
    }
}

/// `janus data scenes`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus data scenes --output scenes
  janus data scenes --output held-out --split test --count 1000
  janus data scenes --output large --size 384 --seed 7

DIR gets draw.jsonl (a caption, a picture to be drawn), pairs.jsonl (a picture, a caption as the
answer), ask.jsonl (a picture, questions, answers), words.jsonl (texts alone) and the pictures. It
appears when it is complete, or not at all. The same seed gives the same bytes; whole combinations,
such as a shape of a colour, are in one split only: docs/scenes.md.")]
pub struct DataScenesArgs {
    /// Folder to write; must be empty or not exist.
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// How many scenes.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub count: u32,
    /// What they are drawn from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// What they are for.
    #[arg(long, value_name = "SPLIT", default_value = "train", value_parser = splits())]
    pub split: Split,
    /// Width and height of the pictures, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=1024))]
    pub size: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn splits() -> impl TypedValueParser<Value = Split> {
    let named = |name: String| Split::ALL.into_iter().find(|split| split.name() == name);
    let names = Split::ALL.map(Split::name);
    PossibleValuesParser::new(names).try_map(move |name| named(name).ok_or("no such split"))
}
