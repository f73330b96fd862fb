use std::path::PathBuf;

use clap::Args;

use super::{ModelArgs, SamplingArgs};

/// `janus generate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus generate 'a red cube on a blue sphere' --model models/Janus-Pro-1B --output cube.png
  janus generate 'a lighthouse at dusk' --model models/Janus-Pro-7B -n 4 --seed 7 -o light.png

Several pictures are called light-1.png, light-2.png and so on. The same prompt, seed and settings
give the same pictures, however many are drawn.")]
pub struct GenerateArgs {
    /// What to draw.
    pub prompt: String,
    /// PNG file to write.
    #[arg(short, long, value_name = "FILE.png")]
    pub output: PathBuf,
    /// How many pictures.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub num_images: u16,
    /// Pictures drawn together: more is faster and takes more memory.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub at_once: u16,
    /// How strongly the prompt is followed; 1 is not at all, and twice as fast.
    #[arg(long, value_name = "WEIGHT", default_value_t = 5.0, allow_negative_numbers = true)]
    pub cfg: f32,
    /// 0 always takes the likeliest code.
    #[arg(long, value_name = "T", default_value_t = 1.0, allow_negative_numbers = true)]
    pub temperature: f32,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Replace files that exist.
    #[arg(long)]
    pub force: bool,
    /// Print JSON instead of file names.
    #[arg(long)]
    pub json: bool,
}
