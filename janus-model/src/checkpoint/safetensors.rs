//! Reading a safetensors file: a JSON header, then the tensors' bytes without gaps.
//!
//! ```text
//! u64 LE header length | {"name": {"dtype", "shape", "data_offsets"}, ..} | data
//! ```
//! The header is validated here rather than by the `safetensors` crate, because that crate lets a
//! repeated key pass until it looks like a wrong offset, does not name the tensor at fault, and
//! admits headers of 100 MB. Everything accepted here is accepted there too; a test asserts it.
//! Format: <https://github.com/huggingface/safetensors>.

use std::{collections::HashSet, fmt, ops::Range};

use burn::tensor::{BoolStore, DType};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, Visitor},
};

use super::{
    error::{CheckpointError, shown},
    lazy::{self, LazyTensor},
    limits::Limits,
    mapped::{MappedFile, ReadAt},
};
use crate::error::printable;

/// Bytes of the length field before the header.
const LENGTH_BYTES: u64 = 8;

/// What is wrong with a safetensors header.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Fewer than eight bytes: not even a header length.
    #[error("the file has {found} bytes, too few to hold a header")]
    HeaderTooSmall {
        /// Length of the file.
        found: u64,
    },
    /// The header is longer than the limit.
    #[error("the header claims {length} bytes, the limit is {limit}")]
    HeaderTooLarge {
        /// Claimed length.
        length: u64,
        /// Cap.
        limit: u64,
    },
    /// The header would end behind the file.
    #[error("the header claims {length} bytes, the file has only {file}")]
    InvalidHeaderLength {
        /// Claimed length.
        length: u64,
        /// Length of the file.
        file: u64,
    },
    /// The header is not UTF-8.
    #[error("the header is not UTF-8")]
    NotUtf8 {
        /// Where it stops being UTF-8.
        source: std::str::Utf8Error,
    },
    /// The header is not the expected JSON.
    #[error("the header is not valid JSON: {reason}")]
    NotJson {
        /// The parser's complaint.
        reason: String,
    },
    /// One tensor's entry does not have the expected form.
    #[error("bad entry for tensor {}: {message}", shown(tensor))]
    BadEntry {
        /// The tensor.
        tensor: String,
        /// The parser's complaint.
        message: String,
    },
    /// The same name appears twice.
    #[error("duplicate key {}", shown(key))]
    DuplicateKey {
        /// The name.
        key: String,
    },
    /// More tensors than the limit.
    #[error("more than {limit} tensors")]
    TooManyTensors {
        /// Cap.
        limit: usize,
    },
    /// A name longer than the limit.
    #[error("tensor name {} has {bytes} bytes, the limit is {limit}", shown(name))]
    NameTooLong {
        /// The name.
        name: String,
        /// Its length.
        bytes: usize,
        /// Cap.
        limit: usize,
    },
    /// More dimensions than the limit.
    #[error("tensor {} has rank {rank}, the limit is {limit}", shown(tensor))]
    RankTooHigh {
        /// The tensor.
        tensor: String,
        /// Its number of dimensions.
        rank: usize,
        /// Cap.
        limit: usize,
    },
    /// A byte range overlaps its predecessor, leaves a gap, or ends before it starts.
    #[error(
        "tensor {} lies at bytes {begin}..{end}, expected it to begin at {expected}",
        shown(tensor)
    )]
    InvalidOffset {
        /// The tensor.
        tensor: String,
        /// First byte, relative to the data.
        begin: u64,
        /// Byte after the last.
        end: u64,
        /// Where the previous tensor ended.
        expected: u64,
    },
    /// The tensors do not fill the file exactly.
    #[error("the tensors need {expected} bytes of data, the file has {found}")]
    MetadataIncompleteBuffer {
        /// End of the last tensor.
        expected: u64,
        /// Bytes after the header.
        found: u64,
    },
    /// Shape times element size is not the length of the byte range.
    #[error(
        "tensor {} needs {expected} bytes by shape and dtype, its range has {found}",
        shown(tensor)
    )]
    TensorInvalidInfo {
        /// The tensor.
        tensor: String,
        /// Bytes by shape and type.
        expected: u64,
        /// Bytes by offsets.
        found: u64,
    },
    /// The size of a tensor does not fit 64 bits.
    #[error("the size of tensor {} overflows", shown(tensor))]
    ValidationOverflow {
        /// The tensor.
        tensor: String,
    },
    /// An element type that is not read here.
    #[error("dtype {} not supported for tensor {}", shown(dtype), shown(tensor))]
    UnsupportedDtype {
        /// The tensor.
        tensor: String,
        /// The type as written.
        dtype: String,
    },
}

