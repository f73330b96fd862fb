//! Pixels that hang together.

use super::ground::{Differences, FAR};

/// Smaller things are specks, in pixels of a picture of 64; the smallest star has 68.
const SPECK: f32 = 18.0;
/// A pixel belongs to a part if it differs by this much of what the part's inside does.
const HALF: f32 = 0.45;

/// Pixels of one thing.
pub(super) struct Part {
    /// Their numbers, row by row.
    pub pixels: Vec<usize>,
    /// By how much its inside differs from the ground.
    pub strength: f32,
}

/// The parts of a picture of which each pixel is `1 / scale` units wide.
pub(super) fn parts(differences: &Differences, scale: f32) -> Vec<Part> {
    let speck = SPECK * scale * scale;
    let large = |part: &Vec<usize>| part.len() as f32 >= speck;
    let values = &differences.values;
    let mut found = Vec::new();
    for whole in connected(differences, |at| values[at] > FAR).into_iter().filter(large) {
        // Soft edges of neighbours may touch; they come apart where each is half as strong.
        let edge = (HALF * strength(values, &whole)).max(FAR);
        let inside: std::collections::HashSet<usize> = whole.into_iter().collect();
        let pieces = connected(differences, |at| inside.contains(&at) && values[at] > edge);
        let piece = |pixels: Vec<usize>| Part { strength: strength(values, &pixels), pixels };
        found.extend(pieces.into_iter().filter(large).map(piece));
    }
    found
}

/// By how much the inside of a part differs: more than most of its pixels do.
fn strength(values: &[f32], pixels: &[usize]) -> f32 {
    let mut all: Vec<f32> = pixels.iter().map(|at| values[*at]).collect();
    let at = all.len() * 3 / 4;
    if all.is_empty() { 0.0 } else { *all.select_nth_unstable_by(at, f32::total_cmp).1 }
}

/// Pixels that are neighbours of each other, side by side.
fn connected(differences: &Differences, belongs: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
    let (width, height) = (differences.width, differences.height);
    let mut free: Vec<bool> = (0..width * height).map(belongs).collect();
    let mut all = Vec::new();
    for start in 0..free.len() {
        if !std::mem::take(&mut free[start]) {
            continue;
        }
        let mut part = vec![start];
        let mut next = 0;
        while let Some(at) = part.get(next).copied() {
            next += 1;
            let (x, y) = (at % width, at / width);
            let neighbours = [
                (x > 0).then(|| at - 1),
                (x + 1 < width).then(|| at + 1),
                (y > 0).then(|| at - width),
                (y + 1 < height).then(|| at + width),
            ];
            for neighbour in neighbours.into_iter().flatten() {
                if std::mem::take(&mut free[neighbour]) {
                    part.push(neighbour);
                }
            }
        }
        all.push(part);
    }
    all
}
