//! Janus-Pro: train.
