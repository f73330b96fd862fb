//! A scene as a map: what lies in each field of a grid, row by row.
//!
//! An answer about a whole picture teaches an encoder little: one word for all its patches. A map
//! says of each patch what it shows, and shapes are learnt from a tenth of the pictures.

use super::questions::Pair;
use super::scene::{Object, SIDE, SQUARES, Scene};

/// Fields on either axis: squares, and the patches of an encoder of 64 tokens.
const FIELDS: usize = SQUARES;
/// A field without an object.
const GROUND: &str = "background";

/// The question for the map, and the map: a word for each of 8×8 fields, from the upper left one
/// on, which is the shape whose circle holds the middle of the field, or "background".
pub(super) fn map(scene: &Scene) -> Pair {
    let word = |number| lies(scene, number).map_or(GROUND, |object| object.look.shape.name());
    let fields = (0..FIELDS * FIELDS).map(word);
    ("Map the picture.".to_owned(), fields.collect::<Vec<_>>().join(" "))
}

/// The same fields for an encoder that learns alone: between commas the look of what lies there, or
/// the tint of the ground, and where the field is. Without that, an encoder forgets where its tokens
/// are, and nobody who reads them can tell left from right.
pub(super) fn fields(scene: &Scene) -> String {
    let said = |number| {
        let look = lies(scene, number).map(|object| object.look.to_string());
        let look = look.unwrap_or_else(|| scene.background.tint.name().to_owned());
        format!("{look} row{} column{}", number / FIELDS + 1, number % FIELDS + 1)
    };
    (0..FIELDS * FIELDS).map(said).collect::<Vec<_>>().join(", ")
}

/// What holds the middle of a field.
fn lies(scene: &Scene, field: usize) -> Option<&Object> {
    let middle = |field: usize| (field as f32 + 0.5) * SIDE / FIELDS as f32;
    let at = [middle(field % FIELDS), middle(field / FIELDS)];
    scene.objects.iter().find(|object| {
        let [x, y] = object.centre;
        (at[0] - x).powi(2) + (at[1] - y).powi(2) < object.radius * object.radius
    })
}

#[cfg(test)]
mod tests {
    use super::super::split::Split;
    use super::*;

    #[test]
    fn every_object_is_where_it_lies() {
        for index in 0..300 {
            let scene = Scene::new(5, Split::Train, index);
            let (_, map) = map(&scene);
            let words: Vec<&str> = map.split(' ').collect();
            assert_eq!(words.len(), 64);
            for object in &scene.objects {
                // The field around its centre: a circle of 7 pixels holds the middle of it.
                let [x, y] = object.centre.map(|x| (x / 8.0) as usize);
                assert_eq!(words[8 * y + x], object.look.shape.name(), "{scene:?}");
            }
            let said = fields(&scene);
            let said: Vec<&str> = said.split(", ").collect();
            assert_eq!(said.len(), 64);
            for (number, (said, word)) in said.iter().zip(&words).enumerate() {
                let (said, place) = said.split_once(" row").expect("a place");
                assert_eq!(place, format!("{} column{}", number / 8 + 1, number % 8 + 1));
                let tint = scene.background.tint.name();
                assert!(said.ends_with(word) || (said == tint && *word == GROUND), "{said} {word}");
            }
            let of_ground = words.iter().filter(|word| **word == GROUND).count();
            let area: f32 = scene.objects.iter().map(|o| o.radius * o.radius).sum();
            let expected = 64.0 - std::f32::consts::PI * area / 64.0;
            assert!((of_ground as f32 - expected).abs() < 8.0, "{of_ground}, {expected}");
        }
    }
}
