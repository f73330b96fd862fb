//! A line on stderr that says how far a long job is, silent when nobody watches.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use janus_model::checkpoint::LazyTensor;

use crate::units::size;

const INTERVAL: Duration = Duration::from_millis(100);

/// Counts bytes drawn from tensors.
pub struct Progress {
    state: Mutex<State>,
    watched: bool,
}

struct State {
    done: u64,
    total: u64,
    start: Instant,
    shown: Option<Instant>,
}

impl Progress {
    /// For `total` bytes; prints only if stderr is a terminal.
    pub fn new(total: u64) -> Arc<Self> {
        let state = State { done: 0, total, start: Instant::now(), shown: None };
        Arc::new(Self { state: Mutex::new(state), watched: io::stderr().is_terminal() })
    }

    /// The same tensor, counted when it is first drawn.
    pub fn watch(self: &Arc<Self>, tensor: LazyTensor) -> LazyTensor {
        if !self.watched {
            return tensor;
        }
        let (progress, counted) = (Arc::clone(self), AtomicBool::new(false));
        let (name, dtype, shape) = (tensor.name.clone(), tensor.dtype, tensor.shape.to_vec());
        let length = tensor.byte_len();
        LazyTensor::deferred(name, dtype, shape, None, length, move || {
            let bytes = tensor.to_bytes()?;
            // A tensor that is split into several is drawn once for each of them.
            if !counted.swap(true, Ordering::Relaxed) {
                progress.add(length as u64);
            }
            Ok(bytes)
        })
    }

    fn add(&self, bytes: u64) {
        let Ok(mut state) = self.state.lock() else { return };
        state.done += bytes;
        let now = Instant::now();
        if state.shown.is_some_and(|shown| now - shown < INTERVAL) {
            return;
        }
        state.shown = Some(now);
        let line = line(state.done, state.total, now - state.start);
        let _ = write!(io::stderr(), "\r{line}\x1b[K");
    }

