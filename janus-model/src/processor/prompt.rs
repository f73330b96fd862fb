//! From a conversation to token ids.
//!
//! Template ("deepseek" of the reference), with `i` counting the turns from 0:
//! ```text
//! {system}\n\n                                    unless the system prompt is empty
//! {role}: {message}{\n\n | end of sentence}       for even | odd i
//! {role}:                                         for an empty message: opens the answer
//! ```
//! The result is stripped, so an inference prompt ends in `<|Assistant|>:` without a space. One
//! begin-of-sentence goes before it, and every picture becomes begin-of-image, `N` placeholders,
//! end-of-image. Image generation appends begin-of-image to a prompt without a system text.
//!
//! Source: `conversation.py` and `processing_vlm.py` of deepseek-ai/Janus.

use std::ops::Range;

use super::error::{PromptError, TokenizerError};
use super::tokenizer::{ASSISTANT, JanusTokenizer, SpecialIds, USER};

/// The system text of the reference for questions about pictures.
pub const DEFAULT_SYSTEM_PROMPT: &str = "You are a helpful language and vision assistant. \
    You are able to understand the visual content that the user provides, \
    and assist the user with a variety of tasks using natural language.";

/// What stands for a picture in text whose pictures are listed beside it.
pub const IMAGE_PLACE: &str = "<image>";

/// How the roles are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChatStyle {
    /// `<|User|>` and `<|Assistant|>`: Janus-Pro.
    #[default]
    Pro,
    /// `User` and `Assistant`: Janus-1.3B.
    Janus1_3b,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The human.
    User,
    /// The model.
    Assistant,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text from outside: special-token strings in it stay text.
    Text(String),
    /// A picture, by its index in the list that goes with the conversation.
    Image(usize),
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order. Where a picture meets text that has no white space at that side, a
    /// line break is put between them; pictures beside each other are joined directly.
    pub content: Vec<Part>,
}

impl Message {
    /// A question without pictures.
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: Role::User, content: vec![Part::Text(text.into())] }
    }

    /// Pictures, then a question about them, as the reference writes it.
    pub fn user_with_images(images: Range<usize>, question: impl Into<String>) -> Self {
        let pictures = images.map(Part::Image);
        let content = pictures.chain([Part::Text(question.into())]).collect();
        Self { role: Role::User, content }
    }

    /// A question in which [`IMAGE_PLACE`] stands for pictures, numbered from `first` on.
    pub fn user_with_places(text: &str, first: usize) -> Self {
        let mut content = Vec::new();
        for (number, text) in text.split(IMAGE_PLACE).enumerate() {
            if let Some(before) = number.checked_sub(1) {
                content.push(Part::Image(first + before));
            }
            if !text.is_empty() {
                content.push(Part::Text(text.to_owned()));
            }
        }
        Self { role: Role::User, content }
    }

    /// An answer.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: vec![Part::Text(text.into())] }
    }

    /// The empty turn that asks for an answer.
    pub fn open_answer() -> Self {
        Self { role: Role::Assistant, content: Vec::new() }
    }
}

/// A system text and turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// May be empty.
    pub system: String,
    /// In order, usually alternating.
    pub messages: Vec<Message>,
}

impl Conversation {
    /// A conversation with [`DEFAULT_SYSTEM_PROMPT`].
    pub fn new(messages: Vec<Message>) -> Self {
        Self { system: DEFAULT_SYSTEM_PROMPT.to_owned(), messages }
    }

    /// A conversation with another system text, or none.
    pub fn with_system(system: impl Into<String>, messages: Vec<Message>) -> Self {
        Self { system: system.into(), messages }
    }

    /// Turns as text, the user's first and last, in which [`IMAGE_PLACE`] stands for pictures in
    /// their order. Where it stands nowhere, all pictures come before the first question. Without
    /// `system`, [`DEFAULT_SYSTEM_PROMPT`].
    ///
    /// # Errors
    /// [`PromptError::Empty`], [`PromptError::Order`], [`PromptError::Places`].
    pub fn from_text(
        system: Option<&str>,
        turns: &[(Role, &str)],
        images: usize,
    ) -> Result<Self, PromptError> {
        check_order(turns)?;
        let asked = turns.iter().filter(|(role, _)| *role == Role::User);
        let places = asked.map(|(_, text)| text.matches(IMAGE_PLACE).count()).sum();
        if places != images && places > 0 {
            return Err(PromptError::Places { places, images });
        }
        let mut placed = 0;
        let mut messages = Vec::with_capacity(turns.len());
        for (role, text) in turns {
            messages.push(match role {
                Role::Assistant => Message::assistant(*text),
                Role::User if places == 0 && messages.is_empty() => {
                    Message::user_with_images(0..images, *text)
                }
                Role::User => {
                    let message = Message::user_with_places(text, placed);
                    placed += text.matches(IMAGE_PLACE).count();
                    message
                }
            });
        }
        let system = system.unwrap_or(DEFAULT_SYSTEM_PROMPT).to_owned();
        Ok(Self { system, messages })
    }

