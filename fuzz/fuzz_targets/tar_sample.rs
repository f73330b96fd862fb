//! A whole tar shard: its samples, one by one. Every other input gets true header checksums first.
#![no_main]

use janus_fuzz::{MEMORY, allow_caught_panics, check, put, shard};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: allow_caught_panics(), |bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    if bytes.last().is_some_and(|last| last % 2 == 0) {
        shard::reseal(&mut bytes);
    }
    let path = put("shard.tar", &bytes);
    check(MEMORY, || {
        shard::hold(&path, &bytes);
    });
});
