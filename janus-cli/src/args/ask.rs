use std::path::PathBuf;

use clap::Args;

use super::{AnswerArgs, ModelArgs};

/// `janus ask`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus ask scene.png -q 'What is above the square?'
  janus ask photo.jpg -q 'What is in this picture?' --model models/Janus-Pro-1B
  janus ask a.png b.png -q 'Is <image> older than <image>?' --model models/Janus-Pro-7B --json
  janus ask -q 'Why is the sky blue?' --model models/Janus-Pro-1B --temperature 0.7 --seed 1
  janus ask page.png -q - --model models/Janus-Pro-1B < question.txt")]
pub struct AskArgs {
    /// Pictures (png, jpeg, webp, gif, bmp), in the order the question speaks of them.
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// The question, or - to read it from standard input. Each <image> in it is the place of one
    /// picture; without any, all pictures come first.
    #[arg(short, long, value_name = "TEXT")]
    pub question: String,
    #[command(flatten)]
    pub answer: AnswerArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print JSON, when the answer is complete, instead of text.
    #[arg(long)]
    pub json: bool,
}
