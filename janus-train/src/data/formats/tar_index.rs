//! Where the members of a tar shard lie, found by reading its headers alone.
//!
//! Headers are read raw: long names and extended headers are understood here, with a cap on their
//! size, so that no header can make us allocate. Nothing is ever unpacked to disk, so a name can
//! do no harm; those that would elsewhere are refused all the same, because such a shard was not
//! made for what it is used for.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

use super::super::error::shown;

/// Longest name, or block of extended headers.
const MAX_HEADER: u64 = 64 << 10;

/// A member of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub name: String,
    /// Of its contents, in the file.
    pub offset: u64,
    pub size: u64,
    /// Why it cannot be used.
    pub problem: Option<&'static str>,
}

/// A shard's members as far as it can be read, a fingerprint of them, and why it ends early.
pub(super) struct Index {
    pub members: Vec<Member>,
    pub fingerprint: [u8; 32],
    pub damage: Option<String>,
}

/// Reads the headers of a shard.
pub(super) fn index(path: &Path) -> std::io::Result<Index> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut members = Vec::new();
    // Without a buffer: every seek would throw it away.
    let mut archive = Archive::new(file);
    let damage = walk(&mut archive, length, &mut members).err();
    let mut hash = Sha256::new();
    for member in &members {
        hash.update(member.name.as_bytes());
        hash.update([0]);
        hash.update(member.offset.to_le_bytes());
        hash.update(member.size.to_le_bytes());
    }
    Ok(Index { members, fingerprint: hash.finalize().into(), damage })
}

fn walk(archive: &mut Archive<File>, length: u64, members: &mut Vec<Member>) -> Result<(), String> {
    // The tar crate quotes names and numbers as they are.
    let text = |error: std::io::Error| shown(&error.to_string());
    let (mut long_name, mut long_size) = (None, None);
    for entry in archive.entries_with_seek().map_err(text)?.raw(true) {
        let mut entry = entry.map_err(text)?;
        let kind = entry.header().entry_type();
        let (offset, size) = (entry.raw_file_position(), long_size.take().unwrap_or(entry.size()));
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            let bytes = header_bytes(&mut entry, size)?;
            if kind.is_gnu_longname() {
                long_name = Some(name_of(&bytes));
            } else {
                extended(&bytes, &mut long_name, &mut long_size)?;
            }
            continue;
        }
        if kind.is_gnu_longlink() || kind.is_pax_global_extensions() {
            continue;
        }
        if size != entry.size() {
            // The headers disagree, and the reader's next stop follows the other one.
            return Err(format!("a member with two sizes, {size} and {}", entry.size()));
        }
        let name = long_name.take().unwrap_or_else(|| name_of(&entry.path_bytes()));
        if kind.is_dir() {
            continue;
        }
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(format!("cut off inside {}", shown(&name)));
        }
        let problem = problem(kind, &name);
        members.push(Member { name, offset, size, problem });
    }
    Ok(())
}

fn header_bytes(entry: &mut impl Read, size: u64) -> Result<Vec<u8>, String> {
    if size > MAX_HEADER {
        return Err(format!("a header of {size} bytes, the limit is {MAX_HEADER}"));
    }
    let mut bytes = Vec::new();
    entry.take(size).read_to_end(&mut bytes).map_err(|error| shown(&error.to_string()))?;
    if (bytes.len() as u64) < size { Err("cut off inside a header".to_owned()) } else { Ok(bytes) }
}

fn name_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Name and size of the next member out of extended headers: `LENGTH KEY=VALUE\n`, repeated.
fn extended(
    mut bytes: &[u8],
    name: &mut Option<String>,
    size: &mut Option<u64>,
) -> Result<(), String> {
    let broken = || "a broken extended header".to_owned();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length = std::str::from_utf8(&bytes[..space]).ok().and_then(|n| n.parse().ok());
        let length: usize = length.ok_or_else(broken)?;
        let record = bytes.get(space + 1..length).ok_or_else(broken)?;
        let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key == b"path" {
            *name = Some(name_of(value));
        } else if key == b"size" {
            let number = std::str::from_utf8(value).ok().and_then(|n| n.parse().ok());
            *size = Some(number.ok_or_else(broken)?);
        } else if key.starts_with(b"GNU.sparse.") {
            return Err("a sparse member".to_owned());
        }
        bytes = &bytes[length..];
    }
    Ok(())
}

fn problem(kind: EntryType, name: &str) -> Option<&'static str> {
    let parts = || name.split(['/', '\\']);
    if kind.is_symlink() || kind.is_hard_link() {
        return Some("is a link");
    }
    if kind.is_gnu_sparse() {
        return Some("is a sparse file");
    }
    if !(kind.is_file() || kind.is_contiguous()) {
        return Some("is a device, pipe or something unknown, not a file");
    }
    let leads_out = name.starts_with(['/', '\\']) || parts().any(|part| part == "..");
    leads_out.then_some("has a name that leads out of the archive")
}
