//! One sample, whatever file it came from.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use janus_model::processor::{FileError, IMAGE_PLACE, ImageLimits, Role, read_file};
use serde::{Deserialize, Serialize};

use super::error::Why;

/// The kinds that are mixed, in the order in which ratios are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Pictures are read, words are learnt.
    Understand,
    /// Words only.
    Text,
    /// A picture is learnt, whether or not others are read (editing).
    #[serde(alias = "generate")]
    Draw,
}

impl Kind {
    /// In the order of ratios.
    pub const ALL: [Self; 3] = [Self::Understand, Self::Text, Self::Draw];

    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Understand => "understand",
            Self::Text => "text",
            Self::Draw => "draw",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Understand => "understanding",
            Self::Text => "text",
            Self::Draw => "drawing",
        })
    }
}

/// A picture that was not decoded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picture {
    /// In a file of its own.
    File(PathBuf),
    /// Out of an archive or a table.
    Bytes(Bytes),
}

impl Picture {
    /// The file's bytes, within the limit.
    pub fn bytes(&self, limits: &ImageLimits) -> Result<Bytes, FileError> {
        match self {
            Self::File(path) => read_file(path, limits.max_bytes).map(Bytes::from),
            Self::Bytes(bytes) => Ok(bytes.clone()),
        }
    }
}

/// A piece of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text from outside.
    Text(String),
    /// A picture by its index: to be read in a user's turn, to be drawn in an assistant's.
    Picture(usize),
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub pieces: Vec<Piece>,
    /// Whether an answer is learnt; `false` only where the data say so.
    pub learnt: bool,
}

impl Turn {
    /// Splits text at [`IMAGE_PLACE`]; pictures are numbered from `first` on.
    pub fn with_places(role: Role, text: &str, first: usize) -> Self {
        let mut pieces = Vec::new();
        for (number, text) in text.split(IMAGE_PLACE).enumerate() {
            if number > 0 {
                pieces.push(Piece::Picture(first + number - 1));
            }
            if !text.is_empty() {
                pieces.push(Piece::Text(text.to_owned()));
            }
        }
        Self { role, pieces, learnt: true }
    }

    pub(super) fn pictures(&self) -> usize {
        self.pieces.iter().filter(|piece| matches!(piece, Piece::Picture(_))).count()
    }
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// User and assistant in turn, the user first and the assistant last.
    Turns {
        /// `None` for what the same request has at inference: a system text for answers in words,
        /// none for drawing.
        system: Option<String>,
        /// In order.
        turns: Vec<Turn>,
    },
    /// A document without roles; every word is learnt.
    Plain(String),
}

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What is said.
    pub content: Content,
    /// Pictures by their index.
    pub pictures: Vec<Picture>,
}

impl Sample {
    /// A conversation in which [`IMAGE_PLACE`] stands for pictures, in order.
    ///
    /// As at inference, pictures without any place come before the first question.
    ///
    /// # Errors
    /// [`Why::Record`] for turns that do not alternate or end with a question, [`Why::Places`].
    pub fn conversation(
        system: Option<String>,
        turns: Vec<(Role, String, bool)>,
        pictures: Vec<Picture>,
    ) -> Result<Self, Why> {
        let mut placed = 0;
        let turns = turns.into_iter().map(|(role, text, learnt)| {
            let turn = Turn { learnt, ..Turn::with_places(role, &text, placed) };
            placed += turn.pictures();
            turn
        });
        let mut turns: Vec<Turn> = turns.collect();
        check_order(&turns)?;
        if placed == 0 {
            let first = (0..pictures.len()).map(Piece::Picture);
            turns[0].pieces.splice(0..0, first);
        } else if placed != pictures.len() {
            return Err(Why::Places { places: placed, pictures: pictures.len() });
        }
        Ok(Self { content: Content::Turns { system, turns }, pictures })
    }

    /// A picture with its caption: to be drawn from it, or to be described by it.
    pub fn captioned(kind: Kind, question: &str, caption: &str, picture: Picture) -> Self {
        // Through pieces: a caption that speaks of "<image>" must stay text.
        let text = |text: &str| vec![Piece::Text(text.to_owned())];
        let turn = |role, pieces| Turn { role, pieces, learnt: true };
        let turns = match kind {
            Kind::Draw => vec![
                turn(Role::User, text(caption)),
                turn(Role::Assistant, vec![Piece::Picture(0)]),
            ],
            _ => vec![
                turn(Role::User, [vec![Piece::Picture(0)], text(question)].concat()),
                turn(Role::Assistant, text(caption)),
            ],
        };
        Self { content: Content::Turns { system: None, turns }, pictures: vec![picture] }
    }

    /// A document.
    pub fn plain(text: String) -> Self {
        Self { content: Content::Plain(text), pictures: Vec::new() }
    }

