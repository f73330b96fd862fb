//! What is to be answered: pictures of a folder, or lines of a file; one row each.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Component, Path, PathBuf};

use janus_model::processor::Role;
use serde_json::Value;

use crate::args::BatchArgs;
use crate::lines::Lines;
use crate::pictures;
use crate::report::{Exit, Failure};

/// Asked with `--captions` where nothing else is.
const CAPTION_QUESTION: &str = "Describe this image in detail.";

/// One input.
pub struct Row {
    /// What the input calls it: its id, its picture, or else the number of its line.
    pub id: Value,
    /// File and line, for errors that do not name them.
    pub place: Option<String>,
    /// What is to be answered, or why it cannot be.
    pub task: Result<Task, Failure>,
}

/// A conversation as text, and where its pictures lie.
#[derive(Debug, PartialEq, Eq)]
pub struct Task {
    /// Pictures as the input names them.
    pub images: Vec<String>,
    /// Where they lie.
    pub paths: Vec<PathBuf>,
    /// Turns, the last of them the question.
    pub turns: Vec<(Role, String)>,
    /// In place of the command's.
    pub system: Option<String>,
}

/// An input that was looked at once.
pub enum Input {
    /// Pictures of a folder, relative to it.
    Folder { dir: PathBuf, names: Vec<PathBuf>, question: String },
    /// A JSONL file of so many lines that are not blank.
    File { path: PathBuf, root: PathBuf, rows: usize, max_images: usize, max_line: u64 },
}

impl Input {
    /// Lists a folder, or counts lines.
    ///
    /// # Errors
    /// An input that is not there or empty, and flags that do not go with it.
    pub fn open(args: &BatchArgs) -> Result<Self, Failure> {
        let path = &args.input;
        let metadata = fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::new(Exit::Missing, format!("{} does not exist", path.display()))
            }
            _ => Failure::io(path, "read", &error),
        })?;
        let input = if metadata.is_dir() {
            Self::folder(args)?
        } else if metadata.is_file() {
            Self::file(args)?
        } else {
            let message = format!("{} is neither a folder nor a file", path.display());
            return Err(Failure::new(Exit::Usage, message));
        };
        if input.len() == 0 {
            let what =
                if metadata.is_dir() { "pictures (png, jpeg, webp, gif, bmp)" } else { "lines" };
            let failure = Failure::new(Exit::BadData, format!("{}: no {what}", path.display()));
            let deeper = metadata.is_dir() && !args.recursive;
            return Err(if deeper {
                failure.hint("--recursive looks into the folders inside it, too")
            } else {
                failure
            });
        }
        Ok(input)
    }

    fn folder(args: &BatchArgs) -> Result<Self, Failure> {
        let default = args.captions.then_some(CAPTION_QUESTION);
        let Some(question) = args.question.as_deref().or(default) else {
            let message = "a folder of pictures needs a question";
            return Err(Failure::new(Exit::Usage, message)
                .hint("--question 'What is this?', or --captions to have each picture described"));
        };
        if args.data_root.is_some() {
            let message = "--data-root is for JSONL files; the pictures of a folder lie in it";
            return Err(Failure::new(Exit::Usage, message));
        }
        let mut names = Vec::new();
        list(&args.input, Path::new(""), args.recursive, &mut names)?;
        names.sort();
        Ok(Self::Folder { dir: args.input.clone(), names, question: question.to_owned() })
    }

    fn file(args: &BatchArgs) -> Result<Self, Failure> {
        let folder_only = [
            ("--question", args.question.is_some()),
            ("--captions", args.captions),
            ("--recursive", args.recursive),
        ];
        if let Some((flag, _)) = folder_only.iter().find(|(_, given)| *given) {
            let message = format!("{flag} is for folders, but {} is a file", args.input.display());
            return Err(Failure::new(Exit::Usage, message).hint("its lines hold the questions"));
        }
        let root = args.data_root.clone().unwrap_or_else(|| folder_of(&args.input));
        let root = fs::canonicalize(&root).map_err(|_| {
            Failure::new(Exit::Missing, format!("{}: no such folder", root.display()))
        })?;
        let mut input = Self::File {
            path: args.input.clone(),
            root,
            rows: 0,
            max_images: args.max_images,
            max_line: args.max_line_size,
        };
        let mut count = 0;
        for row in input.rows()? {
            row?;
            count += 1;
        }
        if let Self::File { rows, .. } = &mut input {
            *rows = count;
        }
        Ok(input)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Folder { names, .. } => names.len(),
            Self::File { rows, .. } => *rows,
        }
    }

    /// The rows, in order. Nothing but the line at hand is held.
    ///
    /// # Errors
    /// The file cannot be opened; inside: it cannot be read any more.
    pub fn rows(&self) -> Result<Box<dyn Iterator<Item = Result<Row, Failure>> + '_>, Failure> {
        match self {
            Self::Folder { dir, names, question } => Ok(Box::new(names.iter().map(|name| {
                let shown = shown(name);
                let task = Task {
                    images: vec![shown.clone()],
                    paths: vec![dir.join(name)],
                    turns: vec![(Role::User, question.clone())],
                    system: None,
                };
                Ok(Row { id: Value::from(shown), place: None, task: Ok(task) })
            }))),
            Self::File { path, root, max_images, max_line, .. } => {
                let failed = |error| Failure::io(path, "read", &error);
                let mut lines =
                    Lines::new(BufReader::new(File::open(path).map_err(failed)?), *max_line);
                Ok(Box::new(std::iter::from_fn(move || {
                    loop {
                        let line = match lines.next_line() {
                            Err(error) => return Some(Err(failed(error))),
                            Ok(None) => return None,
                            Ok(Some(Ok(line))) if line.trim().is_empty() => continue,
                            Ok(Some(line)) => line,
                        };
                        let place =
                            Place { path, root, number: lines.number(), max_images: *max_images };
                        let row = match line {
                            Ok(line) => place.row(&line),
                            Err(problem) => place.unusable(problem),
                        };
                        return Some(Ok(row));
                    }
                })))
            }
        }
    }

    /// Where the caption of each picture goes; nothing for a file.
    pub fn captions(&self) -> Vec<PathBuf> {
        match self {
            Self::Folder { dir, names, .. } => {
                names.iter().map(|name| dir.join(name).with_extension("txt")).collect()
            }
            Self::File { .. } => Vec::new(),
        }
    }
}

