//! Captions and answers, checked by reading them again.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn scenes(split: Split, count: u64) -> impl Iterator<Item = (u64, Scene)> {
    (0..count).map(move |index| (index, Scene::new(11, split, index)))
}

fn words(text: &str) -> Vec<String> {
    let letters = |c: char| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { ' ' };
    text.chars().map(letters).collect::<String>().split_whitespace().map(str::to_owned).collect()
}

fn shape(word: &str) -> Option<(Shape, bool)> {
    let one = Shape::ALL.into_iter().find(|shape| shape.name() == word).map(|s| (s, false));
    one.or_else(|| Shape::ALL.into_iter().find(|s| s.plural() == word).map(|s| (s, true)))
}

fn colour(word: &str) -> Option<Colour> {
    Colour::ALL.into_iter().find(|colour| colour.name() == word)
}

fn number(word: &str) -> Option<usize> {
    let known = [("a", 1), ("an", 1), ("one", 1), ("single", 1), ("two", 2), ("three", 3)];
    let known = known.into_iter().chain([("four", 4), ("the", 1)]);
    word.parse().ok().or_else(|| known.into_iter().find(|(w, _)| *w == word).map(|(_, n)| n))
}

/// What a text names: number, size, colour and shape of each noun, and where it stands.
#[derive(Debug, Clone, PartialEq)]
struct Named {
    count: usize,
    size: Option<Size>,
    colour: Option<Colour>,
    shape: Shape,
    at: usize,
}

/// Reads nouns with the words before them, and colours said after them.
fn named(words: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let Some((shape, plural)) = shape(word) else { continue };
        let mut thing = Named { count: 0, size: None, colour: None, shape, at };
        for word in words[..at].iter().rev().take(3) {
            match (colour(word), word.as_str()) {
                (Some(colour), _) if thing.colour.is_none() => thing.colour = Some(colour),
                (_, "small") => thing.size = Some(Size::Small),
                (_, "large") => thing.size = Some(Size::Large),
                _ => break,
            }
        }
        let described = usize::from(thing.colour.is_some()) + usize::from(thing.size.is_some());
        let before = at.checked_sub(described + 1).and_then(|at| number(&words[at]));
        let after = words[at + 1..].iter().take(1).find_map(|word| number(word));
        thing.count = before.or(after.filter(|_| plural)).unwrap_or(1);
        let said = |gap: &[&str]| {
            let rest = &words[at + 1..];
            let fits = rest.len() > gap.len() && rest.iter().zip(gap).all(|(a, b)| a == b);
            fits.then(|| colour(&rest[gap.len()])).flatten()
        };
        for gap in [&[][..], &["is"], &["that", "is"], &["in"], &["all", "of", "them"]] {
            thing.colour = thing.colour.or(said(gap));
        }
        found.push(thing);
    }
    found
}

/// Whether a text names just what is there, and nothing of it wrongly.
fn names_all(scene: &Scene, found: &[Named]) -> bool {
    let mut left: Vec<&Object> = scene.objects.iter().collect();
    for thing in found {
        for _ in 0..thing.count {
            let fits = |object: &&Object| {
                object.look.shape == thing.shape
                    && thing.colour.is_none_or(|colour| colour == object.look.colour)
                    && thing.size.is_none_or(|size| Some(size) == object.size)
            };
            let Some(at) = left.iter().position(fits) else { return false };
            left.remove(at);
        }
    }
    left.is_empty()
}

/// How the first noun lies, seen from the second, by the words around them.
fn relation(words: &[String], first: usize, second: usize) -> Option<Relation> {
    let of = |word: &str| match word {
        "left" => Some(Relation::Left),
        "right" => Some(Relation::Right),
        "above" | "over" | "top" => Some(Relation::Above),
        "below" | "under" | "beneath" | "bottom" => Some(Relation::Below),
        _ => None,
    };
    let find = |words: &[String]| words.iter().find_map(|word| of(word));
    match (find(&words[..first]), find(&words[first..second]), find(&words[second..])) {
        // "left of A is B", and not what is said of a background.
        (Some(relation), None, None) => Some(relation.inverse()),
        // "A left of B", "A on the left and B on the right".
        (None, Some(relation), None) => Some(relation),
        (None, Some(relation), Some(other)) => (relation.inverse() == other).then_some(relation),
        // "A with B on its left".
        (None, None, Some(relation)) => Some(relation.inverse()),
        _ => None,
    }
}

