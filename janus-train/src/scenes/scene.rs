//! One scene: what is where, drawn by chance.

use super::chance::Chance;
use super::look::{Colour, Look, Place, Shape, Size, Tint};
use super::split::{Split, belongs};

/// The side of every scene, in the unit of all lengths: a pixel of a picture of 64.
pub const SIDE: f32 = 64.0;
/// Between objects.
const GAP: f32 = 2.0;
/// Between objects and the edge.
const MARGIN: f32 = 1.0;
/// The tangent of half of 4 degrees.
const MOST_TURN: f32 = 0.035;
/// Squares on a side: as many as a small tokenizer has codes.
pub const SQUARES: usize = 8;
/// Objects fill whole squares, of this side: a small one 2×2 of them, a large one 3×3. Anywhere else,
/// the same thing is other codes at each of 64 places between, and a model of a few million weights
/// learns places rather than things.
pub const SQUARE: f32 = SIDE / SQUARES as f32;
/// Of a small object; it fills two squares but for a small margin.
const SMALL: f32 = 7.5;
/// Of a large one; it fills three.
const LARGE: f32 = 11.0;
/// Tries to find room for an object before another scene is drawn.
const TRIES: usize = 50;

/// What a scene is for. All but the last are the categories of GenEval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Theme {
    /// A shape; its colour is not said.
    SingleObject,
    /// Two shapes; their colours are not said.
    TwoObjects,
    /// Two to four of one look.
    Counting,
    /// A shape of a colour.
    Colours,
    /// Two looks, and how they lie.
    Position,
    /// Two looks which share neither colour nor shape.
    Binding,
    /// Three or four objects of two looks or more: for questions, and for longer captions.
    Mixed,
}

impl Theme {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SingleObject,
        Self::TwoObjects,
        Self::Counting,
        Self::Colours,
        Self::Position,
        Self::Binding,
        Self::Mixed,
    ];

    /// Its key in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleObject => "single_object",
            Self::TwoObjects => "two_objects",
            Self::Counting => "counting",
            Self::Colours => "colors",
            Self::Position => "position",
            Self::Binding => "attribute_binding",
            Self::Mixed => "mixed",
        }
    }

    /// How many of a hundred scenes have it: more where it is harder to learn.
    pub fn percent(self) -> usize {
        match self {
            Self::SingleObject | Self::TwoObjects | Self::Mixed => 10,
            Self::Colours => 12,
            Self::Position => 18,
            Self::Counting | Self::Binding => 20,
        }
    }

    fn draw(chance: &mut Chance) -> Self {
        let mut left = chance.below(100);
        for theme in Self::ALL {
            match left.checked_sub(theme.percent()) {
                Some(rest) => left = rest,
                None => return theme,
            }
        }
        Self::Mixed
    }
}

/// How an object lies, seen from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Relation {
    Left,
    Right,
    Above,
    Below,
}

impl Relation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Left, Self::Right, Self::Above, Self::Below];

    /// The same, seen from the other object.
    pub fn inverse(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }

    /// How `a` lies, seen from `b`, where nobody would doubt it: apart on one axis, and at least
    /// twice as far as on the other.
    pub fn between(a: &Object, b: &Object) -> Option<Self> {
        let way = [a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]];
        Self::of(way, a.radius + b.radius)
    }

    /// The same for the way from the second to the first, and both radii together.
    fn of([x, y]: [f32; 2], apart: f32) -> Option<Self> {
        if x.abs() >= apart && x.abs() >= 2.0 * y.abs() {
            Some(if x < 0.0 { Self::Left } else { Self::Right })
        } else if y.abs() >= apart && y.abs() >= 2.0 * x.abs() {
            Some(if y < 0.0 { Self::Above } else { Self::Below })
        } else {
            None
        }
    }
}

/// A thing in a scene.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Colour and shape.
    pub look: Look,
    /// Right and down from the upper left corner.
    pub centre: [f32; 2],
    /// Of the circle around it.
    pub radius: f32,
    /// Where there is room for two sizes.
    pub size: Option<Size>,
    /// How far it is turned: the tangent of half the angle.
    pub turn: f32,
    /// Added to the colour of the palette.
    pub shift: [f32; 3],
    /// Whether a darker line runs along its edge.
    pub outlined: bool,
}

