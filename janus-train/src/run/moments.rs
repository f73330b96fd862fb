//! What the optimizer remembers, by parameter path.
//!
//! Burn keys it by parameter ids, which are drawn anew in every process, writes it in the order of
//! a hash map, and starts afresh, without a word, for every parameter whose entry it cannot match.
//! Here each entry is `path/field`, in order, so that equal moments are equal bytes; and what is
//! read must belong to exactly the parameters that learn, with their shapes, or it is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::store::burn_pack::{self, Reader, Scalar, Tensor as Entry, Writer};
use janus_model::ErrorKind;
use janus_model::parameters::{Parameter, computed};

use super::RunError;

/// A parameter that learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learner {
    /// Its path in the module.
    pub path: String,
    /// Its id in this process.
    pub id: u64,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// Every parameter of a module that requires gradients.
pub fn learners<M: Module>(module: &M) -> Vec<Learner> {
    let learner = |Parameter { path, id, shape, .. }| Learner { path, id, shape };
    computed(module).into_iter().filter(Parameter::learns).map(learner).collect()
}

/// Why moments cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MomentsError {
    /// The file is damaged, or none of ours; or it cannot be written.
    #[error("{0}")]
    Pack(String),
    /// A parameter learns, and the file has nothing for it.
    #[error("nothing for {path}, which learns{}", more(*others))]
    Missing {
        /// The first such parameter.
        path: String,
        /// How many others there are.
        others: usize,
    },
    /// The file has something for a parameter that does not learn, or is not there.
    #[error("moments of {path}, which does not learn here{}", more(*others))]
    Extra {
        /// The first such parameter.
        path: String,
        /// How many others there are.
        others: usize,
    },
    /// A moment of another shape than its parameter.
    #[error("{entry} has the shape {found:?}, but its parameter {expected:?}")]
    Shape {
        /// Path and field.
        entry: String,
        /// As in the file.
        found: Vec<usize>,
        /// As in the model.
        expected: Vec<usize>,
    },
}

fn more(others: usize) -> String {
    match others {
        0 => String::new(),
        n => format!(" (and {n} more)"),
    }
}

impl MomentsError {
    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Pack(_) => ErrorKind::BadData,
            _ => ErrorKind::Usage,
        }
    }
}

impl From<burn_pack::Error> for MomentsError {
    fn from(error: burn_pack::Error) -> Self {
        Self::Pack(error.to_string())
    }
}

/// Writes the moments of `learners`.
///
/// The record passes through a file beside `path`, not through memory: it may be twice as large
/// as the model.
///
/// # Errors
/// The record holds moments of something that does not learn, or a file cannot be written.
pub fn write(path: &Path, record: OptimizerRecord, learners: &[Learner]) -> Result<(), RunError> {
    let fail = |source: MomentsError| RunError::Moments { path: path.to_owned(), source };
    let scratch = path.with_file_name(".moments.unsorted.bpk");
    let sorted = record
        .save(&scratch)
        .map_err(|error| MomentsError::Pack(error.to_string()))
        .and_then(|()| sorted(Reader::from_file_exact(&scratch)?, learners))
        .and_then(|writer| Ok(writer.write_to_file(path)?));
    let removed = std::fs::remove_file(&scratch);
    sorted.map_err(|source| match source {
        MomentsError::Pack(text) => match system_error(&text) {
            Some(error) => RunError::io(path, "write", error),
            None => fail(MomentsError::Pack(text)),
        },
        other => fail(other),
    })?;
    removed.map_err(|error| RunError::io(&scratch, "remove", error))
}

/// The system's answer inside words of burn-pack, which keeps the words only.
fn system_error(text: &str) -> Option<io::Error> {
    let (_, rest) = text.rsplit_once("(os error ")?;
    let (number, _) = rest.split_once(')')?;
    number.parse().ok().map(io::Error::from_raw_os_error)
}

/// The same entries under paths, in their order.
fn sorted(reader: Reader, learners: &[Learner]) -> Result<Writer, MomentsError> {
    let paths: BTreeMap<u64, &str> = learners.iter().map(|l| (l.id, l.path.as_str())).collect();
    let renamed = |name: &str| -> Result<String, MomentsError> {
        let (id, field) = name.split_once('.').unwrap_or((name, ""));
        let path = id.parse().ok().and_then(|id: u64| paths.get(&id));
        let path = path.ok_or_else(|| MomentsError::Extra {
            path: format!("the parameter with the id {id}"),
            others: 0,
        })?;
        Ok(format!("{path}/{field}"))
    };
    let mut scalars = BTreeMap::new();
    for (name, value) in reader.scalars() {
        scalars.insert(renamed(name)?, *value);
    }
    let mut tensors = Vec::new();
    for mut tensor in reader.into_tensors()? {
        tensor.name = renamed(&tensor.name)?;
        // Ids mean nothing outside of the process.
        tensor.param_id = None;
        tensors.push(tensor);
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let names = scalars.keys().cloned().chain(tensors.iter().map(|tensor| tensor.name.clone()));
    let fields = fields(names);
    let mut writer = Writer::new(tensors);
    for (name, value) in scalars {
        writer = writer.with_scalar(&name, value);
    }
    for Learner { path, .. } in learners {
        // Nothing for one that has had no gradient yet.
        writer = writer.with_metadata(path, fields.get(path).map_or("", String::as_str));
    }
    Ok(writer)
}

/// For each path the fields it has, in order, as one text.
fn fields(names: impl Iterator<Item = String>) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in names {
        if let Some((path, field)) = name.rsplit_once('/') {
            fields.entry(path.to_owned()).or_default().insert(field.to_owned());
        }
    }
    let joined = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(" ");
    fields.into_iter().map(|(path, set)| (path, joined(set))).collect()
}