    /// The same, ending in an empty assistant turn.
    pub fn awaiting_answer(mut self) -> Self {
        let open = self.messages.last().is_some_and(|m| {
            m.role == Role::Assistant && m.content.iter().all(|p| *p == Part::Text(String::new()))
        });
        if !open {
            self.messages.push(Message::open_answer());
        }
        self
    }

    /// Writes the conversation as one string.
    ///
    /// # Errors
    /// [`PromptError::Empty`] without turns, [`PromptError::ImageInAnswer`].
    pub fn render(
        &self,
        style: ChatStyle,
        tokenizer: &JanusTokenizer,
    ) -> Result<Rendered, PromptError> {
        if self.messages.is_empty() {
            return Err(PromptError::Empty);
        }
        let mut out = Rendered::default();
        if !self.system.is_empty() {
            out.plain(&self.system);
            out.plain("\n\n");
        }
        for (turn, message) in self.messages.iter().enumerate() {
            match (style, message.role) {
                (ChatStyle::Pro, Role::User) => out.control(USER),
                (ChatStyle::Pro, Role::Assistant) => out.control(ASSISTANT),
                (ChatStyle::Janus1_3b, Role::User) => out.plain("User"),
                (ChatStyle::Janus1_3b, Role::Assistant) => out.plain("Assistant"),
            }
            out.plain(":");
            let content = message.render(tokenizer)?;
            if content.text.is_empty() {
                continue;
            }
            out.plain(" ");
            out.append(content);
            if turn % 2 == 0 {
                out.plain("\n\n");
            } else {
                out.control(tokenizer.eos_text());
            }
        }
        out.strip();
        Ok(out)
    }
}

/// User and assistant in turn, as the template counts them; the user is last.
fn check_order(turns: &[(Role, &str)]) -> Result<(), PromptError> {
    if turns.is_empty() {
        return Err(PromptError::Empty);
    }
    let whose = |turn: usize| if turn.is_multiple_of(2) { Role::User } else { Role::Assistant };
    let wrong = (0..turns.len()).find(|turn| turns[*turn].0 != whose(*turn));
    // An even number ends with an answer: what is missing is a question after it.
    let wrong = wrong.or(turns.len().is_multiple_of(2).then_some(turns.len()));
    wrong.map_or(Ok(()), |turn| {
        let expected = if turn % 2 == 0 { "user" } else { "assistant" };
        Err(PromptError::Order { turn: turn + 1, expected })
    })
}

impl Message {
    fn render(&self, tokenizer: &JanusTokenizer) -> Result<Rendered, PromptError> {
        let mut out = Rendered::default();
        for (index, part) in self.content.iter().enumerate() {
            let before = index.checked_sub(1).and_then(|i| self.content.get(i));
            match (before, part) {
                (Some(Part::Image(_)), Part::Text(text)) if !starts_blank(text) => out.plain("\n"),
                (Some(Part::Text(text)), Part::Image(_)) if !ends_blank(text) => out.plain("\n"),
                _ => {}
            }
            match part {
                Part::Text(text) => out.plain(text),
                Part::Image(_) if self.role == Role::Assistant => {
                    return Err(PromptError::ImageInAnswer);
                }
                Part::Image(image) => {
                    out.control(tokenizer.image_text());
                    out.images.push(*image);
                }
            }
        }
        out.strip();
        Ok(out)
    }
}

/// An empty text counts as blank: it must not produce a line break.
fn starts_blank(text: &str) -> bool {
    text.chars().next().is_none_or(is_blank)
}

fn ends_blank(text: &str) -> bool {
    text.chars().next_back().is_none_or(is_blank)
}

/// What Python's `str.strip` removes: Unicode white space and four old separators.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// A prompt as text, which knows which of its special-token strings are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Byte ranges of the template's own special tokens, in order.
    pub trusted: Vec<Range<usize>>,
    /// Pictures in the order of their placeholders.
    pub images: Vec<usize>,
}

