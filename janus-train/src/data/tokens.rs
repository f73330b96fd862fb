//! From a sample to the tokens of one document, and which of them are learnt.
//!
//! A prompt is written by the very code that writes it at inference, so that a document begins
//! with exactly what the model will be given there, token for token:
//!
//! ```text
//! understanding  bos system <|User|>: boi IMG×576 eoi question <|Assistant|>: ANSWER eos
//! text           bos system <|User|>: question <|Assistant|>: ANSWER eos
//! drawing        bos <|User|>: caption <|Assistant|>: boi C0 C1 … C575
//! editing        bos <|User|>: boi IMG×576 eoi boi code×576 eoi wish <|Assistant|>: boi C0 … C575
//! plain text     bos WORDS eos
//! ```
//! Capitals are learnt. A code is predicted from the place before its own, the first one from
//! begin-of-image. What a document does not need, it does not have: the last code of a picture is
//! read only where something follows, and then end-of-image closes it.
//!
//! Guidance at inference has rows that are shown less, so documents that show less are learnt, too:
//! drawing and editing ones without anything before begin-of-image, editing ones without the codes
//! of the pictures that are read.
//!
//! Source: Janus (arXiv 2410.13848), sections 3.2 to 3.4. Editing: the layout of Janus-4o
//! (<https://github.com/FreedomIntelligence/ShareGPT-4o-Image>), where codes are hidden in half of
//! the samples, and prompts of editing never.

use std::ops::Range;
use std::sync::Arc;

use janus_model::processor::{
    Conversation, DEFAULT_SYSTEM_PROMPT, EditPrompt, Message, Part, Processor, Role, Slot,
    SpecialIds,
};

use super::caption::first_sentence;
use super::error::Why;
use super::random::{happens, hash};
use super::sample::{Content, Kind, Piece, Sample, Turn};
use crate::batch::Target;

/// What is learnt, and what is hidden from a drawing sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Tokens of a row; longer samples are bad ones.
    pub max_tokens: usize,
    /// Also learn the words of questions and system texts (pretraining); never those of captions
    /// to be drawn.
    pub supervise_prompt: bool,
    /// How often the words of a drawing prompt become padding: 0.1 in the paper.
    pub unconditional: f64,
    /// How often a caption to be drawn is cut to its first sentence: 0.25 in the paper.
    pub short_captions: f64,
    /// How often the codes of the pictures that an editing sample starts from become padding: 0.5
    /// in Janus-4o.
    pub hidden_codes: f64,
    /// Pictures of questions stand as codes, as those that are drawn do: one encoder for both, to
    /// compare the two of Janus with. No command asks a model so.
    pub shared_encoder: bool,
}

impl Default for Objective {
    fn default() -> Self {
        Self {
            max_tokens: 4096,
            supervise_prompt: false,
            unconditional: 0.1,
            short_captions: 0.25,
            hidden_codes: 0.5,
            shared_encoder: false,
        }
    }
}

impl Objective {
    /// Without chance: for measuring a loss.
    pub fn exact(max_tokens: usize) -> Self {
        Self {
            max_tokens,
            supervise_prompt: false,
            unconditional: 0.0,
            short_captions: 0.0,
            hidden_codes: 0.0,
            shared_encoder: false,
        }
    }
}

/// What chance has decided for one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chance {
    /// The prompt is hidden.
    pub unconditional: bool,
    /// The caption is cut to its first sentence.
    pub short_caption: bool,
    /// The codes of the pictures that are read are hidden.
    pub hidden_codes: bool,
}

impl Chance {
    /// The same for the same sample of the same epoch, whoever asks.
    pub fn of(objective: &Objective, seed: u64, epoch: u64, index: u64) -> Self {
        let draw = |stream| hash(&[seed, stream, epoch, index]);
        Self {
            unconditional: happens(draw(1), objective.unconditional),
            short_caption: happens(draw(2), objective.short_captions),
            hidden_codes: happens(draw(3), objective.hidden_codes),
        }
    }
}

/// A picture that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Index in the sample.
    pub picture: usize,
    /// Place of its first token; the others follow.
    pub start: usize,
}

/// A picture that stands as codes: in an answer, or in the prompt of an editing sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Index in the sample.
    pub picture: usize,
    /// Place of begin-of-image; the codes that are read follow.
    pub begin: usize,
    /// How many of the codes are read.
    pub read: usize,
    /// Whether its codes are learnt; `false` in prompts, and where the data say so.
    pub learnt: bool,
}

/// The tokens of one document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Text ids; padding where a picture or a code stands.
    pub ids: Vec<i32>,
    /// Words to learn, by the place that predicts them.
    pub targets: Vec<Target>,
    /// Pictures that are read, in order of their places.
    pub seen: Vec<Seen>,
    /// Pictures that stand as codes.
    pub drawn: Vec<Drawn>,
}

/// Writes samples as tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// As at inference.
    pub processor: Arc<Processor>,
    /// Codes of a drawn picture: 576.
    pub codes: usize,
    /// What is learnt.
    pub objective: Objective,
}