    /// Removes the line.
    pub fn finish(&self) {
        if self.watched {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Steps of pictures being drawn together.
pub struct Steps {
    label: String,
    start: Instant,
    shown: Option<Instant>,
    watched: bool,
}

impl Steps {
    /// For `count` pictures after the first `before` of `all`.
    pub fn new(before: usize, count: usize, all: usize) -> Self {
        let label = match (count, all) {
            (1, 1) => "drawing".to_owned(),
            (1, _) => format!("drawing {} of {all}", before + 1),
            _ => format!("drawing {} to {} of {all}", before + 1, before + count),
        };
        let watched = io::stderr().is_terminal();
        Self { label, start: Instant::now(), shown: None, watched }
    }

    /// Shows how far it is.
    pub fn show(&mut self, done: usize, total: usize) {
        let now = Instant::now();
        if !self.watched || self.shown.is_some_and(|shown| now - shown < INTERVAL) {
            return;
        }
        self.shown = Some(now);
        let rate = done as f64 / (now - self.start).as_secs_f64().max(1e-3);
        let left = total.saturating_sub(done) as f64 / rate.max(1e-3);
        let label = &self.label;
        let line = format!("{label}: step {done} of {total}, {rate:.1} steps/s, {left:.0} s left");
        let _ = write!(io::stderr(), "\r{line}\x1b[K");
    }

    /// Removes the line.
    pub fn finish(&self) {
        if self.watched {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Things done one after the other, or a few at a time.
pub struct Items {
    what: &'static str,
    total: usize,
    /// Done before this run.
    before: usize,
    done: usize,
    start: Instant,
    shown: Option<Instant>,
    watched: bool,
}

impl Items {
    /// For `total` things, `before` of which are done already.
    pub fn new(what: &'static str, before: usize, total: usize) -> Self {
        let (start, watched) = (Instant::now(), io::stderr().is_terminal());
        Self { what, total, before, done: before, start, shown: None, watched }
    }

    /// Counts one more.
    pub fn count(&mut self) {
        self.done += 1;
        self.show("");
    }

    /// So many are done in all.
    pub fn reach(&mut self, done: usize) {
        self.done = done;
        self.show("");
    }

    /// Shows how far it is, and something about those at hand.
    pub fn show(&mut self, at_hand: &str) {
        let now = Instant::now();
        if !self.watched || self.shown.is_some_and(|shown| now - shown < INTERVAL) {
            return;
        }
        self.shown = Some(now);
        let _ = write!(io::stderr(), "\r{}\x1b[K", self.line(now - self.start, at_hand));
    }

    fn line(&self, elapsed: Duration, at_hand: &str) -> String {
        let (what, done, total) = (self.what, self.done, self.total);
        let new = done.saturating_sub(self.before);
        let rate = new as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = match new {
            0 => String::new(),
            _ => format!(", {rate:.2}/s, {:.0} s left", total.saturating_sub(done) as f64 / rate),
        };
        format!("{what}: {done} of {total}{left}{at_hand}")
    }

    /// Removes the line.
    pub fn finish(&self) {
        if self.watched {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Bytes of several files on their way here.
pub struct Transfer {
    state: RefCell<TransferState>,
    watched: bool,
}

struct TransferState {
    label: String,
    /// Of all files, what was here before included.
    done: u64,
    total: u64,
    /// Since the start.
    received: u64,
    start: Instant,
    shown: Option<Instant>,
}

impl Transfer {
    /// For `total` bytes.
    pub fn new(total: u64) -> Self {
        let (label, start) = (String::new(), Instant::now());
        let state = TransferState { label, done: 0, total, received: 0, start, shown: None };
        Self { state: RefCell::new(state), watched: io::stderr().is_terminal() }
    }

    /// Begins with file `at` of `count`.
    pub fn file(&self, name: &str, at: usize, count: usize) {
        self.state.borrow_mut().label = format!("{name} ({at} of {count})");
    }

    /// Bytes that were here before.
    pub fn skip(&self, bytes: u64) {
        self.state.borrow_mut().done += bytes;
    }

    /// Bytes that have to come again.
    pub fn back(&self, bytes: u64) {
        let mut state = self.state.borrow_mut();
        state.done = state.done.saturating_sub(bytes);
    }

    /// Bytes that arrived.
    pub fn add(&self, bytes: u64) {
        let mut state = self.state.borrow_mut();
        (state.done, state.received) = (state.done + bytes, state.received + bytes);
        let now = Instant::now();
        if !self.watched || state.shown.is_some_and(|shown| now - shown < INTERVAL) {
            return;
        }
        state.shown = Some(now);
        let line = state.line(now - state.start);
        let _ = write!(io::stderr(), "\r{line}\x1b[K");
    }

    /// Bytes that have arrived since the start.
    pub fn received(&self) -> u64 {
        self.state.borrow().received
    }

    /// Removes the line, until more arrives.
    pub fn hide(&self) {
        if self.watched {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl TransferState {
    fn line(&self, elapsed: Duration) -> String {
        let rate = self.received as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = self.total.saturating_sub(self.done) as f64 / rate.max(1.0);
        let (done, total, rate) = (size(self.done), size(self.total), size(rate as u64));
        format!("{}: {done} of {total}, {rate}/s, {left:.0} s left", self.label)
    }
}

/// Makes room for a message where a line of progress may stand.
pub fn clear_line() {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

/// A job whose end cannot be foreseen: says that it runs.
pub struct Stage {
    watched: bool,
}

impl Stage {
    /// Shows what is being done, if stderr is a terminal.
    pub fn new(what: &str) -> Self {
        let watched = io::stderr().is_terminal();
        if watched {
            let _ = write!(io::stderr(), "\r{what}\x1b[K");
        }
        Self { watched }
    }

    /// Removes the line.
    pub fn finish(self) {
        if self.watched {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
    let (done, total, rate) = (size(done), size(total), size(rate as u64));
    format!("writing {done} of {total}, {rate}/s, {left:.0} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_an_earlier_run_do_not_count_for_the_rate() {
        let mut items = Items::new("answered", 10, 30);
        assert_eq!(items.line(Duration::from_secs(5), ""), "answered: 10 of 30");
        (0..5).for_each(|_| items.count());
        let line = items.line(Duration::from_secs(5), ", 7 tokens");
        assert_eq!(line, "answered: 15 of 30, 1.00/s, 15 s left, 7 tokens");
    }

    #[test]
    fn the_line_says_rate_and_rest() {
        let text = line(1_000_000_000, 4_000_000_000, Duration::from_secs(2));
        assert_eq!(text, "writing 1.00 GB of 4.00 GB, 500.00 MB/s, 6 s left");
        assert!(line(0, 0, Duration::ZERO).ends_with("0 s left"));
    }

    #[test]
    fn what_was_here_before_does_not_count_as_speed() {
        let transfer = Transfer::new(4_000_000_000);
        transfer.file("model.bin", 2, 3);
        transfer.skip(2_000_000_000);
        transfer.add(1_000_000_000);
        let text = transfer.state.borrow().line(Duration::from_secs(2));
        assert_eq!(text, "model.bin (2 of 3): 3.00 GB of 4.00 GB, 500.00 MB/s, 2 s left");
        transfer.back(3_000_000_000);
        assert_eq!((transfer.state.borrow().done, transfer.received()), (0, 1_000_000_000));
    }
}
