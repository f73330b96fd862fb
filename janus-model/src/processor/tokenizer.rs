//! DeepSeek-LLM's byte-level BPE with Janus' special tokens, through the `tokenizers` crate.
//!
//! Ids differ between model sizes (begin-of-image is 100003 in 1B, 100016 in 7B), so every special
//! id is looked up by its string when the tokenizer is loaded. The begin-of-sentence token is never
//! added here: `prompt.rs` adds it once, whatever the file's post-processor would do.
//!
//! Source: `tokenizer.json` and its companions as published with Janus-Pro.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::error::TokenizerError;
use super::files::{read_file, read_optional};
use super::tokenizer_check;
use crate::error::printable;

/// Cap of `tokenizer.json`; the published files have several MB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Cap of the other JSON files; the published ones have a few kB.
pub(super) const MAX_JSON_BYTES: u64 = 16 << 20;

/// Characters of a token that messages show.
const SHOWN: usize = 60;

const BOS: &str = "<｜begin▁of▁sentence｜>";
const EOS: &str = "<｜end▁of▁sentence｜>";
const PAD: &str = "<｜▁pad▁｜>";
const BEGIN_OF_IMAGE: &str = "<begin_of_image>";
const END_OF_IMAGE: &str = "<end_of_image>";
const IMAGE_PLACEHOLDER: &str = "<image_placeholder>";
pub(super) const USER: &str = "<|User|>";
pub(super) const ASSISTANT: &str = "<|Assistant|>";

/// Ids of the tokens that have a meaning of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begin of sentence, first in every prompt.
    pub bos: u32,
    /// End of sentence: closes an answer.
    pub eos: u32,
    /// Left padding, and the unconditional prompt of image generation.
    pub pad: u32,
    /// Opens a picture.
    pub begin_of_image: u32,
    /// Closes a picture.
    pub end_of_image: u32,
    /// Stands where a vector of the vision tower will be placed.
    pub image_placeholder: u32,
    /// `<|User|>`, where the tokenizer has it.
    pub user: Option<u32>,
    /// `<|Assistant|>`, where the tokenizer has it.
    pub assistant: Option<u32>,
}

/// The strings that the files may choose.
struct Names {
    bos: String,
    eos: String,
    pad: Vec<String>,
}

/// Text to ids and back.
pub struct JanusTokenizer {
    inner: Tokenizer,
    special: SpecialIds,
    eos: String,
    /// Strings that text from outside must not be able to write.
    control: Vec<String>,
    control_ids: Vec<u32>,
    /// First bytes of `control`, to find its occurrences quickly.
    control_starts: [bool; 256],
    max_length: Option<usize>,
    size: usize,
}

