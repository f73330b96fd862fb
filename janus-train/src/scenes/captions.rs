//! What is said about a scene, in varied words, and always true.
//!
//! Things are named in the order in which a picture is read, and drawn: row by row, from the left.
//! A prompt leaves it open where they lie, so nothing is lost by it, and whoever draws code by code
//! learns to begin with what was named first. In any other order it has to find out at each thing
//! which ones it has drawn already, and models of a few million weights did not learn that in hours.
//! Only what is said of how two things lie may begin with either.

use super::chance::Chance;
use super::look::{Place, Size};
use super::scene::{Object, Relation, Scene, Theme};
use super::words::{Thing, a, capital, groups, list, varied};

/// A sentence, or the name of what there is.
struct Body {
    text: String,
    /// Whether it has a verb; else whether it names several things.
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    Several,
    Sentence,
}

/// A caption to learn from. Two in three speak of the ground or the place where that matters, and
/// one in five where it does not.
pub fn caption(scene: &Scene, chance: &mut Chance) -> String {
    let often = |matters| if matters { 0.67 } else { 0.2 };
    let tint = chance.happens(often(tint_matters(scene.theme)));
    let place = chance.happens(often(place_matters(scene.theme)));
    let swapped = chance.happens(0.3);
    written(scene, [tint, place, swapped], chance)
}

/// A caption that says all that makes the scene new: what a model is asked to draw.
pub fn prompt(scene: &Scene, chance: &mut Chance) -> String {
    let swapped = chance.happens(0.5);
    written(scene, [tint_matters(scene.theme), place_matters(scene.theme), swapped], chance)
}

/// The one text that answers "describe the picture": every look with its number, in a fixed order.
pub fn canonical(scene: &Scene) -> String {
    let things = groups(scene).into_iter().map(|(look, count)| Thing::of(look, count).text());
    list(&things.collect::<Vec<_>>())
}

/// Whether a theme is about what is on a tint.
fn tint_matters(theme: Theme) -> bool {
    theme == Theme::TwoObjects
}

/// Whether a theme is about what is at a place.
fn place_matters(theme: Theme) -> bool {
    matches!(theme, Theme::SingleObject | Theme::Colours)
}

/// Whether a theme is about shapes of any colour.
fn colour_is_open(theme: Theme) -> bool {
    matches!(theme, Theme::SingleObject | Theme::TwoObjects)
}

/// Whether the tint is said, the place, and of how two things lie the one that is met last first.
fn written(scene: &Scene, [tint, place, swapped]: [bool; 3], chance: &mut Chance) -> String {
    let body = match (scene.theme, &scene.in_reading_order()[..]) {
        (Theme::SingleObject | Theme::Colours, [object]) => one(scene, object, place, chance),
        (Theme::Position, [first, second]) => position(scene, first, second, swapped, chance),
        (Theme::Counting, _) => counting(scene, chance),
        (Theme::TwoObjects, [first, second]) => two(scene, first, second, chance),
        (Theme::Binding, [first, second]) => match chance.happens(0.2) {
            true => said_apart(first, second, chance),
            false => two(scene, first, second, chance),
        },
        _ => mixed(scene, chance),
    };
    let mut text = framed(body, chance);
    if tint {
        text = on_background(&text, scene.background.tint.name(), chance);
    }
    if chance.happens(0.2) { capital(&text) + "." } else { text }
}

/// What is said of an object: its colour unless the theme leaves it open, its size now and then.
fn thing(scene: &Scene, object: &Object, size: bool) -> Thing {
    let colour = (!colour_is_open(scene.theme)).then_some(object.look.colour);
    let size: Option<Size> = object.size.filter(|_| size);
    Thing { count: 1, size, colour, shape: object.look.shape }
}

fn one(scene: &Scene, object: &Object, place: bool, chance: &mut Chance) -> Body {
    let said = thing(scene, object, chance.happens(0.25));
    let text = match (chance.below(10), said.colour) {
        (0, _) => format!("one {}", said.bare()),
        (1, _) => format!("a single {}", said.bare()),
        (2, Some(colour)) => {
            format!("{} that is {}", a(&Thing { colour: None, ..said }.bare()), colour.name())
        }
        _ => said.text(),
    };
    let text = if place { format!("{text} {}", there(object.place(), chance)) } else { text };
    Body { text, form: Form::One }
}

/// One of several ways to say where something is.
fn there(place: Place, chance: &mut Chance) -> String {
    let name = place.name();
    match place {
        Place::Centre => (*chance.pick(&["in the centre", "in the middle"])).to_owned(),
        Place::Left | Place::Right => match chance.happens(0.5) {
            true => format!("on the {name}"),
            false => format!("on the {name} side"),
        },
        Place::Top | Place::Bottom => match chance.happens(0.5) {
            true => format!("at the {name}"),
            false => format!("near the {name}"),
        },
        _ => match chance.happens(0.5) {
            true => format!("at the {name}"),
            false => format!("in the {name} corner"),
        },
    }
}