/// Reads the moments of exactly `learners`.
///
/// # Errors
/// The file is damaged; a parameter that learns is not in it, one in it does not learn, or a shape
/// differs.
pub fn read(path: &Path, learners: &[Learner]) -> Result<OptimizerRecord, RunError> {
    let fail = |source: MomentsError| RunError::Moments { path: path.to_owned(), source };
    let reader = Reader::from_file_exact(path).map_err(|error| fail(error.into()))?;
    let writer = by_id(reader, learners).map_err(fail)?;
    let bytes = writer.into_bytes().map_err(|error| fail(error.into()))?;
    OptimizerRecord::from_bytes(bytes).map_err(|error| fail(MomentsError::Pack(error.to_string())))
}

/// The same entries under the ids of this process.
fn by_id(reader: Reader, learners: &[Learner]) -> Result<Writer, MomentsError> {
    check_paths(reader.metadata(), learners)?;
    check_fields(&reader)?;
    let by_path: BTreeMap<&str, &Learner> =
        learners.iter().map(|learner| (learner.path.as_str(), learner)).collect();
    let find = |name: &str| -> Result<(&Learner, String), MomentsError> {
        let (path, field) = name.rsplit_once('/').unwrap_or((name, ""));
        let learner = by_path.get(path);
        let learner =
            learner.ok_or_else(|| MomentsError::Extra { path: path.to_owned(), others: 0 })?;
        Ok((learner, format!("{}.{field}", learner.id)))
    };
    let scalars: Vec<(String, Scalar)> = reader
        .scalars()
        .iter()
        .map(|(name, value)| Ok((find(name)?.1, *value)))
        .collect::<Result<_, MomentsError>>()?;
    let mut tensors: Vec<Entry> = Vec::new();
    for mut tensor in reader.into_tensors()? {
        let (learner, name) = find(&tensor.name)?;
        let found = tensor.shape.to_vec();
        if found != learner.shape {
            let (entry, expected) = (tensor.name, learner.shape.clone());
            return Err(MomentsError::Shape { entry, found, expected });
        }
        tensor.name = name;
        tensor.param_id = Some(learner.id);
        tensors.push(tensor);
    }
    let mut writer = Writer::new(tensors);
    for (name, value) in scalars {
        writer = writer.with_scalar(&name, value);
    }
    for learner in learners {
        // Burn chooses the optimizer of a parameter by its path.
        writer = writer.with_metadata(&learner.id.to_string(), &learner.path);
    }
    Ok(writer)
}

/// The file and the model must speak of the same parameters.
fn check_paths(marks: &BTreeMap<String, String>, learners: &[Learner]) -> Result<(), MomentsError> {
    let known: BTreeSet<&str> = learners.iter().map(|learner| learner.path.as_str()).collect();
    let mut missing = known.iter().filter(|path| !marks.contains_key(**path));
    if let Some(path) = missing.next() {
        return Err(MomentsError::Missing { path: (*path).to_owned(), others: missing.count() });
    }
    let mut extra = marks.keys().filter(|path| !known.contains(path.as_str()));
    match extra.next() {
        Some(path) => Err(MomentsError::Extra { path: path.clone(), others: extra.count() }),
        None => Ok(()),
    }
}

/// Each parameter must have all its fields: Burn would start afresh where one is missing.
fn check_fields(reader: &Reader) -> Result<(), MomentsError> {
    let tensors = reader.tensor_names().into_iter().map(str::to_owned);
    let found = fields(reader.scalars().keys().cloned().chain(tensors));
    let none = String::new();
    let differs =
        |(path, fields): &(&String, &String)| found.get(*path).unwrap_or(&none) != *fields;
    let mut lacking = reader.metadata().iter().filter(differs);
    match lacking.next() {
        None => Ok(()),
        Some((path, _)) => {
            Err(MomentsError::Missing { path: path.clone(), others: lacking.count() })
        }
    }
}
