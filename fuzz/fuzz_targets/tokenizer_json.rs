//! A `tokenizer.json`, and behind a zero byte, if there is one, a `special_tokens_map.json`. If they
//! load, text goes through them both ways.
#![no_main]

use std::error::Error;

use janus_fuzz::{MEMORY, allow_caught_panics, check, check_error, folder, put};
use janus_model::processor::{JanusTokenizer, TokenizerError};
use libfuzzer_sys::fuzz_target;

const TEXTS: [&str; 4] = [
    "",
    "ab ba\r\n1 aab's  <0x41> A\u{0301}\u{212b}",
    "你好 <|User|> a <image_placeholder>",
    "<｜begin▁of▁sentence｜>ab",
];

fn used<T>(result: Result<T, TokenizerError>) -> Option<T> {
    result.inspect_err(|error| check_error(error as &dyn Error)).ok()
}

fuzz_target!(init: allow_caught_panics(), |bytes: &[u8]| {
    check(MEMORY, || {
        let mut files = bytes.splitn(2, |byte| *byte == 0);
        put("tokenizer.json", files.next().unwrap_or_default());
        put("special_tokens_map.json", files.next().unwrap_or(b"{}"));
        let Some(tokenizer) = used(JanusTokenizer::from_dir(&folder())) else { return };
        let special = *tokenizer.special();
        let never = [special.bos, special.begin_of_image, special.image_placeholder];
        for text in TEXTS {
            if let Some(ids) = used(tokenizer.encode(text)) {
                assert!(ids.iter().all(|id| (*id as usize) < tokenizer.size()), "{text}: {ids:?}");
                used(tokenizer.decode(&ids, false));
                used(tokenizer.decode(&ids, true));
            }
            if let Some(ids) = used(tokenizer.encode_plain(text)) {
                assert!(!ids.iter().any(|id| never.contains(id)), "{text}: {ids:?}");
            }
        }
        used(tokenizer.decode(&[0, 1, 2, 300, u32::MAX], false));
    });
});
