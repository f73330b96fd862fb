//! `janus eval loss`: cross-entropy per word and per image code over a data file.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use janus_model::{JanusConfig, Parts};
use janus_train::accumulate::Total;
use janus_train::config::Source;
use janus_train::data::{Objective, Prepare, Tokens};
use janus_train::evaluate::{EvaluateError, Evaluated, Evaluation, Event};
use janus_train::step::{Activations, Trainee};
use serde_json::{Value, json};

use crate::args::EvalLossArgs;
use crate::interrupt;
use crate::model::Loaded;
use crate::progress::{self, Items};
use crate::report::{self, Exit, Failure, Verdict};

/// As in training.
const MAX_TOKENS: usize = 4096;

/// Runs the command.
pub fn run(args: &EvalLossArgs) -> Result<Verdict, Failure> {
    let evaluation = open(args)?;
    interrupt::listen();
    let parts = if evaluation.needs_no_drawing() { Parts::Understanding } else { Parts::All };
    let Loaded { engine, device, .. } = Loaded::open(&args.model, parts)?;
    let (janus, processor) = engine.into_parts();
    let objective = Objective::exact(max_tokens(args, janus.config())?);
    let codes = janus.config().image_codes();
    let tokens = Tokens { processor: Arc::new(processor), codes, objective };
    let mut prepare = Prepare::new(tokens);
    prepare.limits = args.reading.limits();
    prepare.orientation = args.reading.orientation();

    let trainee = Trainee::new(janus, Activations::Kept);
    let rows = usize::from(args.batch_size);
    let mut items = Items::new("measured", 0, evaluation.len() as usize);
    let result = evaluation.run(&trainee, &prepare, rows, |event| watch(&event, &mut items));
    items.finish();
    let found = result?;
    if found.stopped {
        let (done, total) = (found.samples + found.left_out, evaluation.len());
        report::note(&format!("stopped after {done} of {total} samples: there is no loss yet"));
        return Ok(Verdict::Interrupted);
    }
    match args.json {
        true => report::print_json(&as_json(&found, &device))?,
        false => report::print(&as_text(&found))?,
    }
    Ok(Verdict::Yes)
}

/// The data, before a model is loaded: a wrong path should not cost a minute.
fn open(args: &EvalLossArgs) -> Result<Evaluation, Failure> {
    let source = |path: &std::path::PathBuf| Source {
        kind: args.kind,
        format: args.format,
        root: args.data_root.clone(),
        ..Source::of(path)
    };
    let sources: Vec<Source> = args.data.iter().map(source).collect();
    let opened = Evaluation::open(&sources, args.samples, args.on_bad_sample.on_bad());
    Ok(opened.map_err(EvaluateError::from)?)
}

/// How long a sample may be.
fn max_tokens(args: &EvalLossArgs, config: &JanusConfig) -> Result<usize, Failure> {
    let context = config.language.max_position_embeddings;
    match args.max_tokens.map(|tokens| tokens as usize) {
        None => Ok(MAX_TOKENS.min(context)),
        Some(tokens) if tokens <= context => Ok(tokens),
        Some(tokens) => {
            let message = format!("--max-tokens {tokens}: the model reads {context} at most");
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

fn watch(event: &Event<'_>, items: &mut Items) -> ControlFlow<()> {
    match event {
        Event::LeftOut(bad) => {
            progress::clear_line();
            report::problem(&format!("left out: {bad}"), "");
        }
        Event::Done { done, .. } => items.reach(*done as usize),
    }
    interrupt::flow()
}

fn as_json(found: &Evaluated, device: &str) -> Value {
    let kind = |total: Total| json!({"loss": total.mean(), "tokens": total.tokens});
    json!({
        "text": kind(found.report.text), "image": kind(found.report.codes),
        "samples": found.samples, "left_out": found.left_out, "device": device,
    })
}

fn as_text(found: &Evaluated) -> String {
    let mut text = String::new();
    for (kind, total) in [("text", found.report.text), ("image", found.report.codes)] {
        if let Some(loss) = total.mean() {
            let (tokens, perplexity) = (total.tokens, loss.exp());
            let _ = writeln!(
                text,
                "{kind:<8} {loss:.6} per token, over {tokens} (perplexity {perplexity:.2})"
            );
        }
    }
    let _ = writeln!(text, "samples  {}, {} left out", found.samples, found.left_out);
    text
}
