use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use janus_train::data::Format;
use janus_train::scenes::Split;
use janus_train::words::{LARGEST, SMALLEST};

use super::eval::formats;
use super::train::OnBadName;

/// `janus data`.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// What to make.
    #[command(subcommand)]
    pub what: DataCommand,
}

/// One variant per thing to make.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Learn a vocabulary from text: the tokenizer of a model that is trained from nothing.
    Words(DataWordsArgs),
    /// Write a model folder without weights, for a model that is trained from nothing.
    Sizes(DataSizesArgs),
    /// Draw scenes of coloured shapes, with captions, questions and answers that are all true.
    Scenes(DataScenesArgs),
}

impl DataArgs {
    /// Whether the answer, and errors, are to be JSON.
    pub fn json(&self) -> bool {
        match &self.what {
            DataCommand::Words(args) => args.json,
            DataCommand::Sizes(args) => args.json,
            DataCommand::Scenes(args) => args.json,
        }
    }
}

/// `janus data words`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus data words captions.jsonl --output words
  janus data words train.jsonl stories.txt --vocab 4096 --output words --json

FILE is JSONL with `messages`, lines of a .txt file, or anything else that can be trained on:
docs/training-data.md. Pictures are not looked at. OUTPUT gets tokenizer.json,
tokenizer_config.json and special_tokens_map.json as Hugging Face has them. All bytes are tokens, so
no text is unknown; the same files give the same vocabulary.")]
pub struct DataWordsArgs {
    /// Files, folders or shards of samples.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Folder for the tokenizer: new, or empty.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Tokens in all: 256 bytes, 14 special ones, and what is learnt.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = sizes())]
    pub vocab: u32,
    /// How FILE holds its samples [default: told from the files].
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    pub format: Option<Format>,
    /// Pictures named by paths must lie in this folder [default: the folder of FILE].
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// What a sample that cannot be used does: leave it out, or end the command once there is more
    /// than one in a thousand.
    #[arg(long, value_name = "WHAT", default_value = "stop")]
    pub on_bad_sample: OnBadName,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn sizes() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(SMALLEST as i64..=LARGEST as i64)
}

/// `janus data sizes`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus data words captions.jsonl --output words
  janus data sizes tiny.toml --words words --output tiny
  janus train tokenizer --set model=tiny --data captions.jsonl --output runs/tokenizer

SIZES has the names of Hugging Face's config.json: docs/parts.md shows one. OUTPUT gets config.json,
the tokenizer and the rules for pictures in Hugging Face's layout, which is what `[init] model` of a
recipe asks for. Weights come with the training.")]
pub struct DataSizesArgs {
    /// TOML file of sizes.
    #[arg(value_name = "SIZES")]
    pub sizes: PathBuf,
    /// Folder with a tokenizer: of `janus data words`, or of a model.
    #[arg(long, value_name = "DIR")]
    pub words: PathBuf,
    /// Folder for the model: new, or empty.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `janus data scenes`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus data scenes --output scenes
  janus data scenes --output held-out --split test --count 1000
  janus data scenes --output large --size 384 --seed 7

DIR gets draw.jsonl (a caption, a picture to be drawn), pairs.jsonl (a picture, a caption as the
answer), ask.jsonl (a picture, questions, answers), map.jsonl (a picture, what lies where in it),
words.jsonl (texts alone), more of them and the pictures: docs/scenes.md. It appears when it is
complete, or not at all. The same seed gives the same bytes; whole combinations, such as a shape
at a place, are in one split only.")]
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
