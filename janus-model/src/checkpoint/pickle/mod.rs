//! Reading `pytorch_model.bin`: a zip archive of raw storages and a pickle that describes them.
//!
//! ```text
//! archive/data.pkl     the state dict as a pickle program      -> machine
//! archive/data/0 ..    storages, stored uncompressed           -> zip
//! archive/byteorder    "little"
//! ```
//! Nothing in the pickle is ever executed: [`machine`] refuses each name outside [`allow`]'s list
//! of three functions and ten storage classes, and each instruction that could call something else.
//! [`views`] turns what is left into slices of the mapped file, so a contiguous bf16 storage is not
//! copied.
//!
//! The `pytorch-reader` crate is not used: it copies every tensor, keeps unknown calls as opaque
//! values instead of refusing them, accepts whole modules and the pre-1.6 formats, and its caps on
//! nesting and instructions cannot be set.

mod allow;
mod machine;
mod views;
mod zip;

use std::{collections::HashMap, ops::Range};

pub use zip::ZipError;

use super::{
    error::{CheckpointError, shown},
    lazy::LazyTensor,
    limits::Limits,
    mapped::{MappedFile, ReadAt},
};

/// Why a pickle is refused. `at` is the byte of the instruction inside `data.pkl`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// The archive holds no `data.pkl`, or several.
    #[error("expected one data.pkl in the archive, found {found}")]
    NoPickle {
        /// How many there are.
        found: usize,
    },
    /// The file was written on a big-endian machine.
    #[error("unsupported byte order {}", shown(order))]
    ByteOrder {
        /// What the archive says.
        order: String,
    },
    /// A function or class outside the allow-list.
    #[error("the pickle names {} at byte {at}, which a state dict does not need", shown(&format!("{module}.{name}")))]
    ForbiddenGlobal {
        /// Python module.
        module: String,
        /// Name inside it.
        name: String,
        /// Position.
        at: usize,
    },
    /// A call of something that is not callable in a state dict.
    #[error("the pickle applies {what} to a value that does not allow it, at byte {at}")]
    ForbiddenCall {
        /// Python's name of the instruction.
        what: &'static str,
        /// Position.
        at: usize,
    },
    /// An instruction that exists to call constructors or extensions.
    #[error("the pickle uses the forbidden instruction {opcode} at byte {at}")]
    ForbiddenOpcode {
        /// Python's name of the instruction.
        opcode: &'static str,
        /// Position.
        at: usize,
    },
    /// A byte that is no instruction, or one that a state dict never contains.
    #[error("unknown pickle instruction {opcode:#04x} at byte {at}")]
    UnknownOpcode {
        /// The byte.
        opcode: u8,
        /// Position.
        at: usize,
    },
    /// The pickle ends inside an instruction or without STOP.
    #[error("the pickle is cut off at byte {at}")]
    Truncated {
        /// Position.
        at: usize,
    },
    /// Bytes after STOP.
    #[error("the pickle goes on after its end, at byte {at}")]
    Trailing {
        /// Position.
        at: usize,
    },
    /// An instruction wants more values than there are.
    #[error("the pickle takes a value that is not there, at byte {at}")]
    StackUnderflow {
        /// Position.
        at: usize,
    },
    /// A memo slot that was never filled.
    #[error("the pickle refers to memo {index}, which is empty, at byte {at}")]
    UnknownMemo {
        /// Slot.
        index: u64,
        /// Position.
        at: usize,
    },
    /// A cap of [`Limits`] is exceeded.
    #[error("the pickle's {what} exceeds the limit of {limit}, at byte {at}")]
    Limit {
        /// The quantity.
        what: &'static str,
        /// Cap.
        limit: u64,
        /// Position.
        at: usize,
    },
    /// A value of the wrong kind.
    #[error("the pickle holds {what}, at byte {at}")]
    BadValue {
        /// What was found.
        what: &'static str,
        /// Position.
        at: usize,
    },
    /// The outermost object is no dict from names to tensors.
    #[error("unsupported: the file holds no plain state dict")]
    NotStateDict,
    /// An entry of the state dict is something else than a tensor.
    #[error("unsupported: entry {} of the state dict is not a tensor", shown(key))]
    NotATensor {
        /// The entry.
        key: String,
    },
    /// A tensor name longer than the limit.
    #[error("tensor name {} has {bytes} bytes, the limit is {limit}", shown(name))]
    NameTooLong {
        /// The name.
        name: String,
        /// Its length.
        bytes: usize,
        /// Cap.
        limit: usize,
    },
    /// One name twice.
    #[error("duplicate key {}", shown(key))]
    DuplicateKey {
        /// The name.
        key: String,
    },
    /// A tensor that does not fit its storage.
    #[error("tensor {}: {problem}", shown(tensor))]
    BadView {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: ViewProblem,
    },
}

