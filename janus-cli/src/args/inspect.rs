use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::LimitArgs;

/// `janus inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus inspect models/Janus-Pro-1B
  janus inspect models/Janus-Pro-7B --against janus-pro-7b --json
  janus inspect janus-pro-1b            the architecture, without any file

Exits with 1 when a tensor is missing, unused or of another shape, or when the tokenizer
cannot be used. Only headers are read, and a sample of each tensor for the fingerprint, unless
--check-tensors is given. The fingerprint is the same for the same weights in any naming and file.")]
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
