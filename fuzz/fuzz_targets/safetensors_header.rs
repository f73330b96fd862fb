//! A whole `.safetensors` file. What we accept, the reference accepts, with the same bytes.
#![no_main]

use janus_fuzz::{MEMORY, bytes, check, check_weights, put};
use janus_model::checkpoint::{Checkpoint, Limits};
use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;

fuzz_target!(|file: &[u8]| {
    check(MEMORY, || {
        let path = put("model.safetensors", file);
        let Some(checkpoint) = check_weights(Checkpoint::open(path, &Limits::default())) else {
            return;
        };
        let reference = SafeTensors::deserialize(file).expect("the reference accepts it");
        assert_eq!(checkpoint.raw().len(), reference.len());
        for tensor in checkpoint.raw() {
            let expected = reference.tensor(&tensor.name).expect("a tensor of the same name");
            assert_eq!(tensor.shape.to_vec(), expected.shape(), "{}", tensor.name);
            assert_eq!(bytes(tensor), expected.data(), "{}", tensor.name);
        }
    });
});
