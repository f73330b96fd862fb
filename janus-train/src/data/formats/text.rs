//! Documents without roles: `{"text": "…"}` per line, or the lines of a text file themselves.

use serde_json::{Map, Value};

use super::super::error::Why;
use super::super::sample::Sample;
use super::rows::{field, text_field};

/// A document.
pub(super) fn sample(fields: &Map<String, Value>) -> Result<Sample, Why> {
    let name = if field(fields, "text").is_none() && field(fields, "content").is_some() {
        "content"
    } else {
        "text"
    };
    text_field(fields, name).map(|text| Sample::plain(text.to_owned()))
}
