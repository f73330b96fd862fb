use clap::Args;

use crate::device::DeviceChoice;

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
