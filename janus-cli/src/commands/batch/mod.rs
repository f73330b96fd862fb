//! `janus batch`: every picture of a folder, or every line of a file, answered exactly once.
//!
//! Rows are answered in windows of `--batch-size`, counted from the first row whatever was done
//! before; each row draws from the stream of its own number. So a run that was killed and started
//! again asks the same questions side by side as one that was not, and writes the same bytes.

mod captions;
mod line;
mod output;
mod prepare;
mod rows;

use std::cell::RefCell;

use janus_infer::{AskOptions, FinishReason, Question, Reply};
use janus_model::Parts;
use serde_json::json;
use sha2::{Digest, Sha256};

use self::captions::Captions;
use self::output::Output;
use self::prepare::Prepared;
use self::rows::Input;
use crate::args::{BatchArgs, OnError};
use crate::choice::{Choice, naming};
use crate::model::{self, Identity, Loaded};
use crate::progress::Items;
use crate::report::{self, Exit, Failure, Verdict};
use crate::{answers, interrupt};

/// Runs the command.
pub fn run(args: &BatchArgs) -> Result<Verdict, Failure> {
    let mut options = answers::options(&args.answer, 0)?;
    let input = Input::open(args)?;
    refuse_own_output(args)?;
    let captions = Captions::new(args, &input)?;
    let Identity { fingerprint, adapters, .. } = Identity::of(&args.model)?;
    let mut model = format!("{fingerprint} {}", model::rules(&args.model)?);
    adapters.iter().for_each(|adapter| model += &format!(" {}", adapter.fingerprint));
    let mut output = Output::open(args)?;
    options.seed = seed(args, &mut output)?;
    let settings = settings(args, &options, &model);
    interrupt::listen();
    let Some(before) = resume(args, &input, &mut output, &captions, &settings)? else {
        report::note("stopped before anything was answered");
        return Ok(Verdict::Stopped);
    };
    captions.refuse_existing(before.rows)?;
    answers::note_idle_flags(&args.answer);
    let mut done = before;
    let mut complete = true;
    if done.rows < input.len() {
        if done.rows > 0 {
            report::note(&format!("{} of {} were done before", done.rows, input.len()));
        }
        let loaded = Loaded::open(&args.model, Parts::Understanding)?;
        // Not before everything else has gone well: with --restart it removes answers.
        output.begin()?;
        let items = RefCell::new(Items::new("answered", done.rows, input.len()));
        let job = Job { args, input: &input, loaded: &loaded, options, settings, captions, items };
        let result = job.work(&mut output, &mut done);
        job.items.borrow().finish();
        complete = result?;
    } else {
        output.begin()?;
    }
    finish(args, &output, input.len(), before, done, complete)
}

/// How far OUT is.
#[derive(Clone, Copy)]
struct Done {
    rows: usize,
    /// Of those, error lines.
    errors: usize,
}

/// One file for both would be read while it is written.
fn refuse_own_output(args: &BatchArgs) -> Result<(), Failure> {
    let real = |path| std::fs::canonicalize(path).ok();
    let same = real(&args.input).is_some_and(|input| Some(input) == real(&args.output));
    if same && !args.to_stdout() {
        return Err(Failure::new(Exit::Usage, "INPUT and --output are the same file"));
    }
    Ok(())
}

/// The seed given, else that of the run being gone on with, else a new one where it matters.
fn seed(args: &BatchArgs, output: &mut Output) -> Result<u64, Failure> {
    let begun = output.seed()?;
    let given = args.answer.sampling.seed.or(begun);
    let greedy = args.answer.temperature == 0.0;
    Ok(given.unwrap_or_else(|| if greedy { 0 } else { args.answer.sampling.seed() }))
}

