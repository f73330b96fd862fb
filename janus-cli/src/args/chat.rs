use std::path::PathBuf;

use clap::Args;

use super::{AnswerArgs, ModelArgs};

/// `janus chat`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus chat --model models/Janus-Pro-7B
  janus chat photo.jpg --model models/Janus-Pro-1B --temperature 0.7
  printf 'What is this?\\nWhich colour?\\n' | janus chat photo.jpg --model models/Janus-Pro-1B --json

Drag pictures into the terminal, also in the middle of a question. /help lists what else can be
typed. Ctrl-C stops an answer, Ctrl-D quits.

Where standard input is no terminal, each line is a turn. With --json each turn gives one line on
standard output: an answer, or an error, after which the chat goes on; the exit code is then 1.")]
pub struct ChatArgs {
    /// Pictures (png, jpeg, webp, gif, bmp) for the first question.
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    #[command(flatten)]
    pub answer: AnswerArgs,
    /// Neither read nor write the history of what was typed.
    #[arg(long)]
    pub no_history: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print one line of JSON per answer, when it is complete.
    #[arg(long)]
    pub json: bool,
}
