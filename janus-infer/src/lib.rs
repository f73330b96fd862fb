//! Janus-Pro: infer.
