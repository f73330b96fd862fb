//! Documents, laid into rows, as one [`Batch`].

use super::pack::Packing;
use super::tokens::Document;
use crate::batch::{Batch, Target};

/// A document with its pictures as numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Its tokens.
    pub document: Document,
    /// Pixels of each picture that is read, `[3, S, S]`, in the order of [`Document::seen`].
    pub pixels: Vec<Vec<f32>>,
    /// All codes of each picture of an answer, in the order of [`Document::drawn`].
    pub codes: Vec<Vec<i32>>,
}

/// Joins rows of examples; all are filled up to the longest with `pad`.
pub fn collate(rows: &[Vec<&Example>], packing: Packing, pad: i32, image_tokens: usize) -> Batch {
    let length = |row: &Vec<&Example>| row.iter().map(|e| e.document.ids.len()).sum::<usize>();
    let tokens = rows.iter().map(length).max().unwrap_or(0);
    let size = rows.len() * tokens;
    let mut batch = Batch {
        rows: rows.len(),
        tokens,
        ids: Vec::with_capacity(size),
        positions: Vec::with_capacity(size),
        documents: Vec::with_capacity(size),
        ..Batch::default()
    };
    for (number, row) in rows.iter().enumerate() {
        for (index, example) in row.iter().enumerate() {
            let start = batch.ids.len();
            let count = example.document.ids.len();
            // Without isolation positions go on, and the whole row counts as one document.
            let joined = packing == Packing::Joined;
            let first = if joined { start - number * tokens } else { 0 };
            let document = if joined { 0 } else { index as i32 };
            batch.ids.extend(&example.document.ids);
            batch.positions.extend((first..first + count).map(|position| position as i32));
            batch.documents.extend(std::iter::repeat_n(document, count));
            places(&mut batch, example, start as i32, image_tokens);
        }
        let end = (number + 1) * tokens;
        batch.ids.resize(end, pad);
        batch.positions.resize(end, 0);
        batch.documents.resize(end, -1);
    }
    batch
}

/// Enters what a document that begins at the flat place `start` has besides text.
fn places(batch: &mut Batch, example: &Example, start: i32, image_tokens: usize) {
    let Document { targets, seen, drawn, .. } = &example.document;
    let shifted = |target: &Target| Target { place: start + target.place, id: target.id };
    batch.text_targets.extend(targets.iter().map(shifted));
    for (picture, pixels) in seen.iter().zip(&example.pixels) {
        let first = start + picture.start as i32;
        batch.image_places.extend(first..first + image_tokens as i32);
        batch.pixels.extend(pixels);
    }
    for (picture, codes) in drawn.iter().zip(&example.codes) {
        // The place before code c is begin-of-image's for the first, code c - 1's for the others.
        let begin = start + picture.begin as i32;
        let target = |(place, id): (i32, &i32)| Target { place, id: *id };
        if picture.learnt {
            batch.code_targets.extend((begin..).zip(codes).map(target));
        }
        batch.codes.extend(&codes[..picture.read]);
        batch.code_places.extend(begin + 1..begin + 1 + picture.read as i32);
    }
}
