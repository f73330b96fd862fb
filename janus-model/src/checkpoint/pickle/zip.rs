//! The archive around a PyTorch checkpoint: a zip file whose entries are stored, not compressed.
//!
//! `torch.save` never compresses, so only stored entries are accepted: there is nothing to
//! inflate, hence no zip bomb, and tensor bytes can be mapped in place. The directory is read here
//! rather than by a zip library because such libraries are lenient where a checkpoint must not be:
//! repeated names, overlapping entries, sizes that disagree between the two headers of an entry,
//! or an end record that is not at the end.
//! Format: PKWARE APPNOTE 6.3.10, §4.3 and §4.5.3 (zip64).

use std::{collections::HashSet, io, ops::Range};

use crate::checkpoint::{error::shown, limits::Limits, mapped::ReadAt};

const END_MAGIC: u32 = 0x0605_4b50;
const END_BYTES: u64 = 22;
const END64_MAGIC: u32 = 0x0606_4b50;
const END64_BYTES: u64 = 56;
const LOCATOR_MAGIC: u32 = 0x0706_4b50;
const LOCATOR_BYTES: u64 = 20;
const CENTRAL_MAGIC: u32 = 0x0201_4b50;
const CENTRAL_BYTES: usize = 46;
const LOCAL_MAGIC: u32 = 0x0403_4b50;
const LOCAL_BYTES: u64 = 30;
const ZIP64_EXTRA: u16 = 1;
const FLAG_ENCRYPTED: u16 = 1;
/// Sizes follow the data instead of standing in the local header (PyTorch's writer does this).
const FLAG_SIZES_LATER: u16 = 1 << 3;

