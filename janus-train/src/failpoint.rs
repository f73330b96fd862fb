//! Places where a test may end the process as a power cut would: `JANUS_FAILPOINT=<name>:<nth>`.
//!
//! Compiled only into tests; in any other build the variable is not even read.

/// Ends the process if it is the nth time that it comes by here, and a test wants it to.
#[cfg(any(test, feature = "failpoints"))]
pub(crate) fn reached(name: &str) {
    use std::sync::Mutex;

    static COUNTS: Mutex<Vec<(String, usize)>> = Mutex::new(Vec::new());

    let Ok(wanted) = std::env::var("JANUS_FAILPOINT") else { return };
    let (wanted, nth) = wanted.split_once(':').unwrap_or((wanted.as_str(), "1"));
    if wanted != name {
        return;
    }
    let Ok(mut counts) = COUNTS.lock() else { return };
    let at = counts.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        counts.push((name.to_owned(), 0));
        counts.len() - 1
    });
    counts[at].1 += 1;
    if nth.parse() == Ok(counts[at].1) {
        // No destructor runs, no buffer is flushed.
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(any(test, feature = "failpoints")))]
pub(crate) fn reached(_: &str) {}
