//! One file from a hub to its place: resumed where it stopped, verified, whole or not there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use sha1::{Digest, Sha1};
use sha2::Sha256;
use ureq::http::Response;
use ureq::{Body, http::header};

use super::cache::Place;
use super::client::{Client, RemoteFile, Trouble, cut};
use super::{Repo, Stop};
use crate::interrupt;
use crate::progress::{Stage, Transfer};
use crate::report::{self, Exit, Failure};

const BUFFER: usize = 1 << 18;

/// Where a file is to come from.
pub struct Source<'a> {
    pub client: &'a Client,
    pub repo: &'a Repo,
    pub commit: &'a str,
}

/// The hash that names a blob, fed piece by piece.
enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    /// Git's objects begin with their kind and length.
    fn new(file: &RemoteFile) -> Self {
        if file.hash.len() == 64 {
            return Self::Sha256(Sha256::new());
        }
        let mut hasher = Sha1::new();
        hasher.update(format!("blob {}\0", file.bytes));
        Self::Git(hasher)
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    fn hex(self) -> String {
        let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hasher) => digits(&hasher.finalize()),
            Self::Git(hasher) => digits(&hasher.finalize()),
        }
    }
}

/// Whether a file on disk has the bytes that its hash promises. An absent one has not.
///
/// # Errors
/// It cannot be read, or somebody interrupts.
pub fn is_intact(path: &Path, file: &RemoteFile) -> Result<bool, Stop> {
    if !has_size(path, file.bytes) {
        return Ok(false);
    }
    let mut source = File::open(path).map_err(|error| Failure::io(path, "open", &error))?;
    let mut hasher = Hasher::new(file);
    let count = feed(&mut source, &mut hasher, path)?;
    Ok(count == file.bytes && hasher.hex() == file.hash)
}

/// Whether a regular file of this length is there.
pub fn has_size(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == bytes)
}

/// Runs a file through a hasher.
fn feed(source: &mut File, hasher: &mut Hasher, path: &Path) -> Result<u64, Stop> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        if interrupt::raised() {
            return Err(Stop::Interrupted);
        }
        match source.read(&mut buffer).map_err(|error| Failure::io(path, "read", &error))? {
            0 => return Ok(total),
            count => {
                hasher.update(&buffer[..count]);
                total += count as u64;
            }
        }
    }
}

/// Brings a file to its place, unless another process has just done so.
///
/// # Errors
/// The server has it not, or has another; the disk is full; somebody interrupts. What has arrived
/// is kept, unless it is wrong.
pub fn fetch(
    source: &Source<'_>,
    file: &RemoteFile,
    place: &Place,
    progress: &Transfer,
) -> Result<(), Stop> {
    let parents = [&place.partial, &place.lock].map(|path| path.parent());
    for folder in parents.into_iter().flatten() {
        fs::create_dir_all(folder).map_err(|error| cannot_create(folder, &error))?;
    }
    let _lock = lock(&place.lock, &file.name)?;
    if has_size(&place.whole, file.bytes) && is_named_by_hash(place, file) {
        // Another process was faster.
        return Ok(());
    }
    let mut partial = Partial::open(file, place)?;
    progress.skip(partial.have);
    let mut fresh = partial.have == 0;
    let mut patience = source.client.patience();
    loop {
        while partial.have < file.bytes {
            let before = partial.have;
            let trouble = partial.receive(source, progress);
            if partial.have > before {
                patience.renew();
            }
            fresh |= partial.restarted;
            match trouble {
                Ok(()) => {}
                Err(Outcome::Stop(stop)) => return Err(stop),
                Err(Outcome::Again(why, wait)) => {
                    let why = format!("{}: {why}", file.name);
                    progress.hide();
                    patience.wait(&why, wait)?;
                }
            }
        }
        let hash = partial.hash();
        if hash == file.hash {
            return partial.finish(place);
        }
        if fresh {
            // Wrong bytes are of no use to anybody.
            let _ = fs::remove_file(&place.partial);
            return Err(damaged(file, &hash).into());
        }
        progress.hide();
        report::note(&format!(
            "{}: what was left from before is damaged; starting over",
            file.name
        ));
        partial.start_over(progress)?;
        fresh = true;
    }
}

/// In a cache the name vouches for the bytes; elsewhere they were compared before.
fn is_named_by_hash(place: &Place, file: &RemoteFile) -> bool {
    place.whole.file_name().is_some_and(|name| name.to_string_lossy() == file.hash)
}

fn damaged(file: &RemoteFile, hash: &str) -> Failure {
    let message = format!("{}: the server sent other bytes than it promised", file.name);
    let kind = if file.hash.len() == 64 { "SHA-256" } else { "git SHA-1" };
    Failure::new(Exit::BadData, format!("{message} ({kind} {hash}, not {})", file.hash))
        .hint("what arrived was deleted; try again, or another --endpoint")
}

/// On a full disk, too, what has arrived is of use.
fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::io(path, "write", error);
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge => {
            failure.hint("make room, and the same command goes on from what has arrived")
        }
        _ => failure,
    }
}

