use clap::Args;

use super::ModelArgs;

/// `janus bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus bench --model models/Janus-Pro-1B
  janus bench --model models/Janus-Pro-1B --codes 576 --repeat 3 --json
  janus bench --model models/Janus-Pro-7B --num-images 4 --dtype bf16

A whole picture is reckoned from the codes that were drawn, unless all of them were. Prompts are
made up: their length matters, their words do not. Close other programs first.")]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Tokens of the prompt that is read for the text stages.
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub prefill: u32,
    /// Tokens that are written after it.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub text_tokens: u32,
    /// Codes that are drawn of each picture, at least 2; more than a picture has means all.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    pub codes: u32,
    /// Pictures drawn together.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub num_images: u16,
    /// Guidance; 1 draws without, in half the rows.
    #[arg(long, value_name = "WEIGHT", default_value_t = 5.0, allow_negative_numbers = true)]
    pub cfg: f32,
    /// Runs of every stage; the median is shown.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub repeat: u16,
    /// Print JSON, with the time of every run.
    #[arg(long)]
    pub json: bool,
}
