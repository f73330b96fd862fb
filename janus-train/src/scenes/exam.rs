//! How well a model draws and answers: fresh tasks of the test split, and marks for what it does.
//!
//! Drawing is marked as by GenEval: the share of right pictures in each category, and the mean of
//! the six. Answers are right if they are the one that is expected, letter by letter but for white
//! space around them and capitals; all kinds of questions are equally frequent.

use std::collections::BTreeMap;

use image::RgbImage;

use super::chance::Chance;
use super::judge::{Found, Prompt, find};
use super::questions::{About, Asked, question};
use super::scene::{Scene, Theme};
use super::split::Split;

/// The categories of GenEval, in its order.
pub const CATEGORIES: [Theme; 6] = [
    Theme::SingleObject,
    Theme::TwoObjects,
    Theme::Counting,
    Theme::Colours,
    Theme::Position,
    Theme::Binding,
];

/// What prompts are worded by, and what questions are drawn from.
const WORDING: u64 = 201;
const QUESTIONS: u64 = 202;

/// A question about a scene.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// What the picture shows.
    pub scene: Scene,
    /// What is asked, and the right answer.
    pub asked: Asked,
}

/// So many prompts of each category, in the order of [`CATEGORIES`]; another seed draws others.
pub fn prompts(seed: u64, each: usize) -> Vec<Prompt> {
    let prompt = |(theme, index): (Theme, u64)| {
        let scene = Scene::with_theme(seed, Split::Test, index, theme);
        Prompt::new(scene, &mut Chance::of(&[WORDING, seed, theme as u64, index]))
    };
    let all = CATEGORIES.into_iter();
    all.flat_map(|theme| (0..each as u64).map(move |index| (theme, index))).map(prompt).collect()
}

/// So many questions, each about a scene of its own, of all kinds in turn.
pub fn tasks(seed: u64, count: usize) -> Vec<Task> {
    let kinds = About::ALL.into_iter().cycle();
    kinds.zip(0..count as u64).map(|(about, index)| task(seed, index, about)).collect()
}

fn task(seed: u64, index: u64, about: About) -> Task {
    let mut attempt = 0;
    loop {
        // Ends: every kind of question can be asked about some scenes.
        let draws = [QUESTIONS, seed, index, attempt];
        let scene = Scene::new(Chance::of(&draws).bits(), Split::Test, index);
        match question(&scene, about, &mut Chance::of(&draws)) {
            Some(asked) => return Task { scene, asked },
            None => attempt += 1,
        }
    }
}

/// Right ones, of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// So many were right.
    pub right: u64,
    /// Of so many.
    pub of: u64,
}

impl Share {
    /// From 0 to 1; `None` of nothing.
    pub fn value(self) -> Option<f64> {
        (self.of > 0).then(|| self.right as f64 / self.of as f64)
    }

    fn add(&mut self, right: bool) {
        self.right += u64::from(right);
        self.of += 1;
    }
}

/// What was right so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Pictures by category.
    pub pictures: BTreeMap<Theme, Share>,
    /// Pictures of all categories that show what was asked for and nothing else.
    pub exact: Share,
    /// Answers by kind of question.
    pub answers: BTreeMap<About, Share>,
}

impl Marks {
    /// Marks a picture. Returns whether it is right, and what was found in it.
    pub fn picture(&mut self, prompt: &Prompt, picture: &RgbImage) -> (bool, Vec<Found>) {
        let found = find(picture);
        let right = prompt.holds(&found);
        self.pictures.entry(prompt.scene.theme).or_default().add(right);
        self.exact.add(prompt.holds_exactly(&found));
        (right, found)
    }

    /// Marks an answer. Returns whether it is right.
    pub fn answer(&mut self, asked: &Asked, answer: &str) -> bool {
        let right = answer.trim().to_lowercase() == asked.answer.to_lowercase();
        self.answers.entry(asked.about).or_default().add(right);
        right
    }

