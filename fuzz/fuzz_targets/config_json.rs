//! A `config.json` of either dialect. A valid one survives being written and read, in both.
#![no_main]

use janus_fuzz::{MEMORY, check, check_error};
use janus_model::{JanusConfig, config::Dialect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(MEMORY, || {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let config = match JanusConfig::from_json(text) {
            Ok((config, _)) => config,
            Err(error) => {
                let _ = (error.kind(), error.hint());
                return check_error(&error);
            }
        };
        config.validate().expect("what was read is valid");
        let _ = (config.image_tokens(), config.image_codes());
        for dialect in [Dialect::Original, Dialect::HuggingFace] {
            if config.check_dialect(dialect).is_err() {
                continue;
            }
            let written = config.to_json(dialect, "bfloat16", None);
            let read = JanusConfig::from_json(&written).expect("what was written can be read");
            assert_eq!(read, (config.clone(), dialect), "{written}");
        }
    });
});
