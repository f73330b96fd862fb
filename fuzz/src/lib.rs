//! What the fuzz targets share: the invariants that hold for every reader.
//!
//! Whatever the bytes are: no panic gets out, no hang, memory stays within a bound, and an error's
//! text is short and free of control characters. What a single reader promises beyond that stands
//! in its target.
//!
//! Readers are given files, as users give them, so that sniffing, mapping and locking are fuzzed
//! too. The files lie in one scratch folder per process; `TMPDIR` on a memory disk makes it fast.

pub mod shard;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::HashSet,
    error::Error,
    fs,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use janus_model::checkpoint::{Checkpoint, CheckpointError, LazyTensor};
use tempfile::TempDir;

/// Bound on what one input may allocate beyond what was there before: that of the catalogue.
pub const MEMORY: usize = 64 << 20;

/// Longest message of an error with all its causes. Names of 512 bytes may be quoted, escaped.
const MESSAGE_BYTES: usize = 16 << 10;

// --- memory ---

/// Counts what Rust code has allocated. Sees allocations that are never written to, which the
/// resident size does not show.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// --- panics ---

/// Text of the last panic, caught or not.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Lets the library catch panics of the crates it guards itself against; libFuzzer's own hook
/// would end the process first. Each place is reported once: it is a bug, if not one of ours.
pub fn allow_caught_panics() {
    let seen = Mutex::new(HashSet::new());
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        if seen.lock().unwrap_or_else(PoisonError::into_inner).insert(place) {
            eprintln!("note: {info}");
        }
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
}

/// Runs one input and holds it against what is true of all readers.
pub fn check(memory: usize, run: impl FnOnce()) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        eprintln!("{}", LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner));
        std::process::abort();
    }
    let used = PEAK.load(Relaxed) - before;
    assert!(used <= memory, "this input took {used} bytes of memory, the bound is {memory}");
}

/// An error's text goes to terminals, logs and clients.
pub fn check_error(error: &dyn Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    assert!(text.len() <= MESSAGE_BYTES, "a message of {} bytes", text.len());
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "unescaped: {text:?}");
}

// --- files ---

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temp folder"));

/// Writes a file into the scratch folder and returns its path.
pub fn put(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.path().join(name);
    fs::write(&path, bytes).expect("a writable temp folder");
    path
}

/// The scratch folder.
pub fn folder() -> PathBuf {
    FOLDER.path().to_owned()
}

// --- checkpoints ---

/// What must hold for the outcome of opening weights; returns the weights, if there are any.
pub fn check_weights(opened: Result<Checkpoint, CheckpointError>) -> Option<Checkpoint> {
    match opened {
        Ok(checkpoint) => {
            checkpoint.raw().iter().for_each(|tensor| drop(bytes(tensor)));
            if let Err(error) = checkpoint.canonical() {
                check_error(&error);
            }
            let _ = checkpoint.dtypes();
            Some(checkpoint)
        }
        Err(error) => {
            check_error(&error);
            let _ = (error.kind(), error.hint());
            None
        }
    }
}

/// The bytes of a tensor, of which there are as many as its shape and type imply.
pub fn bytes(tensor: &LazyTensor) -> Vec<u8> {
    let bytes = tensor.to_bytes().expect("an opened tensor can be drawn");
    let elements: usize = tensor.shape.to_vec().iter().product();
    assert_eq!(bytes.len(), elements * tensor.dtype.size(), "{}", tensor.name);
    bytes.to_vec()
}
