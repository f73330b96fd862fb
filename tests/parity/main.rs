//! Parity with the reference.

mod processor;
