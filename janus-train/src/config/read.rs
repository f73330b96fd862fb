//! From text to a [`TrainConfig`], with errors that say where.

use std::path::{Path, PathBuf};

use janus_model::ErrorKind;
use janus_model::processor::{FileError, read_file};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{InitConfig, Source, TrainConfig};

/// Largest recipe that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is no text.
    #[error("{path}: not UTF-8 text: byte {at} begins no character", path = path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// Number of the byte, from 0.
        at: usize,
    },
    /// The text is not TOML, lacks a field, has one too many, or one of another type.
    #[error("{}line {line}: {}{problem}", in_file(path), in_field(field))]
    Parse {
        /// The file, where there is one.
        path: Option<PathBuf>,
        /// Counted from 1.
        line: usize,
        /// Path of the field, such as `schedule.rate`; empty where the text is not TOML.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// An override from outside the file.
    #[error("{given}: {problem}")]
    Override {
        /// As it was given.
        given: String,
        /// What is wrong.
        problem: String,
    },
    /// A value out of range.
    #[error("{field} is {value}, but must be {range}")]
    Range {
        /// Path of the field.
        field: String,
        /// Its value.
        value: String,
        /// What it may be.
        range: String,
    },
    /// Values that contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

fn in_file(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default()
}

fn in_field(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!("{field}: ") }
}

impl RecipeError {
    pub(crate) fn range(field: &str, value: impl ToString, range: &str) -> Self {
        Self::Range { field: field.to_owned(), value: value.to_string(), range: range.to_owned() }
    }

    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File(FileError::Missing { .. }) => ErrorKind::Missing,
            Self::File(FileError::Io { .. } | FileError::NotAFile { .. }) => ErrorKind::Io,
            Self::Override { .. } => ErrorKind::Usage,
            _ => ErrorKind::Config,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Parse { problem, .. } | Self::Override { problem, .. }
                if problem.starts_with("unknown field") =>
            {
                Some("every key counts: a misspelt one would silently do nothing".into())
            }
            Self::Override { .. } => {
                Some("write key=value with the path of a field, such as schedule.rate=1e-4".into())
            }
            _ => None,
        }
    }
}

/// Reads a recipe file of any kind, ranges unseen.
///
/// # Errors
/// The file cannot be read; otherwise as [`parse`], with its path.
pub(crate) fn file<T: DeserializeOwned>(path: &Path) -> Result<T, RecipeError> {
    let text = String::from_utf8(read_file(path, MAX_BYTES)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        RecipeError::Encoding { path: path.to_owned(), at }
    })?;
    parse(&text).map_err(|error| match error {
        RecipeError::Parse { line, field, problem, .. } => {
            RecipeError::Parse { path: Some(path.to_owned()), line, field, problem }
        }
        other => other,
    })
}

/// Reads a recipe of any kind, ranges unseen.
///
/// # Errors
/// The first thing that is no TOML or no field of a recipe, with its line.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, RecipeError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(text.len(), |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        let (field, problem) = parts(error);
        RecipeError::Parse { path: None, line, field, problem }
    })
}

/// See [`TrainConfig::with`].
pub(crate) fn with<T: Clone + Serialize + DeserializeOwned>(
    config: &T,
    overrides: &[String],
) -> Result<T, RecipeError> {
    let mut config = config.clone();
    for given in overrides {
        let fail = |problem: String| RecipeError::Override { given: given.clone(), problem };
        let (key, value) = given.split_once('=').ok_or_else(|| fail("no key=value".into()))?;
        let root = Table::try_from(&config).map_err(|error| fail(error.to_string()))?;
        let mut root = Value::Table(root);
        put(&mut root, key.trim(), parsed(value)).map_err(fail)?;
        config = root.try_into().map_err(|error| {
            let (field, problem) = parts(error);
            // The key has told the way there already.
            let names = key.trim().split('.').filter(|part| part.parse::<usize>().is_err());
            let told = names.collect::<Vec<_>>().join(".").starts_with(&field);
            fail(if told { problem } else { in_field(&field) + &problem })
        })?;
    }
    Ok(config)
}

impl TrainConfig {
    /// Reads and checks a recipe file.
    ///
    /// # Errors
    /// See [`RecipeError`]; a relative path in it is taken from the folder of the file.
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        let mut config: Self = file(path)?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Reads a recipe without looking at ranges.
    ///
    /// # Errors
    /// The first thing that is no TOML or no field of a recipe, with its line.
    pub fn from_toml(text: &str) -> Result<Self, RecipeError> {
        parse(text)
    }

    /// The same settings with `key=value` pairs put in their places, one after another.
    ///
    /// A key is a path such as `schedule.rate` or `data.0.path`; a value is TOML, or else text.
    /// An index one behind the last of a list appends.
    ///
    /// # Errors
    /// The first override that is none, names no field, or has the wrong type.
    pub fn with(&self, overrides: &[String]) -> Result<Self, RecipeError> {
        with(self, overrides)
    }

    /// Takes relative paths from `folder`.
    fn resolve(&mut self, folder: &Path) {
        let sources = self.data.iter_mut().chain(&mut self.valid.data).flat_map(Source::paths);
        let init = self.init.iter_mut().flat_map(InitConfig::paths);
        let pictures = self.samples.questions.iter_mut().flat_map(|asked| &mut asked.image);
        for path in
            sources.chain(pictures).chain(&mut self.start).chain(&mut self.codes).chain(init)
        {
            *path = folder.join(&*path);
        }
    }
}

/// The path of the field, and what is wrong.
fn parts(mut error: toml::de::Error) -> (String, String) {
    let problem = error.message().to_owned();
    // The path is told only where the text is not.
    error.set_input(None);
    let told = error.to_string();
    let field = told.rsplit_once("in `").and_then(|(_, rest)| rest.trim_end().strip_suffix('`'));
    (field.unwrap_or_default().to_owned(), problem)
}

/// A TOML value, or the text itself.
fn parsed(text: &str) -> Value {
    let whole = toml::from_str::<Table>(&format!("value = {text}")).ok();
    // More than one line of TOML is no value but text that looks like some.
    let only = whole.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    only.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Puts `value` at `key` below `root`; tables on the way are made.
fn put(root: &mut Value, key: &str, value: Value) -> Result<(), String> {
    let mut place = root;
    for part in key.split('.') {
        if part.is_empty() {
            return Err("a part of the key is empty".into());
        }
        let empty = || Value::Table(Table::new());
        place = match place {
            Value::Table(table) => table.entry(part).or_insert_with(empty),
            Value::Array(list) => {
                let length = list.len();
                let index = part.parse().ok().filter(|index: &usize| *index <= length);
                let index = index.ok_or_else(|| {
                    format!("{part} is no place in a list of {length}: the first is 0")
                })?;
                if index == length {
                    list.push(empty());
                }
                &mut list[index]
            }
            _ => return Err(format!("nothing lies below a value, such as {part}")),
        };
    }
    // `1` is a good value for a field of fractions.
    *place = match (&*place, value) {
        (Value::Float(_), Value::Integer(whole)) => Value::Float(whole as f64),
        (_, value) => value,
    };
    Ok(())
}
