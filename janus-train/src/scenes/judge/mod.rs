//! What a picture shows, and whether that is what was asked for.
//!
//! ```text
//! picture ─ ground: what lies behind ─► how much each pixel differs
//!           parts:  what hangs together, apart from specks
//!           find:   colour of the inside, shape of the mask ─► Found
//! Prompt + Found ─► holds
//! ```
//! Pictures may be soft, faintly noisy and a little off in colour, as those of a small image
//! tokenizer are. What fits no shape, or no colour, is found without one: it is never taken for
//! what it resembles most.

mod find;
mod ground;
mod parts;

use super::captions::prompt;
use super::chance::Chance;
use super::look::{Colour, Look, Shape};
use super::scene::{Relation, Scene, Theme};

pub use find::find;

/// Something in a picture. Lengths are in the unit of scenes: a 64th of the longer side.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// `None` for what fits no shape.
    pub shape: Option<Shape>,
    /// `None` for what is far from the palette.
    pub colour: Option<Colour>,
    /// Right and down from the upper left corner.
    pub centre: [f32; 2],
    /// Of the circle that has its area.
    pub radius: f32,
}

impl Found {
    fn is(&self, look: Look) -> bool {
        self.shape == Some(look.shape) && self.colour == Some(look.colour)
    }

    /// As [`Relation::between`], for centres that are measured: more along one axis than along the
    /// other, and clearly so.
    fn lies(&self, relation: Relation, other: &Self) -> bool {
        let [x, y] = [0, 1].map(|axis| self.centre[axis] - other.centre[axis]);
        let (along, across) = match relation {
            Relation::Left => (-x, y),
            Relation::Right => (x, y),
            Relation::Above => (-y, x),
            Relation::Below => (y, x),
        };
        along > across.abs() && along > 0.6 * (self.radius + other.radius)
    }
}

/// What is asked for, and what would be right.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// In words.
    pub text: String,
    /// The scene it was written for.
    pub scene: Scene,
}

impl Prompt {
    /// The prompt of a scene that was drawn for one of GenEval's categories.
    pub fn new(scene: Scene, chance: &mut Chance) -> Self {
        Self { text: prompt(&scene, chance), scene }
    }

    /// Whether a picture shows what was asked for. As in GenEval, more may be there, except where
    /// things are counted; tints and sizes are not looked at.
    pub fn holds(&self, found: &[Found]) -> bool {
        let looks: Vec<Look> = self.scene.objects.iter().map(|object| object.look).collect();
        match (self.scene.theme, &looks[..]) {
            (Theme::SingleObject | Theme::TwoObjects, _) => {
                let there = |look: &Look| found.iter().any(|found| found.shape == Some(look.shape));
                looks.iter().all(there)
            }
            (Theme::Counting, [look, ..]) => {
                found.len() == looks.len() && found.iter().all(|found| found.is(*look))
            }
            (Theme::Position, [first, second]) => {
                let objects = &self.scene.objects;
                let relation = Relation::between(&objects[0], &objects[1]);
                let pair = |a: &Found| {
                    let lies = |b: &Found| {
                        b.is(*second) && relation.is_some_and(|relation| a.lies(relation, b))
                    };
                    a.is(*first) && found.iter().any(lies)
                };
                found.iter().any(pair)
            }
            _ => self.all_there(found),
        }
    }

    /// Whether a picture shows what was asked for and nothing else.
    pub fn holds_exactly(&self, found: &[Found]) -> bool {
        found.len() == self.scene.objects.len() && self.holds(found)
    }

    /// Each look as often as in the scene, or more often.
    fn all_there(&self, found: &[Found]) -> bool {
        let of = |look: Look| {
            let wanted = self.scene.objects.iter().filter(|object| object.look == look).count();
            found.iter().filter(|found| found.is(look)).count() >= wanted
        };
        self.scene.objects.iter().all(|object| of(object.look))
    }
}

#[cfg(test)]
mod tests;
