//! What is to be answered: pictures of a folder, or lines of a file; one row each.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Component, Path, PathBuf};

use janus_model::processor::Role;
use serde_json::Value;

use super::line::{Place, folder_of};
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

/// Rows as they are read.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<Row, Failure>> + 'a>;

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
            max_images: args.input_limits.images(),
            max_line: args.input_limits.line_size(),
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
    pub fn rows(&self) -> Result<Rows<'_>, Failure> {
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

/// A relative path, the same on every system.
fn shown(name: &Path) -> String {
    let parts = name.components().map(|part| match part {
        Component::Normal(part) => part.to_string_lossy(),
        other => other.as_os_str().to_string_lossy(),
    });
    parts.collect::<Vec<_>>().join("/")
}
