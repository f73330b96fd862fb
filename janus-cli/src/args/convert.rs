use std::path::PathBuf;

use clap::{Args, ValueEnum};
use janus_model::checkpoint::Naming;
use janus_model::config::Dialect;

use super::LimitArgs;
use crate::units::{self, WeightType};

/// `janus convert`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus convert models/Janus-Pro-1B models/1b-hf --names hf
  janus convert models/1b-hf models/1b-f16 --names original --dtype f16
  janus convert models/Janus-Pro-7B models/7b-hf --names hf --max-shard-size 2GB
  janus convert models/Janus-Pro-1B models/1b-tuned --names original --lora adapters/tuned

SRC may have either naming, safetensors or .bin, one file or many; DST always gets safetensors.
A new DST appears when it is complete, or not at all.")]
pub struct ConvertArgs {
    /// Model folder to read; that of an adapter means its model with the adapter.
    pub src: PathBuf,
    /// Folder to write.
    pub dst: PathBuf,
    /// Make an adapter part of the weights: a folder as PEFT writes it (LoRA), or a run that trains
    /// one. Several add up.
    #[arg(long, value_name = "ADAPTER")]
    pub lora: Vec<PathBuf>,
    /// Tensor names and configuration: DeepSeek's own, or those of Hugging Face transformers.
    #[arg(long, value_name = "NAMES")]
    pub names: Names,
    /// Number format of the weights: f32, bf16, f16, int8 or int4 [default: as in SRC].
    ///
    /// int8 and int4 are for the CPU, and for janus alone: the decoder in 8.5 or 4.5 bits a weight,
    /// used where it lies in the file; the rest as in SRC.
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
