//! Looks a `tokenizer.json` over before the `tokenizers` crate reads it.
//!
//! That crate trusts its files: a merge longer than its parts, a template naming an absent token
//! or a decoder that strips more than there is can panic, some only when text is decoded. Ids that
//! do not count up from 0 are worse: they load, and point at other embedding rows.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::printable;

/// What is wrong with a field: its path, and words that fit behind "field: ".
pub(super) type Complaint = (String, String);

#[derive(Deserialize)]
struct File {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    truncation: Option<Truncation>,
    #[serde(default)]
    padding: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(Vec<String>),
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct Truncation {
    max_length: usize,
    stride: usize,
}

/// Every token and its id, as the file states them.
pub(super) type Vocabulary = HashMap<String, u32>;

/// Strips above this are no tokenizer's; the decoder walks them per token.
const MAX_STRIP: u64 = 16;

/// Checks the bytes of a `tokenizer.json`; on success returns all its tokens with their ids.
pub(super) fn check(bytes: &[u8]) -> Result<Vocabulary, Complaint> {
    let file: File = serde_json::from_slice(bytes).map_err(|e| {
        (
            "tokenizer.json".to_owned(),
            format!("not a BPE tokenizer ({})", printable(&e.to_string(), 300)),
        )
    })?;
    let kind = file.model.kind.as_deref().unwrap_or("BPE");
    if kind != "BPE" {
        return complain("model.type", format!("{} is not BPE", quote(kind)));
    }
    check_merges(&file.model)?;
    check_lengths(&file)?;
    let vocabulary = joined_vocabulary(&file)?;
    check_byte_tokens(&file)?;
    check_templates(&file.post_processor, "post_processor", &vocabulary)?;
    check_decoder(&file.decoder, "decoder")?;
    Ok(vocabulary)
}

fn complain<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, Complaint> {
    Err((field.into(), problem.into()))
}

/// Names come from the file: escaped, and cut.
fn quote(name: &str) -> String {
    let short: String = name.chars().take(40).collect();
    format!("{short:?}")
}

fn check_merges(model: &Model) -> Result<(), Complaint> {
    let prefix = model.continuing_subword_prefix.as_deref().unwrap_or_default();
    for (index, merge) in model.merges.iter().enumerate() {
        let field = || format!("model.merges[{index}]");
        let parts: Vec<&str> = match merge {
            Merge::Text(text) => text.split(' ').collect(),
            Merge::Pair(parts) => parts.iter().map(String::as_str).collect(),
        };
        let &[left, right] = parts.as_slice() else {
            return complain(field(), format!("{} parts instead of 2", parts.len()));
        };
        // The crate slices the prefix off the right part without looking.
        let Some(tail) = right.strip_prefix(prefix) else {
            return complain(field(), format!("{} lacks the prefix", quote(right)));
        };
        let whole = format!("{left}{tail}");
        for part in [left, right, &whole] {
            if !model.vocab.contains_key(part) {
                return complain(field(), format!("{} is not in the vocabulary", quote(part)));
            }
        }
    }
    Ok(())
}

fn check_lengths(file: &File) -> Result<(), Complaint> {
    if let Some(Truncation { max_length, stride }) = &file.truncation
        && stride >= max_length
    {
        let problem = format!("a stride of {stride} with a length of {max_length}");
        return complain("truncation", problem);
    }
    if file.padding.pointer("/strategy/Fixed").and_then(Value::as_u64) == Some(0) {
        return complain("padding.strategy", "a fixed length of 0");
    }
    Ok(())
}

/// Vocabulary and added tokens in one; ids must be 0, 1, 2 … without gap or repetition.
fn joined_vocabulary(file: &File) -> Result<Vocabulary, Complaint> {
    let mut vocabulary = file.model.vocab.clone();
    for (index, token) in file.added_tokens.iter().enumerate() {
        let field = format!("added_tokens[{index}]");
        if token.content.is_empty() {
            return complain(field, "an empty token");
        }
        let before = vocabulary.insert(token.content.clone(), token.id);
        if let Some(before) = before.filter(|before| *before != token.id) {
            let problem =
                format!("{} has the ids {before} and {}", quote(&token.content), token.id);
            return complain(field, problem);
        }
    }
    let mut owners: Vec<Option<&str>> = vec![None; vocabulary.len()];
    for (token, &id) in &vocabulary {
        match owners.get_mut(id as usize) {
            None => {
                let problem =
                    format!("{} has id {id} of {}: there are gaps", quote(token), vocabulary.len());
                return complain("model.vocab", problem);
            }
            Some(Some(other)) => {
                // Ordered, so that the message does not depend on the hash map.
                let (a, b) = (quote(token).min(quote(other)), quote(token).max(quote(other)));
                return complain("model.vocab", format!("{a} and {b} share id {id}"));
            }
            Some(owner) => *owner = Some(token),
        }
    }
    Ok(vocabulary)
}

/// With byte fallback, `<0xNN>` tokens are bytes and must be readable as such.
fn check_byte_tokens(file: &File) -> Result<(), Complaint> {
    if !file.model.byte_fallback && !mentions_type(&file.decoder, "ByteFallback") {
        return Ok(());
    }
    for token in file.model.vocab.keys() {
        let inner = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        let hex = |digits: &str| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if inner.is_some_and(|digits| !hex(digits)) {
            return complain("model.vocab", format!("{} is no byte", quote(token)));
        }
    }
    Ok(())
}

/// Whether the component, or a member of a sequence, has this type.
fn mentions_type(component: &Value, kind: &str) -> bool {
    component.get("type").and_then(Value::as_str) == Some(kind)
        || members(component).iter().any(|(_, member)| mentions_type(member, kind))
}

/// The parts of a `Sequence`, with their names.
fn members(component: &Value) -> Vec<(String, &Value)> {
    let lists = ["processors", "decoders"].into_iter();
    lists
        .filter_map(|name| Some((name, component.get(name)?.as_array()?)))
        .flat_map(|(name, list)| {
            list.iter().enumerate().map(move |(i, v)| (format!("{name}[{i}]"), v))
        })
        .collect()
}

fn check_templates(
    component: &Value,
    path: &str,
    vocabulary: &Vocabulary,
) -> Result<(), Complaint> {
    for (name, member) in members(component) {
        check_templates(member, &format!("{path}.{name}"), vocabulary)?;
    }
    if component.get("type").and_then(Value::as_str) != Some("TemplateProcessing") {
        return Ok(());
    }
    let pieces = ["single", "pair"].into_iter().filter_map(|name| component.get(name)?.as_array());
    for id in pieces.flatten().filter_map(|piece| piece.pointer("/SpecialToken/id")?.as_str()) {
        let known = component.get("special_tokens").and_then(|tokens| tokens.get(id)).is_some();
        if !known || !vocabulary.contains_key(id) {
            return complain(path, format!("the template names {}, which is absent", quote(id)));
        }
    }
    Ok(())
}

fn check_decoder(component: &Value, path: &str) -> Result<(), Complaint> {
    for (name, member) in members(component) {
        check_decoder(member, &format!("{path}.{name}"))?;
    }
    if component.get("type").and_then(Value::as_str) == Some("Strip") {
        for side in ["start", "stop"] {
            let count = component.get(side).and_then(Value::as_u64).unwrap_or(0);
            if count > MAX_STRIP {
                return complain(format!("{path}.{side}"), format!("strips {count} characters"));
            }
        }
    }
    Ok(())
}
