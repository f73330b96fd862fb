use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{AnswerArgs, ModelArgs};
use crate::units;

/// `janus batch`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus batch photos --captions -o captions.jsonl --model models/Janus-Pro-1B
  janus batch scans -q 'Which year is on the page?' -o years.jsonl --model models/Janus-Pro-7B
  janus batch questions.jsonl -o answers.jsonl --model models/Janus-Pro-7B --temperature 0.7

A line of INPUT is one of
  {\"id\": \"a1\", \"images\": [\"a.png\", \"b.png\"], \"question\": \"Is <image> older than <image>?\"}
  {\"messages\": [{\"role\": \"user\", \"content\": \"<image>What is this?\"}], \"images\": [\"a.png\"]}
where \"id\", \"images\" and \"system\" may be missing; paths start at the folder of INPUT.

OUT gets one line per input, in the same order: an answer or an error. The same command goes on
where an earlier one was stopped, however that happened, and ends with the same OUT. Without --seed
it goes on with the seed that OUT was begun with. Exits with 1 when some input had no answer.")]
pub struct BatchArgs {
    /// Folder of pictures, or JSONL file with one question per line.
    pub input: PathBuf,
    /// JSONL file to write, or - for standard output.
    #[arg(short, long, value_name = "OUT.jsonl")]
    pub output: PathBuf,
    /// What to ask about each picture of a folder; <image> in it is the picture's place.
    #[arg(short, long, value_name = "TEXT")]
    pub question: Option<String>,
    /// Write each answer to a .txt file beside its picture, too [default question: Describe this
    /// image in detail.].
    #[arg(long)]
    pub captions: bool,
    /// Look into the folders inside INPUT, too.
    #[arg(short, long)]
    pub recursive: bool,
    /// Questions answered together: more is faster and takes more memory. Answers do not depend on
    /// it, but for rounding.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub batch_size: u16,
    /// What an input that cannot be used does: become an error line, or end the command.
    #[arg(long, value_name = "WHAT", default_value = "skip")]
    pub on_error: OnError,
    /// Begin again: forget the answers that OUT holds.
    #[arg(long)]
    pub restart: bool,
    /// Replace .txt files that exist.
    #[arg(long, requires = "captions")]
    pub force: bool,
    /// Pictures named in a JSONL file must lie in this folder [default: the folder of INPUT].
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    #[command(flatten)]
    pub input_limits: InputLimitArgs,
    #[command(flatten)]
    pub answer: AnswerArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Print a summary, and errors, as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Heading of the flags above.
const LIMITS: &str = "Limits on what INPUT may hold";

/// What happens at an input that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// It becomes an error line
    Skip,
    /// It ends the command
    Stop,
}

impl BatchArgs {
    /// Whether OUT is standard output.
    pub fn to_stdout(&self) -> bool {
        self.output.as_os_str() == "-"
    }
}

/// How much a file of questions may hold.
#[derive(Debug, Default, Args)]
pub struct InputLimitArgs {
    /// Pictures of one question [default: 8].
    #[arg(
        long,
        value_name = "N",
        env = "JANUS_MAX_IMAGES",
        hide_env_values = true,
        hide_short_help = true,
        help_heading = LIMITS
    )]
    max_images: Option<usize>,
    /// Bytes of one line of INPUT [default: 1MiB].
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_LINE_SIZE", hide_env_values = true, hide_short_help = true,
        help_heading = LIMITS)]
    max_line_size: Option<u64>,
}

impl InputLimitArgs {
    /// Pictures of one question.
    pub fn images(&self) -> usize {
        self.max_images.unwrap_or(8)
    }

    /// Bytes of one line.
    pub fn line_size(&self) -> u64 {
        self.max_line_size.unwrap_or(1 << 20)
    }

    /// Every limit by the flag that sets it.
    pub fn table(&self) -> [(&'static str, u64); 2] {
        [("max-images", self.images() as u64), ("max-line-size", self.line_size())]
    }
}
