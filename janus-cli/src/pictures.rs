//! Pictures in and out of files.

use std::fs;
use std::io::Write;
use std::path::Path;

use janus_model::processor::{
    ImageError, ProcessorError, RgbImage8, decode_image, load_image, read_file,
};

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

/// The bytes of a picture's file, within the limits.
///
/// # Errors
/// As [`read`], without looking inside.
pub fn read_bytes(path: &Path, how: &ImageArgs) -> Result<Vec<u8>, Failure> {
    read_file(path, how.limits().max_bytes)
        .map_err(|error| ProcessorError::from(ImageError::from(error)).into())
}

/// The picture in the bytes of a file.
///
/// # Errors
/// As [`read`].
pub fn decode(path: &Path, bytes: &[u8], how: &ImageArgs) -> Result<RgbImage8, Failure> {
    decode_image(bytes, &how.limits(), how.orientation()).map_err(|error| {
        let error = ImageError::File { path: path.to_owned(), source: Box::new(error) };
        ProcessorError::from(error).into()
    })
}

/// Whether a name ends as those of pictures do.
pub fn has_picture_name(path: &Path) -> bool {
    let known = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| known.iter().any(|known| ending.eq_ignore_ascii_case(known)))
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