impl Object {
    /// The third of the picture, across and down, that its middle is in. No middle is on a border.
    pub fn place(&self) -> Place {
        let [column, row] = self.centre.map(|x| ((3.0 * x / SIDE) as usize).min(2));
        Place::ALL[3 * row + column]
    }
}

/// What lies behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Background {
    /// Its name.
    pub tint: Tint,
    /// Added to the tint.
    pub shift: [f32; 3],
    /// How much brighter the right and the lower edge are than the opposite ones.
    pub slope: [f32; 2],
    /// The largest error of a pixel.
    pub noise: f32,
    /// What the noise is made of.
    pub grain: u64,
}

/// What a picture shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// What it is for.
    pub theme: Theme,
    /// None of which touch. In [`Theme::Position`] the first lies as the relation says.
    pub objects: Vec<Object>,
    /// What lies behind.
    pub background: Background,
}

impl Scene {
    /// The scene of this number: always the same one, whatever came before.
    pub fn new(seed: u64, split: Split, index: u64) -> Self {
        let theme = Theme::draw(&mut Chance::of(&[seed, split as u64, index]));
        Self::with_theme(seed, split, index, theme)
    }

    /// As [`Self::new`], for a theme of one's own choice.
    pub fn with_theme(seed: u64, split: Split, index: u64, theme: Theme) -> Self {
        // Chosen once: of many objects one is more often where it may not be, and many would be rare.
        let many = Chance::of(&[seed, split as u64, index, theme as u64]).below(6);
        let mut attempt = 0;
        loop {
            // Ends: every theme has combinations in every split, as the tests see.
            let mut chance = Chance::of(&[seed, split as u64, index, theme as u64, attempt]);
            match Self::attempt(theme, many, &mut chance).filter(|scene| belongs(scene, split)) {
                Some(scene) => return scene,
                None => attempt += 1,
            }
        }
    }

    /// The same scene without what nobody asks for: every colour as its name has it, the ground even
    /// and without noise, nothing turned or outlined. So are pictures that are to be drawn; a code
    /// of them means something.
    #[must_use]
    pub fn plain(mut self) -> Self {
        let Background { tint, grain, .. } = self.background;
        self.background = Background { tint, shift: [0.0; 3], slope: [0.0; 2], noise: 0.0, grain };
        for object in &mut self.objects {
            (object.shift, object.turn, object.outlined) = ([0.0; 3], 0.0, false);
        }
        self
    }

    /// What is there, as a raster of squares meets it: by the uppermost row of squares that a thing
    /// fills, and in one row from the left.
    pub fn in_reading_order(&self) -> Vec<&Object> {
        let mut objects: Vec<&Object> = self.objects.iter().collect();
        objects.sort_by_key(|object| {
            let [column, row] = object.centre.map(|x| ((x - object.radius) / SQUARE) as usize);
            [row, column]
        });
        objects
    }

    /// What they look like, in the same order, each once.
    pub fn looks(&self) -> Vec<Look> {
        let mut looks: Vec<Look> = Vec::new();
        for object in self.in_reading_order() {
            if !looks.contains(&object.look) {
                looks.push(object.look);
            }
        }
        looks
    }

    /// Any scene of this theme; `None` where there was no room.
    fn attempt(theme: Theme, many: usize, chance: &mut Chance) -> Option<Self> {
        let background = background(chance);
        let looks = looks(theme, many, chance);
        let radii: Vec<_> = looks.iter().map(|_| radius(looks.len(), chance)).collect();
        let centres = match theme {
            Theme::Position => {
                let relation = *chance.pick(&Relation::ALL);
                related(relation, [radii[0].0, radii[1].0], chance)?.to_vec()
            }
            _ => scattered(&radii, chance)?,
        };
        let objects = looks.into_iter().zip(radii).zip(centres);
        let objects = objects.map(|((look, (radius, size)), centre)| Object {
            look,
            centre,
            radius,
            size,
            turn: if chance.happens(0.2) { chance.between(-MOST_TURN, MOST_TURN) } else { 0.0 },
            shift: std::array::from_fn(|_| chance.between(-4.0, 4.0)),
            // Nothing is darker than black, and a darker white is that of a tint.
            outlined: chance.happens(0.2) && !matches!(look.colour, Colour::Black | Colour::White),
        });
        Some(Self { theme, objects: objects.collect(), background })
    }
}

