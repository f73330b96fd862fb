//! Which format files are in.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::super::error::DataError;
use super::files::{entries, files_below, parts};
use super::records::Records;
use super::{Format, has_picture_name};

/// Tells the format of a file or folder.
///
/// # Errors
/// [`DataError::File`] where nothing known is found, [`DataError::Io`].
pub fn detect(path: &Path) -> Result<Format, DataError> {
    if path.is_dir() {
        return folder(path);
    }
    // A range of shards is no file itself.
    let first = parts(path, "tar")?.remove(0);
    let mut head = Vec::new();
    let io = |source| DataError::Io { path: path.to_owned(), action: "read", source };
    File::open(&first).and_then(|file| file.take(512).read_to_end(&mut head)).map_err(io)?;
    if head.starts_with(b"PAR1") {
        return Ok(Format::Parquet);
    }
    if head.get(257..262) == Some(b"ustar") {
        return Ok(Format::WebDataset);
    }
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "tar" => Ok(Format::WebDataset),
        "parquet" => Ok(Format::Parquet),
        "txt" => Ok(Format::Text),
        _ => records(path),
    }
}

fn folder(path: &Path) -> Result<Format, DataError> {
    let has = |ending: &str| {
        let wanted = |p: &Path| p.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
        files_below(path, wanted).map(|files| !files.is_empty())
    };
    if has("parquet")? {
        return Ok(Format::Parquet);
    }
    if has("tar")? {
        return Ok(Format::WebDataset);
    }
    let beside = entries(path)?;
    // A text beside a picture makes sidecars, at whatever depth.
    let captioned = |p: &Path| has_picture_name(p) && p.with_extension("txt").is_file();
    if !files_below(path, captioned)?.is_empty() || beside.iter().any(|p| has_picture_name(p)) {
        return Ok(Format::Sidecar);
    }
    if !files_below(path, has_picture_name)?.is_empty() {
        return Ok(Format::Classes);
    }
    Err(DataError::Empty { path: path.to_owned(), found: "no pictures, .tar or .parquet files" })
}

/// By the fields of the first record that is one.
fn records(path: &Path) -> Result<Format, DataError> {
    let records = Records::open(path, false)?;
    for index in 0..records.len().min(100) {
        let Ok(fields) = records.object(index) else { continue };
        let has = |field: &str| fields.contains_key(field);
        if has("messages") {
            return Ok(Format::Messages);
        } else if has("conversations") {
            return Ok(Format::Llava);
        } else if has("input_prompt") && has("output_image") {
            return Ok(Format::ShareGpt4o);
        } else if has("text") || has("content") {
            return Ok(Format::Text);
        }
        let found: Vec<&str> = fields.keys().take(8).map(String::as_str).collect();
        let problem = format!("no known format (fields: {})", found.join(", "));
        return Err(DataError::File { path: path.to_owned(), problem });
    }
    let problem = "no known format: no line of it is a JSON object".to_owned();
    Err(DataError::File { path: path.to_owned(), problem })
}
