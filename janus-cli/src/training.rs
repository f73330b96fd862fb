//! What `train` and `finetune` share: from recipes to runs, shown while they go.

mod look;
mod plan;
mod watch;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use burn::tensor::Device;
use janus_train::config::{Dtype, TrainConfig};
use janus_train::parts;
use janus_train::strategy::End;
use janus_train::trainer::{Extend, Job, Options};
use serde_json::json;

use crate::args::RunArgs;
use crate::choice::Choice;
use crate::device::DeviceChoice;
use crate::report::{self, Exit, Failure, Verdict};
use crate::{interrupt, machine};
use watch::{Summary, Watch};

/// A recipe and the folder it is run in.
pub struct Stage {
    pub config: TrainConfig,
    pub output: PathBuf,
}

/// One of the recipes that were named.
pub enum Work {
    /// A stage of a whole model.
    Stage(Box<Stage>),
    /// A network that is trained apart.
    Part { recipe: PathBuf, overrides: Vec<String>, output: PathBuf },
}

/// What a run starts from: a model folder, the name of a model in the cache, or a run, whose stage
/// the library looks at.
pub fn start(typed: &Path, args: &RunArgs) -> Result<PathBuf, Failure> {
    if typed.join("ckpt").is_dir() {
        return Ok(typed.to_owned());
    }
    let choice = Choice::find(typed, &args.limits.limits())?;
    let Some(adapter) = choice.adapters.first() else { return Ok(choice.base) };
    let message =
        format!("{}: training starts from whole weights, not from an adapter", adapter.display());
    let base = choice.base.display();
    let hint = format!("merge it first: janus convert {base} MERGED --lora {}", adapter.display());
    Err(Failure::new(Exit::Usage, message).hint(hint))
}

/// The recipe with what flags say in its place.
pub fn with(mut config: TrainConfig, args: &RunArgs) -> Result<TrainConfig, Failure> {
    config.compute.dtype = match args.dtype.as_deref() {
        Some("bf16") => Some(Dtype::Bf16),
        Some(_) => Some(Dtype::F32),
        None => config.compute.dtype,
    };
    config.guard.on_nan = args.on_nan.map_or(config.guard.on_nan, |wish| wish.on_nan());
    config.on_bad = args.on_bad_sample.map_or(config.on_bad, |wish| wish.on_bad());
    let mut config = config.with(&args.set)?;
    // A stage may be made shorter than its warm-up, to try it.
    config.schedule.warmup = config.schedule.warmup.min(config.steps);
    config.validate()?;
    Ok(config)
}

/// Does it all, or says what it would take.
pub fn run(works: Vec<Work>, args: &RunArgs) -> Result<Verdict, Failure> {
    if args.output.is_none() && !args.dry_run {
        let failure = Failure::new(Exit::Usage, "a run needs a folder");
        return Err(failure.hint("give --output DIR, or --dry-run to see what it would take"));
    }
    let found = args.device.open()?;
    if args.device == DeviceChoice::Auto {
        report::note(&format!("using {} ({})", found.id(), found.name));
    }
    if args.dry_run {
        return plan::show(works, args, &found);
    }
    interrupt::listen();
    let mut summaries = Vec::new();
    let mut verdict = Verdict::Yes;
    for work in works {
        let summary = match work {
            Work::Stage(stage) => one(*stage, args, &found.device)?,
            Work::Part { recipe, overrides, output } => {
                part(&recipe, overrides, output, args, &found.device)?
            }
        };
        let stopped = summary.end == Some(End::Stopped);
        summaries.push(summary);
        if stopped {
            verdict = Verdict::Stopped;
            break;
        }
    }
    show(&summaries, args)?;
    Ok(verdict)
}

fn options(args: &RunArgs, device: &Device) -> Options {
    Options {
        data_change: args.allow_data_change,
        events: args.tensorboard,
        images: args.images.limits(),
        limits: args.limits.limits(),
        memory: machine::resident,
        stopping: interrupt::raised,
        ..Options::new(device.clone())
    }
}

/// One stage, from wherever its folder stands.
fn one(stage: Stage, args: &RunArgs, device: &Device) -> Result<Summary, Failure> {
    let Stage { config, output } = stage;
    report::note(&format!("{}: {} steps in {}", config.name, config.steps, output.display()));
    let steps = config.steps as u64;
    let samples = config.samples.clone();
    let job = Job::open(config, options(args, device))?;
    let look = look::look(&job, samples, &output, args)?;
    let summary = Rc::new(RefCell::new(Summary::new(output.clone(), steps)));
    let (extend, watched) = dashboard(args);
    let watch = Watch::new(Rc::clone(&summary), watched);
    let end = job.run(&output, watch.into_watcher(), look, extend)?;
    let mut summary = summary.take();
    summary.finish(end);
    Ok(summary)
}

/// A network that is trained apart.
fn part(
    recipe: &Path,
    mut overrides: Vec<String>,
    output: PathBuf,
    args: &RunArgs,
    device: &Device,
) -> Result<Summary, Failure> {
    if let Some(wish) = args.on_nan {
        let name = toml::Value::try_from(wish.on_nan()).map(|value| value.to_string());
        overrides.push(format!("guard.on_nan={}", name.unwrap_or_default()));
    }
    let plan = parts::describe(recipe, &overrides, device)?;
    report::note(&format!("{}: {} steps in {}", plan.name, plan.steps, output.display()));
    let summary = Rc::new(RefCell::new(Summary::new(output.clone(), plan.steps)));
    let mut watcher = Watch::new(Rc::clone(&summary), true).into_watcher();
    let end = parts::run(recipe, &overrides, &output, device, &mut *watcher)?;
    drop(watcher);
    let mut summary = summary.take();
    summary.finish(end);
    Ok(summary)
}

/// Burn's dashboard if it is wanted, and whether our own line is to be shown.
#[cfg(feature = "tui")]
fn dashboard(args: &RunArgs) -> (Option<Extend>, bool) {
    use burn::train::renderer::tui::TuiMetricsRendererWrapper;

    if !args.dashboard {
        return (None, true);
    }
    let extend: Extend = Box::new(|training| {
        let renderer = TuiMetricsRendererWrapper::new(training.interrupter(), None);
        training.renderer(Box::new(renderer))
    });
    (Some(extend), false)
}

/// This program was built without it.
#[cfg(not(feature = "tui"))]
fn dashboard(_: &RunArgs) -> (Option<Extend>, bool) {
    (None, true)
}

fn show(summaries: &[Summary], args: &RunArgs) -> Result<(), Failure> {
    if args.json {
        let runs: Vec<_> = summaries.iter().map(Summary::value).collect();
        return report::print_json(&json!({ "runs": runs }));
    }
    summaries.iter().try_for_each(|summary| report::print(&summary.text()))
}