/// Names of pictures below `dir`. Links to folders are not followed: they may lead in circles.
fn list(
    dir: &Path,
    below: &Path,
    recursive: bool,
    names: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    let here = dir.join(below);
    let failed = |error| Failure::io(&here, "list", &error);
    for entry in fs::read_dir(&here).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = below.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            if recursive {
                list(dir, &name, recursive, names)?;
            }
        } else if pictures::has_picture_name(&name) && !dir.join(&name).is_dir() {
            names.push(name);
        }
    }
    Ok(())
}

/// The folder a file lies in.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A relative path, the same on every system.
fn shown(name: &Path) -> String {
    let parts = name.components().map(|part| match part {
        Component::Normal(part) => part.to_string_lossy(),
        other => other.as_os_str().to_string_lossy(),
    });
    parts.collect::<Vec<_>>().join("/")
}

/// One line of a file.
struct Place<'a> {
    path: &'a Path,
    root: &'a Path,
    number: u64,
    max_images: usize,
}

impl Place<'_> {
    fn name(&self) -> String {
        format!("{}:{}", self.path.display(), self.number)
    }

    fn bad(&self, problem: impl Display) -> Failure {
        Failure::new(Exit::BadData, problem.to_string()).at(&self.name())
    }

    /// A line that has not even an id.
    fn unusable(&self, problem: impl Display) -> Row {
        Row { id: self.number.into(), place: None, task: Err(self.bad(problem)) }
    }

    fn row(&self, line: &str) -> Row {
        let value: Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => return self.unusable(format!("not JSON: {error}")),
        };
        let id = match value.get("id") {
            Some(id @ (Value::String(_) | Value::Number(_))) => id.clone(),
            _ => self.number.into(),
        };
        let task = self.task(&value).map_err(|problem| self.bad(problem));
        // Problems of the line itself name it already.
        let place = task.is_ok().then(|| self.name());
        Row { id, place, task }
    }

    fn task(&self, value: &Value) -> Result<Task, String> {
        let Value::Object(fields) = value else { return Err("not a JSON object".into()) };
        if let Some(id) =
            fields.get("id").filter(|id| !id.is_string() && !id.is_number() && !id.is_null())
        {
            return Err(format!("\"id\" is {}, not text or a number", kind(id)));
        }
        let images = images(fields.get("images").unwrap_or(&Value::Null))?;
        if images.len() > self.max_images {
            let (found, limit) = (images.len(), self.max_images);
            return Err(format!("{found} pictures, but --max-images is {limit}"));
        }
        let paths = images.iter().map(|image| self.inside(image)).collect::<Result<_, _>>()?;
        let mut system = optional_text(fields.get("system"), "system")?;
        let turns = match (fields.get("question"), fields.get("messages")) {
            (Some(_), Some(_)) => return Err("both \"question\" and \"messages\"".into()),
            (None, None) => return Err("neither \"question\" nor \"messages\"".into()),
            (Some(question), None) => vec![(Role::User, text(question, "question")?)],
            (None, Some(messages)) => turns(messages, &mut system)?,
        };
        if turns.last().is_none_or(|(_, text)| text.trim().is_empty()) && images.is_empty() {
            return Err("the question is empty".into());
        }
        Ok(Task { images, paths, turns, system })
    }

    /// Where a picture lies: links included, below the root. A missing one is found out later,
    /// in the words used for every picture.
    fn inside(&self, image: &str) -> Result<PathBuf, String> {
        let path = folder_of(self.path).join(image);
        let climbs = Path::new(image).components().any(|part| part == Component::ParentDir);
        let inside = match fs::canonicalize(&path) {
            Ok(real) => real.starts_with(self.root),
            Err(_) => !climbs && Path::new(image).is_relative(),
        };
        if !inside || image.contains('\0') {
            return Err(format!("picture {image:?} lies outside of --data-root"));
        }
        Ok(path)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn text(value: &Value, field: &str) -> Result<String, String> {
    let text = value.as_str().ok_or_else(|| format!("\"{field}\" is {}, not text", kind(value)))?;
    Ok(text.to_owned())
}

fn optional_text(value: Option<&Value>, field: &str) -> Result<Option<String>, String> {
    value.filter(|value| !value.is_null()).map(|value| text(value, field)).transpose()
}

fn images(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(one) => Ok(vec![one.clone()]),
        Value::Array(all) => all.iter().map(|image| text(image, "images")).collect(),
        other => Err(format!("\"images\" is {}, not a list of paths", kind(other))),
    }
}

