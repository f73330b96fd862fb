use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use janus_train::data::{Format, Kind};

use super::train::OnBadName;
use super::{ImageArgs, ModelArgs};

/// `janus eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// What to measure.
    #[command(subcommand)]
    pub what: EvalCommand,
}

/// One variant per measure.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Measure the loss over samples: cross-entropy per word and per image code.
    Loss(EvalLossArgs),
    /// Let a model draw and answer in the world of `janus data scenes`, and mark what it does.
    Scenes(EvalScenesArgs),
}

impl EvalArgs {
    /// Whether the answer, and errors, are to be JSON.
    pub fn json(&self) -> bool {
        match &self.what {
            EvalCommand::Loss(args) => args.json,
            EvalCommand::Scenes(args) => args.json,
        }
    }
}

/// `janus eval loss`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus eval loss held-out.jsonl --model models/Janus-Pro-1B
  janus eval loss held-out.jsonl --model runs/style --json
  janus eval loss photos --kind understand --samples 500 --model models/Janus-Pro-1B

DATA is JSONL with `messages` and `images` (an <image> in an answer is drawn), or anything else
that can be trained on: docs/training-data.md. Every answer counts, and nothing else; every word
and every code counts the same. Samples are read in the order of the files, whole, and nothing is
left to chance: the same model and data give the same loss.")]
pub struct EvalLossArgs {
    /// Files, folders or shards of samples.
    #[arg(value_name = "DATA", required = true)]
    pub data: Vec<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// How DATA holds its samples [default: told from the files].
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    pub format: Option<Format>,
    /// What DATA is for, where the files do not tell: a picture with a text is drawn [default], or
    /// described (understand). Samples of another kind cannot be used.
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    pub kind: Option<Kind>,
    /// Pictures named by paths must lie in this folder [default: the folder of DATA].
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// So many samples of each DATA, from its beginning; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub samples: usize,
    /// Samples computed together: the loss does not depend on it, but for rounding.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch_size: u16,
    /// Longer samples cannot be used [default: 4096, or what the model can read].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// What a sample that cannot be used does: leave it out, or end the command once there is more
    /// than one in a thousand.
    #[arg(long, value_name = "WHAT", default_value = "stop")]
    pub on_bad_sample: OnBadName,
    #[command(flatten)]
    pub reading: ImageArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `janus eval scenes`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus eval scenes --model runs/tiny
  janus eval scenes --model runs/tiny --cfg 1 --seed 2 --json
  janus eval scenes --model runs/tiny --questions 0 --sheet samples.png --details marks.jsonl

Prompts and questions are about combinations that are in no training scene (docs/scenes.md); another
seed draws others. Drawing has the six categories of GenEval, and the mean of them; an exact
detector looks at the pictures. Answers count if they are, letter by letter, the expected ones; they
are greedy. The sheet shows the first picture of the first prompts, a row for each category.")]
pub struct EvalScenesArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Instead of pictures drawn by the model, mark the true ones as its image tokenizer gives them
    /// back: no drawing can do better.
    #[arg(long)]
    pub ceiling: bool,
    /// What prompts, questions and pictures are drawn from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Prompts of each category; 0 draws nothing.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub prompts: u32,
    /// Pictures of each prompt.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub images: u16,
    /// How many questions; 0 asks nothing.
    #[arg(long, value_name = "N", default_value_t = 700, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub questions: u32,
    /// How strongly prompts are followed; 1 is without guidance, and twice as fast [default: what
    /// the model's folder advises, else 5].
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    pub cfg: Option<f32>,
    /// Of drawing; 0 always takes the likeliest code.
    #[arg(long, value_name = "T", default_value_t = 1.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Draw from the K likeliest codes only.
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Draw from the fewest codes that together reach this probability.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Pictures drawn together, which is faster and takes more memory [default: as many as fit, up
    /// to 4 on the CPU and 16 elsewhere].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub at_once: Option<u16>,
    /// Questions answered together.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch_size: u16,
    /// At most so many tokens per answer.
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_new_tokens: u16,
    /// Write unpicked samples on one sheet: .png, .jpg or .webp.
    #[arg(long, value_name = "FILE")]
    pub sheet: Option<PathBuf>,
    /// Write what was asked, drawn and answered as JSONL.
    #[arg(long, value_name = "FILE")]
    pub details: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// How data can hold their samples.
pub(super) fn formats() -> impl TypedValueParser<Value = Format> {
    let named = |name: String| Format::ALL.into_iter().find(|format| format.name() == name);
    let names = Format::ALL.map(Format::name);
    PossibleValuesParser::new(names).try_map(move |name| named(name).ok_or("no such format"))
}

fn kinds() -> impl TypedValueParser<Value = Kind> {
    let named = |name: String| Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let names = Kind::ALL.map(Kind::name);
    PossibleValuesParser::new(names).try_map(move |name| named(name).ok_or("no such kind"))
}