/// What is wrong with a tensor's view of its storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewProblem {
    /// An element type that is not read here.
    #[error("dtype {} not supported", shown(dtype))]
    UnsupportedDtype {
        /// PyTorch's storage class.
        dtype: String,
    },
    /// The archive has no such storage.
    #[error("storage {} is not in the archive", shown(key))]
    MissingStorage {
        /// Its key.
        key: String,
    },
    /// The view reaches behind its storage, or the storage behind its entry.
    #[error("needs {needed} elements of a storage that holds {held}")]
    StorageTooSmall {
        /// Elements needed.
        needed: u64,
        /// Elements there are.
        held: u64,
    },
    /// Size, stride or offset is impossible.
    #[error("{0}")]
    BadGeometry(&'static str),
}

impl PickleError {
    /// Advice for the person who has the file.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::ForbiddenGlobal { module, .. } if module.starts_with("torch") => {
                "unsupported: only plain state dicts of dense tensors are read; re-save the state \
                 dict with torch.save(model.state_dict(), ..) or as safetensors"
            }
            Self::ForbiddenGlobal { .. }
            | Self::ForbiddenCall { .. }
            | Self::ForbiddenOpcode { .. } => {
                "nothing was executed; do not load this file elsewhere unless you trust its author"
            }
            _ => "unsupported: re-save the state dict, or download the file again",
        }
    }
}

/// The tensors of a `.bin` file, in the order of its state dict.
///
/// # Errors
/// [`CheckpointError::Archive`] or [`CheckpointError::Pickle`].
pub(crate) fn read(file: &MappedFile, limits: &Limits) -> Result<Vec<LazyTensor>, CheckpointError> {
    let archive = |source| CheckpointError::Archive { path: file.path().to_owned(), source };
    let refused = |source| CheckpointError::Pickle { path: file.path().to_owned(), source };
    let io = |source| CheckpointError::io(file.path(), "read", source);
    let entries = zip::directory(file, limits).map_err(archive)?;
    let parts = Parts::find(entries).map_err(refused)?;

    let length = parts.pickle.end - parts.pickle.start;
    if length > limits.pickle_bytes {
        let (what, limit) = ("size of data.pkl", limits.pickle_bytes);
        let path = file.path().to_owned();
        return Err(CheckpointError::Limit { path, what, value: length, limit });
    }
    if let Some(range) = parts.byte_order {
        let order = file.read(range.start..range.end.min(range.start + 16)).map_err(io)?;
        if order != b"little" {
            let order = String::from_utf8_lossy(&order).into_owned();
            return Err(refused(PickleError::ByteOrder { order }));
        }
    }
    let code = file.read(parts.pickle).map_err(io)?;
    let program = machine::run(&code, limits).map_err(refused)?;
    views::tensors(&program, &parts.storages, file, limits).map_err(refused)
}

/// The entries that matter, by role.
struct Parts {
    pickle: Range<u64>,
    byte_order: Option<Range<u64>>,
    /// Key of a storage to its place in the file.
    storages: HashMap<String, Range<u64>>,
}

impl Parts {
    /// Sorts entries into roles; all of them live under one folder, whose name is free.
    fn find(entries: Vec<zip::Entry>) -> Result<Self, PickleError> {
        let is_pickle = |entry: &&zip::Entry| {
            entry.name.split_once('/').map_or(entry.name.as_str(), |(_, name)| name) == "data.pkl"
        };
        let found: Vec<_> = entries.iter().filter(is_pickle).collect();
        let [pickle] = found.as_slice() else {
            return Err(PickleError::NoPickle { found: found.len() });
        };
        let folder = pickle.name.strip_suffix("data.pkl").unwrap_or_default().to_owned();
        let pickle = pickle.data.clone();
        let mut byte_order = None;
        let mut storages = HashMap::new();
        for entry in entries {
            let Some(name) = entry.name.strip_prefix(&folder) else {
                continue;
            };
            match name.strip_prefix("data/") {
                Some(key) => drop(storages.insert(key.to_owned(), entry.data)),
                None if name == "byteorder" => byte_order = Some(entry.data),
                None => {}
            }
        }
        Ok(Self { pickle, byte_order, storages })
    }
}
