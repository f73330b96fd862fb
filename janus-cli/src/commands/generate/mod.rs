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
mod sources;
mod studio;

use janus_infer::{Guidance, Manner};
use serde_json::json;

use crate::args::GenerateArgs;
use crate::choice::naming;
use crate::interrupt;
use crate::model::{Identity, Loaded, usual_guidance};
use crate::report::{self, Failure, Verdict};
use plan::Plan;
use sources::Sources;
use studio::{Origin, Studio};

/// Runs the command.
pub fn run(args: &GenerateArgs) -> Result<Verdict, Failure> {
    if let Some(path) = &args.reproduce {
        return reproduce::run(args, path);
    }
    args.guidance(Guidance::WORDS).validate()?;
    let sampling = args.sampling.with(args.temperature)?;
    let seed = args.sampling.seed();
    let sources = Sources::read(args)?;
    let plan = Plan::new(args, seed)?;
    if plan.skipped > 0 {
        report::note(&format!("left out because their files exist: {}", plan.skipped));
    }
    if args.temperature > 0.0 {
        report::note(&format!("seed {seed}"));
    }
    interrupt::listen();
    let recorded = plan.has_png() && !args.files.no_metadata;
    let guidance = args.guidance(usual_guidance(&args.model)?);
    let identity = recorded.then(|| Identity::of(&args.model)).transpose()?;
    let loaded = Loaded::open(&args.model, sources.parts())?;
    let origin = identity.map(|identity| Origin::new(&loaded, identity, &sources));
    let at_once = match args.at_once {
        Some(count) => usize::from(count),
        None => at_once(&loaded, &plan, &sources, guidance)?,
    };
    let manner = Manner { guidance, sampling, at_once };
    let mut studio = Studio::new(args, (&plan, &sources), &manner, &loaded.engine, origin);
    let complete = studio.draw()?;
    let grid = studio.write_sheet()?;
    if args.json {
        let mut told = json!({
            "images": studio.images, "complete": complete, "prompt": args.prompt,
            "cfg": guidance.weight, "temperature": args.temperature, "top_k": sampling.top_k,
            "top_p": sampling.top_p, "repetition_penalty": sampling.repetition_penalty,
            "seed": seed, "device": loaded.device, "grid": grid,
        });
        if !sources.paths.is_empty() {
            told["sources"] = json!(sources.paths);
            told["cfg_image"] = json!(guidance.pictures);
        }
        report::print_json(&naming(&loaded.adapters, told))?;
    }
    if complete {
        return Ok(Verdict::Yes);
    }
    Ok(stopped(args, &plan, studio.finished(), seed))
}

/// How many pictures fit into memory together, with the longest of the prompts.
fn at_once(
    loaded: &Loaded,
    plan: &Plan,
    sources: &Sources,
    guidance: Guidance,
) -> Result<usize, Failure> {
    let mut longest = 0;
    let mut last = None;
    for order in &plan.orders {
        // A series has one prompt.
        if last.replace(&order.prompt) != Some(&order.prompt) {
            let pictures = sources.pictures.len();
            longest = longest.max(loaded.engine.prompt_tokens(&order.prompt, pictures)?);
        }
    }
    Ok(loaded.pictures_at_once(longest, guidance, plan.orders.len()))
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