impl Rendered {
    pub(super) fn plain(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn control(&mut self, token: &str) {
        let start = self.text.len();
        self.text.push_str(token);
        self.trusted.push(start..self.text.len());
    }

    fn append(&mut self, other: Self) {
        let shift = self.text.len();
        self.text.push_str(&other.text);
        self.trusted.extend(other.trusted.into_iter().map(|r| r.start + shift..r.end + shift));
        self.images.extend(other.images);
    }

    /// Python's `strip()`; special tokens contain no white space at their ends.
    fn strip(&mut self) {
        let kept = self.text.trim_start_matches(is_blank);
        let shift = self.text.len() - kept.len();
        let kept = kept.trim_end_matches(is_blank).to_owned();
        self.text = kept;
        for range in &mut self.trusted {
            *range = range.start - shift..range.end - shift;
        }
    }

    /// Token ids: begin-of-sentence once, each picture as `1 + image_tokens + 1` ids.
    ///
    /// # Errors
    /// Those of [`JanusTokenizer::encode_mixed`].
    pub fn ids(
        &self,
        tokenizer: &JanusTokenizer,
        image_tokens: usize,
    ) -> Result<Vec<u32>, TokenizerError> {
        let special = tokenizer.special();
        let mut ids = vec![special.bos];
        for id in tokenizer.encode_mixed(&self.text, &self.trusted)? {
            if id == special.image_placeholder {
                ids.push(special.begin_of_image);
                ids.extend(std::iter::repeat_n(id, image_tokens));
                ids.push(special.end_of_image);
            } else {
                ids.push(id);
            }
        }
        Ok(ids)
    }
}

/// The two prompts of guided image generation; equal in length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationPrompt {
    /// Ends in begin-of-image.
    pub conditional: Vec<u32>,
    /// First and last id kept, all others padding, which is **attended** like text.
    pub unconditional: Vec<u32>,
}

impl GenerationPrompt {
    /// Writes and encodes the prompt of a picture.
    ///
    /// # Errors
    /// [`PromptError::Tokenizer`].
    pub fn new(
        text: &str,
        style: ChatStyle,
        tokenizer: &JanusTokenizer,
    ) -> Result<Self, PromptError> {
        let turns = vec![Message::user(text), Message::open_answer()];
        let mut rendered = Conversation::with_system("", turns).render(style, tokenizer)?;
        rendered.control(tokenizer.begin_of_image_text());
        let conditional = rendered.ids(tokenizer, 0)?;
        let unconditional = unconditional(&conditional, tokenizer.special().pad);
        Ok(Self { conditional, unconditional })
    }
}

fn unconditional(ids: &[u32], pad: u32) -> Vec<u32> {
    let last = ids.len().saturating_sub(1);
    ids.iter().enumerate().map(|(i, &id)| if i == 0 || i == last { id } else { pad }).collect()
}

/// What the model reads: plain numbers, no tensors. B rows of T tokens, N pictures of side S.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelInput {
    /// Token ids `[B][T]`, padded on the left.
    pub ids: Vec<Vec<i32>>,
    /// `[B][T]`, false on padding.
    pub attention_mask: Vec<Vec<bool>>,
    /// `[B][T]`, from 0 at the first real token; 1 on padding, where it does not matter.
    pub positions: Vec<Vec<i32>>,
    /// `[B][T]`, true where a vector of the vision tower goes, in row-major order of the pictures.
    pub image_slots: Vec<Vec<bool>>,
    /// Planar pixels `[N,3,S,S]` in one list; empty without pictures.
    pub pixels: Vec<f32>,
    /// N.
    pub n_images: usize,
    /// S in pixels; 0 without pictures.
    pub image_size: usize,
}

impl ModelInput {
    /// Pads rows on the left to the longest and derives masks and positions. No pictures yet.
    pub fn left_padded(rows: &[Vec<u32>], special: &SpecialIds) -> Self {
        let length = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut input = Self::default();
        for row in rows {
            let padding = length - row.len();
            let padded: Vec<u32> =
                std::iter::repeat_n(special.pad, padding).chain(row.iter().copied()).collect();
            input.ids.push(padded.iter().map(|&id| id as i32).collect());
            input.attention_mask.push((0..length).map(|t| t >= padding).collect());
            let position = |t: usize| if t < padding { 1 } else { (t - padding) as i32 };
            input.positions.push((0..length).map(position).collect());
            input
                .image_slots
                .push(padded.iter().map(|&id| id == special.image_placeholder).collect());
        }
        input
    }

    /// Number of positions that wait for a vector of the vision tower.
    pub fn slot_count(&self) -> usize {
        self.image_slots.iter().flatten().filter(|slot| **slot).count()
    }

