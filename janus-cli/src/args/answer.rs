use clap::Args;

use super::{ImageArgs, SamplingArgs};

/// How answers are written.
#[derive(Debug, Args)]
pub struct AnswerArgs {
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
}
