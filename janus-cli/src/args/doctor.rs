use std::path::PathBuf;

use clap::Args;

use super::model::maybe_empty;
use super::{ImageLimitArgs, InputLimitArgs, LimitArgs};

/// `janus doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus doctor
  janus doctor --model janus-pro-1b
  janus doctor --json

Each device multiplies two small matrices and is compared with the result worked out here.
The instructions shown are those that are used: with JANUS_INSTRUCTIONS=vectors,
avx512, avx2 or none, as on an older processor.
Exits with 1 when something is not as it should be; what, and what to do, is said on stderr.")]
pub struct DoctorArgs {
    /// Look at a model, too: a folder, or a name from the cache.
    #[arg(short, long, value_name = "DIR|NAME", env = "JANUS_MODEL", hide_env_values = true,
        value_parser = maybe_empty())]
    pub model: Option<PathBuf>,
    /// Test software imitations of graphics cards, too.
    #[arg(long)]
    pub software: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub pictures: ImageLimitArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub input: InputLimitArgs,
}
