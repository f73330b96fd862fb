//! A file that refuses to hand out pages above a size.
//!
//! A page's header says how large its contents become. The decoder believes it and allocates, so a
//! few bytes could ask for two gigabytes: the number is read here first. In Thrift's compact form
//! a header begins with three 32-bit fields: kind, size decompressed, size in the file.

use std::fs::File;
use std::io::{Chain, Cursor, Read, Seek, SeekFrom};
use std::sync::Mutex;

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// Three fields of at most six bytes.
const PREFIX: u64 = 18;

/// A parquet file that is being read for its pages; not for its footer.
#[derive(Debug)]
pub(super) struct Pages {
    file: Mutex<File>,
    length: u64,
    limit: u64,
}

impl Pages {
    pub fn new(file: File, limit: u64) -> std::io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file: Mutex::new(file), length, limit })
    }

    fn read(&self, start: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = self.file.lock().map_err(|_| general("another thread failed"))?;
        file.seek(SeekFrom::Start(start))?;
        (&mut *file).take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn check(&self, prefix: &[u8]) -> Result<()> {
        let size = decompressed(prefix).ok_or_else(|| general("a broken page header"))?;
        if size > self.limit {
            let limit = self.limit;
            return Err(general(&format!("a page of {size} bytes, the limit is {limit}")));
        }
        Ok(())
    }
}

fn general(problem: &str) -> ParquetError {
    ParquetError::General(problem.to_owned())
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Pages {
    type T = Chain<Cursor<Vec<u8>>, Cursor<Bytes>>;

    /// Called at the beginning of every page header, and nowhere else once the footer is known.
    fn get_read(&self, start: u64) -> Result<Self::T> {
        let prefix = self.read(start, PREFIX)?;
        self.check(&prefix)?;
        // Statistics may make a header long, but not as long as this.
        let rest = self.read(start + prefix.len() as u64, 1 << 16)?;
        Ok(Cursor::new(prefix).chain(Cursor::new(Bytes::from(rest))))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if length as u64 > self.limit {
            let limit = self.limit;
            return Err(general(&format!("a page of {length} bytes, the limit is {limit}")));
        }
        let bytes = self.read(start, length as u64)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes expected at {start}")));
        }
        Ok(Bytes::from(bytes))
    }
}

/// The second field of a page header.
fn decompressed(mut bytes: &[u8]) -> Option<u64> {
    // Field number one further than the last, type 5: a 32-bit integer.
    const NEXT_I32: u8 = 0x15;
    let mut values = [0u64; 2];
    for value in &mut values {
        let (field, rest) = bytes.split_first()?;
        if *field != NEXT_I32 {
            return None;
        }
        let (number, rest) = varint(rest)?;
        // Zigzag: even numbers are positive, and sizes are.
        *value = number >> 1;
        bytes = rest;
    }
    Some(values[1])
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_from_the_header() {
        // Kind 0, 300 bytes decompressed (zigzag 600), 5 in the file.
        assert_eq!(decompressed(&[0x15, 0, 0x15, 0xd8, 0x04, 0x15, 10]), Some(300));
        assert_eq!(decompressed(&[0x15, 0]), None);
        assert_eq!(decompressed(&[0x15, 0, 0x16, 2]), None);
        assert_eq!(decompressed(&[0x15, 0, 0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
