use std::path::PathBuf;

use clap::{Args, ValueEnum};
use janus_train::config::OnNan;
use janus_train::data::OnBad;
use janus_train::finetune::Task;

use super::{ImageLimitArgs, LimitArgs};
use crate::device::DeviceChoice;

/// `janus train`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus train --list
  janus train --show janus-pro-1b-stage3 > my.toml
  janus train janus-pro-1b-stage1 --start models/base --data captions.jsonl --output runs/s1 --dry-run
  janus train stage1.toml stage2.toml stage3.toml --start models/base --output runs/mine
  janus train my.toml --output runs/mine --set schedule.rate=1e-4 --set save.every=500

The same command goes on where a run was stopped. Several recipes are run one after the other, each
from the end of the one before, in folders of OUTPUT that carry their names. A checkpoint's model/
is a model folder: janus ask --model runs/mine/ckpt/latest/model …")]
pub struct TrainArgs {
    /// Recipe files, or names from --list.
    #[arg(value_name = "RECIPE", required_unless_present_any = ["list", "show"])]
    pub recipes: Vec<String>,
    /// Print the names of the recipes that come with janus.
    #[arg(long, conflicts_with_all = ["recipes", "show"])]
    pub list: bool,
    /// Print the recipe of that name.
    #[arg(long, value_name = "NAME", conflicts_with = "recipes")]
    pub show: Option<String>,
    /// Model folder, or finished run of the stage before, to start from [default: the recipe's].
    #[arg(long, value_name = "DIR")]
    pub start: Option<PathBuf>,
    /// File or folder of samples, in place of the recipe's; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub data: Vec<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// `janus finetune`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus finetune --task generate --data pictures/ --model models/Janus-Pro-1B --output runs/style
  janus finetune --task understand --data questions.jsonl --model models/Janus-Pro-1B \\
      --output runs/answers --lora 32 --epochs 2
  janus finetune --task both --data train.jsonl --valid held-out.jsonl --full --output runs/full \\
      --model models/Janus-Pro-1B --set schedule.rate=1e-5
  janus generate \"a house\" --model models/Janus-Pro-1B --lora runs/style --output house.png

DATA is JSONL with `messages` and `images` (an <image> in an answer is drawn), LLaVA or
ShareGPT-4o-Image JSON, a folder of pictures with .txt files beside them, tar shards, parquet: see
docs/training-data.md. The same command goes on where a run was stopped.")]
pub struct FinetuneArgs {
    /// What is to be learnt.
    #[arg(long, value_enum)]
    pub task: TaskName,
    /// File or folder of samples; may be repeated.
    #[arg(long, value_name = "PATH", required = true)]
    pub data: Vec<PathBuf>,
    /// Samples to measure the loss on, never trained on; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub valid: Vec<PathBuf>,
    /// Model folder, or the name of a model in the Hugging Face cache (see `janus pull`).
    #[arg(short, long, value_name = "DIR|NAME", env = "JANUS_MODEL", hide_env_values = true)]
    pub model: PathBuf,
    /// Rank of the adapters.
    #[arg(long, value_name = "R", default_value_t = 16, conflicts_with = "full")]
    pub lora: usize,
    /// Strength of the adapters [default: twice their rank].
    #[arg(long, value_name = "A", conflicts_with = "full")]
    pub alpha: Option<f64>,
    /// Let whole weights learn instead of adapters.
    #[arg(long)]
    pub full: bool,
    /// How often every sample is used.
    #[arg(long, value_name = "N", default_value_t = 3.0, allow_negative_numbers = true)]
    pub epochs: f64,
    /// Samples of a step [default: 8, or all where there are fewer].
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// A prompt to draw at every checkpoint, to be looked at; may be repeated.
    #[arg(long, value_name = "TEXT")]
    pub sample: Vec<String>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// What both share: where a run goes and what it may do.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Folder of the run; one that exists is gone on with.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// auto, cpu, cuda[:N], vulkan[:N], metal[:N], webgpu[:N] or ndarray.
    #[arg(
        long,
        value_name = "DEVICE",
        default_value = "auto",
        env = "JANUS_DEVICE",
        hide_env_values = true
    )]
    pub device: DeviceChoice,
    /// Number format of weights and activations: f32 or bf16; masters are f32 always [default:
    /// what suits the device].
    #[arg(long, value_name = "DTYPE", value_parser = ["f32", "bf16"])]
    pub dtype: Option<String>,
    /// A setting of the recipe, such as schedule.rate=1e-4; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Only show what would train, and what it would take.
    #[arg(long)]
    pub dry_run: bool,
    /// Go on although the data are not what they were.
    #[arg(long)]
    pub allow_data_change: bool,
    /// What a loss or gradient that is no number does [default: the recipe's].
    #[arg(long, value_name = "WHAT")]
    pub on_nan: Option<OnNanName>,
    /// What a sample that cannot be used does: leave it out, or stop after one in a thousand
    /// [default: the recipe's].
    #[arg(long, value_name = "WHAT")]
    pub on_bad_sample: Option<OnBadName>,
    /// Write TensorBoard's event files, too.
    #[arg(long)]
    pub tensorboard: bool,
    /// Show Burn's dashboard of curves.
    #[cfg(feature = "tui")]
    #[arg(long, conflicts_with = "json")]
    pub dashboard: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub images: ImageLimitArgs,
}

/// `--task`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TaskName {
    /// To answer about pictures.
    Understand,
    /// To draw from words.
    Generate,
    /// Both, and to write where there is text.
    Both,
    /// To draw from pictures and words.
    Edit,
}

impl TaskName {
    /// The library's word for it.
    pub fn task(self) -> Task {
        match self {
            Self::Understand => Task::Understand,
            Self::Generate => Task::Generate,
            Self::Both => Task::Both,
            Self::Edit => Task::Edit,
        }
    }
}

/// `--on-nan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnNanName {
    /// Leave the step out.
    Skip,
    /// Go back to the last checkpoint, and leave the step out when it comes again.
    Rollback,
    /// End the run.
    Stop,
}

impl OnNanName {
    /// The library's word for it.
    pub fn on_nan(self) -> OnNan {
        match self {
            Self::Skip => OnNan::Skip,
            Self::Rollback => OnNan::Rollback,
            Self::Stop => OnNan::Stop,
        }
    }
}

/// `--on-bad-sample`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnBadName {
    /// Leave it out, however many there are.
    Skip,
    /// End the run once there is more than one in a thousand.
    Stop,
}

impl OnBadName {
    /// The library's word for it.
    pub fn on_bad(self) -> OnBad {
        match self {
            Self::Skip => OnBad::Skip,
            Self::Stop => OnBad::default(),
        }
    }
}
