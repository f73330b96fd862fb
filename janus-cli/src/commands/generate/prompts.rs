//! Files of prompts: lines of text, or JSONL.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use crate::report::{Exit, Failure};

/// Bytes of a file of prompts.
const FILE: u64 = 16 << 20;
/// Bytes of one prompt: far more than any context holds.
const PROMPT: usize = 64 << 10;

/// One line of a file, or the prompt that was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    pub text: String,
    /// In place of the common one.
    pub seed: Option<u64>,
    /// Name of its picture, in place of a number.
    pub output: Option<String>,
    /// Line of the file, from 1.
    pub line: usize,
}

/// One line of JSONL.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: String,
    seed: Option<u64>,
    output: Option<String>,
}

/// The prompt that was typed.
///
/// # Errors
/// It is empty.
pub fn typed(text: &str) -> Result<Prompt, Failure> {
    if text.trim().is_empty() {
        let failure = Failure::new(Exit::Usage, "the prompt is empty");
        return Err(failure.hint("say what to draw, as in: janus generate 'a red cube' …"));
    }
    Ok(Prompt { text: text.to_owned(), seed: None, output: None, line: 1 })
}

/// Reads a file, or stdin for `-`.
///
/// # Errors
/// A file that cannot be read, is too large or no UTF-8; a line that says something else than a
/// prompt; no prompt at all.
pub fn read(path: &Path) -> Result<Vec<Prompt>, Failure> {
    let shown = path.display();
    let bytes = bytes(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        Failure::new(Exit::BadData, format!("{shown}:{line}: this is not UTF-8"))
            .hint("save the file as UTF-8 text")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"));
    let mut prompts = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line_number = number + 1;
        let prompt = if json { object(line, line_number) } else { Ok(plain(line, line_number)) };
        let prompt = prompt.and_then(checked).map_err(|problem| {
            Failure::new(Exit::BadData, format!("{shown}:{line_number}: {problem}")).hint(if json {
                "a line is {\"prompt\": \"…\"}, and if wanted \"seed\": N and \"output\": \"name.png\""
            } else {
                "a line is a prompt"
            })
        })?;
        prompts.push(prompt);
    }
    if prompts.is_empty() {
        let failure = Failure::new(Exit::BadData, format!("{shown}: there is no prompt in it"));
        return Err(failure.hint("write one prompt per line"));
    }
    Ok(prompts)
}

fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(FILE + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(FILE + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(Exit::Missing, format!("{}: no such file", path.display()))
                .hint("--prompts names a file with one prompt per line; - reads stdin")
        }
        _ => Failure::io(path, "read", &error),
    })?;
    if bytes.len() as u64 > FILE {
        let message = format!("{}: a file of prompts has at most 16 MiB", path.display());
        return Err(Failure::new(Exit::BadData, message).hint("split it into several"));
    }
    Ok(bytes)
}

fn plain(line: &str, number: usize) -> Prompt {
    Prompt { text: line.trim().to_owned(), seed: None, output: None, line: number }
}

fn object(line: &str, number: usize) -> Result<Prompt, String> {
    // A list would do, too, as far as the parser is concerned.
    if !line.trim_start().starts_with('{') {
        return Err("this is no JSON object".into());
    }
    let found: Line = serde_json::from_str(line).map_err(|error| {
        // The line of the parser is always the first.
        let text = error.to_string();
        let at = text.find(" at line ").unwrap_or(text.len());
        format!("{} (column {})", &text[..at], error.column())
    })?;
    Ok(Prompt { text: found.prompt, seed: found.seed, output: found.output, line: number })
}

fn checked(prompt: Prompt) -> Result<Prompt, String> {
    if prompt.text.trim().is_empty() {
        return Err("the prompt is empty".into());
    }
    if prompt.text.len() > PROMPT {
        return Err(format!("the prompt has {} bytes, more than 64 KiB", prompt.text.len()));
    }
    Ok(prompt)
}
