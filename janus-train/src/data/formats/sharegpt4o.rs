//! ShareGPT-4o-Image: `{"input_prompt": "a cat", "output_image": "cat.png"}`, and for editing
//! `"input_image": ["before.png"]` beside them.

use janus_model::processor::Role;
use serde_json::{Map, Value};

use super::super::error::Why;
use super::super::sample::{Content, Piece, Sample, Turn};
use super::files::Root;
use super::rows::{pictures, text_field};

/// A prompt and the picture to draw from it.
pub(super) fn sample(fields: &Map<String, Value>, root: &Root) -> Result<Sample, Why> {
    let prompt = text_field(fields, "input_prompt")?;
    let mut all = pictures(fields, "input_image", root)?;
    let given = all.len();
    let drawn = pictures(fields, "output_image", root)?;
    if drawn.len() != 1 {
        return Err(Why::Record(format!("output_image: {} pictures, not one", drawn.len())));
    }
    all.extend(drawn);
    let mut question = Turn::with_places(Role::User, prompt, 0);
    let places = question.pieces.iter().filter(|p| matches!(p, Piece::Picture(_))).count();
    if places == 0 {
        question.pieces.splice(0..0, (0..given).map(Piece::Picture));
    } else if places != given {
        return Err(Why::Places { places, pictures: given });
    }
    let pieces = vec![Piece::Picture(given)];
    let turns = vec![question, Turn { role: Role::Assistant, pieces, learnt: true }];
    Ok(Sample { content: Content::Turns { system: None, turns }, pictures: all })
}
