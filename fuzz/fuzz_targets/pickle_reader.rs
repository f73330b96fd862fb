//! A whole `pytorch_model.bin`; or, where the bytes do not start as a zip archive does, the pickle
//! inside a good archive with one storage of 32 bytes.
#![no_main]

use janus_fuzz::{MEMORY, check, check_weights, put};
use janus_model::checkpoint::{Checkpoint, Limits};
use libfuzzer_sys::fuzz_target;

fn number(target: &mut Vec<u8>, value: usize, width: usize) {
    target.extend_from_slice(&value.to_le_bytes()[..width]);
}

/// A zip archive of stored entries, as far as a reader looks at it.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut central) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let local = file.len();
        file.extend_from_slice(b"PK\x03\x04");
        file.extend_from_slice(&[0; 14]);
        central.extend_from_slice(b"PK\x01\x02");
        central.extend_from_slice(&[0; 16]);
        for target in [&mut file, &mut central] {
            number(target, data.len(), 4);
            number(target, data.len(), 4);
            number(target, name.len(), 2);
            number(target, 0, 2);
        }
        central.extend_from_slice(&[0; 10]);
        number(&mut central, local, 4);
        central.extend_from_slice(name.as_bytes());
        file.extend_from_slice(name.as_bytes());
        file.extend_from_slice(data);
    }
    let start = file.len();
    file.extend_from_slice(&central);
    file.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    number(&mut file, entries.len(), 2);
    number(&mut file, entries.len(), 2);
    number(&mut file, central.len(), 4);
    number(&mut file, start, 4);
    number(&mut file, 0, 2);
    file
}

fuzz_target!(|input: &[u8]| {
    check(MEMORY, || {
        let storage: Vec<u8> = (0..32).collect();
        let path = if input.starts_with(b"PK") {
            put("pytorch_model.bin", input)
        } else {
            let parts = [("a/data.pkl", input), ("a/byteorder", b"little"), ("a/data/0", &storage)];
            put("pytorch_model.bin", &archive(&parts))
        };
        check_weights(Checkpoint::open(path, &Limits::default()));
    });
});
