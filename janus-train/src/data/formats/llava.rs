//! LLaVA's format: `{"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>…"}]}`.
//!
//! `image` is a path or a list of them; without it the sample is text. Source: the instruction
//! files of LLaVA-1.5, a JSON list; JSONL is taken as well.

use janus_model::processor::Role;
use serde_json::{Map, Value};

use super::super::error::{Why, shown};
use super::super::sample::Sample;
use super::files::Root;
use super::rows::{field, pictures, text_field};

/// A conversation.
pub(super) fn sample(fields: &Map<String, Value>, root: &Root) -> Result<Sample, Why> {
    let Some(Value::Array(said)) = field(fields, "conversations") else {
        return Err(Why::Record("no list \"conversations\"".to_owned()));
    };
    let name = if field(fields, "image").is_some() { "image" } else { "images" };
    let pictures = pictures(fields, name, root)?;
    let mut system = None;
    let mut turns = Vec::with_capacity(said.len());
    for (number, turn) in said.iter().enumerate() {
        let Value::Object(turn) = turn else {
            return Err(Why::Record(format!("conversations: entry {} is no object", number + 1)));
        };
        let value = text_field(turn, "value")?.to_owned();
        match text_field(turn, "from")? {
            "human" | "user" => turns.push((Role::User, value, true)),
            "gpt" | "assistant" => turns.push((Role::Assistant, value, true)),
            "system" if number == 0 => system = Some(value),
            other => return Err(Why::Record(format!("unknown speaker \"{}\"", shown(other)))),
        }
    }
    Sample::conversation(system, turns, pictures)
}
