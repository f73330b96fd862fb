//! `janus chat`: a conversation in a terminal, or turn by turn from a pipe.

mod history;
mod input;
mod session;
mod words;

use std::ops::ControlFlow;
use std::path::PathBuf;

use janus_infer::{AskOptions, FinishReason, Reply};
use janus_model::Parts;
use janus_model::processor::DEFAULT_SYSTEM_PROMPT;
use serde_json::json;

use self::input::{Input, Source};
use self::session::{ROOM, Session};
use self::words::{Command, Entry};
use crate::args::ChatArgs;
use crate::choice::naming;
use crate::model::Loaded;
use crate::report::{self, Exit, Failure, Verdict};
use crate::{answers, interrupt};

/// Runs the command.
pub fn run(args: &ChatArgs) -> Result<Verdict, Failure> {
    let options = answers::options(&args.answer, args.answer.sampling.seed())?;
    // Before the model: a wrong path should not cost a minute.
    let read = |path| session::read_picture(path, &args.answer.reading);
    let pictures = args.images.iter().cloned().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut source = Source::open(args.no_history)?;
    answers::note_idle_flags(&args.answer);
    let loaded = Loaded::open(&args.model, Parts::Understanding)?;
    interrupt::listen();
    let mut session = Session::new(&loaded.engine, options, &args.answer.reading);
    session.system.clone_from(&args.answer.system);
    session.begin_with(pictures)?;
    if source.is_terminal() {
        report::note("/help lists commands, Ctrl-D quits");
        if args.answer.temperature > 0.0 {
            report::note(&format!("seed {}", session.options.seed));
        }
    }
    let mut talk =
        Talk { args, device: &loaded.device, adapters: &loaded.adapters, session, failed: false };
    talk.run(&mut source)
}

/// A session and how it shows itself.
struct Talk<'a> {
    args: &'a ChatArgs,
    device: &'a str,
    adapters: &'a [PathBuf],
    session: Session<'a>,
    failed: bool,
}

