//! A `model.safetensors.index.json` beside two shards, `1` with tensor `a` and `2` with `b`.
#![no_main]

use janus_fuzz::{MEMORY, check, check_weights, folder, put};
use janus_model::checkpoint::{Checkpoint, Limits};
use libfuzzer_sys::fuzz_target;

/// One tensor of four f32.
fn shard(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 16]].concat()
}

fn write_shards() {
    put("1", &shard("a"));
    put("2", &shard("b"));
}

fuzz_target!(init: write_shards(), |index: &[u8]| {
    check(MEMORY, || {
        put("model.safetensors.index.json", index);
        let Some(checkpoint) = check_weights(Checkpoint::open(folder(), &Limits::default())) else {
            return;
        };
        // Every tensor of the shards is there, and nothing else.
        let files: Vec<_> = checkpoint.files.iter().map(|file| file.name.as_str()).collect();
        let names: Vec<_> = checkpoint.raw().iter().map(|tensor| tensor.name.as_str()).collect();
        match files[..] {
            ["1"] => assert_eq!(names, ["a"]),
            ["2"] => assert_eq!(names, ["b"]),
            ["1", "2"] => assert_eq!(names, ["a", "b"]),
            _ => panic!("opened {files:?}"),
        }
    });
});