    /// Checks what the networks take for granted.
    ///
    /// # Errors
    /// [`PromptError::SlotCount`].
    pub fn check_slots(&self, image_tokens: usize) -> Result<(), PromptError> {
        let slots = self.slot_count();
        if slots != self.n_images * image_tokens {
            return Err(PromptError::SlotCount { slots, images: self.n_images, image_tokens });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: SpecialIds = SpecialIds {
        bos: 1,
        eos: 2,
        pad: 3,
        begin_of_image: 4,
        end_of_image: 5,
        image_placeholder: 6,
        user: None,
        assistant: None,
    };

    #[test]
    fn rows_are_padded_on_the_left() {
        let input = ModelInput::left_padded(&[vec![1, 4, 6, 6, 5], vec![1, 9]], &IDS);
        assert_eq!(input.ids, [[1, 4, 6, 6, 5], [3, 3, 3, 1, 9]]);
        assert_eq!(input.attention_mask[1], [false, false, false, true, true]);
        assert_eq!(input.positions, [[0, 1, 2, 3, 4], [1, 1, 1, 0, 1]]);
        assert_eq!(input.image_slots[0], [false, false, true, true, false]);
        assert_eq!(input.slot_count(), 2);
    }

    #[test]
    fn slots_must_match_pictures() {
        let mut input = ModelInput::left_padded(&[vec![1, 4, 6, 6, 5]], &IDS);
        let error = input.check_slots(2).expect_err("no pictures");
        assert_eq!(error.to_string(), "2 image places for 0 images of 2 tokens each");
        input.n_images = 1;
        assert!(input.check_slots(2).is_ok());
    }

    #[test]
    fn the_unconditional_twin_keeps_first_and_last() {
        assert_eq!(unconditional(&[1, 7, 8, 9, 4], 3), [1, 3, 3, 3, 4]);
        assert_eq!(unconditional(&[1], 3), [1]);
        assert!(unconditional(&[], 3).is_empty());
    }

    #[test]
    fn stripping_moves_the_trusted_ranges() {
        let mut rendered = Rendered::default();
        rendered.plain(" \u{1f}\n");
        rendered.control("<x>");
        rendered.plain("é\u{3000}");
        rendered.strip();
        assert_eq!(rendered.text, "<x>é");
        assert_eq!(rendered.trusted.first(), Some(&(0..3)));
        assert_eq!(rendered.trusted.len(), 1);
    }

    #[test]
    fn pictures_go_where_the_text_says() {
        let (image, text) = (Part::Image, |text: &str| Part::Text(text.to_owned()));
        let turns = |first| [(Role::User, first), (Role::Assistant, "<image>"), (Role::User, "?")];
        let read = |first, images| Conversation::from_text(Some(""), &turns(first), images);
        let first = |first, images| read(first, images).map(|c| c.messages[0].content.clone());
        let placed = first("<image> and <image>?", 2).expect("two places");
        assert_eq!(placed, [image(0), text(" and "), image(1), text("?")]);
        assert_eq!(first("both", 2).expect("no place"), [image(0), image(1), text("both")]);
        assert_eq!(first("none", 0).expect("no picture"), [text("none")]);
        let error = first("<image>", 2).expect_err("one place");
        assert_eq!(
            error.to_string(),
            "places for pictures (<image>) in the text: 1, pictures given: 2"
        );
        let late = [(Role::User, "a <image>"), (Role::Assistant, "b"), (Role::User, "<image>c")];
        let late = Conversation::from_text(None, &late, 2).expect("a place in each");
        assert_eq!(late.messages[2].content, [image(1), text("c")]);
        assert_eq!(late.system, DEFAULT_SYSTEM_PROMPT);
    }

    #[test]
    fn turns_alternate_and_end_with_a_question() {
        let wrong = |roles: &[Role]| {
            let turns: Vec<_> = roles.iter().map(|role| (*role, "x")).collect();
            match Conversation::from_text(None, &turns, 0) {
                Err(PromptError::Order { turn, expected }) => Some((turn, expected)),
                _ => None,
            }
        };
        use Role::{Assistant, User};
        assert_eq!(wrong(&[User, Assistant, User]), None);
        assert_eq!(wrong(&[Assistant]), Some((1, "user")));
        assert_eq!(wrong(&[User, User]), Some((2, "assistant")));
        assert_eq!(wrong(&[User, Assistant]), Some((3, "user")));
    }

    #[test]
    fn awaiting_an_answer_adds_one_empty_turn_at_most() {
        let asked = Conversation::new(vec![Message::user("hi")]).awaiting_answer();
        assert_eq!(asked.messages.len(), 2);
        assert_eq!(asked.clone().awaiting_answer(), asked);
    }
}
