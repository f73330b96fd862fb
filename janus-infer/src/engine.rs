//! The top floor: a model folder and words in, text and pictures out.
//!
//! [`Engine`] joins the model with the processor of the same folder. It adds no computation:
//! everything it does can be done with [`crate::chat`] and [`crate::generate`] directly.
//! How it draws stands in [`crate::gallery`].

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use janus_model::kv_cache::KvCache;
use janus_model::processor::{Conversation, ModelInput, Processor, RgbImage8};
use janus_model::{Janus, LoadOptions, LoadReport};

use crate::chat::{FinishReason, Prompt, TextRequest, Writing};
use crate::error::InferError;
use crate::sampling::Sampling;
use crate::stream::TextStream;

/// A loaded model with the rules of its folder.
#[derive(Debug)]
pub struct Engine {
    janus: Janus,
    processor: Processor,
}

/// How questions are answered.
#[derive(Clone, Debug, PartialEq)]
pub struct AskOptions {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Matters unless the temperature is 0.
    pub seed: u64,
    /// Index of the first question: with its index and the seed, each answer has its own chance,
    /// whatever is answered beside it.
    pub first: u64,
    /// At most so many tokens per answer.
    pub max_new_tokens: usize,
    /// An answer ends before the first of these strings.
    pub stop: Vec<String>,
}

impl Default for AskOptions {
    /// The reference's settings: greedy, 512 tokens, no stop strings.
    fn default() -> Self {
        Self {
            sampling: Sampling::GREEDY,
            seed: 0,
            first: 0,
            max_new_tokens: 512,
            stop: Vec::new(),
        }
    }
}

/// A conversation that waits for an answer, and its pictures.
pub type Question<'a> = (&'a Conversation, &'a [RgbImage8]);

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The text, without stop strings and special tokens.
    pub text: String,
    /// The tokens, a stop string's included.
    pub ids: Vec<i32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Tokens of the question, its pictures' included.
    pub prompt_tokens: usize,
    /// Of those, tokens that did not have to be read again.
    pub cached_tokens: usize,
}

