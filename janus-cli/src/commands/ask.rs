//! `janus ask`: one question, with or without pictures, and its answer as it is written.

use std::ops::ControlFlow;
use std::path::PathBuf;

use janus_infer::{AskOptions, FinishReason};
use janus_model::Parts;
use janus_model::processor::{Conversation, Message};
use serde_json::json;

use crate::args::AskArgs;
use crate::interrupt;
use crate::model::Loaded;
use crate::pictures;
use crate::report::{self, Failure, Verdict};

/// Runs the command.
pub fn run(args: &AskArgs) -> Result<Verdict, Failure> {
    let seed = args.sampling.seed();
    let options = AskOptions {
        sampling: args.sampling.with(args.temperature)?,
        seed,
        max_new_tokens: args.max_new_tokens,
        stop: args.stop.clone(),
        ..AskOptions::default()
    };
    // Before the model: a wrong path should not cost a minute.
    let read = |path: &PathBuf| pictures::read(path, &args.reading);
    let images = args.images.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let message = Message::user_with_images(0..images.len(), args.question.as_str());
    let conversation = match &args.system {
        Some(system) => Conversation::with_system(system.as_str(), vec![message]),
        None => Conversation::new(vec![message]),
    };
    interrupt::listen();
    let loaded = Loaded::open(&args.model, Parts::Understanding)?;
    let mut printed = Ok(());
    let reply = loaded.engine.ask((&conversation, &images), &options, |text| {
        if !args.json {
            printed = report::print(text);
        }
        if printed.is_ok() { interrupt::flow() } else { ControlFlow::Break(()) }
    })?;
    printed?;
    if args.json {
        report::print_json(&json!({
            "text": reply.text, "token_ids": reply.ids, "finish": finish(reply.finish),
            "prompt_tokens": reply.prompt_tokens, "seed": seed, "device": loaded.device,
        }))?;
    } else {
        report::print("\n")?;
        if args.temperature > 0.0 {
            report::note(&format!("seed {seed}"));
        }
        match reply.finish {
            FinishReason::Length => report::note("cut off by --max-new-tokens"),
            FinishReason::ContextFull => report::note("cut off: the context is full"),
            FinishReason::Stop | FinishReason::Cancelled => {}
        }
    }
    Ok(if interrupt::raised() { Verdict::Interrupted } else { Verdict::Yes })
}

fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContextFull => "context_full",
        FinishReason::Cancelled => "cancelled",
    }
}
