//! Files: flushed, hashed, replaced in one move.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::RunError;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Length and SHA-256 of a file.
pub(super) fn hash(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok((length, hex(hash.finalize().as_slice()))),
            Ok(read) => {
                hash.update(&chunk[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes and flushes a file that nobody looks for yet.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the content of a file that somebody else wrote durable.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    // Windows flushes only what may be written to.
    File::options().read(true).write(cfg!(windows)).open(path)?.sync_all()
}

/// Makes renames durable. Windows cannot open folders and does not need this.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Removes a file, link or folder with all its content.
pub(super) fn remove(path: &Path) -> Result<(), RunError> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RunError::io(path, "remove", error))
        }
        _ => Ok(()),
    }
}

/// Makes `link` name `target`, a sibling; whoever looks sees the old one or the new one.
///
/// A symbolic link, so that `latest/model` is a path; a file with the name where there are none.
pub(super) fn point(link: &Path, target: &str) -> io::Result<()> {
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = link.with_file_name(format!(".{name}.tmp-{}", std::process::id()));
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(target, &unfinished)?;
    #[cfg(not(unix))]
    write(&unfinished, target.as_bytes())?;
    fs::rename(&unfinished, link)?;
    sync_folder(link.parent().unwrap_or(Path::new(".")))
}

/// Bytes that may still be written below a folder.
#[cfg(unix)]
pub(super) fn free_space(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

/// Not known here.
#[cfg(not(unix))]
pub(super) fn free_space(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        write(&path, b"abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(&path).unwrap(), (3, known.to_owned()));
    }

    #[test]
    fn a_folder_knows_its_room() {
        assert_eq!(free_space(Path::new(".")).is_some(), cfg!(unix));
        assert_eq!(free_space(Path::new("no such folder")), None);
    }
}
