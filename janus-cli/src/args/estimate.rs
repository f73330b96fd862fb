use std::path::PathBuf;

use clap::Args;

use crate::device::DeviceChoice;
use crate::units::WeightType;

/// `janus estimate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus estimate janus-pro-1b                     no file is needed
  janus estimate janus-pro-7b --num-images 16 --dtype f16
  janus estimate models/Janus-Pro-1B --device cuda --json

Nothing is loaded. On the CPU, weights in the format of their file stay in the mapped file: the
system may drop those pages when memory is short, and reads them again.")]
pub struct EstimateArgs {
    /// Model folder, Hugging Face cache folder, or the name of a published model.
    #[arg(value_name = "DIR|PRESET")]
    pub model: PathBuf,
    /// Pictures drawn together; several numbers may be given.
    #[arg(short, long, value_name = "N", value_delimiter = ',', default_values_t = [1, 4, 16], value_parser = clap::value_parser!(u16).range(1..))]
    pub num_images: Vec<u16>,
    /// Guidance; 1 draws without, in half the rows.
    #[arg(long, value_name = "WEIGHT", default_value_t = 5.0, allow_negative_numbers = true)]
    pub cfg: f32,
    /// Tokens of the prompt or question, pictures not counted.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_tokens: u32,
    /// Pictures in a question.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub images: u16,
    /// Pictures that each drawing starts from, as with `janus generate --image`.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub sources: u16,
    /// Tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_new_tokens: u32,
    /// Only for this device [default: all that are there].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Only for weights in this format [default: all that the device can use].
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<WeightType>,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}
