//! Exactly what was typed. Nothing is looked up here; values are checked as far as they can be
//! without touching a file or a device.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use janus_model::checkpoint::{Limits, Naming};

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
            Self::Inspect(args) => args.json,
            Self::Devices(args) => args.json,
            Self::Convert(args) => args.json,
        }
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
DST appears when it is complete, or not at all.")]
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
}

/// How much of what a weight file claims about itself is believed.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits on what files may claim (shown by --help)")]
pub struct LimitArgs {
    /// Bytes of a safetensors header.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_HEADER_SIZE", hide_env_values = true, hide_short_help = true)]
    max_header_size: Option<u64>,
    /// Tensors of one model.
    #[arg(
        long,
        value_name = "N",
        env = "JANUS_MAX_TENSORS",
        hide_env_values = true,
        hide_short_help = true
    )]
    max_tensors: Option<usize>,
    /// Bytes of a tensor name.
    #[arg(
        long,
        value_name = "N",
        env = "JANUS_MAX_NAME_BYTES",
        hide_env_values = true,
        hide_short_help = true
    )]
    max_name_bytes: Option<usize>,
    /// Bytes of a shard index.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_INDEX_SIZE", hide_env_values = true, hide_short_help = true)]
    max_index_size: Option<u64>,
    /// Bytes of the pickle inside a .bin file.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_PICKLE_SIZE", hide_env_values = true, hide_short_help = true)]
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
