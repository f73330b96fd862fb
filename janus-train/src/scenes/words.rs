//! Pieces of sentences about scenes.

use std::collections::BTreeMap;

use super::chance::Chance;
use super::look::{Colour, Look, Shape, Size};
use super::scene::{Relation, Scene};

/// Numbers in words, from 0.
pub(super) const NUMBERS: [&str; 5] = ["no", "one", "two", "three", "four"];

/// So many things of a shape, and what is said of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thing {
    pub count: usize,
    pub size: Option<Size>,
    pub colour: Option<Colour>,
    pub shape: Shape,
}

impl Thing {
    pub(super) fn of(look: Look, count: usize) -> Self {
        Self { count, size: None, colour: Some(look.colour), shape: look.shape }
    }

    /// Without a number: "large red circle".
    pub(super) fn bare(&self) -> String {
        let size = self.size.map(Size::name);
        let colour = self.colour.map(Colour::name);
        let words = [size, colour, Some(self.shape.named(self.count))];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// "a large red circle", "two stars".
    pub(super) fn text(&self) -> String {
        match self.count {
            1 => a(&self.bare()),
            count => format!("{} {}", NUMBERS[count.min(4)], self.bare()),
        }
    }

    /// As [`Self::text`], sometimes with a digit.
    pub(super) fn any(&self, chance: &mut Chance) -> String {
        match chance.happens(0.3) && self.count > 1 {
            true => format!("{} {}", self.count, self.bare()),
            false => self.text(),
        }
    }
}

/// With the indefinite article.
pub(super) fn a(words: &str) -> String {
    let article = if words.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {words}")
}

/// The same with a capital letter at its beginning.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + letters.as_str()
    })
}

/// "x", "x and y", "x, y and z".
pub(super) fn list(things: &[String]) -> String {
    match things {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// How often each look is there, in the fixed order of looks.
pub(super) fn groups(scene: &Scene) -> BTreeMap<Look, usize> {
    let mut groups = BTreeMap::new();
    for object in &scene.objects {
        *groups.entry(object.look).or_default() += 1;
    }
    groups
}

/// "left of".
pub(super) fn plain(relation: Relation) -> &'static str {
    match relation {
        Relation::Left => "left of",
        Relation::Right => "right of",
        Relation::Above => "above",
        Relation::Below => "below",
    }
}

/// One of several ways to say how something lies.
pub(super) fn varied(relation: Relation, chance: &mut Chance) -> &'static str {
    let ways: &[&str] = match relation {
        Relation::Left => &["left of", "to the left of", "on the left of"],
        Relation::Right => &["right of", "to the right of", "on the right of"],
        Relation::Above => &["above", "over"],
        Relation::Below => &["below", "under", "beneath"],
    };
    chance.pick::<&str>(ways)
}