fn two(scene: &Scene, first: &Object, second: &Object, chance: &mut Chance) -> Body {
    let sizes = chance.happens(0.15);
    let [x, y] = [first, second].map(|object| thing(scene, object, sizes).text());
    let text = match chance.below(8) {
        0 => format!("{x} with {y}"),
        1 => format!("{x} and also {y}"),
        2 => format!("{x} together with {y}"),
        3 => format!("{x}, {y}"),
        4 => format!("both {x} and {y}"),
        _ => format!("{x} and {y}"),
    };
    Body { text, form: Form::One }
}

/// Colours told apart from their shapes.
fn said_apart(first: &Object, second: &Object, chance: &mut Chance) -> Body {
    let [(c0, s0), (c1, s1)] =
        [first, second].map(|object| (object.look.colour.name(), object.look.shape.name()));
    let (text, form) = match chance.below(3) {
        0 => (format!("the {s0} is {c0} and the {s1} is {c1}"), Form::Sentence),
        1 => (format!("a {s0} that is {c0} and a {s1} that is {c1}"), Form::One),
        _ => (format!("a {s0} in {c0} and a {s1} in {c1}"), Form::One),
    };
    Body { text, form }
}

/// How two objects lie, the first of which is named first unless swapped.
fn position(
    scene: &Scene,
    first: &Object,
    second: &Object,
    swapped: bool,
    chance: &mut Chance,
) -> Body {
    let form = chance.below(7);
    // "Left of y is x" and "y with x on its left" name last what lies as the relation says.
    let last = matches!(form, 2 | 4);
    let [x, y] = if swapped != last { [second, first] } else { [first, second] };
    let Some(relation) = Relation::between(x, y) else { return mixed(scene, chance) };
    let sizes = chance.happens(0.1);
    let [x, y] = [x, y].map(|object| thing(scene, object, sizes).text());
    let how = varied(relation, chance);
    let (text, form) = match form {
        0 | 1 => (format!("{x} is {how} {y}"), Form::Sentence),
        2 => (format!("{y} with {x} {}", beside_it(relation)), Form::One),
        3 => (both_places(relation, &x, &y), Form::One),
        4 => (format!("{how} {y} is {x}"), Form::Sentence),
        _ => (format!("{x} {how} {y}"), Form::One),
    };
    Body { text, form }
}

fn beside_it(relation: Relation) -> &'static str {
    match relation {
        Relation::Left => "on its left",
        Relation::Right => "on its right",
        Relation::Above => "above it",
        Relation::Below => "below it",
    }
}

fn both_places(relation: Relation, x: &str, y: &str) -> String {
    match relation {
        Relation::Left => format!("{x} on the left and {y} on the right"),
        Relation::Right => format!("{x} on the right and {y} on the left"),
        Relation::Above => format!("{x} at the top and {y} at the bottom"),
        Relation::Below => format!("{x} at the bottom and {y} at the top"),
    }
}

fn counting(scene: &Scene, chance: &mut Chance) -> Body {
    let (count, look) = (scene.objects.len(), scene.objects[0].look);
    let said = Thing::of(look, count);
    let text = said.any(chance);
    let number = text.split(' ').next().unwrap_or_default().to_owned();
    let (colour, shapes) = (look.colour.name(), look.shape.plural());
    let text = match chance.below(9) {
        0 => format!("exactly {text}"),
        1 => format!("{number} {shapes}, all of them {colour}"),
        2 => format!("{colour} {shapes}, {number} of them"),
        3 => format!("{number} {shapes} in {colour}"),
        _ => text,
    };
    Body { text, form: Form::Several }
}

fn mixed(scene: &Scene, chance: &mut Chance) -> Body {
    let counts = groups(scene);
    let looks = scene.looks();
    let form = if counts[&looks[0]] > 1 { Form::Several } else { Form::One };
    let things: Vec<_> =
        looks.into_iter().map(|look| Thing::of(look, counts[&look]).any(chance)).collect();
    Body { text: list(&things), form }
}

/// In a frame, such as "a picture of …".
fn framed(Body { text, form }: Body, chance: &mut Chance) -> String {
    let verb = match form {
        Form::Sentence => return text,
        Form::One => "is",
        Form::Several => "are",
    };
    match chance.below(14) {
        0 => format!("a picture of {text}"),
        1 => format!("the picture of {text}"),
        2 => format!("an image of {text}"),
        3 => format!("a drawing of {text}"),
        4 => format!("there {verb} {text}"),
        5 => format!("the picture shows {text}"),
        6 => format!("draw {text}"),
        7 => format!("a picture with {text}"),
        _ => text,
    }
}

fn on_background(text: &str, tint: &str, chance: &mut Chance) -> String {
    match chance.below(6) {
        0 => format!("on a {tint} background, {text}"),
        1 => format!("{text}, the background is {tint}"),
        2 => format!("{text} in front of a {tint} background"),
        _ => format!("{text} on a {tint} background"),
    }
}