impl Tokens {
    /// Tokens of a picture in a question.
    fn of_a_question(&self) -> usize {
        match self.objective.shared_encoder {
            true => self.codes,
            false => self.processor.num_image_tokens,
        }
    }

    /// The tokens of one sample. Pictures are not looked at.
    ///
    /// # Errors
    /// [`Why`] it cannot be learnt from: too long, an empty part, nothing supervised, text that
    /// cannot be encoded.
    pub fn document(&self, sample: &Sample, chance: Chance) -> Result<Document, Why> {
        let mut writer = Writer::new(self);
        match &sample.content {
            Content::Plain(text) => writer.plain(text)?,
            Content::Turns { system, turns } => {
                let drawing = sample.kind() == Kind::Draw;
                // Drawing has no system text at inference.
                let usual = if drawing { "" } else { DEFAULT_SYSTEM_PROMPT };
                let system = system.as_deref().unwrap_or(usual);
                let chance = if drawing { chance } else { Chance::default() };
                writer.drawing = drawing;
                writer.turns(system, turns, chance)?;
            }
        }
        let document = writer.document;
        let (tokens, limit) = (document.ids.len(), self.objective.max_tokens);
        if tokens > limit {
            return Err(Why::TooLong { tokens, limit });
        }
        if document.targets.is_empty() && !document.drawn.iter().any(|picture| picture.learnt) {
            return Err(Why::NothingSupervised);
        }
        Ok(document)
    }
}

/// A document being written.
struct Writer<'a> {
    tokens: &'a Tokens,
    special: SpecialIds,
    document: Document,
    drawing: bool,
}

impl<'a> Writer<'a> {
    fn new(tokens: &'a Tokens) -> Self {
        let special = *tokens.processor.tokenizer.special();
        Self { tokens, special, document: Document::default(), drawing: false }
    }

    /// Appends a token; a learnt one is predicted from the place before.
    fn push(&mut self, id: u32, learnt: bool) {
        let place = self.document.ids.len();
        if learnt && place > 0 {
            self.document.targets.push(Target { place: place as i32 - 1, id: id as i32 });
        }
        self.document.ids.push(id as i32);
    }

