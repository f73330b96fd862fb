//! What `ask`, `chat` and `batch` have in common: settings in, the end of an answer out.

use janus_infer::{AskOptions, FinishReason, InferError};
use janus_model::Error;
use janus_model::processor::{ProcessorError, PromptError};

use crate::args::AnswerArgs;
use crate::report::{self, Exit, Failure};

/// The library's settings, checked.
///
/// # Errors
/// Values out of range.
pub fn options(args: &AnswerArgs, seed: u64) -> Result<AskOptions, Failure> {
    if args.max_new_tokens == 0 {
        let message = "--max-new-tokens is 0, but an answer has at least 1 token";
        return Err(Failure::new(Exit::Usage, message));
    }
    if args.stop.iter().any(String::is_empty) {
        let failure = Failure::new(Exit::Usage, "--stop is empty: every answer would end at once");
        return Err(failure.hint("leave it away to let the model end its answers"));
    }
    Ok(AskOptions {
        sampling: args.sampling.with(args.temperature)?,
        seed,
        max_new_tokens: args.max_new_tokens,
        stop: args.stop.clone(),
        ..AskOptions::default()
    })
}

/// Tells about flags that change nothing, because the likeliest token is always taken.
pub fn note_idle_flags(args: &AnswerArgs) {
    let flags =
        [("--top-k", args.sampling.top_k.is_some()), ("--top-p", args.sampling.top_p.is_some())];
    if args.temperature == 0.0 {
        for (flag, _) in flags.iter().filter(|(_, given)| *given) {
            report::note(&format!("{flag} changes nothing at --temperature 0"));
        }
    }
}

/// The end of an answer, for scripts.
pub fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContextFull => "context_full",
        FinishReason::Cancelled => "cancelled",
    }
}

/// Whether a prompt was longer than the context.
pub fn is_too_long(error: &InferError) -> bool {
    let InferError::Model(Error::Processor(ProcessorError::Prompt(prompt))) = error else {
        return matches!(error, InferError::TooLong { .. });
    };
    matches!(prompt, PromptError::TooLong { .. })
}

/// Whether an error is about one question, so that others may be answered all the same.
pub fn is_of_question(error: &InferError) -> bool {
    match error {
        InferError::Model(Error::Processor(error)) => {
            matches!(error, ProcessorError::Prompt(_) | ProcessorError::Image(_))
        }
        InferError::TooLong { .. } => true,
        _ => false,
    }
}