/// Models that were trained on this world must find the same one: whoever changes it has to train
/// them again, and to change this number.
#[test]
fn the_world_is_as_it_was() {
    let mut all = Vec::new();
    for (index, scene) in Split::ALL.into_iter().flat_map(|split| scenes(split, 40)) {
        let chance = |purpose| Chance::of(&[index, purpose]);
        let mut text = caption(&scene, &mut chance(7)) + &told(&scene, &mut chance(8));
        for Asked { question, answer, .. } in questions(&scene, &mut chance(9)) {
            text += &(question + &answer);
        }
        all.extend(text.bytes().map(u64::from));
        all.extend(scene.draw(64).into_raw().into_iter().map(u64::from));
    }
    assert_eq!(crate::data::random::hash(&all), 3_064_419_357_470_883_074);
}

#[test]
fn captions_are_true() {
    for (index, scene) in Split::ALL.into_iter().flat_map(|split| scenes(split, 2500)) {
        let text = caption(&scene, &mut Chance::of(&[index]));
        let words = words(&text);
        let found = named(&words);
        assert!(names_all(&scene, &found), "{text}: {scene:?}");
        let plural = |thing: &Named| words[thing.at] == thing.shape.plural();
        assert!(found.iter().all(|thing| plural(thing) == (thing.count != 1)), "{text}");
        if let Some(at) = words.iter().position(|word| word == "background") {
            let tint = scene.background.tint.name();
            assert!([at - 1, at + 2].iter().any(|at| words.get(*at).is_some_and(|w| w == tint)));
        }
        if scene.theme == Theme::Position {
            let relation = relation(&words, found[0].at, found[1].at);
            let object = |named: &Named| {
                let fits = |object: &&Object| {
                    Some(object.look.colour) == named.colour && object.look.shape == named.shape
                };
                scene.objects.iter().find(fits).expect("there")
            };
            let true_one = Relation::between(object(&found[0]), object(&found[1]));
            assert_eq!(relation, true_one, "{text}: {scene:?}");
        }
        if !matches!(scene.theme, Theme::SingleObject | Theme::TwoObjects) {
            assert!(found.iter().all(|thing| thing.colour.is_some()), "{text}");
        }
    }
}

/// A decoder that draws row by row relies on it. Only relations may be told from either end.
#[test]
fn things_are_named_as_they_are_met() {
    let (mut first, mut last) = (0, 0);
    for (index, scene) in scenes(Split::Train, 4000) {
        let objects = scene.in_reading_order();
        for pair in objects.windows(2) {
            let top = |object: &Object| ((object.centre[1] - object.radius) / 8.0).floor();
            let left = pair[0].centre[0] < pair[1].centre[0];
            assert!(top(pair[0]) < top(pair[1]) || top(pair[0]) == top(pair[1]) && left);
        }
        let text = caption(&scene, &mut Chance::of(&[index]));
        let said = named(&words(&text));
        let looks = scene.looks();
        let as_met = said.iter().map(|thing| thing.shape).eq(looks.iter().map(|look| look.shape));
        match scene.theme {
            Theme::Position if looks[0].shape == looks[1].shape => {}
            Theme::Position if as_met => first += 1,
            Theme::Position => last += 1,
            _ => assert!(as_met, "{text}: {scene:?}"),
        }
    }
    assert!((0.25..0.35).contains(&(last as f64 / (first + last) as f64)), "{first} {last}");
}

#[test]
fn captions_are_varied_and_prompts_say_what_is_new() {
    let mut kinds: BTreeMap<Theme, BTreeSet<String>> = BTreeMap::new();
    for (index, scene) in scenes(Split::Test, 3000) {
        let text = prompt(&scene, &mut Chance::of(&[index, 1]));
        let tint = format!("{} background", scene.background.tint.name());
        let says = text.contains(&tint) || text.contains("the background is");
        assert_eq!(says, scene.theme == Theme::TwoObjects, "{text}");
        if matches!(scene.theme, Theme::SingleObject | Theme::Colours) {
            let place = scene.objects[0].place().name();
            let says = text.contains(place) || (place == "centre" && text.contains("middle"));
            assert!(says, "{text}: {place}");
        }
        // Without what differs anyway, what is left is the pattern.
        let pattern = words(&text).into_iter().filter(|word| {
            let known = colour(word).is_some() || shape(word).is_some() || number(word).is_some();
            !known && !Tint::ALL.iter().any(|tint| tint.name() == word)
        });
        kinds.entry(scene.theme).or_default().insert(pattern.collect::<Vec<_>>().join(" "));
    }
    assert!(kinds.len() == 7 && kinds.values().all(|found| found.len() >= 8), "{kinds:?}");
}