impl Engine {
    /// Loads a model folder onto a device.
    ///
    /// # Errors
    /// [`InferError::Model`]: whatever is wrong with the folder or its files.
    pub fn load(
        path: &Path,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<(Self, LoadReport), InferError> {
        let (janus, report) = Janus::load(path, device, options)?;
        let rules = Processor::for_model(&report.dir, janus.config())?;
        Ok((Self::new(janus, rules), report))
    }

    /// Joins a model with the rules that belong to it, those of [`Processor::for_model`].
    pub fn new(janus: Janus, processor: Processor) -> Self {
        Self { janus, processor }
    }

    /// The model.
    pub fn janus(&self) -> &Janus {
        &self.janus
    }

    /// The rules of its folder.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// Answers one question. `on_text` gets the text as it becomes certain and may break off.
    ///
    /// # Errors
    /// Those of [`Processor::understand`] and [`Writing`].
    pub fn ask(
        &self,
        (conversation, images): Question<'_>,
        options: &AskOptions,
        on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Reply, InferError> {
        let input = self.processor.understand(conversation, images)?;
        let request = self.text_request(options);
        let writing = Writing::new(&self.janus, Prompt::prepared(&self.janus, &input)?, request)?;
        let mut on_text = on_text;
        let (mut replies, _) = self.write(writing, options, |_, text| on_text(text))?;
        let mut reply = replies.remove(0);
        reply.prompt_tokens = input.ids[0].len();
        Ok(reply)
    }

    /// Answers several questions together; `on_text` is also told which.
    ///
    /// # Errors
    /// As [`Engine::ask`].
    pub fn ask_batch(
        &self,
        questions: &[Question<'_>],
        options: &AskOptions,
        on_text: impl FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<Vec<Reply>, InferError> {
        let input = self.processor.understand_batch(questions)?;
        let request = self.text_request(options);
        let writing = Writing::new(&self.janus, Prompt::prepared(&self.janus, &input)?, request)?;
        let (mut replies, _) = self.write(writing, options, on_text)?;
        for (reply, mask) in replies.iter_mut().zip(&input.attention_mask) {
            reply.prompt_tokens = mask.iter().filter(|real| **real).count();
        }
        Ok(replies)
    }

    /// A conversation whose earlier turns are not read again.
    pub fn chat(&self) -> Chat<'_> {
        Chat { engine: self, cache: None, held: Vec::new(), pixels: Vec::new() }
    }

    fn text_request(&self, options: &AskOptions) -> TextRequest {
        TextRequest {
            sampling: options.sampling,
            seed: options.seed,
            first: options.first,
            max_new_tokens: options.max_new_tokens,
            stop_ids: vec![self.processor.tokenizer.special().eos as i32],
        }
    }

    /// Runs the loop and turns ids into text.
    fn write(
        &self,
        mut writing: Writing<'_>,
        options: &AskOptions,
        mut on_text: impl FnMut(usize, &str) -> ControlFlow<()>,
    ) -> Result<(Vec<Reply>, KvCache), InferError> {
        let mut rows: Vec<_> = writing
            .answers()
            .iter()
            .map(|_| (TextStream::new(&self.processor.tokenizer, &options.stop), String::new()))
            .collect();
        let mut go_on = ControlFlow::Continue(());
        while go_on.is_continue() && !writing.is_done() {
            for token in writing.step()? {
                let (stream, text) = &mut rows[token.row];
                let certain = stream.push(token.id)?;
                text.push_str(&certain);
                if !certain.is_empty() && go_on.is_continue() {
                    go_on = on_text(token.row, &certain);
                }
                if stream.stopped() {
                    writing.stop(token.row);
                }
            }
        }
        let (answers, cache) = writing.finish();
        let mut replies = Vec::with_capacity(answers.len());
        for (row, (answer, (mut stream, mut text))) in answers.into_iter().zip(rows).enumerate() {
            let rest = stream.finish();
            if !rest.is_empty() && go_on.is_continue() {
                go_on = on_text(row, &rest);
            }
            text.push_str(&rest);
            let finish = answer.finish.unwrap_or(FinishReason::Cancelled);
            let ids = answer.ids;
            replies.push(Reply { text, ids, finish, prompt_tokens: 0, cached_tokens: 0 });
        }
        Ok((replies, cache))
    }
}

/// A conversation that keeps what the model has read of it.
///
/// Every question is given as the whole conversation; what it has in common with what was read
/// before is found by comparing tokens and pixels, so turns may also be edited or taken back.
#[derive(Debug)]
pub struct Chat<'a> {
    engine: &'a Engine,
    cache: Option<KvCache>,
    /// Ids of the tokens in the cache.
    held: Vec<i32>,
    /// Pixels of the pictures in the cache.
    pixels: Vec<f32>,
}

impl Chat<'_> {
    /// Answers the last turn of a conversation. As [`Engine::ask`].
    ///
    /// # Errors
    /// As [`Engine::ask`]; [`InferError::Model`] or [`InferError::TooLong`] once the conversation
    /// has filled the context.
    pub fn ask(
        &mut self,
        (conversation, images): Question<'_>,
        options: &AskOptions,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Reply, InferError> {
        let engine = self.engine;
        let input = engine.processor.understand(conversation, images)?;
        let ids = input.ids[0].clone();
        let (cache, common) = self.cache_for(&input, options.max_new_tokens);
        let rest = self.rest(&input, common);
        let prompt = Prompt::prepared(&engine.janus, &rest)?;
        let request = engine.text_request(options);
        let writing = Writing::resume(&engine.janus, cache, prompt, request)?;
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
        *self = self.engine.chat();
    }

    /// A cache with room for the answer that holds the first tokens of the prompt, and how many.
    /// It leaves `self` without one, so an error later on costs the reuse and nothing else.
    fn cache_for(&mut self, input: &ModelInput, max_new_tokens: usize) -> (KvCache, usize) {
        let ids = &input.ids[0];
        let janus = &self.engine.janus;
        let limit = janus.config().language.max_position_embeddings;
        let wanted = ids.len().saturating_add(max_new_tokens).min(limit);
        match self.cache.take() {
            Some(mut cache) if cache.capacity() >= wanted => {
                let same = ids.iter().zip(&self.held).take_while(|(a, b)| a == b).count();
                // The last token must be read in any case: its logits are needed.
                let same = if input.pixels.starts_with(&self.pixels) { same } else { 0 };
                let common = same.min(ids.len() - 1);
                cache.truncate(common);
                (cache, common)
            }
            // Room for as much again, so that a long conversation starts over only a few times.
            _ => (janus.cache(1, wanted.saturating_mul(2).min(limit)), 0),
        }
    }

    /// The prompt without its first `common` tokens and the pictures among them. Pictures are
    /// never cut: their tokens are all alike, so a difference lies before or after them.
    fn rest(&self, input: &ModelInput, common: usize) -> ModelInput {
        let per_picture = self.engine.processor.num_image_tokens;
        let slots = &input.image_slots[0];
        let read = slots[..common].iter().filter(|slot| **slot).count() / per_picture;
        let values = 3 * input.image_size * input.image_size;
        ModelInput {
            ids: vec![input.ids[0][common..].to_vec()],
            attention_mask: vec![input.attention_mask[0][common..].to_vec()],
            positions: vec![input.positions[0][common..].to_vec()],
            image_slots: vec![slots[common..].to_vec()],
            pixels: input.pixels[read * values..].to_vec(),
            n_images: input.n_images - read,
            image_size: input.image_size,
        }
    }
}
