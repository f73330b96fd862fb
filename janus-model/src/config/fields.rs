//! Typed access to JSON fields, with errors that say where.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{ErrorKind, printable};
use crate::processor::{FileError, read_file};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("{path}: no such file", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any real configuration.
    #[error("{path}: larger than the limit of {limit} bytes for a JSON file", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The bytes are not text.
    #[error("not UTF-8 text: byte {at} begins no character")]
    Encoding {
        /// Number of the byte, from 0.
        at: usize,
    },
    /// The text is not JSON.
    #[error("not valid JSON: {source}")]
    Json {
        /// Where and what, from the parser.
        source: serde_json::Error,
    },
    /// A field is missing, has the wrong type or an unusable value.
    #[error("{field}: {problem}")]
    Field {
        /// Path of the field, such as `vision_config.params.image_size`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two fields contradict each other.
    #[error("{field} is {value}, but {other} is {other_value}")]
    Disagree {
        /// One field.
        field: String,
        /// Its value.
        value: usize,
        /// The other field.
        other: String,
        /// The other value.
        other_value: usize,
    },
    /// Any of the above, in a named file.
    #[error("{path}: {source}", path = path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: Box<ConfigError>,
    },
}

impl ConfigError {
    pub(crate) fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field { field: field.into(), problem: problem.into() }
    }

    pub(crate) fn disagree(field: &str, value: usize, other: &str, other_value: usize) -> Self {
        Self::Disagree { field: field.into(), value, other: other.into(), other_value }
    }

    pub(crate) fn in_file(self, path: &Path) -> Self {
        Self::InFile { path: path.to_owned(), source: Box::new(self) }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some(
                "a model folder holds config.json beside its weights; check the path or download the folder again".into(),
            ),
            Self::Json { .. } => Some(
                "comments, trailing commas, NaN and numbers beyond 1e308 are not JSON".into(),
            ),
            Self::InFile { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::Missing,
            Self::Io { .. } => ErrorKind::Io,
            Self::InFile { source, .. } => source.kind(),
            _ => ErrorKind::Config,
        }
    }
}

/// Reads a regular file of at most `limit` bytes as UTF-8 text.
pub(super) fn read_capped(path: &Path, limit: u64) -> Result<String, ConfigError> {
    let bytes = read_file(path, limit).map_err(|error| match error {
        FileError::Missing { path } => ConfigError::Missing { path },
        FileError::NotAFile { path, found } => {
            let source = std::io::Error::other(format!("{found}, not a regular file"));
            ConfigError::Io { path, source }
        }
        FileError::TooLarge { path, limit, .. } => ConfigError::TooLarge { path, limit },
        FileError::Io { path, source } => ConfigError::Io { path, source },
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ConfigError::Encoding { at }.in_file(path)
    })
}

/// A JSON object and the path that leads to it.
pub(super) struct Fields<'a> {
    path: String,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    /// The outermost object.
    pub fn root(value: &'a Value) -> Result<Self, ConfigError> {
        let map = value.as_object().ok_or_else(|| {
            ConfigError::field("config.json", format!("expected an object, found {}", kind(value)))
        })?;
        Ok(Self { path: String::new(), map: Some(map) })
    }

    /// A nested object; absent means "all defaults".
    pub fn object(&self, name: &str) -> Result<Fields<'a>, ConfigError> {
        let path = self.at(name);
        let map = match self.get(name) {
            None => None,
            Some(Value::Object(map)) => Some(map),
            Some(other) => return Err(wrong(&path, "an object", other)),
        };
        Ok(Fields { path, map })
    }

    /// Whether the object itself is in the file.
    pub fn present(&self) -> bool {
        self.map.is_some()
    }

    /// Full path of a field of this object.
    pub fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The raw value, `null` counting as absent.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.and_then(|map| map.get(name)).filter(|v| !v.is_null())
    }

    /// A whole number ≥ 0, required.
    pub fn need(&self, name: &str) -> Result<usize, ConfigError> {
        self.int(name)?.ok_or_else(|| ConfigError::field(self.at(name), "missing"))
    }

    /// A whole number ≥ 0, if present. A square size may be written `[n, n]`.
    pub fn int(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let scalar = match value {
            Value::Array(pair) if pair.len() == 2 && pair[0] == pair[1] => &pair[0],
            other => other,
        };
        let number = scalar
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| wrong(&self.at(name), "a whole number", value))?;
        Ok(Some(number))
    }

    /// A finite number, if present.
    pub fn float(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64().filter(|x| x.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(&self.at(name), "a finite number", value)),
        }
    }

    /// A boolean, if present.
    pub fn bool(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(wrong(&self.at(name), "true or false", other)),
        }
    }

    /// A string, if present.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(wrong(&self.at(name), "a string", other)),
        }
    }

    /// A list of whole numbers, if present.
    pub fn ints(&self, name: &str) -> Result<Option<Vec<usize>>, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value
            .as_array()
            .filter(|list| list.len() <= 64)
            .and_then(|list| {
                list.iter().map(|v| v.as_u64().and_then(|n| usize::try_from(n).ok())).collect()
            })
            .map(Some)
            .ok_or_else(|| wrong(&self.at(name), "a list of at most 64 whole numbers", value))
    }

    /// Refuses any value but the one this project implements.
    pub fn only(&self, name: &str, allowed: &[&str]) -> Result<(), ConfigError> {
        match self.text(name)? {
            Some(found) if !allowed.contains(&found) => Err(ConfigError::field(
                self.at(name),
                format!("{found:?} is not supported (only {})", allowed.join(", ")),
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a feature that Janus never uses.
    pub fn must_be_off(&self, name: &str) -> Result<(), ConfigError> {
        match self.bool(name)? {
            Some(true) => Err(ConfigError::field(self.at(name), "true is not supported")),
            _ => Ok(()),
        }
    }
}

fn wrong(field: &str, expected: &str, found: &Value) -> ConfigError {
    let problem = format!("expected {expected}, found {} {}", kind(found), shown(found));
    ConfigError::field(field, problem)
}

/// A value as it stands in the file, for messages.
pub(crate) fn shown(value: &Value) -> String {
    printable(&value.to_string(), 60)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Checks `low <= value <= high`; used by the parts' `validate`.
pub(crate) fn in_range(
    field: &str,
    value: usize,
    low: usize,
    high: usize,
) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::field(field, format!("{value} is outside {low}..={high}")))
}

/// Checks that `value` is a positive, finite number below `high`.
pub(crate) fn positive(field: &str, value: f64, high: f64) -> Result<(), ConfigError> {
    if value.is_finite() && value > 0.0 && value <= high {
        return Ok(());
    }
    Err(ConfigError::field(field, format!("{value} is not a number above 0 and up to {high}")))
}
