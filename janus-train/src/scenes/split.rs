//! Which scenes are for training, and which are held out.
//!
//! Whole combinations are held out: a red circle at the top left, say, or three green stars, or a
//! heart above a square of certain colours. [`home`] says of each where it belongs, whatever the seed. Nothing of
//! a training scene, said or unsaid, is held out; in a scene that is, exactly what its [`Theme`] is
//! about is new, and all else is familiar.

use std::collections::BTreeMap;

use super::look::{Colour, Look, Place, Shape, Tint};
use super::scene::{Relation, Scene, Theme};
use crate::data::random::hash;

/// A part of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// What is learnt.
    Train,
    /// For choosing settings.
    Valid,
    /// For scores; twice the size of [`Self::Valid`].
    Test,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

/// Things that come together in a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Combination {
    /// A shape at a place, alone or not.
    At(Place, Shape),
    /// A look at a place.
    Of(Place, Colour, Shape),
    /// Two shapes on a tint, the smaller one first.
    Shapes(Tint, Shape, Shape),
    /// Two looks in one picture, the smaller one first.
    Looks(Look, Look),
    /// So many of a look, from 2 on.
    Count(usize, Look),
    /// The first is left of, or above, the second.
    Lie(Relation, Look, Look),
}

impl Combination {
    /// Whether a scene with this theme is held out for this.
    fn is_of(&self, theme: Theme) -> bool {
        match self {
            Self::At(..) => theme == Theme::SingleObject,
            Self::Of(..) => theme == Theme::Colours,
            Self::Shapes(..) => theme == Theme::TwoObjects,
            Self::Looks(..) => matches!(theme, Theme::Binding | Theme::Mixed),
            Self::Count(..) => theme == Theme::Counting,
            Self::Lie(..) => theme == Theme::Position,
        }
    }
}

/// Where a combination belongs: the whole rule.
///
/// Every shape has one of nine places where it is held out for the test, and every second shape
/// another one for the validation; every second colour of it has one, too, and every fourth one for
/// the validation. So all shapes and colours stay frequent in training, and no look is held out
/// everywhere: one code of an image tokenizer is a piece of a shape in its colour on its ground, and
/// of what was never drawn there are codes that nobody could learn.
/// Of numbers it is one in nine and one in eighteen. Of the many others, a fixed hash gives a tenth
/// to the test and a twentieth to the validation.
pub fn home(combination: &Combination) -> Split {
    // Each shape begins at another place: 4 is where it is held out for the test, 8 for validation.
    let turn = |place: Place, shape: Shape| (place as usize + 2 * shape as usize) % 9;
    let look = |look: Look| 8 * look.shape as u64 + look.colour as u64;
    let of_many = |parts: &[u64]| match hash(parts) % 20 {
        0 | 1 => Split::Test,
        2 => Split::Valid,
        _ => Split::Train,
    };
    match *combination {
        Combination::At(place, shape) => match (turn(place, shape), shape) {
            (4, _) => Split::Test,
            (8, Shape::Circle | Shape::Triangle | Shape::Cross) => Split::Valid,
            _ => Split::Train,
        },
        Combination::Of(place, colour, shape) => {
            // Where the shape itself is held out, its colours need not be.
            let there = turn(place, shape) == [0, 1, 2, 3, 5, 6, 7, 0][colour as usize];
            match (colour as usize + shape as usize) % 4 {
                0 | 2 if there => Split::Test,
                1 if there => Split::Valid,
                _ => Split::Train,
            }
        }
        Combination::Shapes(tint, a, b) => of_many(&[1, tint as u64, a as u64, b as u64]),
        Combination::Looks(a, b) => of_many(&[2, look(a), look(b)]),
        // So that each look loses one number at most, and each number as many looks.
        Combination::Count(count, of) => match (11 * look(of) + 7 * count as u64) % 18 {
            0 | 1 => Split::Test,
            2 => Split::Valid,
            _ => Split::Train,
        },
        Combination::Lie(relation, a, b) => of_many(&[4, relation as u64, look(a), look(b)]),
    }
}

/// Whether a scene may be drawn for this split.
pub fn belongs(scene: &Scene, split: Split) -> bool {
    let mut new = false;
    for combination in combinations(scene) {
        match home(&combination) {
            Split::Train => {}
            found if found == split && combination.is_of(scene.theme) => new = true,
            _ => return false,
        }
    }
    new == (split != Split::Train)
}

/// Everything that comes together in a scene.
pub fn combinations(scene: &Scene) -> Vec<Combination> {
    let tint = scene.background.tint;
    let mut found = Vec::new();
    let mut counts: BTreeMap<Look, usize> = BTreeMap::new();
    for (number, a) in scene.objects.iter().enumerate() {
        found.push(Combination::At(a.place(), a.look.shape));
        found.push(Combination::Of(a.place(), a.look.colour, a.look.shape));
        *counts.entry(a.look).or_default() += 1;
        for b in &scene.objects[..number] {
            let (first, second) = (a.look.min(b.look), a.look.max(b.look));
            if first.shape != second.shape {
                found.push(Combination::Shapes(tint, first.shape, second.shape));
            }
            if first != second {
                found.push(Combination::Looks(first, second));
                let how = Relation::between(a, b);
                found.extend(how.map(|how| lie(how, a.look, b.look)));
            }
        }
    }
    let several = counts.into_iter().filter(|(_, count)| *count > 1);
    found.extend(several.map(|(look, count)| Combination::Count(count, look)));
    found.sort_unstable();
    found.dedup();
    found
}

