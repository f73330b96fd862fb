//! Exactly what was typed. Nothing is looked up here; values are checked as far as they can be
//! without touching a file or a device.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use janus_infer::{InferError, Sampling};
use janus_model::checkpoint::{Limits, Naming};
use janus_model::config::Dialect;

use crate::device::DeviceChoice;
use crate::report;
use crate::units::{self, WeightType};

/// Understand and draw images with Janus-Pro.
#[derive(Debug, Parser)]
#[command(
    name = "janus",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 ok, 1 the answer is no, 2 usage, 65 bad data, 66 input missing, \
                  70 a bug, 73 cannot create, 74 input or output failed, 78 bad configuration."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One variant per command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer a question, about pictures if there are any.
    Ask(AskArgs),
    /// Draw pictures.
    Generate(GenerateArgs),
    /// Show what a model folder holds and whether it is whole.
    Inspect(InspectArgs),
    /// List the devices a model can run on.
    Devices(DevicesArgs),
    /// Write a model under other tensor names or in another number format.
    Convert(ConvertArgs),
}

impl Command {
    /// Whether the answer, and errors, are to be JSON.
    pub fn json(&self) -> bool {
        match self {
            Self::Ask(args) => args.json,
            Self::Generate(args) => args.json,
            Self::Inspect(args) => args.json,
            Self::Devices(args) => args.json,
            Self::Convert(args) => args.json,
        }
    }
}

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
    /// Take pictures as stored, without turning them upright by their EXIF orientation.
    #[arg(long)]
    pub raw_orientation: bool,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print JSON, when the answer is complete, instead of text.
    #[arg(long)]
    pub json: bool,
}

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

/// Which model, on what.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Model folder, or Hugging Face cache folder.
    #[arg(short, long, value_name = "DIR", env = "JANUS_MODEL", hide_env_values = true)]
    pub model: PathBuf,
    /// auto, cpu, cuda[:N], vulkan[:N], metal[:N], webgpu[:N] or ndarray.
    #[arg(
        long,
        value_name = "DEVICE",
        default_value = "auto",
        env = "JANUS_DEVICE",
        hide_env_values = true
    )]
    pub device: DeviceChoice,
    /// Number format of the weights: f32, bf16 or f16 [default: what suits the device].
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<WeightType>,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// How tokens are chosen, except for the temperature, whose default differs.
#[derive(Debug, Args)]
pub struct SamplingArgs {
    /// Choose among the K likeliest only.
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Choose among the fewest that together reach this probability.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Above 1, makes what was chosen before less likely.
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,
    /// Start of the random numbers [default: a new one each time].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

impl SamplingArgs {
    /// The library's settings, checked.
    ///
    /// # Errors
    /// Values out of range.
    pub fn with(&self, temperature: f32) -> Result<Sampling, InferError> {
        let sampling = Sampling {
            temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
        };
        sampling.validate().map(|()| sampling)
    }

