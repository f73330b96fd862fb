//! A folder per class, as ImageNet has it: the class's name is drawn as a picture of it (stage 1).
//!
//! Names come from a table: a JSON object `{"n01440764": "tench"}`, ImageNet's
//! `{"0": ["n01440764", "tench"]}`, or lines `n01440764 tench, Tinca tinca`. Of several names the
//! first counts. Without a table the folder's own name is used, with spaces for underscores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::super::error::{At, DataError, Place, Why, read_small};
use super::super::sample::{Kind, Picture, Sample};
use super::files::{entries, files_below, listing_fingerprint};
use super::{Reader, Spec, has_picture_name};

/// Longest table of names.
const MAX_TABLE: u64 = 16 << 20;

/// Pictures with the names of their classes.
#[derive(Debug)]
pub struct Classes {
    pictures: Vec<(PathBuf, usize)>,
    names: Vec<String>,
}

impl Classes {
    /// Lists the pictures of every class.
    ///
    /// # Errors
    /// [`DataError::File`] for a table that lacks a class or is none, [`DataError::Empty`].
    pub fn open(spec: &Spec) -> Result<Self, DataError> {
        let table = spec.names.as_deref().map(read_table).transpose()?;
        let (mut pictures, mut names) = (Vec::new(), Vec::new());
        for folder in entries(&spec.path)?.into_iter().filter(|path| path.is_dir()) {
            let found = files_below(&folder, has_picture_name)?;
            if found.is_empty() {
                continue;
            }
            pictures.extend(found.into_iter().map(|path| (path, names.len())));
            names.push(name(&folder, table.as_ref(), spec.names.as_deref())?);
        }
        if pictures.is_empty() {
            let found = "no folders with pictures";
            return Err(DataError::Empty { path: spec.path.clone(), found });
        }
        Ok(Self { pictures, names })
    }
}

/// The name of a class.
fn name(
    folder: &Path,
    table: Option<&BTreeMap<String, String>>,
    path: Option<&Path>,
) -> Result<String, DataError> {
    let class = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(table) = table else { return Ok(class.replace('_', " ")) };
    let first = table.get(&class).map(|names| names.split(',').next().unwrap_or_default().trim());
    match first {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(DataError::File {
            path: path.unwrap_or(folder).to_owned(),
            problem: format!("no name for the class {class}"),
        }),
    }
}

fn read_table(path: &Path) -> Result<BTreeMap<String, String>, DataError> {
    let wrong = |problem: String| DataError::File { path: path.to_owned(), problem };
    let bytes = read_small(path, MAX_TABLE).map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8".to_owned()))?;
    if !text.trim_start().starts_with('{') {
        let line = |line: &str| {
            let (class, name) = line.trim().split_once(char::is_whitespace)?;
            Some((class.to_owned(), name.trim().to_owned()))
        };
        return Ok(text.lines().filter_map(line).collect());
    }
    let table: BTreeMap<String, Value> =
        serde_json::from_str(&text).map_err(|error| wrong(format!("not JSON: {error}")))?;
    let entry = |(class, value): (String, Value)| match value {
        Value::String(name) => Ok((class, name)),
        Value::Array(pair) => match &pair[..] {
            [Value::String(class), Value::String(name)] => {
                Ok((class.clone(), name.replace('_', " ")))
            }
            _ => Err(wrong(format!("{class}: not a pair of folder and name"))),
        },
        _ => Err(wrong(format!("{class}: no name"))),
    };
    table.into_iter().map(entry).collect()
}

impl Reader for Classes {
    fn chunks(&self) -> Vec<u64> {
        vec![self.pictures.len() as u64]
    }

    fn sample(&self, index: u64) -> Result<Sample, Why> {
        let (path, class) = &self.pictures[index as usize];
        let picture = Picture::File(path.clone());
        Ok(Sample::captioned(Kind::Draw, "", &self.names[*class], picture))
    }

    fn place(&self, index: u64) -> Place {
        let file = Arc::from(self.pictures[index as usize].0.as_path());
        Place { file, at: At::Whole }
    }

    fn fingerprint(&self) -> [u8; 32] {
        listing_fingerprint(self.pictures.iter().map(|(path, _)| path.as_path()))
    }

    fn kind(&self) -> Option<Kind> {
        Some(Kind::Draw)
    }
}
