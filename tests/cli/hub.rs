//! A hub in this process: serves a folder as the Hugging Face hub would, or worse.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;

/// What the first commit of every model is called here.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// One question.
#[derive(Clone, Debug)]
pub struct Request {
    /// With what follows the question mark.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// How often the same path was asked for before.
    pub before: usize,
}

impl Request {
    /// Whether a file of this name is asked for.
    pub fn is_for(&self, name: &str) -> bool {
        self.path.contains("/resolve/") && self.path.ends_with(&format!("/{name}"))
    }

    /// Where the answer is to begin.
    pub fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub manner: Manner,
}

/// How the body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// All of it, its length first.
    Whole,
    /// In pieces, without saying how much will come.
    Chunked,
    /// So many bytes, then the connection ends.
    Cut(usize),
    /// So many bytes, then one every now and then.
    Stall(usize),
    /// Again and again.
    Endless,
}

impl Reply {
    /// An answer without surprises.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), manner: Manner::Whole }
    }

    /// With a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sent otherwise.
    pub fn manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    fn send(&self, to: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Whatever\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        match self.manner {
            Manner::Chunked | Manner::Endless => head += "Transfer-Encoding: chunked\r\n",
            _ => head += &format!("Content-Length: {}\r\n", self.body.len()),
        }
        to.write_all((head + "\r\n").as_bytes())?;
        match self.manner {
            Manner::Whole => to.write_all(&self.body)?,
            Manner::Cut(count) => to.write_all(&self.body[..count])?,
            Manner::Stall(count) => {
                to.write_all(&self.body[..count])?;
                for byte in &self.body[count..] {
                    std::thread::sleep(Duration::from_millis(20));
                    to.write_all(&[*byte])?;
                }
            }
            Manner::Chunked => {
                for part in self.body.chunks(100_000) {
                    chunk(to, part)?;
                }
                to.write_all(b"0\r\n\r\n")?;
            }
            Manner::Endless => loop {
                chunk(to, &self.body)?;
            },
        }
        to.flush()
    }
}

fn chunk(to: &mut TcpStream, part: &[u8]) -> std::io::Result<()> {
    write!(to, "{:x}\r\n", part.len())?;
    to.write_all(part)?;
    to.write_all(b"\r\n")
}

/// A model as a hub knows it.
#[derive(Clone)]
pub struct Model {
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Model {
    /// The files of a fixture, and a few that nobody needs.
    pub fn fixture(folder: &Path) -> Self {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
        files.insert("README.md".into(), b"# A model\n".to_vec());
        files.insert("pictures/teaser.png".into(), vec![1; 100]);
        files.insert(".gitattributes".into(), b"*.bin lfs\n".to_vec());
        Self { files }
    }

    /// What the hub says about it.
    pub fn listing(&self) -> Value {
        let siblings: Vec<Value> =
            self.files.iter().map(|(name, bytes)| sibling(name, bytes)).collect();
        json!({"id": "test/tiny", "sha": COMMIT, "private": false, "siblings": siblings})
    }

    /// As the hub answers.
    pub fn answer(&self, request: &Request) -> Reply {
        if request.path.starts_with("/api/models/test/tiny/revision/main") {
            return Reply::new(200, self.listing().to_string());
        }
        let prefix = format!("/test/tiny/resolve/{COMMIT}/");
        let file = request.path.strip_prefix(&prefix).and_then(|name| self.files.get(name));
        let Some(bytes) = file else { return Reply::new(404, "no such thing") };
        match request.from() {
            None => Reply::new(200, bytes.clone()),
            Some(from) if from < bytes.len() => Reply::new(206, &bytes[from..]).header(
                "Content-Range",
                format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
            ),
            Some(_) => Reply::new(416, ""),
        }
    }
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

fn sibling(name: &str, bytes: &[u8]) -> Value {
    let pointer = "f".repeat(40);
    match is_large(name) {
        true => json!({"rfilename": name, "size": bytes.len(), "blobId": pointer,
                       "lfs": {"sha256": hash_of(name, bytes), "size": bytes.len(), "pointerSize": 130}}),
        false => {
            json!({"rfilename": name, "size": bytes.len(), "blobId": hash_of(name, bytes)})
        }
    }
}

/// The name of a file's blob.
pub fn hash_of(name: &str, bytes: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if is_large(name) {
        return hex(&Sha256::digest(bytes));
    }
    hex(&Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

/// A server on a port of this machine.
pub struct Hub {
    /// `http://127.0.0.1:port`
    pub url: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    /// Answers until the test ends.
    pub fn serve(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&log), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    // A client that goes away is what some tests are about.
                    let _ = converse(stream, &seen, &*answer);
                });
            }
        });
        Self { url, log }
    }

    /// All requests so far.
    pub fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// Those for a file.
    pub fn asked_for(&self, name: &str) -> Vec<Request> {
        self.log().into_iter().filter(|request| request.is_for(name)).collect()
    }
}

fn converse(
    stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Reply,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?.take(1 << 16));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let request = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|request| request.path == path).count();
        let request = Request { path, headers, before };
        log.push(request.clone());
        request
    };
    let mut stream = stream;
    answer(&request).send(&mut stream)
}