    /// Itself, if it is of the kind that was promised.
    ///
    /// # Errors
    /// [`Why::Kind`].
    pub fn of(self, promised: Option<Kind>) -> Result<Self, Why> {
        let found = self.kind();
        match promised.filter(|expected| *expected != found) {
            Some(expected) => Err(Why::Kind { found, expected }),
            None => Ok(self),
        }
    }

    /// Whether a picture is drawn from others.
    pub fn edits(&self) -> bool {
        let Content::Turns { turns, .. } = &self.content else { return false };
        let seen = |turn: &Turn| turn.role == Role::User && turn.pictures() > 0;
        self.kind() == Kind::Draw && turns.iter().any(seen)
    }

    /// What is learnt from it.
    pub fn kind(&self) -> Kind {
        let Content::Turns { turns, .. } = &self.content else { return Kind::Text };
        let drawn = |turn: &Turn| turn.role == Role::Assistant && turn.pictures() > 0;
        match (turns.iter().any(drawn), self.pictures.is_empty()) {
            (true, _) => Kind::Draw,
            (false, false) => Kind::Understand,
            (false, true) => Kind::Text,
        }
    }

    /// What the one says who does not show the picture: a caption to draw from, or an answer.
    ///
    /// # Errors
    /// [`Why::Empty`] where that is nothing.
    pub fn caption(&self) -> Result<String, Why> {
        let speaker = match self.kind() {
            Kind::Draw => Role::User,
            _ => Role::Assistant,
        };
        let Content::Turns { turns, .. } = &self.content else {
            return Err(Why::Empty("the caption"));
        };
        let pieces = turns.iter().filter(|turn| turn.role == speaker).flat_map(|turn| &turn.pieces);
        let texts = pieces.filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.trim()),
            Piece::Picture(_) => None,
        });
        let text = texts.collect::<Vec<_>>().join(" ");
        if text.trim().is_empty() { Err(Why::Empty("the caption")) } else { Ok(text) }
    }
}

/// User and assistant in turn, an answer at the end.
fn check_order(turns: &[Turn]) -> Result<(), Why> {
    if turns.is_empty() {
        return Err(Why::Empty("the conversation"));
    }
    for (number, turn) in turns.iter().enumerate() {
        let (role, name) =
            if number % 2 == 0 { (Role::User, "user") } else { (Role::Assistant, "assistant") };
        if turn.role != role {
            let number = number + 1;
            return Err(Why::Record(format!("turn {number} should be the {name}'s")));
        }
    }
    if turns.len() % 2 == 1 {
        return Err(Why::Record("the last turn is the user's: there is no answer".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        Picture::Bytes(Bytes::from_static(b"x"))
    }

    fn turns(texts: &[&str]) -> Vec<(Role, String, bool)> {
        let role = |i: usize| if i.is_multiple_of(2) { Role::User } else { Role::Assistant };
        texts.iter().enumerate().map(|(i, text)| (role(i), (*text).to_owned(), true)).collect()
    }

    #[test]
    fn kinds_are_told_from_who_has_the_pictures() {
        let kind = |texts: &[&str], pictures| {
            Sample::conversation(None, turns(texts), vec![picture(); pictures]).unwrap().kind()
        };
        assert_eq!(kind(&["hello", "hi"], 0), Kind::Text);
        assert_eq!(kind(&["<image>what?", "a cat"], 1), Kind::Understand);
        assert_eq!(kind(&["what?", "a cat"], 1), Kind::Understand);
        assert_eq!(kind(&["a cat", "<image>"], 1), Kind::Draw);
        assert_eq!(kind(&["<image>bluer", "<image>"], 2), Kind::Draw);
        assert_eq!(Sample::plain("x".to_owned()).kind(), Kind::Text);
    }

    #[test]
    fn places_and_pictures_must_match() {
        let error = Sample::conversation(None, turns(&["<image><image>", "x"]), vec![picture()]);
        assert_eq!(error.unwrap_err().to_string(), "places for pictures (<image>): 2, pictures: 1");
    }

    #[test]
    fn turns_alternate_and_end_with_an_answer() {
        let error = |turns| Sample::conversation(None, turns, vec![]).unwrap_err().to_string();
        assert_eq!(error(vec![]), "the conversation is empty");
        assert_eq!(error(turns(&["x"])), "the last turn is the user's: there is no answer");
        let twice = vec![(Role::User, "a".to_owned(), true), (Role::User, "b".to_owned(), true)];
        assert_eq!(error(twice), "turn 2 should be the assistant's");
    }

    #[test]
    fn a_caption_may_speak_of_the_place_of_a_picture() {
        let sample = Sample::captioned(Kind::Draw, "", "an <image> tag", picture());
        let Content::Turns { turns, .. } = &sample.content else { panic!("turns") };
        assert_eq!(turns[0].pieces, [Piece::Text("an <image> tag".to_owned())]);
        assert_eq!(sample.kind(), Kind::Draw);
    }
}
