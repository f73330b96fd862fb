use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `janus plot`.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// What to draw.
    #[command(subcommand)]
    pub what: PlotCommand,
}

/// One variant per kind of chart.
#[derive(Debug, Subcommand)]
pub enum PlotCommand {
    /// Losses of runs, or whatever else their metrics hold, step by step.
    Curves(PlotCurvesArgs),
    /// Marks of `janus eval scenes --json`, category by category.
    Scores(PlotScoresArgs),
}

impl PlotArgs {
    /// Whether the answer, and errors, are to be JSON.
    pub fn json(&self) -> bool {
        match &self.what {
            PlotCommand::Curves(args) => args.json,
            PlotCommand::Scores(args) => args.json,
        }
    }
}

/// `janus plot curves`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus plot curves runs/a runs/b --output losses.svg
  janus plot curves big=runs/b1,runs/b2,runs/b3 small=runs/s1,runs/s2,runs/s3 --of loss_image \\
      --output sizes.svg

SERIES is a run or several of one kind, with a label if wanted: LABEL=RUN,RUN. Several are drawn as
their mean and, around it, one standard deviation to either side. A run is its folder, or a file of
lines with a `step`, such as valid.jsonl.")]
pub struct PlotCurvesArgs {
    /// Runs, each its own line.
    #[arg(value_name = "SERIES", required = true)]
    pub series: Vec<String>,
    /// Which number: loss, loss_text, loss_image, grad_norm, rate, or a term such as codebook.
    #[arg(long, value_name = "NAME", default_value = "loss")]
    pub of: String,
    /// Running mean over so many lines; 1 draws every number as it is.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub smooth: u32,
    #[command(flatten)]
    pub file: PlotFileArgs,
    /// Print JSON: path, and step, mean and deviation at the end of each line.
    #[arg(long)]
    pub json: bool,
}

/// `janus plot scores`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus eval scenes --model runs/a --json > a.json
  janus plot scores a.json b.json --output marks.svg
  janus plot scores decoupled=d1.json,d2.json,d3.json shared=s1.json,s2.json,s3.json --of answers \\
      --output encoders.svg

SERIES is a file or several of one kind, with a label if wanted: LABEL=FILE,FILE. Of several the
mean is drawn, with one standard deviation to either side. The numbers are printed, too.")]
pub struct PlotScoresArgs {
    /// Files that `janus eval scenes --json` printed, each its own bars.
    #[arg(value_name = "SERIES", required = true)]
    pub series: Vec<String>,
    /// Which marks.
    #[arg(long, value_enum, default_value_t = Marks::Generation)]
    pub of: Marks,
    #[command(flatten)]
    pub file: PlotFileArgs,
    /// Print JSON: path, and mean and deviation of every category.
    #[arg(long)]
    pub json: bool,
}

/// Half of what `janus eval scenes` marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Marks {
    /// Pictures, by category.
    Generation,
    /// Answers, by kind of question.
    Answers,
}

impl Marks {
    /// Key in the JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Answers => "answers",
        }
    }
}

/// Where a chart goes.
#[derive(Debug, Args)]
pub struct PlotFileArgs {
    /// Words above the chart.
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// The SVG file.
    #[arg(short, long, value_name = "FILE.svg")]
    pub output: PathBuf,
}
