//! The `janus` command.

fn main() {}
