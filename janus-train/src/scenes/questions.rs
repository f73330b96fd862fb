//! Questions about a scene, with the one right answer of each.
//!
//! Answers are short and always of the same form: a shape ("star"), a colour ("red"), a digit
//! ("3"), a place ("top left"), a relation ("left"), "yes" or "no", a look ("red star"), or the
//! canonical caption.

use super::captions::canonical;
use super::chance::Chance;
use super::look::{Colour, Look, Shape};
use super::scene::{Object, Relation, Scene};
use super::split::{Split, familiar, home, lie};
use super::words::{NUMBERS, a, capital, plain};

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum About {
    What,
    Colour,
    Count,
    Where,
    YesNo,
    Compare,
    Describe,
}

impl About {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::What,
        Self::Colour,
        Self::Count,
        Self::Where,
        Self::YesNo,
        Self::Compare,
        Self::Describe,
    ];

    /// Its key in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::What => "what",
            Self::Colour => "colour",
            Self::Count => "how_many",
            Self::Where => "where",
            Self::YesNo => "yes_no",
            Self::Compare => "compare",
            Self::Describe => "describe",
        }
    }
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What it is about.
    pub about: About,
    /// As a person would type it.
    pub question: String,
    /// The only right one.
    pub answer: String,
}

/// Two to five different questions about a scene. A picture costs more than what is asked about it,
/// but answers tell of each other: of many, most can be given by whoever does not look. One that
/// describes everything comes once at most.
pub fn questions(scene: &Scene, chance: &mut Chance) -> Vec<Asked> {
    let wanted = 2 + chance.below(4);
    let mut found: Vec<Asked> = Vec::new();
    // Some kinds of questions make no sense for some scenes; others always do.
    while found.len() < wanted {
        let about = *chance.pick(&About::ALL);
        let Some(asked) = question(scene, about, chance) else { continue };
        add(&mut found, asked);
    }
    found
}

/// Up to six different questions about where things are; none where they are all alike.
pub fn places(scene: &Scene, chance: &mut Chance) -> Vec<Asked> {
    several(scene, About::Where, 2 * scene.objects.len().min(3), chance)
}

/// Up to six different claims, true or not.
pub fn claims(scene: &Scene, chance: &mut Chance) -> Vec<Asked> {
    several(scene, About::YesNo, 6, chance)
}

/// Different questions of one kind, from so many tries.
fn several(scene: &Scene, about: About, tries: usize, chance: &mut Chance) -> Vec<Asked> {
    let mut found = Vec::new();
    for _ in 0..tries {
        if let Some(asked) = question(scene, about, chance) {
            add(&mut found, asked);
        }
    }
    found
}

/// Adds a question unless it is there.
fn add(found: &mut Vec<Asked>, asked: Asked) {
    let same = |other: &Asked| {
        let describe = [other, &asked].iter().all(|asked| asked.about == About::Describe);
        describe || other.question.eq_ignore_ascii_case(&asked.question)
    };
    if !found.iter().any(same) {
        found.push(asked);
    }
}

/// A question about this; `None` where the scene has no clear answer to the one that was tried.
pub fn question(scene: &Scene, about: About, chance: &mut Chance) -> Option<Asked> {
    let (question, answer) = match about {
        About::What => what(scene, chance)?,
        About::Colour => colour(scene, chance)?,
        About::Count => count(scene, chance)?,
        About::Where => place(scene, chance)?,
        About::YesNo => yes_no(scene, chance)?,
        About::Compare => compare(scene, chance)?,
        About::Describe => describe(scene, chance),
    };
    let question = if chance.happens(0.6) { capital(&question) } else { question };
    Some(Asked { about, question, answer })
}

pub(super) type Pair = (String, String);

fn yes(truth: bool) -> String {
    if truth { "yes" } else { "no" }.to_owned()
}

/// How many objects are as described; nothing said fits all.
fn number(scene: &Scene, colour: Option<Colour>, shape: Option<Shape>) -> usize {
    let fits = |object: &&Object| {
        colour.is_none_or(|colour| object.look.colour == colour)
            && shape.is_none_or(|shape| object.look.shape == shape)
    };
    scene.objects.iter().filter(fits).count()
}

/// Words that mean this object and no other: "red circle" or "circle".
fn reference(scene: &Scene, object: &Object, chance: &mut Chance) -> Option<String> {
    let Look { shape, colour } = object.look;
    if chance.happens(0.5) && number(scene, None, Some(shape)) == 1 {
        return Some(shape.name().to_owned());
    }
    (number(scene, Some(colour), Some(shape)) == 1).then(|| object.look.to_string())
}

/// Two different objects, and how the first lies, seen from the second.
pub(super) fn related<'a>(
    scene: &'a Scene,
    chance: &mut Chance,
) -> Option<(&'a Object, &'a Object, Relation)> {
    let (a, b) = (chance.pick(&scene.objects), chance.pick(&scene.objects));
    if std::ptr::eq(a, b) {
        return None;
    }
    Relation::between(a, b).map(|relation| (a, b, relation))
}

