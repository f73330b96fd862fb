//! A conversation: its turns and pictures, and what can be done with them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use janus_infer::{AskOptions, Chat, Engine, FinishReason, Reply};
use janus_model::processor::{
    Conversation, IMAGE_PLACE, ProcessorError, PromptError, RgbImage8, Role, TRAINED_CONTEXT,
};
use serde_json::json;

use super::words::Piece;
use crate::answers;
use crate::args::ImageArgs;
use crate::pictures;
use crate::report::{self, Exit, Failure};

/// One question and its answer.
struct Turn {
    /// With a mark where each picture is.
    question: String,
    answer: String,
    /// Pictures of this turn.
    pictures: usize,
}

/// A picture and where it came from.
pub type Picture = (PathBuf, RgbImage8);

/// Reads a picture and keeps its path beside it.
pub fn read_picture(path: PathBuf, how: &ImageArgs) -> Result<Picture, Failure> {
    pictures::read(&path, how).map(|image| (path, image))
}

/// A conversation with a model.
pub struct Session<'a> {
    engine: &'a Engine,
    chat: Chat<'a>,
    reading: &'a ImageArgs,
    /// How answers are chosen.
    pub options: AskOptions,
    /// In place of the usual system prompt.
    pub system: Option<String>,
    turns: Vec<Turn>,
    /// Pictures of all turns, in order.
    images: Vec<RgbImage8>,
    paths: Vec<PathBuf>,
    /// Pictures for the next question.
    waiting: Vec<Picture>,
    /// Whether it was said that the conversation is long.
    warned: bool,
    /// The file this conversation was written to.
    saved: Option<PathBuf>,
}

impl<'a> Session<'a> {
    /// Without any turn.
    pub fn new(engine: &'a Engine, options: AskOptions, reading: &'a ImageArgs) -> Self {
        Self {
            engine,
            chat: engine.chat(),
            reading,
            options,
            system: None,
            turns: Vec::new(),
            images: Vec::new(),
            paths: Vec::new(),
            waiting: Vec::new(),
            warned: false,
            saved: None,
        }
    }

    /// Turns so far.
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// Pictures that wait for a question.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Reads pictures for the next question: all of them or none.
    ///
    /// # Errors
    /// A picture that cannot be read, or has no room in the context.
    pub fn add_pictures(&mut self, paths: Vec<PathBuf>) -> Result<(), Failure> {
        let pictures = self.read(paths)?;
        self.waiting.extend(pictures);
        Ok(())
    }

    /// As [`Session::add_pictures`], for pictures that were read before.
    pub fn begin_with(&mut self, pictures: Vec<Picture>) -> Result<(), Failure> {
        self.check_room(pictures.len())?;
        self.waiting = pictures;
        Ok(())
    }

    fn read(&self, paths: Vec<PathBuf>) -> Result<Vec<Picture>, Failure> {
        self.check_room(paths.len())?;
        paths.into_iter().map(|path| read_picture(path, self.reading)).collect()
    }

    /// Before pictures are read: what the context cannot hold need not be in memory either.
    fn check_room(&self, more: usize) -> Result<(), Failure> {
        let rules = self.engine.processor();
        let count = self.images.len() + self.waiting.len() + more;
        let (each, limit) = (rules.num_image_tokens, rules.context_length);
        if count * each > limit {
            let message =
                format!("{count} pictures of {each} tokens do not fit into a context of {limit}");
            return Err(Failure::new(Exit::Usage, message).hint(ROOM));
        }
        Ok(())
    }