/// One tensor of a validated header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Byte range relative to the start of the data.
    pub(crate) range: Range<u64>,
}

/// The tensors of a file, in the order of their bytes.
///
/// # Errors
/// [`CheckpointError::Header`] for whatever is wrong with the header, I/O errors otherwise.
pub(crate) fn read(file: &MappedFile, limits: &Limits) -> Result<Vec<LazyTensor>, CheckpointError> {
    let bad = |source| CheckpointError::Header { path: file.path().to_owned(), source };
    let io = |source| CheckpointError::io(file.path(), "read", source);
    let total = ReadAt::len(file);
    if total < LENGTH_BYTES {
        return Err(bad(HeaderError::HeaderTooSmall { found: total }));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    length.copy_from_slice(&file.read(0..LENGTH_BYTES).map_err(io)?);
    let data = data_start(u64::from_le_bytes(length), total, limits).map_err(bad)?;
    let header = file.read(LENGTH_BYTES..data).map_err(io)?;
    let entries = parse(&header, total - data, limits).map_err(bad)?;
    Ok(entries.into_iter().map(|entry| locate(file, data, entry)).collect())
}

/// Where the data starts, if a header of `length` bytes is believable in a file of `total`.
fn data_start(length: u64, total: u64, limits: &Limits) -> Result<u64, HeaderError> {
    if length > limits.header_bytes {
        return Err(HeaderError::HeaderTooLarge { length, limit: limits.header_bytes });
    }
    if length > total - LENGTH_BYTES {
        return Err(HeaderError::InvalidHeaderLength { length, file: total });
    }
    Ok(LENGTH_BYTES + length)
}

fn locate(file: &MappedFile, data: u64, entry: Entry) -> LazyTensor {
    // The whole file is mapped and `parse` has checked the ranges, so positions fit `usize`.
    let range = (data + entry.range.start) as usize..(data + entry.range.end) as usize;
    lazy::mapped(file, entry.name, entry.dtype, entry.shape, range)
}

/// Parses and validates a header for `data_bytes` bytes of data.
///
/// # Errors
/// See [`HeaderError`].
pub(crate) fn parse(
    header: &[u8],
    data_bytes: u64,
    limits: &Limits,
) -> Result<Vec<Entry>, HeaderError> {
    let text = std::str::from_utf8(header).map_err(|source| HeaderError::NotUtf8 { source })?;
    let mut problem = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = HeaderSeed { limits, problem: &mut problem }
        .deserialize(&mut json)
        .and_then(|entries| json.end().map(|()| entries));
    let mut entries = match (parsed, problem) {
        (_, Some(problem)) => return Err(problem),
        (Err(error), None) => return Err(HeaderError::NotJson { reason: complaint(&error) }),
        (Ok(entries), None) => entries,
    };
    entries.sort_by_key(|entry| (entry.range.start, entry.range.end));
    check_layout(&entries, data_bytes)?;
    Ok(entries)
}

/// Ranges must follow each other without gap or overlap, have the size of their tensor, and fill
/// the data exactly.
fn check_layout(entries: &[Entry], data_bytes: u64) -> Result<(), HeaderError> {
    let mut expected_start = 0;
    for entry in entries {
        let (begin, end, tensor) = (entry.range.start, entry.range.end, || entry.name.clone());
        if begin != expected_start || end < begin {
            let expected = expected_start;
            return Err(HeaderError::InvalidOffset { tensor: tensor(), begin, end, expected });
        }
        let expected = lazy::elements(&entry.shape)
            .and_then(|elements| elements.checked_mul(entry.dtype.size()))
            .ok_or_else(|| HeaderError::ValidationOverflow { tensor: tensor() })?
            as u64;
        if end - begin != expected {
            let found = end - begin;
            return Err(HeaderError::TensorInvalidInfo { tensor: tensor(), expected, found });
        }
        expected_start = end;
    }
    if expected_start != data_bytes {
        let expected = expected_start;
        return Err(HeaderError::MetadataIncompleteBuffer { expected, found: data_bytes });
    }
    Ok(())
}

/// The element types of the format that a Janus checkpoint can hold: the floats of its weights,
/// and the whole numbers of buffers that are dropped.
fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "I64" => DType::I64,
        "I32" => DType::I32,
        "I16" => DType::I16,
        "I8" => DType::I8,
        "U8" => DType::U8,
        "BOOL" => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}

