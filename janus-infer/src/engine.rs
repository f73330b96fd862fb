//! The top floor: a model folder and words in, text and pictures out.
//!
//! [`Engine`] joins the model with the processor of the same folder. It adds no computation:
//! everything it does can be done with [`crate::chat`] and [`crate::generate`] directly.
//! How it draws stands in [`crate::gallery`].

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use janus_model::kv_cache::KvCache;
use janus_model::processor::{Conversation, Processor, RgbImage8};
use janus_model::{Janus, LoadOptions, LoadReport};

use crate::chat::{FinishReason, Prompt, TextRequest, Writing};
use crate::conversation::Chat;
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

    /// Both apart again.
    pub fn into_parts(self) -> (Janus, Processor) {
        (self.janus, self.processor)
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
        Chat::new(self)
    }

    pub(crate) fn text_request(&self, options: &AskOptions) -> TextRequest {
        TextRequest {
            sampling: options.sampling,
            seed: options.seed,
            first: options.first,
            max_new_tokens: options.max_new_tokens,
            stop_ids: vec![self.processor.tokenizer.special().eos as i32],
        }
    }

    /// Runs the loop and turns ids into text.
    pub(crate) fn write(
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