/// Everything that decides answers and is the same for all rows.
fn settings(args: &BatchArgs, options: &AskOptions, model: &str) -> String {
    let sampling = &options.sampling;
    let settings = json!({
        "version": 1, "model": model, "dtype": args.model.dtype.map(|d| format!("{d:?}")),
        "system": args.answer.system, "max_new_tokens": options.max_new_tokens,
        "stop": options.stop, "temperature": sampling.temperature, "top_k": sampling.top_k,
        "top_p": sampling.top_p, "repetition_penalty": sampling.repetition_penalty,
        "seed": options.seed, "raw_orientation": args.answer.reading.raw_orientation,
    });
    prepare::short(Sha256::new().chain_update(settings.to_string()))
}

/// Compares the lines of an earlier run with the rows; `None` where it was interrupted.
fn resume(
    args: &BatchArgs,
    input: &Input,
    output: &mut Output,
    captions: &Captions,
    settings: &str,
) -> Result<Option<Done>, Failure> {
    let mut done = Done { rows: 0, errors: 0 };
    let mut items = Items::new("comparing with earlier answers", 0, input.len());
    let mut rows = input.rows()?;
    while let Some(seen) = output.next_seen()? {
        if interrupt::raised() {
            items.finish();
            return Ok(None);
        }
        let row = rows.next().transpose()?;
        let input = row.map(|row| prepare::digest_of(&row, args));
        if let Err(failure) = output.check(&seen, input.as_deref(), settings) {
            items.finish();
            return Err(failure);
        }
        match &seen.text {
            Some(text) => captions.restore(done.rows, text)?,
            None => done.errors += 1,
        }
        done.rows += 1;
        items.count();
    }
    items.finish();
    Ok(Some(done))
}

/// Says what came out of it.
fn finish(
    args: &BatchArgs,
    output: &Output,
    total: usize,
    before: Done,
    done: Done,
    complete: bool,
) -> Result<Verdict, Failure> {
    let (answers, errors) = (done.rows - done.errors, done.errors);
    if args.json && !args.to_stdout() {
        let told = json!({
            "output": output.path(), "inputs": total, "answers": answers, "errors": errors,
            "done_before": before.rows, "complete": complete,
        });
        report::print_json(&naming(&Choice::of(&args.model)?.adapters, told))?;
    } else {
        let s = |count: usize| if count == 1 { "" } else { "s" };
        let errors = format!("{answers} answer{}, {errors} error{}", s(answers), s(errors));
        report::note(&match complete {
            true => errors,
            false => format!("stopped after {} of {total}: {errors}", done.rows),
        });
    }
    if !complete {
        if args.to_stdout() {
            return Ok(Verdict::Interrupted);
        }
        report::note("the same command goes on from here");
        return Ok(Verdict::Stopped);
    }
    Ok(if done.errors > 0 { Verdict::No } else { Verdict::Yes })
}

/// What the loop needs.
struct Job<'a> {
    args: &'a BatchArgs,
    input: &'a Input,
    loaded: &'a Loaded,
    options: AskOptions,
    settings: String,
    captions: Captions,
    items: RefCell<Items>,
}

type Outcome = Result<Reply, Failure>;

