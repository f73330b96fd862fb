//! One open weight file: locked, measured, and mapped into memory.
//!
//! Headers are *read* (copied); only tensor data is handed out as slices of the mapping. A mapped
//! page whose file has been cut short kills the process with SIGBUS, hence three precautions:
//! a shared lock is held for as long as the mapping lives, the length is checked again whenever
//! bytes are drawn, and [`super::save`] never writes in place but renames a finished file.
//! Locks on Unix only bind programs that ask for them: a foreign tool that truncates a file
//! while a model is running from it can still do harm.

use std::{
    cell::Cell,
    fs::{File, TryLockError},
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use burn::{
    store::burn_pack,
    tensor::{AllocationProperty, Bytes},
};
use memmap2::Mmap;

use super::error::CheckpointError;

/// Random access to a file's bytes by copy; a slice stands in for a file in tests.
pub(crate) trait ReadAt {
    /// Total length in bytes.
    fn len(&self) -> u64;
    /// A copy of `range`, or an error if it is not wholly inside.
    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>>;
}

impl ReadAt for [u8] {
    fn len(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let start = usize::try_from(range.start).ok();
        let end = usize::try_from(range.end).ok();
        start
            .zip(end)
            .and_then(|(start, end)| self.get(start..end))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// A regular file under a shared lock, with its content mapped read-only.
#[derive(Clone)]
pub(crate) struct MappedFile {
    path: PathBuf,
    inner: Arc<Inner>,
    /// The mapping as reference-counted bytes; each slice keeps file and lock alive.
    bytes: bytes::Bytes,
}

struct Inner {
    map: Mmap,
    file: File,
    /// Whether the system was told that little will be read, here and there.
    scattered: AtomicBool,
}

struct Owner(Arc<Inner>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.map
    }
}

impl MappedFile {
    /// Opens `path` after making sure that it is a regular file, so that a pipe cannot block us.
    ///
    /// # Errors
    /// Absent, not a regular file, unreadable, or locked by a writer.
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io_error = |action| move |source| CheckpointError::io(path, action, source);
        require_regular(path, &std::fs::metadata(path).map_err(io_error("open"))?)?;
        let file = File::open(path).map_err(io_error("open"))?;
        require_regular(path, &file.metadata().map_err(io_error("open"))?)?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CheckpointError::Locked { path: path.to_owned() });
            }
            // Some network file systems know no locks; reading must still work there.
            Err(TryLockError::Error(error)) => {
                tracing::debug!(path = %path.display(), %error, "file cannot be locked");
            }
        }
        // SAFETY: the mapping is private and read-only. Its bytes are only ever interpreted as
        // plain numbers, so a concurrent writer can change values but not break invariants;
        // truncation is treated in the module doc.
        let map = unsafe { Mmap::map(&file) }.map_err(io_error("map"))?;
        let inner = Arc::new(Inner { map, file, scattered: AtomicBool::new(false) });
        let bytes = bytes::Bytes::from_owner(Owner(inner.clone()));
        Ok(Self { path: path.to_owned(), inner, bytes })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The first bytes, for recognising the format.
    pub(crate) fn start(&self) -> Result<Vec<u8>, CheckpointError> {
        self.read(0..ReadAt::len(self).min(512))
            .map_err(|source| CheckpointError::io(&self.path, "read", source))
    }

    /// The bytes of `range` without a copy, unless their address is not a multiple of `align`
    /// (and within [`glance`] even then).
    ///
    /// # Errors
    /// The file has become shorter since it was opened.
    pub(crate) fn draw(
        &self,
        range: Range<usize>,
        align: usize,
    ) -> Result<Bytes, burn_pack::Error> {
        self.check_length()?;
        let slice = self.bytes.slice(range);
        let glancing = GLANCING.get();
        self.announce(glancing);
        if slice.as_ptr().addr().is_multiple_of(align) || glancing {
            Ok(Bytes::from_shared(slice, AllocationProperty::File))
        } else {
            Ok(Bytes::from_bytes_vec(slice.to_vec()))
        }
    }

    /// Reading ahead is a gain for whole tensors, and the better part of the cost for samples.
    fn announce(&self, scattered: bool) {
        if self.inner.scattered.swap(scattered, Ordering::Relaxed) != scattered {
            // Advice: without it all is the same, only slower.
            #[cfg(unix)]
            let _ = self.inner.map.advise(match scattered {
                true => memmap2::Advice::Random,
                false => memmap2::Advice::Normal,
            });
        }
    }

    fn check_length(&self) -> Result<(), burn_pack::Error> {
        let opened = self.inner.map.len() as u64;
        let now = self.inner.file.metadata().map(|metadata| metadata.len());
        match now {
            Ok(now) if now >= opened => Ok(()),
            Ok(now) => Err(burn_pack::Error::IoError(format!(
                "{} was truncated while in use: {opened} bytes when opened, {now} now",
                self.path.display()
            ))),
            Err(error) => Err(burn_pack::Error::IoError(error.to_string())),
        }
    }
}

thread_local! {
    static GLANCING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `look`, which reads little of what it draws, and takes it for bytes: tensors at odd addresses
/// are not copied, and nothing is read ahead. Lazy tensors hide the file they come from, hence a
/// word to this thread in place of an argument.
pub(crate) fn glance<T>(look: impl FnOnce() -> T) -> T {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            GLANCING.set(self.0);
        }
    }
    let _reset = Reset(GLANCING.replace(true));
    look()
}

impl ReadAt for MappedFile {
    fn len(&self) -> u64 {
        self.inner.map.len() as u64
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let length = range.end.checked_sub(range.start).filter(|_| range.end <= ReadAt::len(self));
        let Some(length) = length.and_then(|length| usize::try_from(length).ok()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let mut buffer = vec![0; length];
        let mut file = &self.inner.file;
        file.seek(SeekFrom::Start(range.start))?;
        file.read_exact(&mut buffer)?;
        Ok(buffer)
    }
}

/// Refuses what is not a regular file, naming what it is.
pub(crate) fn require_regular(
    path: &Path,
    metadata: &std::fs::Metadata,
) -> Result<(), CheckpointError> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() { "a folder" } else { "a device, pipe or socket" };
    Err(CheckpointError::NotRegular { path: path.to_owned(), what })
}