/// What is wrong with the archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZipError {
    /// No end record at the end of the file: truncated, or bytes were appended.
    #[error("no zip directory at the end of the file: truncated, or something was appended")]
    NoDirectory,
    /// Numbers of the end records contradict each other or the file.
    #[error("the zip directory contradicts itself or the file: {0}")]
    BadDirectory(&'static str),
    /// A count or size above its limit.
    #[error("{what} is {value}, the limit is {limit}")]
    Limit {
        /// The quantity.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Cap.
        limit: u64,
    },
    /// An entry whose records are damaged or contradict each other.
    #[error("entry {}: {problem}", shown(entry))]
    BadEntry {
        /// The entry.
        entry: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// An entry whose name could escape a folder, or is not text.
    #[error("entry name {} is not allowed", shown(entry))]
    BadName {
        /// The name.
        entry: String,
    },
    /// Two entries of one name.
    #[error("duplicate entry {}", shown(entry))]
    Duplicate {
        /// The name.
        entry: String,
    },
    /// An encrypted entry.
    #[error("entry {} is encrypted", shown(entry))]
    Encrypted {
        /// The name.
        entry: String,
    },
    /// A compressed entry; `torch.save` writes none.
    #[error("entry {} is compressed (method {method}); torch.save only stores", shown(entry))]
    Compressed {
        /// The name.
        entry: String,
        /// The zip method number.
        method: u16,
    },
    /// The file could not be read.
    #[error("cannot read the archive")]
    Io(#[from] io::Error),
}

/// A stored entry and where its bytes lie in the file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) data: Range<u64>,
}

/// Where the central directory lies and how many entries it has.
struct Directory {
    entries: u64,
    range: Range<u64>,
}

/// A central record before its local header has been looked at.
struct Record {
    name: String,
    flags: u16,
    size: u64,
    local: u64,
}

/// All entries of an archive, sorted by position.
///
/// # Errors
/// See [`ZipError`]; nothing is allocated for a count or length before it is checked.
pub(crate) fn directory<R: ReadAt + ?Sized>(
    source: &R,
    limits: &Limits,
) -> Result<Vec<Entry>, ZipError> {
    let directory = find_directory(source)?;
    let bytes = directory.range.end - directory.range.start;
    check_limit("zip directory size", bytes, limits.zip_directory_bytes)?;
    check_limit("number of zip entries", directory.entries, limits.tensors as u64)?;
    if directory.entries.saturating_mul(CENTRAL_BYTES as u64) > bytes {
        return Err(ZipError::BadDirectory("more entries than fit"));
    }
    let records = read_records(&source.read(directory.range.clone())?, directory.entries)?;
    let mut names = HashSet::new();
    let mut entries = Vec::with_capacity(records.len());
    for record in records {
        if !names.insert(record.name.clone()) {
            return Err(ZipError::Duplicate { entry: record.name });
        }
        let header = record.local;
        entries.push((header, locate(source, record, directory.range.start)?));
    }
    entries.sort_by_key(|(header, _)| *header);
    for pair in entries.windows(2) {
        if pair[0].1.data.end > pair[1].0 {
            let entry = pair[1].1.name.clone();
            return Err(ZipError::BadEntry { entry, problem: "overlaps another entry" });
        }
    }
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

fn check_limit(what: &'static str, value: u64, limit: u64) -> Result<(), ZipError> {
    if value > limit { Err(ZipError::Limit { what, value, limit }) } else { Ok(()) }
}

/// Reads the end record, which must be the last thing in the file, and its zip64 form if present.
fn find_directory<R: ReadAt + ?Sized>(source: &R) -> Result<Directory, ZipError> {
    let end_at = source.len().checked_sub(END_BYTES).ok_or(ZipError::NoDirectory)?;
    let end = source.read(end_at..source.len())?;
    if u32_at(&end, 0) != Some(END_MAGIC) || u16_at(&end, 20) != Some(0) {
        return Err(ZipError::NoDirectory);
    }
    let field16 = |at| u16_at(&end, at).unwrap_or_default();
    let field32 = |at| u32_at(&end, at).unwrap_or_default();
    let (disks, entries) = ((field16(4), field16(6)), (field16(8), field16(10)));
    let (size, offset) = (field32(12), field32(16));
    if disks != (0, 0) || entries.0 != entries.1 {
        return Err(ZipError::BadDirectory("split over several disks"));
    }
    let Some(wide) = find_directory64(source, end_at)? else {
        return place(u64::from(entries.1), u64::from(size), u64::from(offset), end_at);
    };
    // PyTorch writes zip64 records even where the short ones suffice; they must then agree.
    let found = &wide.range;
    let agrees = |short: u32, ones: u32, long| short == ones || u64::from(short) == long;
    if agrees(entries.1.into(), u16::MAX.into(), wide.entries)
        && agrees(size, u32::MAX, found.end - found.start)
        && agrees(offset, u32::MAX, found.start)
    {
        Ok(wide)
    } else {
        Err(ZipError::BadDirectory("its zip64 record says otherwise"))
    }
}

/// Follows the zip64 locator that may stand right before the end record.
fn find_directory64<R: ReadAt + ?Sized>(
    source: &R,
    end_at: u64,
) -> Result<Option<Directory>, ZipError> {
    const LYING: ZipError = ZipError::BadDirectory("bad zip64 record");
    let Some(locator_at) = end_at.checked_sub(LOCATOR_BYTES) else { return Ok(None) };
    let locator = source.read(locator_at..end_at)?;
    if u32_at(&locator, 0) != Some(LOCATOR_MAGIC) {
        return Ok(None);
    }
    let end64_at = u64_at(&locator, 8).ok_or(LYING)?;
    if end64_at.checked_add(END64_BYTES).is_none_or(|end| end > locator_at) {
        return Err(LYING);
    }
    let end64 = source.read(end64_at..end64_at + END64_BYTES)?;
    let field = |at| u64_at(&end64, at).unwrap_or_default();
    if u32_at(&end64, 0) != Some(END64_MAGIC) || field(24) != field(32) || field(16) != 0 {
        return Err(LYING);
    }
    place(field(32), field(40), field(48), end64_at).map(Some)
}

/// The directory must end exactly where the end records begin.
fn place(entries: u64, size: u64, offset: u64, end: u64) -> Result<Directory, ZipError> {
    if offset.checked_add(size) != Some(end) {
        return Err(ZipError::BadDirectory("its end is not where the end record starts"));
    }
    Ok(Directory { entries, range: offset..end })
}

fn read_records(central: &[u8], count: u64) -> Result<Vec<Record>, ZipError> {
    let mut records = Vec::new();
    let mut rest = central;
    for _ in 0..count {
        let (record, used) = read_record(rest)?;
        records.push(record);
        rest = &rest[used..];
    }
    if rest.is_empty() {
        Ok(records)
    } else {
        Err(ZipError::BadDirectory("more data than entries"))
    }
}

/// Reads one central record; returns it with its length.
fn read_record(bytes: &[u8]) -> Result<(Record, usize), ZipError> {
    const CUT: ZipError = ZipError::BadDirectory("an entry is cut off");
    if bytes.len() < CENTRAL_BYTES || u32_at(bytes, 0) != Some(CENTRAL_MAGIC) {
        return Err(CUT);
    }
    let field16 = |at| u16_at(bytes, at).unwrap_or_default();
    let field32 = |at| u32_at(bytes, at).unwrap_or_default();
    let (name_bytes, extra_bytes) = (usize::from(field16(28)), usize::from(field16(30)));
    let extra_at = CENTRAL_BYTES + name_bytes;
    let used = extra_at + extra_bytes + usize::from(field16(32));
    let name = bytes.get(CENTRAL_BYTES..extra_at).ok_or(CUT)?;
    let extra = bytes.get(extra_at..extra_at + extra_bytes).ok_or(CUT)?;
    if bytes.len() < used {
        return Err(CUT);
    }
    let name = safe_name(name)?;
    let (flags, method) = (field16(8), field16(10));
    if flags & FLAG_ENCRYPTED != 0 {
        return Err(ZipError::Encrypted { entry: name });
    }
    if method != 0 {
        return Err(ZipError::Compressed { entry: name, method });
    }
    let sizes = [field32(24), field32(20), field32(42)];
    let Some([size, packed, local]) = widen(sizes, extra) else {
        return Err(ZipError::BadEntry { entry: name, problem: "bad zip64 sizes" });
    };
    if size != packed {
        return Err(ZipError::BadEntry { entry: name, problem: "stored, but of two sizes" });
    }
    Ok((Record { name, flags, size, local }, used))
}

/// Replaces every field that reads "all ones" by its 64-bit value from the extra field.
fn widen(fields: [u32; 3], extra: &[u8]) -> Option<[u64; 3]> {
    let mut wide = fields.map(u64::from);
    if !fields.contains(&u32::MAX) {
        return Some(wide);
    }
    let mut rest = extra;
    while u16_at(rest, 0)? != ZIP64_EXTRA {
        rest = rest.get(4 + usize::from(u16_at(rest, 2)?)..)?;
    }
    let mut values = rest.get(4..4 + usize::from(u16_at(rest, 2)?))?;
    for (field, wide) in fields.iter().zip(&mut wide) {
        if *field == u32::MAX {
            *wide = u64_at(values, 0)?;
            values = values.get(8..)?;
        }
    }
    Some(wide)
}

/// Entry names are used as keys only, but one that would leave a folder is a sign of an attack.
fn safe_name(bytes: &[u8]) -> Result<String, ZipError> {
    let name = String::from_utf8_lossy(bytes).into_owned();
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let bad_character = |c: char| c.is_control() || c == '\\' || c == ':' || c == '\u{fffd}';
    if name.split('/').all(plain) && !name.contains(bad_character) {
        Ok(name)
    } else {
        Err(ZipError::BadName { entry: name })
    }
}

/// Finds an entry's data behind its local header, after comparing the two headers.
fn locate<R: ReadAt + ?Sized>(source: &R, record: Record, limit: u64) -> Result<Entry, ZipError> {
    let bad = |problem| ZipError::BadEntry { entry: record.name.clone(), problem };
    let name_at = record.local.checked_add(LOCAL_BYTES).ok_or(bad("outside the file"))?;
    let name_end = name_at.saturating_add(record.name.len() as u64);
    if name_end > limit {
        return Err(bad("outside the file"));
    }
    let header = source.read(record.local..name_end)?;
    if u32_at(&header, 0) != Some(LOCAL_MAGIC) || header.get(30..) != Some(record.name.as_bytes()) {
        return Err(bad("its two headers name different things"));
    }
    let field16 = |at| u16_at(&header, at).unwrap_or_default();
    let field32 = |at| u64::from(u32_at(&header, at).unwrap_or_default());
    let deferred = record.flags & FLAG_SIZES_LATER != 0;
    let agrees =
        |size| size == record.size || size == u64::from(u32::MAX) || (deferred && size == 0);
    let same_name_length = usize::from(field16(26)) == record.name.len();
    let stored = field16(6) & FLAG_ENCRYPTED == 0 && field16(8) == 0;
    if !stored || !same_name_length || !agrees(field32(18)) || !agrees(field32(22)) {
        return Err(bad("its two headers contradict each other"));
    }
    let start = name_end + u64::from(field16(28));
    let end = start.checked_add(record.size).filter(|&end| end <= limit);
    let end = end.ok_or(bad("its data ends outside the file"))?;
    Ok(Entry { name: record.name, data: start..end })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