impl Job<'_> {
    /// Answers what is left; false where it was interrupted.
    fn work(&self, output: &mut Output, done: &mut Done) -> Result<bool, Failure> {
        let size = usize::from(self.args.batch_size);
        let mut first = done.rows / size * size;
        let mut rows = self.input.rows()?.skip(first);
        loop {
            if interrupt::raised() {
                return Ok(done.rows == self.input.len());
            }
            let window: Vec<Prepared> = rows
                .by_ref()
                .take(size)
                .map(|row| row.map(|row| Prepared::new(row, self.args)))
                .collect::<Result<_, _>>()?;
            if window.is_empty() {
                return Ok(true);
            }
            let Some(outcomes) = self.answer(&window, first as u64)? else { return Ok(false) };
            let new = done.rows - first;
            self.write(&window[new..], outcomes.into_iter().skip(new), output, done)?;
            first += window.len();
        }
    }

    /// One outcome per row; `None` where it was interrupted. Rows that can be asked and stand
    /// beside each other are answered together.
    fn answer(&self, window: &[Prepared], first: u64) -> Result<Option<Vec<Outcome>>, Failure> {
        let mut outcomes = Vec::with_capacity(window.len());
        for run in window.chunk_by(|a, b| a.ready.is_ok() && b.ready.is_ok()) {
            let questions: Vec<Question<'_>> = run
                .iter()
                .filter_map(|row| row.ready.as_ref().ok())
                .map(|(conversation, images)| (conversation, images.as_slice()))
                .collect();
            if questions.is_empty() {
                outcomes.extend(run.iter().filter_map(|row| row.failure()).map(Err));
                continue;
            }
            match self.ask(&questions, first + outcomes.len() as u64)? {
                Some(answers) => outcomes.extend(answers),
                None => return Ok(None),
            }
        }
        Ok(Some(outcomes))
    }

    /// Asks questions together, or each alone where one of them cannot be asked.
    fn ask(&self, questions: &[Question<'_>], first: u64) -> Result<Option<Vec<Outcome>>, Failure> {
        let options = AskOptions { first, ..self.options.clone() };
        let mut pieces = 0;
        let asked = self.loaded.engine.ask_batch(questions, &options, |_, _| {
            pieces += 1;
            self.items.borrow_mut().show(&format!(", {pieces} pieces of text in the next"));
            interrupt::flow()
        });
        match asked {
            Ok(replies) if replies.iter().any(|r| r.finish == FinishReason::Cancelled) => Ok(None),
            Ok(replies) => Ok(Some(replies.into_iter().map(Ok).collect())),
            Err(error) if !answers::is_of_question(&error) => Err(error.into()),
            Err(error) if questions.len() == 1 => Ok(Some(vec![Err(error.into())])),
            Err(_) => {
                let mut outcomes = Vec::with_capacity(questions.len());
                for (number, question) in questions.iter().enumerate() {
                    match self.ask(&[*question], first + number as u64)? {
                        Some(outcome) => outcomes.extend(outcome),
                        None => return Ok(None),
                    }
                }
                Ok(Some(outcomes))
            }
        }
    }

    /// Writes the lines of a window, then its captions: a caption that is missing is made from its
    /// line by the next run.
    fn write(
        &self,
        rows: &[Prepared],
        outcomes: impl Iterator<Item = Outcome>,
        output: &mut Output,
        done: &mut Done,
    ) -> Result<(), Failure> {
        let (mut lines, mut texts, mut stop) = (String::new(), Vec::new(), None);
        let mut errors = 0;
        for (row, outcome) in rows.iter().zip(outcomes) {
            let outcome = outcome.map_err(|failure| row.placed(failure));
            if let (Err(failure), OnError::Stop) = (&outcome, self.args.on_error) {
                stop = Some(failure.clone());
                break;
            }
            errors += usize::from(outcome.is_err());
            if let Err(failure) = &outcome {
                self.mention(failure, done.errors + errors);
            }
            let result = outcome.as_ref();
            lines += &output::line(row, result, self.options.seed, &self.settings);
            texts.push(outcome.ok().map(|reply| reply.text));
        }
        output.write(&lines)?;
        for text in texts {
            if let Some(text) = text {
                self.captions.put(done.rows, &text)?;
            }
            done.rows += 1;
            self.items.borrow_mut().count();
        }
        done.errors += errors;
        let Some(failure) = stop else { return Ok(()) };
        if !self.args.json {
            report::note("the same command goes on from here; --on-error skip passes over errors");
        }
        Err(failure)
    }

    /// The first few errors are told at once; all of them are in OUT.
    fn mention(&self, failure: &Failure, number: usize) {
        const TOLD: usize = 10;
        self.items.borrow().finish();
        if number <= TOLD && !self.args.json {
            failure.mention();
        }
        if number == TOLD + 1 && !self.args.json {
            report::note("further errors are only in the output");
        }
    }
}