/// The format's name for an element type; `None` for types that are never written.
pub(crate) fn dtype_name(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I64 => "I64",
        DType::I32 => "I32",
        DType::I16 => "I16",
        DType::I8 => "I8",
        DType::U8 => "U8",
        DType::Bool(BoolStore::Native) => "BOOL",
        _ => return None,
    })
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Walks the header object key by key, so that caps act before memory is used and every complaint
/// keeps the tensor's name. `problem` carries the typed error past serde.
struct HeaderSeed<'a> {
    limits: &'a Limits,
    problem: &'a mut Option<HeaderError>,
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = Vec<Entry>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Entry>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object that maps tensor names to dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Entry>, A::Error> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let mut stop = |problem: HeaderError| {
                let message = problem.to_string();
                self.problem.get_or_insert(problem);
                A::Error::custom(message)
            };
            check_name(&name, entries.len(), self.limits).map_err(&mut stop)?;
            if !seen.insert(name.clone()) {
                return Err(stop(HeaderError::DuplicateKey { key: name }));
            }
            if name == "__metadata__" {
                let metadata = map.next_value::<super::json::UniqueMap<String>>();
                metadata.map_err(|error| {
                    stop(HeaderError::BadEntry { tensor: name, message: complaint(&error) })
                })?;
                continue;
            }
            let raw = map.next_value::<RawEntry>().map_err(|error| {
                stop(HeaderError::BadEntry { tensor: name.clone(), message: complaint(&error) })
            })?;
            entries.push(check_entry(name, raw, self.limits).map_err(stop)?);
        }
        Ok(entries)
    }
}

/// The parser's words, which may quote the file.
fn complaint(error: &dyn std::error::Error) -> String {
    printable(&error.to_string(), 300)
}

fn check_name(name: &str, so_far: usize, limits: &Limits) -> Result<(), HeaderError> {
    if so_far >= limits.tensors {
        return Err(HeaderError::TooManyTensors { limit: limits.tensors });
    }
    if name.len() > limits.name_bytes {
        let (bytes, limit) = (name.len(), limits.name_bytes);
        return Err(HeaderError::NameTooLong { name: name.to_owned(), bytes, limit });
    }
    Ok(())
}

fn check_entry(name: String, raw: RawEntry, limits: &Limits) -> Result<Entry, HeaderError> {
    if raw.shape.len() > limits.rank {
        let rank = raw.shape.len();
        return Err(HeaderError::RankTooHigh { tensor: name, rank, limit: limits.rank });
    }
    let Some(dtype) = dtype(&raw.dtype) else {
        return Err(HeaderError::UnsupportedDtype { tensor: name, dtype: raw.dtype });
    };
    let shape = raw.shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>();
    let Ok(shape) = shape else {
        return Err(HeaderError::ValidationOverflow { tensor: name });
    };
    let (start, end) = raw.data_offsets;
    Ok(Entry { name, dtype, shape, range: start..end })
}
