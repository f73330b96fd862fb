//! Where turns come from: a terminal with editing and history, or lines of a pipe.

use std::io::{self, IsTerminal, StdinLock};
use std::path::{Path, PathBuf};

use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use super::history;
use crate::interrupt;
use crate::lines::Lines;
use crate::report::{self, Exit, Failure};

/// More than any context holds.
const MAX_BYTES: u64 = 1 << 20;
/// Before a turn, and before the further lines of one.
const PROMPTS: [&str; 2] = ["> ", ". "];
/// Opens and closes a turn of several lines.
const FENCE: &str = "\"\"\"";

/// What comes next.
pub enum Input {
    /// A turn, its lines joined.
    Turn(String),
    /// Something that cannot be a turn.
    Bad(Failure),
    /// No more: end of file or Ctrl-D.
    End,
    /// Ctrl-C twice.
    Interrupted,
}

/// One line.
enum Line {
    Text(String),
    Bad(Failure),
    End,
    /// Ctrl-C.
    Cleared,
}

/// Lines of a terminal or a pipe.
pub enum Source {
    Terminal { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    Pipe(Lines<StdinLock<'static>>),
}

impl Source {
    /// Standard input, whatever it is.
    ///
    /// # Errors
    /// A terminal that cannot be used.
    pub fn open(no_history: bool) -> Result<Self, Failure> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Pipe(Lines::new(io::stdin().lock(), MAX_BYTES)));
        }
        let config = Config::builder().behavior(Behavior::PreferTerm).history_ignore_space(true);
        let config = config.build();
        let editor = DefaultEditor::with_config(config).map_err(|error| broken(&error))?;
        let mut editor = Box::new(editor);
        let history = if no_history { None } else { history::open(&mut editor) };
        Ok(Self::Terminal { editor, history })
    }

    /// Whether somebody types.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// The next turn.
    ///
    /// # Errors
    /// Reading failed for good.
    pub fn next_turn(&mut self) -> Result<Input, Failure> {
        let mut cleared = false;
        loop {
            match self.turn()? {
                Line::Text(turn) => {
                    self.remember(&turn);
                    return Ok(Input::Turn(turn));
                }
                Line::Bad(failure) => return Ok(Input::Bad(failure)),
                Line::End => return Ok(Input::End),
                Line::Cleared if cleared => return Ok(Input::Interrupted),
                Line::Cleared => {
                    report::note("Ctrl-C once more, or Ctrl-D, quits");
                    cleared = true;
                }
            }
        }
    }

    /// A turn of one line or several.
    fn turn(&mut self) -> Result<Line, Failure> {
        let mut text = match self.line(0)? {
            Line::Text(text) => text,
            other => return Ok(other),
        };
        let fenced = text.trim_start().starts_with(FENCE);
        if fenced {
            text = text.trim_start()[FENCE.len()..].to_owned();
        }
        loop {
            if fenced && text.trim_end().ends_with(FENCE) {
                let inside = text.trim_end().len() - FENCE.len();
                return Ok(Line::Text(text[..inside].trim_matches(['\r', '\n']).to_owned()));
            }
            if !fenced {
                let Some(before) = text.strip_suffix('\\') else { return Ok(Line::Text(text)) };
                text.truncate(before.len());
            }
            match self.line(1)? {
                Line::Text(more) => text = text + "\n" + &more,
                // What is there is said: scripts need not close what ends anyway.
                Line::End => return Ok(Line::Text(text)),
                other => return Ok(other),
            }
            if text.len() as u64 > MAX_BYTES {
                let message = format!("the turn has more than {MAX_BYTES} bytes");
                return Ok(Line::Bad(Failure::new(Exit::BadData, message)));
            }
        }
    }

    fn line(&mut self, further: usize) -> Result<Line, Failure> {
        match self {
            Self::Terminal { editor, .. } => {
                match interrupt::idle(|| editor.readline(PROMPTS[further])) {
                    Ok(line) => Ok(Line::Text(line)),
                    Err(ReadlineError::Eof) => Ok(Line::End),
                    Err(ReadlineError::Interrupted) => Ok(Line::Cleared),
                    Err(error) => Err(broken(&error)),
                }
            }
            Self::Pipe(lines) => match interrupt::idle(|| lines.next_line()) {
                Err(error) => Err(Failure::io(Path::new("stdin"), "read", &error)),
                Ok(None) => Ok(Line::End),
                Ok(Some(Ok(line))) => Ok(Line::Text(line)),
                Ok(Some(Err(problem))) => {
                    let message = format!("stdin:{}: {problem}", lines.number());
                    Ok(Line::Bad(Failure::new(Exit::BadData, message)))
                }
            },
        }
    }

    fn remember(&mut self, turn: &str) {
        let Self::Terminal { editor, history } = self else { return };
        if !turn.trim().is_empty() {
            history::add(editor, history, turn);
        }
    }
}

fn broken(error: &ReadlineError) -> Failure {
    Failure::new(Exit::Io, format!("the terminal cannot be read: {error}"))
        .hint("janus chat reads lines from a pipe, too")
}
