//! Lines of text from outside: bounded, one at a time, whatever they hold.

use std::fmt;
use std::io::{self, BufRead};

/// Why a line cannot be used. The lines after it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// More bytes than the limit.
    TooLong { limit: u64 },
    /// Not UTF-8 from this byte on.
    NotUtf8 { at: usize },
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit } => write!(f, "the line has more than {limit} bytes"),
            Self::NotUtf8 { at } => write!(f, "the line is not UTF-8 at byte {at}"),
        }
    }
}

/// Lines without their ends (`\n` or `\r\n`), and without a byte order mark before the first.
pub struct Lines<R> {
    reader: R,
    limit: u64,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `limit` bytes; longer ones are skipped without being held.
    pub fn new(reader: R, limit: u64) -> Self {
        Self { reader, limit, number: 0 }
    }

    /// Lines read so far; the number of the last one, counted from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line; `None` at the end.
    pub fn next_line(&mut self) -> io::Result<Option<Result<String, BadLine>>> {
        let mut bytes = Vec::new();
        let mut too_long = false;
        loop {
            let chunk = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                if bytes.is_empty() && !too_long {
                    return Ok(None);
                }
                break;
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let take = end.unwrap_or(chunk.len());
            too_long |= (bytes.len() + take) as u64 > self.limit;
            if !too_long {
                bytes.extend_from_slice(&chunk[..take]);
            }
            self.reader.consume(end.map_or(take, |end| end + 1));
            if end.is_some() {
                break;
            }
        }
        self.number += 1;
        Ok(Some(if too_long {
            Err(BadLine::TooLong { limit: self.limit })
        } else {
            self.text(bytes)
        }))
    }

    fn text(&self, bytes: Vec<u8>) -> Result<String, BadLine> {
        let mut text = String::from_utf8(bytes)
            .map_err(|error| BadLine::NotUtf8 { at: error.utf8_error().valid_up_to() })?;
        if text.ends_with('\r') {
            text.pop();
        }
        if self.number == 1 && text.starts_with('\u{feff}') {
            text.remove(0);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], limit: u64) -> Vec<Result<String, BadLine>> {
        // A buffer of 3 bytes cuts lines in all places.
        let mut lines = Lines::new(io::BufReader::with_capacity(3, bytes), limit);
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    #[test]
    fn ends_of_lines_and_marks_are_removed() {
        let text = |text: &str| Ok(text.to_owned());
        assert_eq!(read(b"\xef\xbb\xbfa\r\n\nlast", 9), [text("a"), text(""), text("last")]);
        assert_eq!(read(b"a\n", 9), [text("a")]);
        assert!(read(b"", 9).is_empty());
    }

    #[test]
    fn a_bad_line_does_not_spoil_the_next() {
        let long = Err(BadLine::TooLong { limit: 4 });
        assert_eq!(read(b"12345678\n1234\n", 4), [long.clone(), Ok("1234".to_owned())]);
        assert_eq!(
            read(b"ok\na\xffb\n", 4),
            [Ok("ok".to_owned()), Err(BadLine::NotUtf8 { at: 1 })]
        );
        assert_eq!(read(b"12345", 4), [long]);
    }
}
