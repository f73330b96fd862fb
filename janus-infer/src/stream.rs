//! Ids to text while they arrive, without ever showing half a character.
//!
//! In byte-level BPE a token is a piece of bytes, and a character may be spread over several.
//! Here bytes are collected until they form whole characters; bytes that can no longer become
//! UTF-8 turn into U+FFFD, one per broken sequence, exactly as decoding everything at once does.
//! Stop strings are cut out, and text that may be the start of one is held back.

use std::str::from_utf8;

use janus_model::processor::{JanusTokenizer, ProcessorError};

use crate::error::InferError;

/// Text of one answer in the making.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a JanusTokenizer,
    stops: Vec<String>,
    /// Bytes that are no whole character yet; at most 3 after each push.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
    stopped: bool,
}

impl<'a> TextStream<'a> {
    /// An empty stream that ends before the first of `stops`; empty stop strings are ignored.
    pub fn new(tokenizer: &'a JanusTokenizer, stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { tokenizer, stops, bytes: Vec::new(), held: String::new(), stopped: false }
    }

    /// Takes one more id and returns the text that is certain now, often empty. Special tokens
    /// and ids without a token have no text.
    ///
    /// # Errors
    /// [`InferError::Model`] where the tokenizer fails on its own token.
    pub fn push(&mut self, id: i32) -> Result<String, InferError> {
        let bytes = token_bytes(self.tokenizer, id)?;
        self.bytes.extend(bytes);
        let text = take_characters(&mut self.bytes);
        Ok(self.pass(&text))
    }

    /// The rest, once no id will follow. An unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
        let mut text = self.pass(&rest);
        text.push_str(&std::mem::take(&mut self.held));
        text
    }

    /// Whether a stop string was met. Nothing comes out after it.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    fn pass(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        let hit = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(start) = hit {
            self.stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let keep = self.stops.iter().map(|stop| common_end(&self.held, stop)).max().unwrap_or(0);
        let kept = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, kept)
    }
}

/// Bytes at the end of `text` that are the beginning of `stop`.
fn common_end(text: &str, stop: &str) -> usize {
    let ends = |n: &usize| stop.is_char_boundary(*n) && text.ends_with(&stop[..*n]);
    (1..stop.len()).rev().find(ends).unwrap_or(0)
}

/// Takes everything off the front that is decided: whole characters and broken sequences.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    loop {
        match from_utf8(bytes) {
            Ok(whole) => {
                text.push_str(whole);
                bytes.clear();
                return text;
            }
            Err(error) => {
                let valid = error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[..valid]));
                // No length: the end of the bytes cuts a character that may still be completed.
                let broken = error.error_len();
                text.extend(broken.map(|_| char::REPLACEMENT_CHARACTER));
                bytes.drain(..valid + broken.unwrap_or(0));
                if broken.is_none() {
                    return text;
                }
            }
        }
    }
}

/// The bytes a token stands for; none for special ones, nor for the rows at the end of a model's
/// table that no token was ever given.
fn token_bytes(tokenizer: &JanusTokenizer, id: i32) -> Result<Vec<u8>, InferError> {
    let known = u32::try_from(id).ok().and_then(|id| Some((id, tokenizer.token(id)?)));
    let Some((id, token)) = known else { return Ok(Vec::new()) };
    let shown = tokenizer.decode(&[id], true).map_err(ProcessorError::from)?;
    if shown.is_empty() {
        return Ok(Vec::new());
    }
    // A token with a character outside the alphabet was added as plain text.
    let bytes: Option<Vec<u8>> = token.chars().map(alphabet_byte).collect();
    Ok(bytes.unwrap_or_else(|| token.into_bytes()))
}

/// The byte that a character of the byte-level alphabet stands for. Printable Latin-1 characters
/// stand for themselves, those from U+0100 on for the other 68 bytes in order (GPT-2's
/// `bytes_to_unicode`).
fn alphabet_byte(c: char) -> Option<u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(c);
    if let Ok(byte) = u8::try_from(code) {
        return Some(byte).filter(printable);
    }
    (0..=u8::MAX).filter(|byte| !printable(byte)).nth(usize::try_from(code - 0x100).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_covers_every_byte_once() {
        let covered: Vec<u8> =
            (0..0x200).filter_map(char::from_u32).filter_map(alphabet_byte).collect();
        assert_eq!(covered.len(), 256);
        let mut sorted = covered;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..=u8::MAX).collect::<Vec<_>>());
        assert_eq!(alphabet_byte('Ġ'), Some(b' '));
        assert_eq!(alphabet_byte('Ċ'), Some(b'\n'));
        assert_eq!(alphabet_byte('中'), None);
    }

    #[test]
    fn bytes_become_text_as_if_all_at_once() {
        let samples: [&[u8]; 6] = [
            "déjà vu 中文 👩‍🚀!".as_bytes(),
            b"abc\xff\xfe\xe4\xb8def",
            b"\xe4\xb8",
            b"\xf0\x9f\x91\xf0\x9f\x91\xa9",
            b"\xed\xa0\x80 \xc0\x80",
            b"",
        ];
        for sample in samples {
            for size in 1..=4 {
                let (mut bytes, mut text) = (Vec::new(), String::new());
                for chunk in sample.chunks(size) {
                    bytes.extend_from_slice(chunk);
                    text.push_str(&take_characters(&mut bytes));
                    assert!(bytes.len() <= 3);
                }
                text.push_str(&String::from_utf8_lossy(&bytes));
                assert_eq!(text, String::from_utf8_lossy(sample), "chunks of {size}");
            }
        }
    }

    #[test]
    fn only_the_possible_start_of_a_stop_string_is_held() {
        assert_eq!(common_end("say <|Us", "<|User|>"), 4);
        assert_eq!(common_end("a <|Use", "\n"), 0);
        assert_eq!(common_end("aab", "aabb"), 3);
        assert_eq!(common_end("x中", "中文"), 3);
        assert_eq!(common_end("abab", "abac"), 2);
    }
}
