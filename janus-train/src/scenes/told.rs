//! Texts without pictures: what is said of a scene, and what follows from it.

use super::captions::caption;
use super::chance::Chance;
use super::questions::{questions, related};
use super::scene::Scene;
use super::split::familiar;
use super::words::{Thing, a, capital, plain};

/// A caption or two, or one with questions, or something that is always so.
pub fn told(scene: &Scene, chance: &mut Chance) -> String {
    let sentence = |text: String| capital(text.trim_end_matches('.')) + ".";
    let first = sentence(caption(scene, chance));
    let mut text = match chance.below(4) {
        0 => return sentence(caption(scene, chance)),
        1 => return format!("{first} {}", sentence(caption(scene, chance))),
        2 => return fact(scene, chance),
        _ => first,
    };
    let relation = related(scene, chance).filter(|_| scene.objects.len() == 2);
    if let Some((object, other, relation)) = relation {
        let [x, y] = [object, other].map(|object| object.look.to_string());
        let (how, back) = (plain(relation), plain(relation.inverse()));
        let [first, second] = [a(&x), a(&y)];
        return match chance.happens(0.5) {
            true => capital(&format!("{first} is {how} {second}. What is {how} the {y}? The {x}.")),
            false => capital(&format!("{first} is {how} {second}. So the {y} is {back} the {x}.")),
        };
    }
    for asked in questions(scene, chance).into_iter().take(2) {
        text += &format!(" {} {}", capital(&asked.question), sentence(asked.answer));
    }
    text
}

/// Something that is always true, about a look of a scene.
fn fact(scene: &Scene, chance: &mut Chance) -> String {
    let look = chance.pick(&scene.objects).look;
    let (x, y) = (1 + chance.below(2), 1 + chance.below(2));
    let (colour, shape) = (look.colour.name(), look.shape.name());
    match chance.below(4) {
        0 => format!("{} is a colour.", capital(colour)),
        1 => format!("{} is a shape.", capital(&a(shape))),
        2 if [x, y, x + y].into_iter().all(|count| familiar(look, count)) => {
            let [one, two, both] = [x, y, x + y].map(|count| Thing::of(look, count).text());
            format!("{} and {two} are {both}.", capital(&one))
        }
        _ => format!(
            "This is {}. What colour is it? {}. What shape is it? {}.",
            a(&look.to_string()),
            capital(colour),
            capital(&a(shape)),
        ),
    }
}