    /// The mean of the categories; `None` without pictures.
    pub fn drawing(&self) -> Option<f64> {
        mean(self.pictures.values())
    }

    /// The mean of the kinds of questions; `None` without answers.
    pub fn answering(&self) -> Option<f64> {
        mean(self.answers.values())
    }
}

fn mean<'a>(shares: impl ExactSizeIterator<Item = &'a Share>) -> Option<f64> {
    let count = shares.len();
    let sum: Option<f64> = shares.map(|share| share.value()).sum();
    sum.filter(|_| count > 0).map(|sum| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::split::{belongs, combinations, home};
    use super::*;

    #[test]
    fn whoever_knows_the_truth_has_full_marks() {
        let (prompts, tasks) = (prompts(4, 12), tasks(4, 140));
        let mut marks = Marks::default();
        for prompt in &prompts {
            assert!(marks.picture(prompt, &prompt.scene.draw(64)).0, "{prompt:?}");
        }
        for task in &tasks {
            assert!(marks.answer(&task.asked, &format!(" {}\n", task.asked.answer.to_uppercase())));
        }
        assert_eq!((marks.drawing(), marks.answering()), (Some(1.0), Some(1.0)));
        assert_eq!(marks.exact, Share { right: 72, of: 72 });
        assert_eq!(marks.pictures.keys().copied().collect::<BTreeSet<_>>(), CATEGORIES.into());
        assert!(marks.pictures.values().all(|share| share.of == 12));
        assert_eq!(marks.answers.keys().copied().collect::<Vec<_>>(), About::ALL);
        assert!(marks.answers.values().all(|share| share.of == 20));
    }

    /// Pictures of other prompts, and the answers of other questions.
    #[test]
    fn whoever_does_not_listen_has_low_marks() {
        let (prompts, tasks) = (prompts(5, 20), tasks(5, 210));
        let mut marks = Marks::default();
        for (prompt, other) in prompts.iter().zip(prompts.iter().cycle().skip(7)) {
            marks.picture(prompt, &other.scene.draw(64));
        }
        for (task, other) in tasks.iter().zip(tasks.iter().cycle().skip(8)) {
            marks.answer(&task.asked, &other.asked.answer);
        }
        // One shape in six is the right one by chance.
        assert!(marks.drawing().expect("pictures") < 0.15, "{marks:?}");
        assert!(marks.answering().expect("answers") < 0.1, "{marks:?}");
        assert!(!marks.answer(&tasks[0].asked, ""));
        assert_eq!((Marks::default().drawing(), Marks::default().answering()), (None, None));
    }

    #[test]
    fn a_mean_counts_each_category_once() {
        let mut marks = Marks::default();
        marks.pictures.insert(Theme::Colours, Share { right: 1, of: 1 });
        marks.pictures.insert(Theme::Binding, Share { right: 0, of: 99 });
        assert_eq!(marks.drawing(), Some(0.5));
    }

    #[test]
    fn tasks_are_held_out_and_fresh() {
        let texts = |seed| {
            let prompts = prompts(seed, 10).into_iter().map(|prompt| prompt.text);
            prompts.chain(tasks(seed, 70).into_iter().map(|task| format!("{:?}", task.scene)))
        };
        let (first, again, other): (Vec<_>, Vec<_>, Vec<_>) =
            (texts(1).collect(), texts(1).collect(), texts(2).collect());
        assert!(first == again && first != other);
        let scenes = prompts(1, 10).into_iter().map(|prompt| prompt.scene);
        for scene in scenes.chain(tasks(1, 70).into_iter().map(|task| task.scene)) {
            assert!(belongs(&scene, Split::Test), "{scene:?}");
            assert!(combinations(&scene).iter().any(|found| home(found) == Split::Test));
        }
        assert!(prompts(1, 0).is_empty() && tasks(1, 0).is_empty());
    }
}