fn cannot_create(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::StorageFull => Failure::io(path, "create", error),
        _ => {
            Failure::new(Exit::CannotCreate, format!("{}: cannot create: {error}", path.display()))
                .hint("choose another place with --cache or --to")
        }
    }
}

/// Takes the lock that huggingface_hub takes, too. Where locks do not exist, goes on without:
/// files appear whole, so that two writers cost time and nothing else.
fn lock(path: &Path, name: &str) -> Result<Option<File>, Stop> {
    let open = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let file = open.map_err(|error| cannot_create(path, &error))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) if interrupt::raised() => return Err(Stop::Interrupted),
            Err(TryLockError::WouldBlock) => {}
        }
        if !told {
            report::note(&format!("{name}: waiting for another process that downloads it"));
            told = true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Why receiving ended early.
enum Outcome {
    Stop(Stop),
    Again(String, Option<Duration>),
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Stop(Stop::Failed(failure))
    }
}

/// A file that has not arrived completely.
struct Partial<'a> {
    file: &'a RemoteFile,
    path: &'a Path,
    out: File,
    hasher: Hasher,
    /// Bytes on disk, all of them in the hasher.
    have: u64,
    /// Whether the server made us begin at 0.
    restarted: bool,
}

impl<'a> Partial<'a> {
    fn open(file: &'a RemoteFile, place: &'a Place) -> Result<Self, Stop> {
        let path = place.partial.as_path();
        // A link or a pipe in its place would send the bytes elsewhere.
        if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
            fs::remove_file(path).map_err(|error| cannot_create(path, &error))?;
        }
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut out = open.map_err(|error| cannot_create(path, &error))?;
        let length = out.metadata().map_err(|error| Failure::io(path, "read", &error))?.len();
        let mut hasher = Hasher::new(file);
        if length > file.bytes {
            out.set_len(0).map_err(|error| Failure::io(path, "write", &error))?;
        }
        let stage = Stage::new(&format!("checking what is here of {}", file.name));
        let have = feed(&mut out, &mut hasher, path);
        stage.finish();
        let have = have?;
        Ok(Self { file, path, out, hasher, have, restarted: false })
    }

    fn start_over(&mut self, progress: &Transfer) -> Result<(), Failure> {
        let emptied = self.out.set_len(0).and_then(|()| self.out.seek(SeekFrom::Start(0)));
        emptied.map_err(|error| Failure::io(self.path, "write", &error))?;
        progress.back(self.have);
        self.hasher = Hasher::new(self.file);
        self.have = 0;
        self.restarted = true;
        Ok(())
    }

    /// Asks for what is missing and writes what comes.
    fn receive(&mut self, source: &Source<'_>, progress: &Transfer) -> Result<(), Outcome> {
        let answer = source.client.open(source.repo, source.commit, &self.file.name, self.have);
        let answer = match answer {
            Ok(answer) => answer,
            Err(Trouble::Final(failure)) => return Err(failure.into()),
            Err(Trouble::Passing(why, wait)) => return Err(Outcome::Again(why, wait)),
            Err(Trouble::NoSuchRange) => {
                self.start_over(progress)?;
                return Err(Outcome::Again("the server cannot go on from there".into(), None));
            }
        };
        if self.have > 0 && !continues(&answer, self.have) {
            self.start_over(progress)?;
        }
        self.write(answer, progress)
    }

    fn write(&mut self, answer: Response<Body>, progress: &Transfer) -> Result<(), Outcome> {
        let mut body = answer.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        while self.have < self.file.bytes {
            if interrupt::raised() {
                return Err(Outcome::Stop(Stop::Interrupted));
            }
            let count = match body.read(&mut buffer) {
                Ok(0) => {
                    let missing = self.file.bytes - self.have;
                    return Err(Outcome::Again(format!("it ends {missing} bytes early"), None));
                }
                Ok(count) => count,
                Err(error) => return Err(Outcome::Again(cut(&error), None)),
            };
            // More than was promised cannot be right, and is not kept: the hash will tell.
            let wanted = (self.file.bytes - self.have).min(count as u64) as usize;
            let bytes = &buffer[..wanted];
            self.out.write_all(bytes).map_err(|error| cannot_write(self.path, &error))?;
            self.hasher.update(bytes);
            self.have += wanted as u64;
            progress.add(wanted as u64);
        }
        Ok(())
    }

    /// The hash of all bytes so far.
    fn hash(&mut self) -> String {
        std::mem::replace(&mut self.hasher, Hasher::new(self.file)).hex()
    }

    /// On disk for good, then under its name.
    fn finish(self, place: &Place) -> Result<(), Stop> {
        self.out
            .sync_all()
            .and_then(|()| fs::rename(&place.partial, &place.whole))
            .map_err(|error| Failure::io(&place.whole, "write", &error))?;
        Ok(())
    }
}

/// Whether an answer begins where we asked it to.
fn continues(answer: &Response<Body>, from: u64) -> bool {
    let range = answer.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = |range: &str| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok();
    answer.status().as_u16() == 206 && range.and_then(start) == Some(from)
}