/// How two looks lie, told from the left or upper one.
pub fn lie(relation: Relation, a: Look, b: Look) -> Combination {
    match relation {
        Relation::Left | Relation::Above => Combination::Lie(relation, a, b),
        Relation::Right | Relation::Below => Combination::Lie(relation.inverse(), b, a),
    }
}

/// Whether so many of a look may be spoken of in training, even to say that they are not there: who
/// only ever heard "no" of a number would say so when it is right.
pub fn familiar(look: Look, count: usize) -> bool {
    count < 2 || home(&Combination::Count(count, look)) == Split::Train
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all(split: Split, count: u64) -> impl Iterator<Item = Scene> {
        (0..count).map(move |index| Scene::new(5, split, index))
    }

    #[test]
    fn no_combination_is_in_two_splits() {
        let seen: BTreeSet<Combination> =
            all(Split::Train, 6000).flat_map(|scene| combinations(&scene)).collect();
        for (split, other) in [(Split::Valid, Split::Test), (Split::Test, Split::Valid)] {
            for scene in all(split, 3000) {
                let found = combinations(&scene);
                let (new, known): (Vec<&Combination>, Vec<&Combination>) =
                    found.iter().partition(|found| home(found) != Split::Train);
                assert!(!new.is_empty(), "nothing new: {scene:?}");
                assert!(new.iter().all(|new| new.is_of(scene.theme)), "{scene:?}");
                assert!(new.iter().all(|new| home(new) == split), "{other:?}: {scene:?}");
                assert!(new.iter().all(|new| !seen.contains(new)), "learnt: {scene:?}");
                assert!(known.iter().all(|known| home(known) == Split::Train));
            }
        }
    }

    /// Every shape has places where it is learnt, every look as well, and every place most shapes.
    #[test]
    fn few_are_held_out_evenly() {
        let mut homes: BTreeMap<(bool, Split), usize> = BTreeMap::new();
        for shape in Shape::ALL {
            let at = Place::ALL.map(|place| home(&Combination::At(place, shape)));
            at.iter().for_each(|at| *homes.entry((false, *at)).or_default() += 1);
            assert!(at.iter().filter(|at| **at == Split::Train).count() >= 7);
            for colour in Colour::ALL {
                let of = Place::ALL.map(|place| home(&Combination::Of(place, colour, shape)));
                of.iter().for_each(|of| *homes.entry((true, *of)).or_default() += 1);
                let known = |(of, at): (&Split, &Split)| [of, at] == [&Split::Train; 2];
                assert!(of.iter().zip(&at).filter(|pair| known(*pair)).count() >= 6);
                // What is held out itself is so where its shape is not, or no scene would have it.
                let both = |(of, at): (&Split, &Split)| *of != Split::Train && *at != Split::Train;
                assert!(!of.iter().zip(&at).any(both), "{colour:?} {shape:?}");
            }
        }
        for place in Place::ALL {
            let at = |shape: &&Shape| home(&Combination::At(place, **shape)) == Split::Train;
            assert!(Shape::ALL.iter().filter(at).count() >= 4);
        }
        let of = |looks| Split::ALL.map(|split| homes[&(looks, split)]);
        assert_eq!((of(false), of(true)), ([45, 3, 6], [396, 12, 24]));
    }

    /// Numbers are held out evenly, and every look is trained in two of three.
    #[test]
    fn numbers_are_held_out_evenly() {
        let mut homes: BTreeMap<(Split, usize), usize> = BTreeMap::new();
        for (shape, colour) in Shape::ALL.into_iter().flat_map(|s| Colour::ALL.map(|c| (s, c))) {
            let home = |count| home(&Combination::Count(count, Look { shape, colour }));
            (2..=4).for_each(|count| *homes.entry((home(count), count)).or_default() += 1);
            assert!((2..=4).filter(|count| home(*count) == Split::Train).count() >= 2);
        }
        let of = |split| [2, 3, 4].map(|count| homes[&(split, count)]);
        assert_eq!(Split::ALL.map(of), [[40; 3], [2; 3], [6; 3]]);
    }

    /// Every colour, shape, tint, number and relation is learnt often.
    #[test]
    fn parts_are_familiar() {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for scene in all(Split::Train, 4000) {
            let mut count = |what: &dyn std::fmt::Debug| {
                *seen.entry(format!("{what:?}")).or_default() += 1;
            };
            count(&scene.background.tint);
            count(&scene.objects.len());
            scene.objects.iter().for_each(|object| count(&object.look.colour));
            scene.objects.iter().for_each(|object| count(&object.look.shape));
        }
        assert_eq!(seen.len(), 4 + 4 + 8 + 6, "{seen:?}");
        assert!(seen.values().all(|count| *count > 200), "{seen:?}");
    }
}
