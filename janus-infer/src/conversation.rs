//! A conversation that keeps what the model has read of it.
//!
//! Every question is given as the whole conversation; what it has in common with what was read
//! before is found by comparing tokens and pictures, so turns may also be edited or taken back.
//! When the cache is full it grows and keeps what it holds: no turn is read twice.

use std::ops::ControlFlow;

use janus_model::kv_cache::KvCache;
use janus_model::processor::ModelInput;

use crate::chat::{Prompt, Writing};
use crate::engine::{AskOptions, Engine, Question, Reply};
use crate::error::InferError;

/// The cache grows to a multiple of so many tokens: seldom enough that copying costs nothing
/// beside reading, and never far beyond what is needed.
const BLOCK: usize = 1024;

/// A conversation in progress. Made by [`Engine::chat`].
#[derive(Debug)]
pub struct Chat<'a> {
    engine: &'a Engine,
    cache: Option<KvCache>,
    /// Ids of the tokens in the cache.
    held: Vec<i32>,
    /// Pixels of the pictures in the cache.
    pixels: Vec<f32>,
}

impl<'a> Chat<'a> {
    pub(crate) fn new(engine: &'a Engine) -> Self {
        Self { engine, cache: None, held: Vec::new(), pixels: Vec::new() }
    }

    /// Answers the last turn of a conversation. As [`Engine::ask`].
    ///
    /// # Errors
    /// As [`Engine::ask`]; [`InferError::Model`] once the conversation has filled the context.
    /// What was read before stays, unless the device fails while the answer is written.
    pub fn ask(
        &mut self,
        (conversation, images): Question<'_>,
        options: &AskOptions,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Reply, InferError> {
        let engine = self.engine;
        options.sampling.validate()?;
        let input = engine.processor().understand(conversation, images)?;
        let ids = input.ids[0].clone();
        let common = self.common(&input);
        let prompt = Prompt::prepared(engine.janus(), &self.rest(&input, common))?;
        let cache = self.cache_for(common, ids.len().saturating_add(options.max_new_tokens));
        let request = engine.text_request(options);
        let writing = Writing::resume(engine.janus(), cache, prompt, request)?;
        let (mut replies, cache) = engine.write(writing, options, |_, text| on_text(text))?;
        let mut reply = replies.remove(0);
        (reply.prompt_tokens, reply.cached_tokens) = (ids.len(), common);
        // The last token of an answer is often not read any more.
        self.held = [ids, reply.ids.clone()].concat();
        self.held.truncate(cache.len());
        self.pixels = input.pixels;
        self.cache = Some(cache);
        Ok(reply)
    }

    /// Forgets everything that was read, and frees it.
    pub fn clear(&mut self) {
        *self = Self::new(self.engine);
    }

    /// How many tokens of the prompt the cache holds already.
    fn common(&self, input: &ModelInput) -> usize {
        if self.cache.is_none() {
            return 0;
        }
        let ids = &input.ids[0];
        let same = ids.iter().zip(&self.held).take_while(|(a, b)| a == b).count();
        // All pictures have the same ids: a token counts only up to the first other picture.
        let size = self.picture_size(input).max(1);
        let pictures = input.pixels.chunks(size).zip(self.pixels.chunks(size));
        let alike = pictures.take_while(|(a, b)| a == b).count();
        let mut slots = input.image_slots[0].iter().enumerate().filter(|(_, slot)| **slot);
        let other = slots.nth(alike * self.engine.processor().num_image_tokens);
        let same = other.map_or(same, |(position, _)| same.min(position));
        // The last token must be read in any case: its logits are needed.
        same.min(ids.len() - 1)
    }

    /// A cache with room for `wanted` tokens, or the whole context, that holds the first `common`.
    /// It leaves `self` without one, so an error later on costs the reuse and nothing else.
    fn cache_for(&mut self, common: usize, wanted: usize) -> KvCache {
        let janus = self.engine.janus();
        let limit = janus.config().language.max_position_embeddings;
        let wanted = wanted.min(limit).next_multiple_of(BLOCK).min(limit);
        let Some(mut cache) = self.cache.take() else { return janus.cache(1, wanted) };
        cache.truncate(common);
        cache.grow(wanted);
        cache
    }

    /// The prompt without its first `common` tokens and the pictures among them. Pictures are
    /// never cut: their tokens are all alike, so a difference lies before or after them.
    fn rest(&self, input: &ModelInput, common: usize) -> ModelInput {
        let slots = &input.image_slots[0];
        let held = slots[..common].iter().filter(|slot| **slot).count();
        let read = held / self.engine.processor().num_image_tokens;
        ModelInput {
            ids: vec![input.ids[0][common..].to_vec()],
            attention_mask: vec![input.attention_mask[0][common..].to_vec()],
            positions: vec![input.positions[0][common..].to_vec()],
            image_slots: vec![slots[common..].to_vec()],
            pixels: input.pixels[read * self.picture_size(input)..].to_vec(),
            n_images: input.n_images - read,
            image_size: input.image_size,
        }
    }

    /// Values of one picture.
    fn picture_size(&self, input: &ModelInput) -> usize {
        3 * input.image_size * input.image_size
    }
}
