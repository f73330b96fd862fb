use std::path::PathBuf;

use clap::Args;

use super::{ImageArgs, ModelArgs, SamplingArgs};

/// `janus ask`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus ask photo.jpg -q 'What is in this picture?' --model models/Janus-Pro-1B
  janus ask before.png after.png -q 'What changed?' --model models/Janus-Pro-7B --json
  janus ask -q 'Why is the sky blue?' --model models/Janus-Pro-1B --temperature 0.7 --seed 1")]
pub struct AskArgs {
    /// Pictures (png, jpeg, webp, gif, bmp), in the order the question speaks of them.
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// The question.
    #[arg(short, long)]
    pub question: String,
    /// Replaces the usual system prompt; may be empty.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// At most so many tokens of answer.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub max_new_tokens: usize,
    /// End the answer before this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// 0 always takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    #[command(flatten)]
    pub reading: ImageArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print JSON, when the answer is complete, instead of text.
    #[arg(long)]
    pub json: bool,
}