    /// Asks a question with the pictures in it and those that wait.
    ///
    /// # Errors
    /// The conversation stays as it was.
    pub fn ask(
        &mut self,
        pieces: Vec<Piece>,
        on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Reply, Failure> {
        let (question, pictures) = self.compose(pieces)?;
        let before = self.images.len();
        let turn = Turn { question, answer: String::new(), pictures: pictures.len() };
        for (path, image) in pictures {
            self.paths.push(path);
            self.images.push(image);
        }
        self.turns.push(turn);
        let result = self.answer(on_text);
        let something = |reply: &Reply| {
            reply.finish != FinishReason::Cancelled || !reply.text.trim().is_empty()
        };
        if !result.as_ref().is_ok_and(something) {
            self.turns.pop();
            self.paths.truncate(before);
            self.images.truncate(before);
        }
        result
    }

    /// A question as text with marks, and its pictures in the order of the marks. Pictures that
    /// wait take the marks that were typed, or else come first.
    fn compose(&mut self, pieces: Vec<Piece>) -> Result<(String, Vec<Picture>), Failure> {
        let typed = |piece: &Piece| match piece {
            Piece::Text(text) => text.matches(IMAGE_PLACE).count(),
            Piece::Picture(_) => 0,
        };
        let (places, images) = (pieces.iter().map(typed).sum(), self.waiting.len());
        if places > 0 && places != images {
            return Err(ProcessorError::from(PromptError::Places { places, images }).into());
        }
        let inside = |piece: &Piece| match piece {
            Piece::Text(_) => None,
            Piece::Picture(path) => Some(path.clone()),
        };
        let mut inside = self.read(pieces.iter().filter_map(inside).collect())?.into_iter();
        let mut waiting = std::mem::take(&mut self.waiting).into_iter();
        let (mut question, mut pictures) = (String::new(), Vec::new());
        if places == 0 {
            question = IMAGE_PLACE.repeat(images);
            pictures.extend(waiting.by_ref());
        }
        for piece in &pieces {
            match piece {
                Piece::Picture(_) => {
                    question += IMAGE_PLACE;
                    pictures.extend(inside.next());
                }
                Piece::Text(text) => {
                    pictures.extend(waiting.by_ref().take(typed(piece)));
                    question += text;
                }
            }
        }
        Ok((question, pictures))
    }

    /// Answers the last question.
    fn answer(&mut self, on_text: impl FnMut(&str) -> ControlFlow<()>) -> Result<Reply, Failure> {
        let conversation = self.conversation()?;
        let asked = self.chat.ask((&conversation, &self.images), &self.options, on_text);
        let reply = asked.map_err(|error| {
            let full = answers::is_too_long(&error);
            let failure = Failure::from(error);
            match full {
                true => failure.hint(ROOM),
                false => failure,
            }
        })?;
        // Each answer has its own chance, a second one to the same question too.
        self.options.first = self.options.first.wrapping_add(1);
        if let Some(turn) = self.turns.last_mut() {
            turn.answer.clone_from(&reply.text);
        }
        Ok(reply)
    }

    fn conversation(&self) -> Result<Conversation, Failure> {
        let mut turns = Vec::with_capacity(2 * self.turns.len());
        for turn in &self.turns {
            turns.push((Role::User, turn.question.as_str()));
            turns.push((Role::Assistant, turn.answer.as_str()));
        }
        // The answer to come.
        turns.pop();
        let system = self.system.as_deref();
        let conversation = Conversation::from_text(system, &turns, self.images.len());
        Ok(conversation.map_err(ProcessorError::from)?)
    }

    /// Asks the last question again.
    ///
    /// # Errors
    /// There is none; or as [`Session::ask`]. The old answer stays then, and where the new one is
    /// broken off.
    pub fn retry(
        &mut self,
        on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Reply, Failure> {
        let Some(turn) = self.turns.last_mut() else { return Err(no_turn()) };
        let old = std::mem::take(&mut turn.answer);
        let result = self.answer(on_text);
        let complete = |reply: &Reply| reply.finish != FinishReason::Cancelled;
        if let (Some(turn), false) = (self.turns.last_mut(), result.as_ref().is_ok_and(complete)) {
            turn.answer = old;
        }
        result
    }

    /// Takes the last turn back; the first line of its question.
    ///
    /// # Errors
    /// There is none.
    pub fn undo(&mut self) -> Result<String, Failure> {
        let turn = self.turns.pop().ok_or_else(no_turn)?;
        let left = self.images.len() - turn.pictures;
        self.images.truncate(left);
        self.paths.truncate(left);
        Ok(turn.question.lines().next().unwrap_or_default().to_owned())
    }

    /// Forgets turns, pictures, and what the model has read.
    pub fn clear(&mut self) {
        self.turns.clear();
        self.images.clear();
        self.paths.clear();
        self.waiting.clear();
        self.chat.clear();
        self.warned = false;
        self.saved = None;
    }

    /// Pictures by turn, then those that wait.
    pub fn list_pictures(&self) -> String {
        let mut list = String::new();
        let mut paths = self.paths.iter();
        for (number, turn) in self.turns.iter().enumerate() {
            for path in paths.by_ref().take(turn.pictures) {
                list += &format!("turn {}: {}\n", number + 1, path.display());
            }
        }
        for (path, _) in &self.waiting {
            list += &format!("next: {}\n", path.display());
        }
        if list.is_empty() { "no pictures\n".to_owned() } else { list }
    }

    /// Writes the conversation as a line of training data.
    ///
    /// # Errors
    /// There is nothing to write; the file exists and is not of this conversation.
    pub fn save(&mut self, path: &Path) -> Result<(), Failure> {
        if self.turns.is_empty() {
            return Err(no_turn());
        }
        if path.exists() && self.saved.as_deref() != Some(path) {
            let failure = Failure::new(Exit::CannotCreate, format!("{} exists", path.display()));
            return Err(failure.hint("choose another name"));
        }
        let mut messages = Vec::new();
        messages.extend(self.system.iter().map(|text| json!({"role": "system", "content": text})));
        for turn in &self.turns {
            messages.push(json!({"role": "user", "content": turn.question}));
            messages.push(json!({"role": "assistant", "content": turn.answer}));
        }
        // A line may be read in another folder than it was written in.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let images: Vec<_> = self.paths.iter().map(absolute).collect();
        let line = format!("{}\n", json!({"messages": messages, "images": images}));
        pictures::write(path, line.as_bytes())?;
        self.saved = Some(path.to_owned());
        Ok(())
    }

    /// Says once that the conversation has become longer than any the model was trained on.
    pub fn note_length(&mut self, reply: &Reply) {
        let limit = self.engine.janus().config().language.max_position_embeddings;
        let tokens = reply.prompt_tokens + reply.ids.len();
        if !self.warned && limit > TRAINED_CONTEXT && tokens > TRAINED_CONTEXT {
            self.warned = true;
            report::note(&format!(
                "{tokens} tokens: the model was trained on {TRAINED_CONTEXT}, so answers may get \
                 worse; {ROOM}"
            ));
        }
    }
}

/// What makes room in the context.
pub const ROOM: &str = "/clear begins anew, /undo takes back the last turn and its pictures";

fn no_turn() -> Failure {
    Failure::new(Exit::Usage, "nothing was said yet")
}
