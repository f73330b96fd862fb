//! One process per run folder.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use super::RunError;

/// Held until dropped; the system lets go of it however a process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a run folder, and leaves our number in it.
    ///
    /// The file stays when the lock goes: removing it could take it from under somebody who has
    /// just opened it.
    pub fn take(dir: &Path) -> Result<Self, RunError> {
        let path = dir.join("LOCK");
        let io = |action| {
            let path = &path;
            move |error| RunError::io(path, action, error)
        };
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(io("create"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Where it cannot be read, it is still locked.
                let _ = (&mut file).take(32).read_to_string(&mut text);
                let pid = text.trim().parse().ok();
                return Err(RunError::Locked { path: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
        }
        let mut sign = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        sign().map_err(io("write"))?;
        Ok(Self { _file: file })
    }
}
