//! Lines of a file, or elements of a JSON list, by number.
//!
//! One pass finds where each record lies: 16 bytes are kept per record, whatever its length. Only
//! a record that is asked for is read and parsed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::super::error::{At, DataError, Place, Why, shown};

/// Longest record. Pictures stand beside the file, so this is a very long text.
pub const MAX_RECORD: u64 = 16 << 20;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u64,
    /// Saturated: what is as long as that is refused anyway.
    length: u32,
    line: u32,
}

/// The records of one file.
#[derive(Debug)]
pub struct Records {
    path: Arc<Path>,
    file: Mutex<File>,
    spans: Vec<Span>,
    fingerprint: [u8; 32],
}

impl Records {
    /// Finds the records of a file: every line that is not blank, or, where the file begins with
    /// `[` and `plain` is not set, the elements of that list.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::File`] for a list that is cut off, [`DataError::Empty`].
    pub fn open(path: &Path, plain: bool) -> Result<Self, DataError> {
        let io = |action| move |source| DataError::Io { path: path.to_owned(), action, source };
        let metadata = std::fs::metadata(path).map_err(io("read"))?;
        if !metadata.is_file() {
            let problem = "not a file, so it holds no lines".to_owned();
            return Err(DataError::File { path: path.to_owned(), problem });
        }
        let file = File::open(path).map_err(io("open"))?;
        let mut source =
            Hashed { inner: BufReader::with_capacity(1 << 20, file), hash: Sha256::new() };
        let offset = skip_mark(&mut source).map_err(io("read"))?;
        let list = !plain && starts_list(&mut source).map_err(io("read"))?;
        let mut scan = Scan::new(offset, list);
        source.for_each(|bytes| scan.take(bytes)).map_err(io("read"))?;
        let spans =
            scan.finish().map_err(|problem| DataError::File { path: path.to_owned(), problem })?;
        if spans.is_empty() {
            return Err(DataError::Empty { path: path.to_owned(), found: "no lines" });
        }
        let file = Mutex::new(File::open(path).map_err(io("open"))?);
        let fingerprint = source.hash.finalize().into();
        Ok(Self { path: path.into(), file, spans, fingerprint })
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.spans.len() as u64
    }

    /// Never: a file without records does not open.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// SHA-256 of the file.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Where a record stands.
    pub fn place(&self, index: u64) -> Place {
        let line = u64::from(self.spans[index as usize].line);
        Place { file: Arc::clone(&self.path), at: At::Line(line) }
    }

    /// The text of a record.
    ///
    /// # Errors
    /// [`Why::Record`]: too long, not UTF-8, no longer there.
    pub fn text(&self, index: u64) -> Result<String, Why> {
        let Span { start, length, .. } = self.spans[index as usize];
        if u64::from(length) > MAX_RECORD {
            let long = if length == u32::MAX { " or more" } else { "" };
            let problem = format!("{length} bytes{long}, the limit is {MAX_RECORD}");
            return Err(Why::Record(problem));
        }
        let mut bytes = vec![0; length as usize];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|error| Why::Record(format!("cannot be read any more: {error}")))?;
        drop(file);
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Why::Record(format!("not UTF-8 (byte {at} of the record)"))
        })
    }

    /// A record as a JSON object.
    ///
    /// # Errors
    /// As [`Records::text`], and where it is none.
    pub fn object(&self, index: u64) -> Result<Map<String, Value>, Why> {
        let text = self.text(index)?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) => Err(Why::Record(format!("not a JSON object: {}", shown(&text)))),
            Err(error) => {
                // The parser counts lines inside the record; columns are what helps here.
                Err(Why::Record(format!("not JSON: {error}")))
            }
        }
    }
}

/// A reader whose bytes are hashed on the way.
struct Hashed {
    inner: BufReader<File>,
    hash: Sha256,
}

impl Hashed {
    fn peek(&mut self) -> std::io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) -> std::io::Result<()> {
        let bytes = self.inner.fill_buf()?;
        let count = count.min(bytes.len());
        self.hash.update(&bytes[..count]);
        self.inner.consume(count);
        Ok(())
    }

    fn for_each(&mut self, mut use_bytes: impl FnMut(&[u8])) -> std::io::Result<()> {
        loop {
            let bytes = self.inner.fill_buf()?;
            if bytes.is_empty() {
                return Ok(());
            }
            use_bytes(bytes);
            let count = bytes.len();
            self.consume(count)?;
        }
    }
}

/// Skips a byte-order mark; says how many bytes that were.
fn skip_mark(source: &mut Hashed) -> std::io::Result<u64> {
    let marked = source.peek()?.starts_with(b"\xef\xbb\xbf");
    let length = if marked { 3 } else { 0 };
    source.consume(length)?;
    Ok(length as u64)
}

fn starts_list(source: &mut Hashed) -> std::io::Result<bool> {
    let first = source.peek()?.iter().find(|byte| !byte.is_ascii_whitespace());
    Ok(first == Some(&b'['))
}

/// Finds records in a stream of bytes.
struct Scan {
    list: bool,
    spans: Vec<Span>,
    at: u64,
    line: u64,
    /// First byte and line of the record at hand, once it has one that is not blank.
    open: Option<(u64, u64)>,
    /// One behind the record's last byte that is not blank.
    end: u64,
    /// Brackets around this byte; the list's own is the first.
    depth: usize,
    in_string: bool,
    escaped: bool,
    problem: Option<&'static str>,
}

