//! `janus finetune`: a recipe from a few wishes, and its run.

use janus_model::JanusConfig;
use janus_model::checkpoint::Checkpoint;
use janus_train::config::{Source, ValidConfig};
use janus_train::finetune::{Adapters, Wish};

use crate::args::FinetuneArgs;
use crate::report::{Failure, Verdict};
use crate::training::{self, Stage, Work};

/// Runs the command.
pub fn run(args: &FinetuneArgs) -> Result<Verdict, Failure> {
    let start = training::start(&args.model, &args.run)?;
    let checkpoint = Checkpoint::open(&start, &args.run.limits.limits())?;
    let (sizes, _) = JanusConfig::from_dir(&checkpoint.dir)?;
    let adapters = Adapters { rank: args.lora, alpha: args.alpha };
    let wish = Wish {
        task: args.task.task(),
        data: args.data.iter().map(Source::of).collect(),
        adapters: (!args.full).then_some(adapters),
        epochs: args.epochs,
        batch: args.batch,
        longest: sizes.language.max_position_embeddings,
    };
    let mut config = wish.recipe(&[])?;
    config.start = Some(start);
    config.valid =
        ValidConfig { data: args.valid.iter().map(Source::of).collect(), ..ValidConfig::default() };
    if !args.sample.is_empty() {
        config.samples.prompts.clone_from(&args.sample);
        config.samples.every = config.save.every;
    }
    let config = training::with(config, &args.run)?;
    let output = args.run.output.clone().unwrap_or_else(|| config.name.clone().into());
    training::run(vec![Work::Stage(Box::new(Stage { config, output }))], &args.run)
}