#[test]
fn wordings_are_right() {
    let scene = |index, theme| Scene::with_theme(2, Split::Train, index, theme);
    let mut seen = BTreeSet::new();
    for index in 0..400 {
        for theme in Theme::ALL {
            let scene = scene(index, theme);
            seen.insert(caption(&scene, &mut Chance::of(&[index])));
            assert_eq!(canonical(&scene), canonical(&scene.clone()));
        }
    }
    for text in &seen {
        assert!(!text.contains("a orange") && !text.contains("  "), "{text}");
        assert!(!text.contains("one circles") && !text.contains(".."), "{text}");
    }
    let has = |part: &str| seen.iter().any(|text| text.contains(part));
    assert!(has("an orange") && has("crosses") && has("An") && has("exactly") && has("3 "));
}

/// Answers from the pictures' truth by another way: all objects are asked for, one by one.
#[test]
fn answers_are_true() {
    let mut all: BTreeMap<About, usize> = BTreeMap::new();
    for (index, scene) in Split::ALL.into_iter().flat_map(|split| scenes(split, 1500)) {
        let asked = questions(&scene, &mut Chance::of(&[index, 2]));
        assert!((2..=5).contains(&asked.len()));
        assert!(asked.iter().filter(|asked| asked.about == About::Describe).count() <= 1);
        let distinct: BTreeSet<_> = asked.iter().map(|a| a.question.to_lowercase()).collect();
        assert_eq!(distinct.len(), asked.len());
        for asked in asked {
            *all.entry(asked.about).or_default() += 1;
            check(&scene, &asked);
        }
    }
    assert!(all.len() == 7 && all.values().all(|count| *count > 400), "{all:?}");
}

/// The objects a noun with its adjectives may mean.
fn meant(scene: &Scene, words: &[&str]) -> Vec<Object> {
    let fits = |object: &&Object| {
        words.iter().all(|word| {
            colour(word).is_none_or(|colour| object.look.colour == colour)
                && shape(word).is_none_or(|(shape, _)| object.look.shape == shape)
        })
    };
    scene.objects.iter().filter(fits).cloned().collect()
}

fn check(scene: &Scene, asked: &Asked) {
    let text = asked.question.to_lowercase();
    let (text, answer) = (text.trim_end_matches(['?', '.']), asked.answer.as_str());
    let wrong = || format!("{asked:?}: {scene:?}");
    let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let holds = |truth: bool| assert_eq!(answer, if truth { "yes" } else { "no" }, "{}", wrong());
    let has = |word: &str| words.contains(&word);
    // The two things that are spoken of, on both sides of a word.
    let sides = |word: &str| {
        let at = words.iter().position(|other| *other == word).expect("there");
        let (first, second) = (meant(scene, &words[..at]), meant(scene, &words[at..]));
        assert!(first.len() == 1 && second.len() == 1, "{}", wrong());
        (first[0].clone(), second[0].clone())
    };
    let relations = [("left", Relation::Left), ("right", Relation::Right)];
    let relations = relations.into_iter().chain([("above", Relation::Above)]);
    let relations: Vec<_> = relations.chain([("below", Relation::Below)]).collect();
    let said: Vec<_> = relations.iter().filter(|(word, _)| has(word)).collect();
    match asked.about {
        About::Describe => assert_eq!(answer, canonical(scene)),
        About::Count => {
            assert_eq!(answer.parse::<usize>().expect("a digit"), meant(scene, &words).len());
        }
        About::Colour if has("background") => assert_eq!(answer, scene.background.tint.name()),
        About::Colour => {
            let found = meant(scene, &words);
            assert!(!found.is_empty(), "{}", wrong());
            assert!(found.iter().all(|o| o.look.colour.name() == answer), "{}", wrong());
        }
        About::What => {
            let found: Vec<Object> = match said[..] {
                [(word, relation)] => {
                    let at = words.iter().position(|other| other == word).expect("there");
                    let other = &meant(scene, &words[at..])[0];
                    let lies = |o: &&Object| Relation::between(o, other) == Some(*relation);
                    scene.objects.iter().filter(lies).cloned().collect()
                }
                _ => meant(scene, &words),
            };
            assert_eq!(found.len(), 1, "{}", wrong());
            let look = found[0].look;
            assert!(answer == look.shape.name() || answer == look.to_string(), "{}", wrong());
        }
        About::Where if has("seen") || said.len() == 2 => {
            let (first, second) = sides(if has("seen") { "seen" } else { "or" });
            let relation = Relation::between(&first, &second).expect("clear");
            assert!(relations.contains(&(answer, relation)), "{}", wrong());
        }
        About::Where => {
            let found = meant(scene, &words);
            assert_eq!(found.len(), 1, "{}", wrong());
            let [x, y] = found[0].centre.map(|x| (3.0 * x / SIDE) as usize);
            let row = ["top", "", "bottom"][y];
            let column = ["left", "", "right"][x];
            let both = format!("{row} {column}");
            let expected = if (x, y) == (1, 1) { "centre" } else { both.trim() };
            assert_eq!(answer, expected, "{}", wrong());
        }
        About::YesNo if has("exactly") => {
            let at = words.iter().position(|word| *word == "exactly").expect("there");
            holds(number(words[at + 1]) == Some(meant(scene, &words).len()));
        }
        About::YesNo if said.len() == 1 => {
            let (first, second) = sides(said[0].0);
            holds(Relation::between(&first, &second) == Some(said[0].1));
        }
        About::YesNo if has("a") || has("an") => holds(!meant(scene, &words).is_empty()),
        About::YesNo => {
            let [.., name, claimed] = words[..] else { panic!("{}", wrong()) };
            let found = meant(scene, &[name]);
            assert_eq!(found.len(), 1, "{}", wrong());
            holds(found[0].look.colour.name() == claimed);
        }
        About::Compare if has("more") => {
            let middle = if has("than") { "than" } else { "or" };
            let at = words.iter().position(|word| *word == middle).expect("there");
            let [m, n] = [&words[..at], &words[at..]].map(|words| meant(scene, words).len());
            match middle {
                "than" => holds(m > n),
                _ => {
                    let more = if m > n { &words[..at] } else { &words[at..] };
                    assert!(m != n && more.contains(&answer), "{}", wrong());
                }
            }
        }
        About::Compare => {
            let (first, second) = sides(if has("than") { "than" } else { "or" });
            let larger = (first.radius > second.radius) == has("larger");
            if has("than") {
                return holds(larger);
            }
            let answered = meant(scene, &answer.split(' ').collect::<Vec<_>>());
            assert_eq!(answered, [if larger { first } else { second }], "{}", wrong());
        }
    }
}

