//! Ctrl-C and SIGTERM: the first asks to stop after the step at hand, the second stops at once.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::report::{self, Exit};

static RAISED: AtomicBool = AtomicBool::new(false);
static IDLE: AtomicBool = AtomicBool::new(false);

/// From now on an interrupt is noticed instead of ending the process. Whoever calls this looks at
/// [`raised`] between steps.
pub fn listen() {
    // Fails only where a handler is set already: then it is this one.
    let _ = ctrlc::set_handler(|| {
        if RAISED.swap(true, Ordering::SeqCst) || IDLE.load(Ordering::SeqCst) {
            leave();
        }
        let _ = write!(io::stderr(), "\r\x1b[K");
        report::note("stopping after this step; once more to stop at once");
    });
}

/// Whether somebody wants us to stop.
pub fn raised() -> bool {
    RAISED.load(Ordering::Relaxed)
}

/// Forgets an interrupt that was obeyed.
pub fn clear() {
    RAISED.store(false, Ordering::Relaxed);
}

/// Does something during which there is no step to wait for, such as waiting for words: an
/// interrupt ends the process at once.
pub fn idle<T>(wait: impl FnOnce() -> T) -> T {
    IDLE.store(true, Ordering::SeqCst);
    // One that came between the last step and this line.
    if RAISED.load(Ordering::SeqCst) {
        leave();
    }
    let result = wait();
    IDLE.store(false, Ordering::Relaxed);
    result
}

/// What a callback of a loop answers.
pub fn flow() -> ControlFlow<()> {
    if raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Without waiting for a step that may take minutes. What is on disk is whole: files appear under
/// their names only when they are complete.
#[allow(clippy::exit)]
fn leave() -> ! {
    std::process::exit(Exit::Interrupted as i32)
}
