//! `janus data words`: a vocabulary learnt from text.

use std::ops::ControlFlow;

use janus_train::config::Source;
use janus_train::words::{Event, Texts, Vocabulary, WordsError};
use serde_json::{Value, json};

use crate::args::DataWordsArgs;
use crate::companions::tokenizer_files;
use crate::interrupt;
use crate::progress::{self, Items};
use crate::report::{self, Failure, Verdict};
use crate::target::{Staging, Target};
use crate::units::plural;

/// Runs the command.
pub fn run(args: &DataWordsArgs) -> Result<Verdict, Failure> {
    let target = Target::empty(&args.output)?;
    let source = |path: &std::path::PathBuf| Source {
        format: args.format,
        root: args.data_root.clone(),
        ..Source::of(path)
    };
    let sources: Vec<Source> = args.files.iter().map(source).collect();
    let texts = Texts::open(&sources, args.on_bad_sample.on_bad()).map_err(WordsError::from)?;
    interrupt::listen();
    let mut items = Items::new("read", 0, texts.len() as usize);
    let learnt = texts.learn(args.vocab as usize, |event| watch(&event, &mut items));
    items.finish();
    let Some(learnt) = learnt? else {
        report::note("stopped: there is no vocabulary yet");
        return Ok(Verdict::Interrupted);
    };
    let staging = Staging::create(&target)?;
    for (name, content) in tokenizer_files(&learnt.tokenizer, &learnt.json) {
        staging.write(name, &content)?;
    }
    staging.publish(&target)?;
    let size = learnt.tokenizer.size();
    if size < args.vocab as usize {
        report::note(&format!(
            "{size} tokens are all that this text gives: no pair is left that occurs twice"
        ));
    }
    match args.json {
        true => report::print_json(&as_json(args, &learnt))?,
        false => report::print(&as_text(args, &learnt))?,
    }
    Ok(Verdict::Yes)
}

fn watch(event: &Event<'_>, items: &mut Items) -> ControlFlow<()> {
    match event {
        Event::LeftOut(bad) => {
            progress::clear_line();
            report::problem(&format!("left out: {bad}"), "");
        }
        Event::Read(samples) => items.reach(*samples as usize),
    }
    interrupt::flow()
}

fn per_token(learnt: &Vocabulary) -> f64 {
    learnt.characters as f64 / learnt.tokens.max(1) as f64
}

fn as_json(args: &DataWordsArgs, learnt: &Vocabulary) -> Value {
    json!({
        "path": args.output, "tokens": learnt.tokenizer.size(), "merges": learnt.merges,
        "samples": learnt.samples, "left_out": learnt.left_out,
        "text": {"characters": learnt.characters, "tokens": learnt.tokens,
                 "characters_per_token": per_token(learnt)},
        "system_prompt_tokens": learnt.system_prompt,
    })
}

fn as_text(args: &DataWordsArgs, learnt: &Vocabulary) -> String {
    format!(
        "{}: {}, {}, from {}\n{:.2} characters a token; the system text takes {}\n",
        args.output.display(),
        plural(learnt.tokenizer.size(), "token"),
        plural(learnt.merges, "merge"),
        plural(learnt.samples as usize, "sample"),
        per_token(learnt),
        plural(learnt.system_prompt, "token"),
    )
}
