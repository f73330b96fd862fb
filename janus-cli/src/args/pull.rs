use std::path::PathBuf;

use clap::Args;

use super::LimitArgs;
use crate::hub::Repo;
use crate::hub::names;

/// `janus pull`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus pull janus-pro-1b
  janus pull deepseek-ai/Janus-Pro-7B --to models/Janus-Pro-7B
  janus pull janus-pro-1b --offline --verify      is it here, whole and undamaged?

Prints the folder that --model takes; after a download to the usual place, --model takes the
name as well. What has arrived is kept when a download is interrupted: the same command goes on
from there. Every file is compared with the hash that the hub states.

The usual place is the cache of all Hugging Face programs: HF_HUB_CACHE, else HF_HOME/hub, else
~/.cache/huggingface/hub. A token, if one is needed, is taken from --token-file, HF_TOKEN or the
file that `hf auth login` writes, in this order. HTTPS_PROXY and NO_PROXY are honoured.")]
pub struct PullArgs {
    /// Name on the hub (org/name), or janus-pro-1b or janus-pro-7b.
    #[arg(value_name = "MODEL")]
    pub model: Repo,
    /// Branch, tag or commit.
    #[arg(long, value_name = "REVISION", default_value = "main", value_parser = names::revision)]
    pub revision: String,
    /// Hub, or a mirror of it.
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://huggingface.co",
        env = "HF_ENDPOINT",
        hide_env_values = true
    )]
    pub endpoint: String,
    /// Cache folder to use instead of the usual one.
    #[arg(long, value_name = "DIR", conflicts_with = "to")]
    pub cache: Option<PathBuf>,
    /// Put plain files into this folder, and nothing into the cache.
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Never use the network: say whether the model is here and whole. HF_HUB_OFFLINE=1 does the same.
    #[arg(long)]
    pub offline: bool,
    /// Compare what is here already with its hashes, too.
    #[arg(long)]
    pub verify: bool,
    /// File that holds the access token.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How often in a row something is tried again when the network fails.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub retries: u32,
    /// Print JSON instead of the folder.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
}