impl Talk<'_> {
    fn run(&mut self, source: &mut Source) -> Result<Verdict, Failure> {
        loop {
            let result = match source.next_turn()? {
                Input::Turn(line) => self.turn(&line),
                Input::Bad(failure) => Err(failure),
                Input::End => break,
                Input::Interrupted => return Ok(Verdict::Interrupted),
            };
            match result {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(failure) if failure.is_closed_pipe() => return Err(failure),
                Err(failure) => self.show(&failure)?,
            }
            if interrupt::raised() && !source.is_terminal() {
                return Ok(Verdict::Interrupted);
            }
            interrupt::clear();
        }
        // Somebody who types has seen the errors; a script asks for the exit code.
        Ok(if self.failed && !source.is_terminal() { Verdict::No } else { Verdict::Yes })
    }

    fn show(&mut self, failure: &Failure) -> Result<(), Failure> {
        self.failed = true;
        if !self.args.json {
            failure.mention();
            return Ok(());
        }
        let turn = self.session.len() + 1;
        report::print(&format!("{}\n", json!({"turn": turn, "error": failure.value()})))
    }

    fn turn(&mut self, line: &str) -> Result<ControlFlow<()>, Failure> {
        match words::understand(line, words::is_picture)? {
            Entry::Blank => {}
            Entry::Command(Command::Quit) => return Ok(ControlFlow::Break(())),
            Entry::Command(command) => self.command(command)?,
            Entry::Pictures(paths) => self.add_pictures(paths)?,
            Entry::Question(pieces) => {
                let mut speak = Speak::new(self.args.json);
                let reply = self.session.ask(pieces, |text| speak.hear(text));
                self.end(speak, reply)?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn add_pictures(&mut self, paths: Vec<PathBuf>) -> Result<(), Failure> {
        self.session.add_pictures(paths)?;
        let s = if self.session.waiting() == 1 { "" } else { "s" };
        self.note(&format!("{} picture{s} for the next question", self.session.waiting()));
        Ok(())
    }

    /// The end of an answer that was printed while it was written.
    fn end(&mut self, speak: Speak, reply: Result<Reply, Failure>) -> Result<(), Failure> {
        let reply = speak.end(reply)?;
        if self.args.json {
            let line = json!({
                "turn": self.session.len(), "text": reply.text, "token_ids": reply.ids,
                "finish": answers::finish(reply.finish), "prompt_tokens": reply.prompt_tokens,
                "cached_tokens": reply.cached_tokens, "seed": self.session.options.seed,
                "stream": self.session.options.first.wrapping_sub(1), "device": self.device,
            });
            report::print(&format!("{}\n", naming(self.adapters, line)))?;
        }
        match reply.finish {
            FinishReason::Length => self.note("cut off by --max-new-tokens"),
            FinishReason::ContextFull => {
                self.note(&format!("cut off: the context is full; {ROOM}"))
            }
            FinishReason::Cancelled if reply.text.trim().is_empty() => {
                self.note("stopped before the first word; the question is taken back");
            }
            FinishReason::Stop | FinishReason::Cancelled => {}
        }
        self.session.note_length(&reply);
        Ok(())
    }

    fn command(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Help => report::tell(words::HELP),
            Command::Image(paths) => self.add_pictures(paths)?,
            Command::Images => report::tell(&self.session.list_pictures()),
            Command::Clear => {
                self.session.clear();
                self.note("a new conversation");
            }
            Command::Undo => {
                let question = self.session.undo()?;
                self.note(&format!("taken back: {question}"));
            }
            Command::Retry => {
                let mut speak = Speak::new(self.args.json);
                let reply = self.session.retry(|text| speak.hear(text));
                self.end(speak, reply)?;
                if self.session.options.sampling.temperature == 0.0 {
                    self.note(
                        "at temperature 0 the answer stays the same: /settings temperature 1",
                    );
                }
            }
            Command::System(None) => {
                let system = self.session.system.as_deref().unwrap_or(DEFAULT_SYSTEM_PROMPT);
                report::tell(&format!("{system}\n"));
            }
            Command::System(text) => {
                self.session.clear();
                self.session.system = text;
                self.note("a new conversation with this system prompt");
            }
            Command::Save(path) => {
                self.session.save(&path)?;
                self.note(&format!("written to {}", path.display()));
            }
            Command::Settings(None) => report::tell(&settings(&self.session.options)),
            Command::Settings(Some((name, value))) => {
                set(&mut self.session.options, &name, &value)?
            }
            // Handled where the loop can end.
            Command::Quit => {}
        }
        Ok(())
    }

    /// For people; scripts get lines of JSON only.
    fn note(&self, text: &str) {
        if !self.args.json {
            report::note(text);
        }
    }
}

/// An answer on its way to stdout.
struct Speak {
    json: bool,
    printed: Result<(), Failure>,
    begun: bool,
}

impl Speak {
    fn new(json: bool) -> Self {
        Self { json, printed: Ok(()), begun: false }
    }

    fn hear(&mut self, text: &str) -> ControlFlow<()> {
        if !self.json {
            self.begun = true;
            self.printed = report::print_answer(text);
        }
        if self.printed.is_ok() { interrupt::flow() } else { ControlFlow::Break(()) }
    }

    /// Ends the line, also one that an error broke off.
    fn end(self, reply: Result<Reply, Failure>) -> Result<Reply, Failure> {
        self.printed?;
        if !self.json && (self.begun || reply.is_ok()) {
            report::print("\n")?;
        }
        reply
    }
}

/// How answers are chosen, as `/settings` shows it.
fn settings(options: &AskOptions) -> String {
    fn shown(value: Option<impl ToString>) -> String {
        value.map_or("off".to_owned(), |value| value.to_string())
    }
    let sampling = &options.sampling;
    [
        ("temperature", sampling.temperature.to_string()),
        ("top-k", shown(sampling.top_k)),
        ("top-p", shown(sampling.top_p)),
        ("repetition-penalty", shown(sampling.repetition_penalty)),
        ("max-new-tokens", options.max_new_tokens.to_string()),
        ("seed", options.seed.to_string()),
    ]
    .iter()
    .map(|(name, value)| format!("{name:<20}{value}\n"))
    .collect()
}

/// Changes one setting, or nothing.
fn set(options: &mut AskOptions, name: &str, value: &str) -> Result<(), Failure> {
    let mut new = options.clone();
    let good = match name {
        "temperature" => value.parse().map(|v| new.sampling.temperature = v).is_ok(),
        "top-k" => optional(value).map(|v| new.sampling.top_k = v).is_some(),
        "top-p" => optional(value).map(|v| new.sampling.top_p = v).is_some(),
        "repetition-penalty" => {
            optional(value).map(|v| new.sampling.repetition_penalty = v).is_some()
        }
        "max-new-tokens" => {
            value.parse().ok().filter(|v| *v > 0).map(|v| new.max_new_tokens = v).is_some()
        }
        "seed" => value.parse().map(|v| new.seed = v).is_ok(),
        _ => {
            let failure = Failure::new(Exit::Usage, format!("there is no setting {name}"));
            return Err(failure.hint("/settings lists them"));
        }
    };
    if !good {
        let failure = Failure::new(Exit::Usage, format!("{name} cannot be {value:?}"));
        return Err(failure.hint("for example /settings temperature 0.7, or /settings top-k off"));
    }
    new.sampling.validate()?;
    *options = new;
    Ok(())
}

/// A number or `off`; the outer `None` is neither.
fn optional<T: std::str::FromStr>(value: &str) -> Option<Option<T>> {
    if value == "off" { Some(None) } else { value.parse().ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_changed_one_at_a_time_or_not_at_all() {
        let mut options = AskOptions::default();
        assert!(set(&mut options, "temperature", "0.5").is_ok());
        assert!(set(&mut options, "top-k", "7").is_ok() && set(&mut options, "seed", "9").is_ok());
        let before = options.clone();
        for (name, value) in [("top-p", "2"), ("top-k", "x"), ("max-new-tokens", "0"), ("x", "1")] {
            assert!(set(&mut options, name, value).is_err(), "{name}");
            assert_eq!(options, before);
        }
        assert!(set(&mut options, "top-k", "off").is_ok());
        assert_eq!((options.sampling.top_k, options.seed), (None, 9));
        assert!(settings(&options).contains("temperature         0.5\ntop-k               off\n"));
    }
}