fn background(chance: &mut Chance) -> Background {
    let tint = *chance.pick(&Tint::ALL);
    // Little, or a tokenizer spends its codes on shades nobody sees, and they are noise to whoever
    // learns to draw with them.
    let shift = std::array::from_fn(|_| chance.between(-2.0, 2.0));
    let slope = match chance.happens(0.2) {
        true => std::array::from_fn(|_| chance.between(-10.0, 10.0)),
        false => [0.0; 2],
    };
    let noise = if chance.happens(0.4) { chance.between(1.0, 4.0) } else { 0.0 };
    Background { tint, shift, slope, noise, grain: chance.bits() }
}

fn look(chance: &mut Chance) -> Look {
    Look { shape: *chance.pick(&Shape::ALL), colour: *chance.pick(&Colour::ALL) }
}

/// What is in a scene of this theme; `many`, of 0..6, says how many where that is open.
fn looks(theme: Theme, many: usize, chance: &mut Chance) -> Vec<Look> {
    let first = look(chance);
    let mut other = |differs: &dyn Fn(Look) -> bool| {
        let mut second = look(chance);
        while !differs(second) {
            second = look(chance);
        }
        second
    };
    match theme {
        Theme::SingleObject | Theme::Colours => vec![first],
        Theme::TwoObjects => vec![first, other(&|second| second.shape != first.shape)],
        Theme::Position => vec![first, other(&|second| second != first)],
        Theme::Binding => vec![
            first,
            other(&|second| second.shape != first.shape && second.colour != first.colour),
        ],
        Theme::Counting => vec![first; 2 + many % 3],
        Theme::Mixed => {
            // Some alike, so that there is something to count; never all.
            let mut looks = vec![first, other(&|second| second != first)];
            for _ in 0..1 + many % 2 {
                looks.push(if chance.happens(0.4) { *chance.pick(&looks) } else { look(chance) });
            }
            looks
        }
    }
}

/// Smaller the more there are. Two sizes are told apart where nothing is in between.
fn radius(count: usize, chance: &mut Chance) -> (f32, Option<Size>) {
    match (count, chance.happens(0.5)) {
        (3.., _) => (SMALL, None),
        (_, true) => (SMALL, Some(Size::Small)),
        (_, false) => (LARGE, Some(Size::Large)),
    }
}

/// Where the centre of an object may be, on either axis: where it fills whole squares.
fn places(radius: f32) -> impl Iterator<Item = f32> {
    let squares = (2.0 * radius / SQUARE).ceil();
    let half = squares * SQUARE / 2.0;
    let inside = move |x: &f32| x - radius >= MARGIN && x + radius <= SIDE - MARGIN;
    (0..SQUARES - squares as usize + 1).map(move |i| half + SQUARE * i as f32).filter(inside)
}

/// Any centre of an object of this radius.
fn centre(radius: f32, chance: &mut Chance) -> [f32; 2] {
    let places: Vec<f32> = places(radius).collect();
    [0, 1].map(|_| *chance.pick(&places))
}

/// Whether two objects are far enough from each other.
fn apart(a: [f32; 2], b: [f32; 2], radii: f32) -> bool {
    let [x, y] = [a[0] - b[0], a[1] - b[1]];
    x * x + y * y >= (radii + GAP) * (radii + GAP)
}

/// Centres anywhere, none of whose objects touch. A first one may leave no room for the last: then
/// all are chosen anew, or four would be rarer than two.
fn scattered(radii: &[(f32, Option<Size>)], chance: &mut Chance) -> Option<Vec<[f32; 2]>> {
    (0..TRIES).find_map(|_| {
        let mut centres: Vec<[f32; 2]> = Vec::new();
        for (radius, _) in radii {
            let free = |new: &[f32; 2]| {
                let mut others = centres.iter().zip(radii);
                others.all(|(other, (radii, _))| apart(*new, *other, radius + radii))
            };
            let mut tries = (0..TRIES).map(|_| centre(*radius, chance));
            let centre = tries.find(free)?;
            centres.push(centre);
        }
        Some(centres)
    })
}