fn what(scene: &Scene, chance: &mut Chance) -> Option<Pair> {
    let object = chance.pick(&scene.objects);
    let (shape, colour) = (object.look.shape.name(), object.look.colour);
    if scene.objects.len() == 2 && chance.happens(0.5) {
        let (object, other, relation) = related(scene, chance)?;
        let other = reference(scene, other, chance)?;
        let how = plain(relation);
        return Some(match chance.happens(0.5) {
            true => (format!("what is {how} the {other}?"), object.look.to_string()),
            false => {
                (format!("which shape is {how} the {other}?"), object.look.shape.name().to_owned())
            }
        });
    }
    if scene.objects.len() == 1 && chance.happens(0.6) {
        let asked = ["what shape is it?", "what is this?", "which shape is in the picture?"];
        return Some(((*chance.pick(&asked)).to_owned(), shape.to_owned()));
    }
    let colour_name = colour.name();
    let asked = match chance.below(3) {
        0 => format!("what shape is the {colour_name} object?"),
        1 => format!("which shape is {colour_name}?"),
        _ => format!("what is {colour_name}?"),
    };
    (number(scene, Some(colour), None) == 1).then(|| (asked, shape.to_owned()))
}

fn colour(scene: &Scene, chance: &mut Chance) -> Option<Pair> {
    let spelt = if chance.happens(0.3) { "color" } else { "colour" };
    if chance.happens(0.15) {
        let asked = match chance.happens(0.5) {
            true => format!("what {spelt} is the background?"),
            false => "how is the background?".to_owned(),
        };
        return Some((asked, scene.background.tint.name().to_owned()));
    }
    let object = chance.pick(&scene.objects);
    let Look { shape, colour } = object.look;
    let count = number(scene, None, Some(shape));
    if count != number(scene, Some(colour), Some(shape)) {
        return None;
    }
    let (is, does, name) = match count {
        1 => ("is", "does", shape.name()),
        _ => ("are", "do", shape.plural()),
    };
    let asked = match chance.below(4) {
        0 if scene.objects.len() == 1 => format!("what {spelt} is it?"),
        1 => format!("which {spelt} {does} the {name} have?"),
        2 => format!("which {spelt} {is} the {name}?"),
        _ => format!("what {spelt} {is} the {name}?"),
    };
    Some((asked, colour.name().to_owned()))
}

fn count(scene: &Scene, chance: &mut Chance) -> Option<Pair> {
    // Where there is one thing, the answer is nearly always 1: that is learnt soon.
    if scene.objects.len() == 1 && chance.happens(0.7) {
        return None;
    }
    let mut look = chance.pick(&scene.objects).look;
    if chance.happens(0.2) {
        // Maybe nothing is like that.
        let other = match chance.happens(0.5) {
            true => Look { colour: *chance.pick(&Colour::ALL), ..look },
            false => Look { shape: *chance.pick(&Shape::ALL), ..look },
        };
        look = if familiar(other, 1) { other } else { look };
    }
    let (colour, shape) = match chance.below(4) {
        0 => (Some(look.colour), None),
        1 => (None, Some(look.shape)),
        2 => (Some(look.colour), Some(look.shape)),
        _ => (None, None),
    };
    let many = counted(colour, shape, 2);
    let asked = match chance.below(3) {
        0 => format!("how many {many} do you see?"),
        1 => format!("how many {many} are in the picture?"),
        _ => format!("how many {many} are there?"),
    };
    Some((asked, number(scene, colour, shape).to_string()))
}

/// "red circles", "circle", "red objects", "object".
fn counted(colour: Option<Colour>, shape: Option<Shape>, count: usize) -> String {
    let object = if count == 1 { "object" } else { "objects" };
    let noun = shape.map_or(object, |shape| shape.named(count));
    colour.map_or_else(|| noun.to_owned(), |colour| format!("{} {noun}", colour.name()))
}

fn place(scene: &Scene, chance: &mut Chance) -> Option<Pair> {
    if scene.objects.len() > 1 && chance.happens(0.5) {
        let (first, second, relation) = related(scene, chance)?;
        let [x, y] = [reference(scene, first, chance)?, reference(scene, second, chance)?];
        let asked = match (chance.happens(0.5), relation) {
            (true, _) => format!("where is the {x}, seen from the {y}?"),
            (_, Relation::Left | Relation::Right) => {
                format!("is the {x} left or right of the {y}?")
            }
            (_, _) => format!("is the {x} above or below the {y}?"),
        };
        let answer = plain(relation).trim_end_matches(" of");
        return Some((asked, answer.to_owned()));
    }
    let object = chance.pick(&scene.objects);
    let answer = object.place().name();
    let name = reference(scene, object, chance)?;
    let asked = match chance.happens(0.5) {
        true => format!("where in the picture is the {name}?"),
        false => format!("where is the {name}?"),
    };
    Some((asked, answer.to_owned()))
}