impl JanusTokenizer {
    /// Loads `tokenizer.json`, and the names of special tokens from `special_tokens_map.json` and
    /// `tokenizer_config.json` where these exist.
    ///
    /// # Errors
    /// [`TokenizerError`]: a file that cannot be read, a field that cannot be used, a special
    /// token that is absent, a panic inside the `tokenizers` crate.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let bytes = read_file(&path, MAX_TOKENIZER_BYTES)?;
        let map = read_object(&dir.join("special_tokens_map.json"))?;
        let config = read_object(&dir.join("tokenizer_config.json"))?;
        let mut tokenizer = Self::from_bytes(&bytes, &Names::from_files(&map, &config))
            .map_err(|e| TokenizerError::File { path, source: Box::new(e) })?;
        // transformers writes 1e30 for "no limit".
        let limit = config.get("model_max_length").and_then(Value::as_u64);
        tokenizer.max_length = limit.filter(|n| (1..=1 << 24).contains(n)).map(|n| n as usize);
        Ok(tokenizer)
    }

    /// Loads the text of a `tokenizer.json` with the published names of special tokens.
    ///
    /// # Errors
    /// As [`JanusTokenizer::from_dir`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        Self::from_bytes(bytes, &Names::from_files(&Value::Null, &Value::Null))
    }

    fn from_bytes(bytes: &[u8], names: &Names) -> Result<Self, TokenizerError> {
        let stated = tokenizer_check::check(bytes)
            .map_err(|(field, problem)| TokenizerError::Field { field, problem })?;
        let mut inner = guarded("loading", || Tokenizer::from_bytes(bytes))?;
        // Lengths are the prompt's business, never silently the tokenizer's.
        inner.with_padding(None);
        guarded("loading", || inner.with_truncation(None).map(|_| ()))?;
        for (token, &id) in &stated {
            let found = inner.token_to_id(token);
            if found != Some(id) {
                let token = printable(token, SHOWN);
                return Err(TokenizerError::ShiftedId { token, stated: id, found });
            }
        }
        let special = resolve(&inner, names)?;
        let control = control_tokens(&inner, &special);
        let mut control_starts = [false; 256];
        for byte in control.iter().filter_map(|(_, token)| token.bytes().next()) {
            control_starts[usize::from(byte)] = true;
        }
        let (control_ids, control) = control.into_iter().unzip();
        let (eos, size) = (names.eos.clone(), stated.len());
        let tokenizer = Self {
            inner,
            special,
            eos,
            control,
            control_ids,
            control_starts,
            max_length: None,
            size,
        };
        tokenizer.check_whole_tokens()?;
        Ok(tokenizer)
    }

    /// A token in the vocabulary that is not registered as added would be cut up by BPE.
    fn check_whole_tokens(&self) -> Result<(), TokenizerError> {
        for (token, id) in self.control.iter().zip(&self.control_ids) {
            if self.encode(token)? != [*id] {
                return Err(TokenizerError::SplitToken { token: printable(token, SHOWN) });
            }
        }
        Ok(())
    }

    /// Ids of the tokens that have a meaning of their own.
    pub fn special(&self) -> &SpecialIds {
        &self.special
    }

    /// Number of ids; they count up from 0.
    pub fn size(&self) -> usize {
        self.size
    }

    /// `model_max_length` of the files, in tokens.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// Holds the ids against a model's embedding rows.
    ///
    /// # Errors
    /// [`TokenizerError::Vocabulary`] where an id has no row.
    pub fn check_vocabulary(&self, rows: usize) -> Result<(), TokenizerError> {
        if self.size > rows {
            return Err(TokenizerError::Vocabulary { tokens: self.size, rows });
        }
        Ok(())
    }

    /// Encodes **trusted** text: special-token strings in it become their tokens. No
    /// begin-of-sentence is added.
    ///
    /// # Errors
    /// [`TokenizerError::Tokenizers`] or [`TokenizerError::Panic`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = guarded("encoding", || self.inner.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Encodes text from outside: what looks like a special token stays text.
    ///
    /// Without such strings the ids equal those of [`JanusTokenizer::encode`].
    ///
    /// # Errors
    /// As [`JanusTokenizer::encode`]; [`TokenizerError::ControlToken`] where a special token
    /// would appear all the same.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_mixed(text, &[])
    }

    /// Encodes text in which only the `trusted` byte ranges, in order, are special tokens.
    ///
    /// The text is encoded in one go, as the reference does, because BPE merges across the places
    /// where template and message meet. Only a special-token string that is **not** trusted is cut
    /// in two, so that neither half is recognised; the halves are encoded one after the other.
    ///
    /// # Errors
    /// As [`JanusTokenizer::encode_plain`].
    pub fn encode_mixed(
        &self,
        text: &str,
        trusted: &[Range<usize>],
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        let mut start = 0;
        let cuts = self.cuts(text, trusted);
        for cut in cuts.into_iter().chain([text.len()]) {
            ids.extend(self.encode(&text[start..cut])?);
            start = cut;
        }
        // A normaliser could still make a special token of what was none: count them.
        let found = ids.iter().filter(|id| self.control_ids.contains(id)).count();
        if found != trusted.len() {
            return Err(TokenizerError::ControlToken { found, expected: trusted.len() });
        }
        Ok(ids)
    }

    /// Places inside every special-token string that is not trusted, in order.
    fn cuts(&self, text: &str, trusted: &[Range<usize>]) -> Vec<usize> {
        let mut cuts = Vec::new();
        for (start, byte) in text.bytes().enumerate() {
            if !self.control_starts[usize::from(byte)] || !text.is_char_boundary(start) {
                continue;
            }
            for token in
                self.control.iter().filter(|token| text[start..].starts_with(token.as_str()))
            {
                let end = start + token.len();
                let inside = |range: &Range<usize>| range.start <= start && end <= range.end;
                if trusted.iter().any(inside) {
                    continue;
                }
                let free = |cut: &usize| !trusted.iter().any(|r| r.start < *cut && *cut < r.end);
                let cut = (start + 1..end).filter(|cut| text.is_char_boundary(*cut)).find(free);
                cuts.extend(cut);
            }
        }
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }

    /// Turns ids into text. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`TokenizerError::Tokenizers`] or [`TokenizerError::Panic`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        guarded("decoding", || self.inner.decode(ids, skip_special))
    }

    /// The string of one id, as stored: bytes are written in the byte-level alphabet.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token by its stored string.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    pub(super) fn eos_text(&self) -> &str {
        &self.eos
    }

    pub(super) fn image_text(&self) -> &'static str {
        IMAGE_PLACEHOLDER
    }

    pub(super) fn begin_of_image_text(&self) -> &'static str {
        BEGIN_OF_IMAGE
    }
}

