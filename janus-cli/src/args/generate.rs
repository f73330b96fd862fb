use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use janus_infer::Guidance;

use super::{ImageArgs, ModelArgs, SamplingArgs};
use crate::formats::Format;

/// Heading of the flags that show a picture while it is drawn.
const WATCH: &str = "Watching";

/// `janus generate`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("what").required(true).args(["prompt", "prompts", "reproduce"]),
    after_help = "\
Examples:
  janus generate 'a red circle above a blue square' --output scene.png
  janus generate 'a red cube on a blue sphere' --model models/Janus-Pro-1B --output cube.png
  janus generate 'a lighthouse at dusk' --model models/Janus-Pro-7B -n 4 --seed 7 -o light.png
  janus generate --prompts prompts.txt -n 2 --grid all.png -o pictures/ --model models/Janus-Pro-1B
  janus generate 'a fox' -o fox.jpg --quality 90 --preview now.png --model models/Janus-Pro-1B
  janus generate --reproduce light-2.png -o again.png --model models/Janus-Pro-7B
  janus generate 'make it night' --image day.jpg -o night.png --model models/Janus-4o-7B

Several pictures are called light-1.png, light-2.png and so on; those of a prompt file 0001.png,
0002.png, or 0001-1.png, 0001-2.png. The same prompt, seed and settings give the same pictures,
however many are drawn. A PNG file says how it was drawn; JPEG and WebP files do not.

Ctrl-C stops after the step at hand, keeps what is finished and says how to draw the rest (exit 75);
twice stops at once."
)]
pub struct GenerateArgs {
    /// What to draw.
    pub prompt: Option<String>,
    /// Draw one prompt per line of a text file, or of a JSONL file; - reads stdin as text.
    ///
    /// Empty lines of a text file are skipped. A file that ends in .jsonl has one object per
    /// line: {"prompt": "…"}, and if wanted "seed": N and "output": "name.png".
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Draw once more what a PNG file of `janus generate` says it is, and compare.
    ///
    /// Exits with 1 where the picture differs.
    #[arg(
        long,
        value_name = "FILE.png",
        conflicts_with_all = ["num_images", "first", "cfg", "cfg_image", "temperature", "top_k", "top_p",
            "repetition_penalty", "seed", "at_once", "skip_existing", "grid"]
    )]
    pub reproduce: Option<PathBuf>,
    /// With --reproduce: draw with this model even if the file was drawn with another.
    // `requires` would be waived where the other two stand in for --reproduce.
    #[arg(long, conflicts_with_all = ["prompt", "prompts"])]
    pub any_model: bool,
    /// Draw from this picture what the prompt says should become of it; may be given several times.
    ///
    /// Needs a model that was trained to edit, such as FreedomIntelligence/Janus-4o-7B. Pictures come
    /// before the prompt, or where it says <image>. What is drawn is square; pictures that are not
    /// are read with grey bars.
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<PathBuf>,
    #[command(flatten)]
    pub files: FileArgs,
    /// How many pictures of each prompt.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub num_images: u16,
    /// Index of the first picture: draws the rest of a series with the same seed.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    pub first: u32,
    /// Pictures drawn together, which is faster and takes more memory [default: as many as fit, up
    /// to 4 on the CPU and 16 elsewhere].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub at_once: Option<u16>,
    /// How strongly the prompt is followed; 1 is without guidance, and twice as fast [default: what
    /// the model's folder advises, else 5].
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    pub cfg: Option<f32>,
    /// With --image: 0 keeps closest to the pictures, more is freer with their details [default: 5].
    #[arg(long, value_name = "WEIGHT", requires = "images", allow_negative_numbers = true)]
    pub cfg_image: Option<f32>,
    /// 0 always takes the likeliest code.
    #[arg(long, value_name = "T", default_value_t = 1.0, allow_negative_numbers = true)]
    pub temperature: f32,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub reading: ImageArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Print JSON instead of file names.
    #[arg(long)]
    pub json: bool,
}

/// Where pictures go, and as what.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// File to write: .png, .jpg or .webp; with --prompts the folder for them.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Format of the pictures [default: what the name says, else png].
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Of JPEG: 1 is small, 100 is best [default: 95].
    #[arg(long, value_name = "1..100", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: Option<u8>,
    /// Leave out of PNG files how they were drawn.
    #[arg(long)]
    pub no_metadata: bool,
    /// Also write all pictures that this command draws on one sheet, in the end.
    #[arg(long, value_name = "FILE")]
    pub grid: Option<PathBuf>,
    /// Replace files that exist.
    #[arg(long)]
    pub force: bool,
    /// Draw only the pictures whose files do not exist.
    #[arg(long, conflicts_with = "force")]
    pub skip_existing: bool,
}

/// What is shown before the end.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Write the first of the pictures being drawn to this file, again and again.
    ///
    /// Each time costs as much as decoding a picture: some 8 seconds for the 1B model on two
    /// processor cores, much less on a graphics card.
    #[arg(long, value_name = "FILE", help_heading = WATCH)]
    pub preview: Option<PathBuf>,
    /// Rows of codes between two previews; a picture has 24 [default: 6].
    #[arg(long, value_name = "ROWS", requires = "preview", value_parser = clap::value_parser!(u16).range(1..), help_heading = WATCH)]
    pub preview_every: Option<u16>,
    /// Show pictures in the terminal.
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = WATCH)]
    pub show: Show,
}

/// Whether pictures are shown in the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Show {
    /// If it is known to show pictures: kitty, Ghostty, iTerm2, WezTerm, VS Code
    Auto,
    /// In any terminal, if need be with coloured half blocks
    Always,
    Never,
}

impl GenerateArgs {
    /// How strongly prompts are followed, and pictures if there are any, where a model has this
    /// `usual` weight.
    pub fn guidance(&self, usual: f32) -> Guidance {
        let weight = self.cfg.unwrap_or(usual);
        match self.images.is_empty() {
            true => Guidance::words(weight),
            false => Guidance::editing(weight, self.cfg_image.unwrap_or(Guidance::PICTURES)),
        }
    }
}