    /// A document without roles.
    fn plain(&mut self, text: &str) -> Result<(), Why> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Why::Empty("the text"));
        }
        self.push(self.special.bos, false);
        for id in self.tokens.processor.tokenizer.encode_plain(text)? {
            self.push(id, true);
        }
        self.push(self.special.eos, true);
        Ok(())
    }

    fn turns(&mut self, system: &str, turns: &[Turn], chance: Chance) -> Result<(), Why> {
        let alone = turns.len() == 2;
        for (number, exchange) in turns.chunks_exact(2).enumerate() {
            let (question, answer) = (&exchange[0], &exchange[1]);
            let system = if number == 0 { system } else { "" };
            let short = chance.short_caption && alone;
            let edits = self.drawing && question.pictures() > 0;
            let prompt = match edits {
                true => self.wish(system, question, chance.hidden_codes, number > 0)?,
                false => self.prompt(system, question, short, number > 0)?,
            };
            // Guidance at inference knows one prompt and its twin, so does dropping it here.
            if chance.unconditional && alone {
                self.hide(prompt);
            }
            self.answer(answer, number + 1 == turns.len() / 2)?;
        }
        Ok(())
    }

    /// A question and the opened answer, as inference writes them. Returns its places.
    fn prompt(
        &mut self,
        system: &str,
        question: &Turn,
        short: bool,
        later: bool,
    ) -> Result<Range<usize>, Why> {
        let processor = &self.tokens.processor;
        let content = question.pieces.iter().map(|piece| match piece {
            Piece::Picture(picture) => Part::Image(*picture),
            Piece::Text(text) if short && question.pieces.len() == 1 => {
                Part::Text(first_sentence(text).to_owned())
            }
            Piece::Text(text) => Part::Text(text.clone()),
        });
        let content: Vec<Part> = content.collect();
        let empty = |part: &Part| matches!(part, Part::Text(text) if text.trim().is_empty());
        if content.iter().all(empty) {
            return Err(Why::Empty(if self.drawing { "the caption" } else { "the question" }));
        }
        let asked = vec![Message { role: Role::User, content }, Message::open_answer()];
        let conversation = Conversation::with_system(system, asked);
        let rendered = conversation.render(processor.style, &processor.tokenizer)?;
        let ids = rendered.ids(&processor.tokenizer, self.tokens.of_a_question())?;
        let start = self.document.ids.len();
        // A later question follows the end of the answer before it, not a second beginning.
        self.written(&ids[usize::from(later)..], &rendered.images);
        Ok(start..self.document.ids.len())
    }

    /// Pictures and what should become of them, as inference writes it. Returns its places.
    fn wish(
        &mut self,
        system: &str,
        question: &Turn,
        hidden_codes: bool,
        later: bool,
    ) -> Result<Range<usize>, Why> {
        let Tokens { processor, codes, .. } = self.tokens;
        let content = question.pieces.iter().map(|piece| match piece {
            Piece::Picture(picture) => Part::Image(*picture),
            Piece::Text(text) => Part::Text(text.clone()),
        });
        let content: Vec<Part> = content.collect();
        let words = |part: &Part| matches!(part, Part::Text(text) if !text.trim().is_empty());
        if !content.iter().any(words) {
            return Err(Why::Empty("the wish"));
        }
        let how = (processor.style, &processor.tokenizer);
        let prompt = EditPrompt::new(system, &content, how, (processor.num_image_tokens, *codes))?;
        let (start, skipped) = (self.document.ids.len(), usize::from(later));
        // Begin-of-image belongs to the answer.
        let ids = &prompt.ids[skipped..prompt.ids.len() - 1];
        self.document.ids.extend(ids.iter().map(|id| *id as i32));
        for Slot { picture, features, codes: first } in prompt.slots {
            let place = |place: usize| start + place - skipped;
            self.document.seen.push(Seen { picture, start: place(features) });
            if !hidden_codes {
                let begin = place(first) - 1;
                self.document.drawn.push(Drawn { picture, begin, read: *codes, learnt: false });
            }
        }
        Ok(start..self.document.ids.len())
    }

    /// Appends the tokens of a prompt, with pictures at its placeholders.
    fn written(&mut self, ids: &[u32], pictures: &[usize]) {
        let SpecialIds { bos, pad, begin_of_image, end_of_image, image_placeholder, .. } =
            self.special;
        let learn = self.tokens.objective.supervise_prompt && !self.drawing;
        let each = self.tokens.of_a_question();
        let mut waiting = pictures.iter();
        let mut inside = 0;
        for id in ids {
            if *id != image_placeholder {
                let given = [bos, begin_of_image, end_of_image].contains(id);
                self.push(*id, learn && !given);
                continue;
            }
            if inside == 0
                && let Some(&picture) = waiting.next()
            {
                self.seen(picture);
            }
            inside = (inside + 1) % each;
            self.push(pad, false);
        }
    }

    /// A picture of a question, whose first token comes next.
    fn seen(&mut self, picture: usize) {
        let start = self.document.ids.len();
        match self.tokens.objective.shared_encoder {
            false => self.document.seen.push(Seen { picture, start }),
            true => {
                let read = self.tokens.codes;
                let drawn = Drawn { picture, begin: start - 1, read, learnt: false };
                self.document.drawn.push(drawn);
            }
        }
    }

    /// Puts padding, which is attended, in place of everything but begin-of-sentence: what the twin
    /// of a guided prompt has. Of pictures nothing is left.
    fn hide(&mut self, prompt: Range<usize>) {
        for id in &mut self.document.ids[prompt] {
            if *id != self.special.bos as i32 {
                *id = self.special.pad as i32;
            }
        }
        self.document.seen.clear();
        self.document.drawn.clear();
    }

    fn answer(&mut self, answer: &Turn, last: bool) -> Result<(), Why> {
        // Blanks around a picture are how files are written, not something to learn.
        let blank = |piece: &&Piece| matches!(piece, Piece::Text(text) if strip(text).is_empty());
        let pieces: Vec<&Piece> = answer.pieces.iter().filter(|piece| !blank(piece)).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let ends = last && number + 1 == pieces.len();
            match piece {
                Piece::Text(text) => self.words(text, answer.learnt)?,
                Piece::Picture(picture) => self.picture(*picture, answer.learnt, ends),
            }
        }
        match pieces.last() {
            None => return Err(Why::Empty("the answer")),
            Some(Piece::Text(_)) => self.push(self.special.eos, answer.learnt),
            // After a picture nothing is predicted at inference: the turn is closed for what
            // follows, and that is not learnt.
            Some(Piece::Picture(_)) if !last => self.push(self.special.eos, false),
            Some(Piece::Picture(_)) => {}
        }
        Ok(())
    }

    /// Words of an answer. The template puts a space before them and strips them.
    fn words(&mut self, text: &str, learnt: bool) -> Result<(), Why> {
        let text = strip(text);
        for id in self.tokens.processor.tokenizer.encode_plain(&format!(" {text}"))? {
            self.push(id, learnt);
        }
        Ok(())
    }

    /// A picture to draw; `ends` where nothing follows it.
    fn picture(&mut self, picture: usize, learnt: bool, ends: bool) {
        self.push(self.special.begin_of_image, false);
        let begin = self.document.ids.len() - 1;
        let read = self.tokens.codes - usize::from(ends);
        self.document.drawn.push(Drawn { picture, begin, read, learnt });
        for _ in 0..read {
            self.push(self.special.pad, false);
        }
        if !ends {
            self.push(self.special.end_of_image, false);
        }
    }
}

/// As the template strips a message: of white space and four old separators.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}