#[test]
fn yes_and_no_are_balanced() {
    let (mut yes, mut no) = (0u32, 0u32);
    for (index, scene) in scenes(Split::Train, 4000) {
        for asked in questions(&scene, &mut Chance::of(&[index, 3])) {
            match (asked.about, asked.answer.as_str()) {
                (About::YesNo, "yes") => yes += 1,
                (About::YesNo, "no") => no += 1,
                _ => {}
            }
        }
    }
    let share = f64::from(yes) / f64::from(yes + no);
    assert!((0.47..0.53).contains(&share), "{yes} {no}");
}

#[test]
fn texts_hold_every_word_of_the_world() {
    let mut all = BTreeSet::new();
    for (index, scene) in scenes(Split::Train, 3000) {
        let text = told(&scene, &mut Chance::of(&[index, 4]));
        assert!(text.ends_with(['.', '?']) && !text.contains(".."), "{text}");
        assert!(text.starts_with(|c: char| c.is_uppercase() || c.is_numeric()), "{text}");
        all.extend(words(&text));
    }
    let shapes = Shape::ALL.iter().flat_map(|shape| [shape.name(), shape.plural()]);
    let names = shapes.chain(Colour::ALL.map(Colour::name)).chain(Tint::ALL.map(Tint::name));
    let more = ["small", "large", "larger", "left", "right", "above", "below", "under", "beneath"];
    for name in names.chain(more).chain(["two", "three", "four", "2", "3", "4", "yes", "no"]) {
        assert!(all.contains(name), "{name}");
    }
}

/// What is held out is not spoken of in training, not even to be denied.
#[test]
fn training_does_not_speak_of_what_is_held_out() {
    for (index, scene) in scenes(Split::Train, 4000) {
        let asked = questions(&scene, &mut Chance::of(&[index, 5]));
        let asked = asked.into_iter().map(|asked| asked.question);
        let told = told(&scene, &mut Chance::of(&[index, 6]));
        for text in asked.chain([told]) {
            for sentence in text.split(['.', '?']) {
                for thing in named(&words(sentence)) {
                    let Named { colour: Some(colour), shape, count, .. } = thing else { continue };
                    // Plurals without a number are read as one.
                    assert!(split::familiar(Look { shape, colour }, count), "{text}");
                }
            }
        }
    }
}