/// Two centres, the first of which lies so, seen from the second, beyond doubt.
fn related(relation: Relation, radii: [f32; 2], chance: &mut Chance) -> Option<[[f32; 2]; 2]> {
    let mut tries = (0..TRIES * TRIES).map(|_| radii.map(|radius| centre(radius, chance)));
    tries.find(|[a, b]| {
        let least = radii[0] + radii[1];
        apart(*a, *b, least) && Relation::of([a[0] - b[0], a[1] - b[1]], least) == Some(relation)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn scenes(split: Split, count: u64) -> impl Iterator<Item = Scene> {
        (0..count).map(move |index| Scene::new(3, split, index))
    }

    #[test]
    fn a_scene_depends_on_nothing_but_its_number() {
        let forwards: Vec<_> = scenes(Split::Train, 50).collect();
        let backwards: Vec<_> = (0..50).rev().map(|i| Scene::new(3, Split::Train, i)).collect();
        assert!(forwards.iter().eq(backwards.iter().rev()));
        assert_ne!(Scene::new(4, Split::Train, 0), forwards[0]);
        assert_ne!(Scene::new(3, Split::Test, 0), forwards[0]);
    }

    #[test]
    fn objects_stay_inside_and_apart() {
        for scene in Split::ALL.into_iter().flat_map(|split| scenes(split, 1000)) {
            for (number, a) in scene.objects.iter().enumerate() {
                let inside = |x: f32| x - a.radius >= 1.0 && x + a.radius <= SIDE - 1.0;
                assert!(a.centre.iter().all(|x| inside(*x)), "{scene:?}");
                for b in &scene.objects[..number] {
                    let [x, y] = [a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]];
                    assert!(x.hypot(y) >= a.radius + b.radius + 2.0, "{scene:?}");
                }
            }
        }
    }

    #[test]
    fn themes_are_what_they_say_and_as_frequent() {
        let mut counts: BTreeMap<Theme, usize> = BTreeMap::new();
        for scene in scenes(Split::Train, 10_000) {
            *counts.entry(scene.theme).or_default() += 1;
            let looks: Vec<Look> = scene.objects.iter().map(|object| object.look).collect();
            let fits = match (scene.theme, &looks[..]) {
                (Theme::SingleObject | Theme::Colours, [_]) => true,
                (Theme::TwoObjects, [a, b]) => a.shape != b.shape,
                (Theme::Binding, [a, b]) => a.shape != b.shape && a.colour != b.colour,
                (Theme::Position, [a, b]) => {
                    a != b && Relation::between(&scene.objects[0], &scene.objects[1]).is_some()
                }
                (Theme::Counting, [first, rest @ ..]) => {
                    (1..=3).contains(&rest.len()) && rest.iter().all(|look| look == first)
                }
                (Theme::Mixed, [first, rest @ ..]) => {
                    (2..=3).contains(&rest.len()) && rest.iter().any(|look| look != first)
                }
                _ => false,
            };
            assert!(fits, "{scene:?}");
        }
        for theme in Theme::ALL {
            // Five standard deviations.
            assert!(counts[&theme].abs_diff(100 * theme.percent()) < 200, "{counts:?}");
        }
        assert_eq!(Theme::ALL.map(Theme::percent).iter().sum::<usize>(), 100);
    }

    #[test]
    fn numbers_and_relations_are_even() {
        let mut counts = [0usize; 5];
        let mut relations: BTreeMap<Relation, usize> = BTreeMap::new();
        for index in 0..1500 {
            let scene = Scene::with_theme(1, Split::Train, index, Theme::Counting);
            counts[scene.objects.len()] += 1;
            let scene = Scene::with_theme(1, Split::Train, index, Theme::Position);
            let relation = Relation::between(&scene.objects[0], &scene.objects[1]);
            *relations.entry(relation.expect("clear")).or_default() += 1;
        }
        assert!(counts[2..].iter().all(|count| *count > 350), "{counts:?}");
        assert!(relations.len() == 4 && relations.values().all(|n| *n > 300), "{relations:?}");
    }
}