    /// The seed given, or one that nobody has seen before.
    pub fn seed(&self) -> u64 {
        use std::hash::{BuildHasher, RandomState};
        // Short enough to type again.
        self.seed.unwrap_or_else(|| RandomState::new().hash_one(0u8) >> 32)
    }
}

/// `janus inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus inspect models/Janus-Pro-1B
  janus inspect models/Janus-Pro-7B --against janus-pro-7b --json
  janus inspect janus-pro-1b            the architecture, without any file

Exits with 1 when a tensor is missing, unused or of another shape, or when the tokenizer
cannot be used. Only headers are read, unless --check-tensors is given.")]
pub struct InspectArgs {
    /// Model folder, Hugging Face cache folder, weight file, or the name of a published model.
    #[arg(value_name = "DIR|PRESET")]
    pub model: PathBuf,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Compare with the list of tensors of a published checkpoint.
    #[arg(long, value_name = "RELEASE", default_value = "auto")]
    pub against: Against,
    /// Read all weights and look for NaN and infinity.
    #[arg(long)]
    pub check_tensors: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Published checkpoint to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Against {
    /// Whichever fits; none is fine.
    Auto,
    #[value(name = "janus-pro-1b")]
    Pro1b,
    #[value(name = "janus-pro-7b")]
    Pro7b,
}

/// `janus devices`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus devices
  janus devices --json
  janus devices --device cuda:1         is it there, and what can it compute?")]
pub struct DevicesArgs {
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Show only this device, or fail if it cannot be used.
    #[arg(long, value_name = "DEVICE", long_help = DeviceChoice::HELP, env = "JANUS_DEVICE", hide_env_values = true)]
    pub device: Option<DeviceChoice>,
}

/// `janus convert`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus convert models/Janus-Pro-1B models/1b-hf --names hf
  janus convert models/1b-hf models/1b-f16 --names original --dtype f16
  janus convert models/Janus-Pro-7B models/7b-hf --names hf --max-shard-size 2GB

SRC may have either naming, safetensors or .bin, one file or many; DST always gets safetensors.
A new DST appears when it is complete, or not at all.")]
pub struct ConvertArgs {
    /// Model folder to read.
    pub src: PathBuf,
    /// Folder to write.
    pub dst: PathBuf,
    /// Tensor names and configuration: DeepSeek's own, or those of Hugging Face transformers.
    #[arg(long, value_name = "NAMES")]
    pub names: Names,
    /// Number format of the weights: f32, bf16 or f16 [default: as in SRC].
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<WeightType>,
    /// Largest weight file, such as 500MB, 5GB or 2GiB.
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = units::parse_size)]
    pub max_shard_size: u64,
    /// Replace the model files of a DST that exists.
    #[arg(long)]
    pub force: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Target naming of `convert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Names {
    /// deepseek-ai/Janus-Pro-*
    Original,
    /// transformers' JanusForConditionalGeneration
    Hf,
}

impl Names {
    /// The library's word for it.
    pub fn naming(self) -> Naming {
        match self {
            Self::Original => Naming::Original,
            Self::Hf => Naming::HuggingFace,
        }
    }

    /// The `config.json` that goes with it.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Original => Dialect::Original,
            Self::Hf => Dialect::HuggingFace,
        }
    }
}

/// Heading of the flags below.
const LIMITS: &str = "Limits on what weight files may claim";

/// How much of what a weight file claims about itself is believed.
#[derive(Debug, Default, Args)]
pub struct LimitArgs {
    /// Bytes of a safetensors header.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_HEADER_SIZE", hide_env_values = true, hide_short_help = true,
        help_heading = LIMITS)]
    max_header_size: Option<u64>,
    /// Tensors of one model.
    #[arg(
        long,
        value_name = "N",
        env = "JANUS_MAX_TENSORS",
        hide_env_values = true,
        hide_short_help = true,
        help_heading = LIMITS
    )]
    max_tensors: Option<usize>,
    /// Bytes of a tensor name.
    #[arg(
        long,
        value_name = "N",
        env = "JANUS_MAX_NAME_BYTES",
        hide_env_values = true,
        hide_short_help = true,
        help_heading = LIMITS
    )]
    max_name_bytes: Option<usize>,
    /// Bytes of a shard index.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_INDEX_SIZE", hide_env_values = true, hide_short_help = true,
        help_heading = LIMITS)]
    max_index_size: Option<u64>,
    /// Bytes of the pickle inside a .bin file.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_PICKLE_SIZE", hide_env_values = true, hide_short_help = true,
        help_heading = LIMITS)]
    max_pickle_size: Option<u64>,
}

impl LimitArgs {
    /// The library's limits, with what was given replaced.
    pub fn limits(&self) -> Limits {
        let base = Limits::default();
        Limits {
            header_bytes: self.max_header_size.unwrap_or(base.header_bytes),
            tensors: self.max_tensors.unwrap_or(base.tensors),
            name_bytes: self.max_name_bytes.unwrap_or(base.name_bytes),
            json_bytes: self.max_index_size.unwrap_or(base.json_bytes),
            pickle_bytes: self.max_pickle_size.unwrap_or(base.pickle_bytes),
            ..base
        }
    }
}

impl Cli {
    /// Parses the command line; on errors, help and version prints what is due.
    pub fn read() -> Result<Self, ExitCode> {
        let words: Vec<OsString> = std::env::args_os().collect();
        let json = words.iter().skip(1).take_while(|w| *w != "--").any(|word| word == "--json");
        Self::try_parse_from(words).map_err(|error| report::usage(&error, json))
    }
}
