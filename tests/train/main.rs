//! Training: data, one step, a run. One file per topic.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a failing test may panic
