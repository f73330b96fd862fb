//! Pictures in and out of files.

use std::fs;
use std::io::Write;
use std::path::Path;

use janus_model::processor::{ProcessorError, RgbImage8, load_image};

use crate::args::ImageArgs;
use crate::report::Failure;

/// Reads one picture of a file.
///
/// # Errors
/// What is wrong with it, and what limit it exceeds.
pub fn read(path: &Path, how: &ImageArgs) -> Result<RgbImage8, Failure> {
    load_image(path, &how.limits(), how.orientation())
        .map_err(|error| ProcessorError::from(error).into())
}

/// Writes a file under another name first: nobody ever sees half of it.
///
/// # Errors
/// The folder cannot be written to, or the disk is full.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!(".{name}.tmp-{}", std::process::id()));
    let put = || {
        let mut file = fs::File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    put().map_err(|error| {
        // The cause matters more than a leftover.
        let _ = fs::remove_file(&unfinished);
        Failure::io(path, "write", &error)
    })
}