impl std::fmt::Debug for JanusTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JanusTokenizer")
            .field("size", &self.size)
            .field("special", &self.special)
            .finish()
    }
}

impl Names {
    fn from_files(map: &Value, config: &Value) -> Self {
        let name = |file: &Value, field: &str| {
            let value = file.get(field)?;
            let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some(text.to_owned()).filter(|text| !text.is_empty())
        };
        let first = |field: &str, default: &str| {
            name(map, field).or_else(|| name(config, field)).unwrap_or_else(|| default.to_owned())
        };
        let (bos, eos) = (first("bos_token", BOS), first("eos_token", EOS));
        // The published tokenizer_config.json has no pad token, and taking another one in its
        // place spoils guided images: the trained pad goes before whatever the files say.
        let named = [name(map, "pad_token"), name(config, "pad_token")];
        let pad = named.into_iter().flatten().filter(|pad| *pad != eos && *pad != bos);
        let pad = [PAD.to_owned()].into_iter().chain(pad).collect();
        Self { bos, eos, pad }
    }
}

fn resolve(inner: &Tokenizer, names: &Names) -> Result<SpecialIds, TokenizerError> {
    let need = |token: &str| {
        inner
            .token_to_id(token)
            .ok_or_else(|| TokenizerError::MissingToken { token: printable(token, SHOWN) })
    };
    let pad = names.pad.iter().find_map(|pad| inner.token_to_id(pad));
    Ok(SpecialIds {
        bos: need(&names.bos)?,
        eos: need(&names.eos)?,
        pad: pad.map_or_else(|| need(PAD), Ok)?,
        begin_of_image: need(BEGIN_OF_IMAGE)?,
        end_of_image: need(END_OF_IMAGE)?,
        image_placeholder: need(IMAGE_PLACEHOLDER)?,
        user: inner.token_to_id(USER),
        assistant: inner.token_to_id(ASSISTANT),
    })
}

/// All tokens marked special, and those resolved above whether marked or not.
fn control_tokens(inner: &Tokenizer, special: &SpecialIds) -> Vec<(u32, String)> {
    let needed = [
        Some(special.bos),
        Some(special.eos),
        Some(special.pad),
        Some(special.begin_of_image),
        Some(special.end_of_image),
        Some(special.image_placeholder),
        special.user,
        special.assistant,
    ];
    let added = inner.get_added_tokens_decoder();
    let marked = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id);
    let mut ids: Vec<u32> = marked.chain(needed.into_iter().flatten()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().filter_map(|id| Some((id, inner.id_to_token(id)?))).collect()
}

fn read_object(path: &Path) -> Result<Value, TokenizerError> {
    let Some(bytes) = read_optional(path, MAX_JSON_BYTES)? else {
        return Ok(Value::Null);
    };
    serde_json::from_slice(&bytes).map_err(|e| TokenizerError::File {
        path: path.to_owned(),
        source: Box::new(TokenizerError::Json { reason: e.to_string() }),
    })
}

/// Runs the `tokenizers` crate so that neither its errors nor its panics get away.
fn guarded<T>(
    action: &'static str,
    run: impl FnOnce() -> tokenizers::Result<T>,
) -> Result<T, TokenizerError> {
    // Unwind-safe: after a panic while loading the value is dropped, and encoding and decoding
    // change nothing but a cache behind a lock.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => {
            Err(TokenizerError::Tokenizers { action, reason: printable(&e.to_string(), 300) })
        }
        Err(_) => Err(TokenizerError::Panic { action }),
    }
}
