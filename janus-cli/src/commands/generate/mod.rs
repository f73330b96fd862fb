//! `janus generate`: pictures of prompts, each written as soon as it is finished.
//!
//! ```text
//! flags, prompts ─ plan ─► orders, targets ─┐
//!                                engine.draw ┴─► studio ─► files, screen ─► JSON
//! ```

mod files;
mod plan;
mod prompts;
mod reproduce;
mod studio;

use janus_infer::{Guidance, Manner};
use janus_model::Parts;
use serde_json::json;

use crate::args::GenerateArgs;
use crate::interrupt;
use crate::model::{self, Loaded};
use crate::report::{self, Failure, Verdict};
use crate::units::short_name;
use plan::Plan;
use studio::{Origin, Studio};

/// Runs the command.
pub fn run(args: &GenerateArgs) -> Result<Verdict, Failure> {
    if let Some(path) = &args.reproduce {
        return reproduce::run(args, path);
    }
    let guidance = Guidance { weight: args.cfg };
    guidance.validate()?;
    let sampling = args.sampling.with(args.temperature)?;
    let manner = Manner { guidance, sampling, at_once: usize::from(args.at_once) };
    let seed = args.sampling.seed();
    let plan = Plan::new(args, seed)?;
    if plan.skipped > 0 {
        report::note(&format!("left out because their files exist: {}", plan.skipped));
    }
    if args.temperature > 0.0 {
        report::note(&format!("seed {seed}"));
    }
    interrupt::listen();
    let recorded = plan.has_png() && !args.files.no_metadata;
    let identity = recorded.then(|| model::identity(&args.model)).transpose()?;
    let loaded = Loaded::open(&args.model, Parts::Generation)?;
    let origin = identity.map(|(model, fingerprint)| origin(&loaded, model, fingerprint));
    let mut studio = Studio::new(args, &plan, &manner, &loaded.engine, origin);
    let complete = studio.draw()?;
    let grid = studio.write_sheet()?;
    if args.json {
        report::print_json(&json!({
            "images": studio.images, "complete": complete, "prompt": args.prompt,
            "cfg": args.cfg, "temperature": args.temperature, "top_k": sampling.top_k,
            "top_p": sampling.top_p, "repetition_penalty": sampling.repetition_penalty,
            "seed": seed, "device": loaded.device, "grid": grid,
        }))?;
    }
    if complete {
        return Ok(Verdict::Yes);
    }
    Ok(stopped(args, &plan, studio.finished(), seed))
}

/// What goes into files beside the pictures.
fn origin(loaded: &Loaded, model: String, fingerprint: impl ToString) -> Origin {
    let dtype = short_name(loaded.engine.janus().precision().weights).to_owned();
    Origin { model, fingerprint: fingerprint.to_string(), device: loaded.device.clone(), dtype }
}

/// Says what is finished after an interrupt, and how to draw the rest.
fn stopped(args: &GenerateArgs, plan: &Plan, finished: usize, seed: u64) -> Verdict {
    let told = studio::share(finished, plan);
    if finished == 0 {
        report::note(&format!("stopped after {told}"));
        return Verdict::Interrupted;
    }
    let series = args.prompts.is_none() && !args.files.skip_existing;
    let how = if series {
        let first = args.first as usize + finished;
        format!("--first {first} --num-images {}", plan.orders.len() - finished)
    } else {
        "--skip-existing".to_owned()
    };
    report::note(&format!(
        "stopped after {told}; the same command with --seed {seed} {how} draws the rest"
    ));
    Verdict::Stopped
}
