//! From conversation and pictures to model input, and from pixels to pictures.
