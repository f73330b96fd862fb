//! TensorBoard's event files: records of protocol buffers, each with checksums.
//!
//! ```text
//! record  length u64 · masked CRC-32C of it u32 · data · masked CRC-32C of data u32
//! Event   1 wall_time f64 · 2 step i64 · 3 file_version | 5 summary | 7 session_log
//! summary 1 { 1 tag · 2 simple_value f32 } …
//! ```
//! Source: `tensorflow/core/lib/io/record_writer.h`, `util/event.proto`, `framework/summary.proto`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// One event file, open for the next step.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Begins a file for a run of which `step` steps are done. TensorBoard drops what files of
    /// earlier processes say about later steps.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn create(folder: &Path, step: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let (seconds, pid) = (now() as u64, std::process::id());
        // Two files of one process and second differ in the last number.
        for number in 0.. {
            let path =
                folder.join(format!("events.out.tfevents.{seconds:010}.janus.{pid}.{number}"));
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut events = Self { path, file };
                    events.record(&event(0, 3, b"brain.Event:2"))?;
                    // A session that starts here: status 1.
                    events.record(&event(step + 1, 7, &[0x08, 0x01]))?;
                    return Ok(events);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends numbers of a step.
    ///
    /// # Errors
    /// The disk is full.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in scalars {
            let mut entry = Vec::new();
            field(&mut entry, 1, tag.as_bytes());
            // Field 2, four bytes.
            entry.push((2 << 3) | 5);
            entry.extend((*value as f32).to_le_bytes());
            field(&mut summary, 1, &entry);
        }
        self.record(&event(step, 5, &summary))
    }

    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked(crc32c(&length)).to_le_bytes());
        record.extend(data);
        record.extend(masked(crc32c(data)).to_le_bytes());
        self.file.write_all(&record)
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |past| past.as_secs_f64())
}

/// An event of now, with one part of the given number.
fn event(step: u64, number: u8, part: &[u8]) -> Vec<u8> {
    let mut event = vec![(1 << 3) | 1];
    event.extend(now().to_le_bytes());
    event.push(2 << 3);
    varint(&mut event, step);
    field(&mut event, number, part);
    event
}

/// A field of bytes, text or another message.
fn field(target: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    target.push((number << 3) | 2);
    varint(target, bytes.len() as u64);
    target.extend(bytes);
}

fn varint(target: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        target.push(value as u8 | 0x80);
        value >>= 7;
    }
    target.push(value as u8);
}

/// CRC-32 with Castagnoli's polynomial, bits reversed.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// A checksum of data that holds checksums would be weak: it is turned and moved.
pub(super) fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}