/// Turns of the messages format; a first one of the system's becomes `system`.
fn turns(value: &Value, system: &mut Option<String>) -> Result<Vec<(Role, String)>, String> {
    let messages =
        value.as_array().ok_or_else(|| format!("\"messages\" is {}, not a list", kind(value)))?;
    let mut turns = Vec::new();
    for (number, message) in messages.iter().enumerate() {
        let field = |name: &str| {
            let place = format!("messages[{number}].{name}");
            message
                .get(name)
                .ok_or_else(|| format!("{place} is missing"))
                .and_then(|v| text(v, &place))
        };
        let content = field("content")?;
        match field("role")?.as_str() {
            "user" => turns.push((Role::User, content)),
            "assistant" => turns.push((Role::Assistant, content)),
            "system" if number == 0 && system.is_none() => *system = Some(content),
            "system" => return Err(format!("messages[{number}]: a second system text")),
            role => {
                return Err(format!(
                    "messages[{number}].role is {role:?}, not \"user\", \"assistant\" or \"system\""
                ));
            }
        }
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(line: &str) -> Result<Task, String> {
        let place =
            Place { path: Path::new("in.jsonl"), root: Path::new("/"), number: 3, max_images: 2 };
        let value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        place.task(&value)
    }

    #[test]
    fn both_kinds_of_lines_are_understood() {
        let short =
            task(r#"{"question": "why?", "images": "a.png", "id": 7, "extra": 1}"#).unwrap();
        assert_eq!(short.turns, [(Role::User, "why?".to_owned())]);
        assert_eq!((short.images, short.paths), (vec!["a.png".into()], vec!["./a.png".into()]));
        let long = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]}"#;
        let long = task(long).unwrap();
        assert_eq!((long.turns.len(), long.system.as_deref()), (3, Some("s")));
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        let wrong = |line: &str| task(line).unwrap_err();
        assert_eq!(wrong("[]"), "not a JSON object");
        assert_eq!(wrong("{}"), "neither \"question\" nor \"messages\"");
        assert_eq!(wrong(r#"{"question": null}"#), "\"question\" is null, not text");
        assert_eq!(wrong(r#"{"question": " "}"#), "the question is empty");
        assert_eq!(
            wrong(r#"{"question": "a", "id": []}"#),
            "\"id\" is a list, not text or a number"
        );
        assert_eq!(
            wrong(r#"{"question": "a", "images": [1]}"#),
            "\"images\" is a number, not text"
        );
        let many = r#"{"question": "a", "images": ["a", "b", "c"]}"#;
        assert_eq!(wrong(many), "3 pictures, but --max-images is 2");
        let climbing = r#"{"question": "a", "images": ["../nowhere/a.png"]}"#;
        assert_eq!(wrong(climbing), "picture \"../nowhere/a.png\" lies outside of --data-root");
        let role = r#"{"messages": [{"role": "tool", "content": "a"}]}"#;
        assert!(wrong(role).starts_with("messages[0].role is \"tool\""));
        assert_eq!(wrong(r#"{"messages": [{"role": "user"}]}"#), "messages[0].content is missing");
    }
}