/// As many are true as are not, and what is not true is nearly so.
fn yes_no(scene: &Scene, chance: &mut Chance) -> Option<Pair> {
    let truth = chance.happens(0.5);
    // Again where one cannot be had: false ones are rarer, and would be missing in the end.
    let tries = (0..20).map(|_| match chance.below(4) {
        0 => claim_colour(scene, truth, chance),
        1 => claim_count(scene, truth, chance),
        2 => claim_relation(scene, truth, chance),
        _ => claim_there(scene, truth, chance),
    });
    tries.flatten().next().map(|asked| (asked, yes(truth)))
}

fn claim_there(scene: &Scene, truth: bool, chance: &mut Chance) -> Option<String> {
    let mut look = chance.pick(&scene.objects).look;
    if !truth {
        let other = chance.pick(&scene.objects).look;
        // The colour of one on the shape of another, where they differ.
        if other.shape != look.shape && chance.happens(0.7) {
            look.shape = other.shape;
        } else if chance.happens(0.5) {
            look.shape = *chance.pick(&Shape::ALL);
        } else {
            look.colour = *chance.pick(&Colour::ALL);
        }
    }
    let there = number(scene, Some(look.colour), Some(look.shape)) > 0;
    let thing = a(&look.to_string());
    let asked = match chance.below(3) {
        0 => format!("do you see {thing}?"),
        1 => format!("is there {thing} in the picture?"),
        _ => format!("is there {thing}?"),
    };
    (there == truth && (truth || familiar(look, 1))).then_some(asked)
}

fn claim_colour(scene: &Scene, truth: bool, chance: &mut Chance) -> Option<String> {
    let Look { shape, colour } = chance.pick(&scene.objects).look;
    if number(scene, None, Some(shape)) != 1 {
        return None;
    }
    let claimed = match (truth, chance.happens(0.6)) {
        (true, _) => colour,
        (false, true) => chance.pick(&scene.objects).look.colour,
        (false, false) => *chance.pick(&Colour::ALL),
    };
    let asked = format!("is the {} {}?", shape.name(), claimed.name());
    let usual = truth || familiar(Look { shape, colour: claimed }, 1);
    ((claimed == colour) == truth && usual).then_some(asked)
}

fn claim_count(scene: &Scene, truth: bool, chance: &mut Chance) -> Option<String> {
    let look = chance.pick(&scene.objects).look;
    let (colour, shape) = match chance.below(3) {
        0 => (None, None),
        1 => (None, Some(look.shape)),
        _ => (Some(look.colour), Some(look.shape)),
    };
    let count = number(scene, colour, shape);
    let near = if count > 1 && chance.happens(0.5) { count - 1 } else { count + 1 };
    let claimed = match (truth, near) {
        (true, _) => count,
        (false, ..=4) => near,
        (false, _) => count - 1,
    };
    let said = match chance.happens(0.3) {
        true => claimed.to_string(),
        false => NUMBERS[claimed].to_owned(),
    };
    let noun = counted(colour, shape, claimed);
    let is = if claimed == 1 { "is" } else { "are" };
    let usual = truth || colour.is_none() || familiar(look, claimed);
    usual.then(|| format!("{is} there exactly {said} {noun}?"))
}

fn claim_relation(scene: &Scene, truth: bool, chance: &mut Chance) -> Option<String> {
    let (first, second, relation) = related(scene, chance)?;
    let [x, y] = [reference(scene, first, chance)?, reference(scene, second, chance)?];
    let claimed = if truth { relation } else { relation.inverse() };
    let usual = home(&lie(claimed, first.look, second.look)) == Split::Train;
    (truth || usual).then(|| format!("is the {x} {} the {y}?", plain(claimed)))
}

fn compare(scene: &Scene, chance: &mut Chance) -> Option<Pair> {
    let (first, second) = (chance.pick(&scene.objects), chance.pick(&scene.objects));
    if first.size != second.size && chance.happens(0.7) {
        let [x, y] = [reference(scene, first, chance)?, reference(scene, second, chance)?];
        let first_larger = first.size > second.size;
        let larger = chance.happens(0.5);
        let word = if larger { "larger" } else { "smaller" };
        return Some(match chance.happens(0.5) {
            true => {
                let answer = if larger == first_larger { x.clone() } else { y.clone() };
                (format!("which is {word}, the {x} or the {y}?"), answer)
            }
            false => (format!("is the {x} {word} than the {y}?"), yes(larger == first_larger)),
        });
    }
    // Of a shape that is there, and of another one that may be.
    let shapes = (first.look.shape, *chance.pick(&Shape::ALL));
    let (mine, other) = match chance.happens(0.5) {
        true => shapes,
        false => (shapes.1, shapes.0),
    };
    let [m, n] = [mine, other].map(|shape| number(scene, None, Some(shape)));
    if m == n {
        return None;
    }
    let [x, y] = [mine, other].map(Shape::plural);
    Some(match chance.happens(0.5) {
        true => (format!("are there more {x} than {y}?"), yes(m > n)),
        false => {
            let answer = if m > n { x } else { y };
            (format!("which are more, the {x} or the {y}?"), answer.to_owned())
        }
    })
}

fn describe(scene: &Scene, chance: &mut Chance) -> Pair {
    let asked = ["describe the picture.", "what do you see?", "what is in the picture?"];
    ((*chance.pick(&asked)).to_owned(), canonical(scene))
}