impl Scan {
    fn new(at: u64, list: bool) -> Self {
        Self {
            list,
            spans: Vec::new(),
            at,
            line: 1,
            open: None,
            end: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            problem: None,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.list {
                self.list_byte(*byte);
            } else if *byte == b'\n' {
                self.close();
            } else {
                self.extend(*byte);
            }
            self.line += u64::from(*byte == b'\n');
            self.at += 1;
        }
    }

    /// A byte of the record, or a blank around it.
    fn extend(&mut self, byte: u8) {
        if !byte.is_ascii_whitespace() {
            self.open.get_or_insert((self.at, self.line));
            self.end = self.at + 1;
        }
    }

    fn close(&mut self) {
        if let Some((start, line)) = self.open.take() {
            let length = u32::try_from(self.end - start).unwrap_or(u32::MAX);
            let line = u32::try_from(line).unwrap_or(u32::MAX);
            self.spans.push(Span { start, length, line });
        }
    }

    fn list_byte(&mut self, byte: u8) {
        if self.in_string {
            self.extend(byte);
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return;
        }
        match (byte, self.depth) {
            (b'[', 0) if self.spans.is_empty() => self.depth = 1,
            (byte, 0) if !byte.is_ascii_whitespace() => {
                self.problem = Some("text behind the end of the list");
            }
            (_, 0) => {}
            (b',', 1) => self.close(),
            (b']', 1) => {
                self.close();
                self.depth = 0;
            }
            _ => {
                match byte {
                    b'[' | b'{' => self.depth += 1,
                    b']' | b'}' => self.depth -= 1,
                    b'"' => self.in_string = true,
                    _ => {}
                }
                self.extend(byte);
            }
        }
    }

    fn finish(mut self) -> Result<Vec<Span>, String> {
        if let Some(problem) = self.problem {
            return Err(problem.to_owned());
        }
        if self.list && self.depth > 0 {
            let line = self.line;
            return Err(format!("the list is not closed: the file ends at line {line}"));
        }
        self.close();
        Ok(self.spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(contents: &[u8]) -> Result<Records, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.jsonl");
        std::fs::write(&path, contents).unwrap();
        Records::open(&path, false)
    }

    fn all(contents: &[u8]) -> Vec<(u64, String)> {
        let records = open(contents).unwrap();
        let line = |index| match records.place(index).at {
            At::Line(line) => line,
            other => panic!("{other:?}"),
        };
        (0..records.len()).map(|i| (line(i), records.text(i).unwrap())).collect()
    }

    fn own(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
        expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
    }

    #[test]
    fn lines_with_marks_carriage_returns_blanks_and_no_last_end() {
        let found = all(b"\xef\xbb\xbf{\"a\":1}\r\n\n  {\"a\":2}\n\t\n{\"a\":3}");
        assert_eq!(found, own(&[(1, "{\"a\":1}"), (3, "{\"a\":2}"), (5, "{\"a\":3}")]));
    }

    #[test]
    fn elements_of_a_list() {
        let list = b"[\n {\"a\": \"], \\\" {\"},\n{\"b\": [1, [2]]} , 7\n]\n";
        let expected = [(2, "{\"a\": \"], \\\" {\"}"), (3, "{\"b\": [1, [2]]}"), (3, "7")];
        assert_eq!(all(list), own(&expected));
    }

    #[test]
    fn a_list_that_is_cut_or_goes_on_is_refused() {
        let error = |contents: &[u8]| open(contents).unwrap_err().to_string();
        assert!(error(b"[{\"a\":1},\n{\"b\"").contains("not closed: the file ends at line 2"));
        assert!(error(b"[1] 2").contains("behind the end"));
        assert!(error(b"\n \n").contains("no samples"));
        assert!(error(b"[]").contains("no samples"));
    }

    #[test]
    fn broken_lines_say_what_they_are() {
        let records = open(b"{\"a\": \n[1]\n\xff\xfe\n").unwrap();
        let error = |index| records.object(index).unwrap_err().to_string();
        assert!(error(0).starts_with("not JSON: EOF"), "{}", error(0));
        assert_eq!(error(1), "not a JSON object: [1]");
        assert_eq!(error(2), "not UTF-8 (byte 0 of the record)");
    }

    #[test]
    fn a_huge_line_is_refused_without_being_read() {
        let mut contents = vec![b'x'; MAX_RECORD as usize + 1];
        contents.extend_from_slice(b"\n{\"a\":1}\n");
        let records = open(&contents).unwrap();
        let error = records.text(0).unwrap_err().to_string();
        assert_eq!(error, "16777217 bytes, the limit is 16777216");
        assert!(records.object(1).is_ok());
    }

    #[test]
    fn the_fingerprint_is_that_of_the_file() {
        let hash = |contents: &[u8]| open(contents).unwrap().fingerprint();
        let expected: [u8; 32] = Sha256::digest(b"\xef\xbb\xbfa\nb").into();
        assert_eq!(hash(b"\xef\xbb\xbfa\nb"), expected);
        assert_ne!(hash(b"a\nb"), hash(b"a\nc"));
    }
}
