//! `janus ask`: one question, with or without pictures, and its answer as it is written.

use std::io::{self, IsTerminal, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

use janus_infer::{FinishReason, Reply};
use janus_model::Parts;
use janus_model::processor::{Conversation, ProcessorError, Role};
use serde_json::json;

use crate::answers;
use crate::args::AskArgs;
use crate::choice::naming;
use crate::interrupt;
use crate::model::Loaded;
use crate::pictures;
use crate::report::{self, Exit, Failure, Verdict};

/// Runs the command.
pub fn run(args: &AskArgs) -> Result<Verdict, Failure> {
    let seed = args.answer.sampling.seed();
    let options = answers::options(&args.answer, seed)?;
    // Before the model: a wrong path should not cost a minute.
    let question = question(args)?;
    let system = args.answer.system.as_deref();
    let turns = [(Role::User, question.as_str())];
    let conversation =
        Conversation::from_text(system, &turns, args.images.len()).map_err(ProcessorError::from)?;
    let read = |path: &PathBuf| pictures::read(path, &args.answer.reading);
    let images = args.images.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    answers::note_idle_flags(&args.answer);
    interrupt::listen();
    let loaded = Loaded::open(&args.model, Parts::Understanding)?;
    let mut printed = Ok(());
    let reply = loaded.engine.ask((&conversation, &images), &options, |text| {
        if !args.json {
            printed = report::print_answer(text);
        }
        if printed.is_ok() { interrupt::flow() } else { ControlFlow::Break(()) }
    })?;
    printed?;
    if args.json {
        let told = json!({
            "text": reply.text, "token_ids": reply.ids, "finish": answers::finish(reply.finish),
            "prompt_tokens": reply.prompt_tokens, "seed": seed, "device": loaded.device,
        });
        report::print_json(&naming(&loaded.adapters, told))?;
    } else {
        end(args, &reply, seed)?;
    }
    Ok(if interrupt::raised() { Verdict::Interrupted } else { Verdict::Yes })
}

/// The end of an answer that was printed while it was written.
fn end(args: &AskArgs, reply: &Reply, seed: u64) -> Result<(), Failure> {
    report::print("\n")?;
    if args.answer.temperature > 0.0 {
        report::note(&format!("seed {seed}"));
    }
    match reply.finish {
        FinishReason::Length => report::note("cut off by --max-new-tokens"),
        FinishReason::ContextFull => report::note("cut off: the context is full"),
        FinishReason::Stop | FinishReason::Cancelled => {}
    }
    Ok(())
}

/// More than any context holds.
const MAX_QUESTION_BYTES: u64 = 1 << 20;

/// The question as typed, or standard input.
fn question(args: &AskArgs) -> Result<String, Failure> {
    let mut text = args.question.clone();
    if text == "-" {
        if io::stdin().is_terminal() {
            report::note("type the question and end it with Ctrl-D on an empty line");
        }
        text = read_question(io::stdin().lock())?;
    }
    if text.trim().is_empty() && args.images.is_empty() {
        let failure = Failure::new(Exit::Usage, "the question is empty");
        return Err(failure.hint("ask something, or give a picture"));
    }
    Ok(text)
}

fn read_question(input: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let place = std::path::Path::new("stdin");
    let read = input.take(MAX_QUESTION_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io(place, "read", &error))?;
    if bytes.len() as u64 > MAX_QUESTION_BYTES {
        let message = format!("stdin: the question has more than {MAX_QUESTION_BYTES} bytes");
        return Err(Failure::new(Exit::BadData, message));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::new(Exit::BadData, format!("stdin: the question is not UTF-8 at byte {at}"))
    })?;
    // The line break that every editor and `echo` put at the end.
    Ok(text
        .strip_suffix('\n')
        .map(|t| t.strip_suffix('\r').unwrap_or(t))
        .unwrap_or(&text)
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_from_stdin_is_bounded_text() {
        assert_eq!(read_question(&b"why?\r\n"[..]).ok().as_deref(), Some("why?"));
        assert_eq!(read_question(&b"a\n\nb\n"[..]).ok().as_deref(), Some("a\n\nb"));
        assert!(read_question(&b"\xff"[..]).is_err());
        assert!(read_question(io::repeat(b'a')).is_err());
    }
}
