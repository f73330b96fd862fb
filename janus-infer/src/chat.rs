//! Prompts to text: prefill, one token per row and step, until each row has ended.
//!
//! What is read first are embeddings, so pictures and text look the same here. Only the last
//! position ever meets the text head: over a whole prompt its output would be the largest tensor
//! of all.
//!
//! Original: `inference.py` of deepseek-ai/Janus, which leaves this to transformers' `generate`.

use std::ops::ControlFlow;

use burn::tensor::{Tensor, TensorData};
use janus_model::Janus;
use janus_model::kv_cache::KvCache;
use janus_model::processor::ModelInput;

use crate::decoder::{Decoder, download, upload, upload_column};
use crate::error::InferError;
use crate::padding::{Padding, left_pad};
use crate::sampling::{Sampler, Sampling};

/// How answers are written.
#[derive(Clone, Debug, PartialEq)]
pub struct TextRequest {
    /// How tokens are chosen. The repetition penalty concerns the row's own answer, as in the
    /// reference, where the prompt has no ids any more.
    pub sampling: Sampling,
    /// Matters unless the temperature is 0.
    pub seed: u64,
    /// Row `r` draws from stream `first + r` of the seed.
    pub first: u64,
    /// At most so many tokens per answer, at least 1.
    pub max_new_tokens: usize,
    /// An answer ends where one of these is chosen; it is not part of the answer.
    pub stop_ids: Vec<i32>,
}

impl TextRequest {
    /// The reference's settings: greedy, 512 tokens.
    pub fn new(stop_ids: Vec<i32>) -> Self {
        Self { sampling: Sampling::GREEDY, seed: 0, first: 0, max_new_tokens: 512, stop_ids }
    }
}

/// Prompts as embeddings, padded on the left.
#[derive(Clone, Debug)]
pub struct Prompt {
    embeddings: Tensor<3>, // [B, T, D]
    filled: Vec<usize>,
}

impl Prompt {
    /// Prompts of text only; filled up with `pad` where their lengths differ.
    ///
    /// # Errors
    /// [`InferError::Request`] for empty prompts and unknown ids.
    pub fn text(janus: &Janus, prompts: &[Vec<i32>], pad: i32) -> Result<Self, InferError> {
        let (ids, filled) = left_pad(prompts, pad);
        let ids = upload(&ids, janus.config().language.vocab_size, &janus.device())?;
        Ok(Self { embeddings: janus.embed_text(ids), filled })
    }

    /// Prompts as the processor prepares them, pictures included.
    ///
    /// # Errors
    /// [`InferError::Request`] as above; [`InferError::Model`] where pictures and their places
    /// differ in number, or the understanding half is not loaded.
    pub fn prepared(janus: &Janus, input: &ModelInput) -> Result<Self, InferError> {
        let filled = |mask: &Vec<bool>| mask.iter().take_while(|real| !**real).count();
        let embeddings = embed(janus, input)?;
        Ok(Self { embeddings, filled: input.attention_mask.iter().map(filled).collect() })
    }

    /// Number of prompts.
    pub fn rows(&self) -> usize {
        self.embeddings.dims()[0]
    }

    /// Tokens of the longest prompt.
    pub fn tokens(&self) -> usize {
        self.embeddings.dims()[1]
    }
}

/// Pictures that go through the vision tower at once, to bound its memory.
pub(crate) const PICTURES_AT_ONCE: usize = 8;

/// Embeddings of prepared prompts, `[B, T, D]`.
fn embed(janus: &Janus, input: &ModelInput) -> Result<Tensor<3>, InferError> {
    let device = janus.device();
    let ids = upload(&input.ids, janus.config().language.vocab_size, &device)?; // [B, T]
    if input.n_images == 0 && input.slot_count() == 0 {
        return Ok(janus.embed_text(ids));
    }
    let side = janus.config().vision.image_size;
    let picture = 3 * side * side;
    if input.n_images == 0 || input.pixels.len() != input.n_images * picture {
        let found = input.pixels.len();
        let problem = format!("{found} values for {} pictures of {picture}", input.n_images);
        return Err(InferError::request("pixels", problem));
    }
    let mut features = Vec::new();
    for pixels in input.pixels.chunks(PICTURES_AT_ONCE * picture) {
        let data = TensorData::new(pixels.to_vec(), [pixels.len() / picture, 3, side, side]);
        features.push(janus.encode_image(Tensor::from_data(data, &device))?); // [n, tokens, D]
    }
    Ok(janus.embed_prompt(ids, &input.image_slots, Tensor::cat(features, 0))?)
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string was met.
    Stop,
    /// [`TextRequest::max_new_tokens`] was reached.
    Length,
    /// The context has no room for another token.
    ContextFull,
    /// The caller broke off.
    Cancelled,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Token ids, without the one that stopped it.
    pub ids: Vec<i32>,
    /// Why it ended; `None` while it is being written.
    pub finish: Option<FinishReason>,
}

/// A token just chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Which answer it belongs to.
    pub row: usize,
    /// Its id.
    pub id: i32,
}

/// Answers being written. [`Writing::step`] adds one token to each that has not ended.
#[derive(Debug)]
pub struct Writing<'a> {
    janus: &'a Janus,
    request: TextRequest,
    decoder: Decoder,
    /// What the next step reads: the prompts, then the newest tokens; `[B, T, D]`.
    input: Option<Tensor<3>>,
    answers: Vec<Answer>,
    step: u64,
}

impl<'a> Writing<'a> {
    /// Checks a request and makes room for prompts and answers.
    ///
    /// # Errors
    /// [`InferError::Sampling`], [`InferError::Request`], and [`InferError::TooLong`] for
    /// prompts that fill the context.
    pub fn new(janus: &'a Janus, prompt: Prompt, request: TextRequest) -> Result<Self, InferError> {
        let limit = janus.config().language.max_position_embeddings;
        // The last token of an answer is never read.
        let wanted = prompt.tokens().saturating_add(request.max_new_tokens).saturating_sub(1);
        let cache = janus.cache(prompt.rows(), wanted.clamp(1, limit));
        Self::resume(janus, cache, prompt, request)
    }

    /// Goes on after the tokens that a cache holds; `prompt` follows them.
    ///
    /// The answer ends where the cache is full.
    ///
    /// # Errors
    /// As [`Writing::new`]. A cache that holds something must not be followed by a padded prompt.
    pub fn resume(
        janus: &'a Janus,
        cache: KvCache,
        prompt: Prompt,
        request: TextRequest,
    ) -> Result<Self, InferError> {
        request.sampling.validate()?;
        if request.max_new_tokens == 0 {
            return Err(InferError::request("max_new_tokens", "0 tokens are no answer"));
        }
        let (tokens, rows) = (cache.len() + prompt.tokens(), prompt.rows());
        let limit = cache.capacity();
        if tokens > limit {
            return Err(InferError::TooLong { prompt: tokens, more: 0, limit });
        }
        let padding = Padding::new(prompt.filled);
        if padding.is_some() && !cache.is_empty() {
            return Err(InferError::request("prompt", "a prompt that goes on must not be padded"));
        }
        Ok(Self {
            janus,
            request,
            decoder: Decoder::new(janus, cache, padding),
            input: Some(prompt.embeddings),
            answers: vec![Answer { ids: Vec::new(), finish: None }; rows],
            step: 0,
        })
    }

    /// Chooses the next token of every answer that has not ended and returns them; none when all
    /// have.
    ///
    /// # Errors
    /// [`InferError::Logits`], [`InferError::Device`], [`InferError::Model`]; the writing cannot
    /// go on after an error.
    pub fn step(&mut self) -> Result<Vec<NewToken>, InferError> {
        let Some(input) = self.input.take() else { return Ok(Vec::new()) };
        let hidden = self.decoder.read(self.janus, input); // [B, D]
        let [batch, width] = hidden.dims();
        let logits = self.janus.text_logits(hidden.reshape([batch, 1, width]))?; // [B, 1, V]
        let vocabulary = logits.dims()[2];
        let logits = download(logits)?;
        let mut newest = Vec::with_capacity(batch);
        for (row, logits) in logits.chunks_exact(vocabulary).enumerate() {
            newest.extend(self.choose(row, logits)?.map(|id| NewToken { row, id }));
        }
        self.step += 1;
        self.prepare_next();
        Ok(newest)
    }

    /// The next token of one answer; `None` where it has ended or ends now.
    fn choose(&mut self, row: usize, logits: &[f32]) -> Result<Option<i32>, InferError> {
        let answer = &mut self.answers[row];
        if answer.finish.is_some() {
            return Ok(None);
        }
        let stream = self.request.first.wrapping_add(row as u64);
        let sampler = Sampler { seed: self.request.seed, stream };
        let id = sampler.choose(&self.request.sampling, logits, self.step, &answer.ids)? as i32;
        if self.request.stop_ids.contains(&id) {
            answer.finish = Some(FinishReason::Stop);
            return Ok(None);
        }
        answer.ids.push(id);
        if answer.ids.len() == self.request.max_new_tokens {
            answer.finish = Some(FinishReason::Length);
        } else if self.decoder.len() == self.decoder.capacity() {
            answer.finish = Some(FinishReason::ContextFull);
        }
        Ok(Some(id))
    }

    /// Embeds the newest tokens, unless all answers have ended.
    fn prepare_next(&mut self) {
        if self.answers.iter().all(|answer| answer.finish.is_some()) {
            return;
        }
        // Ended rows are read on, because the batch keeps its shape; what they say is dropped.
        let newest = self.answers.iter().map(|a| a.ids.last().copied().unwrap_or(0)).collect();
        let ids = upload_column(newest, &self.janus.device()); // [B, 1]
        self.input = Some(self.janus.embed_text(ids)); // [B, 1, D]
    }

    /// Ends one answer, because of what it says.
    pub fn stop(&mut self, row: usize) {
        self.answers[row].finish = Some(FinishReason::Stop);
        if self.is_done() {
            self.input = None;
        }
    }

    /// Whether all answers have ended.
    pub fn is_done(&self) -> bool {
        self.answers.iter().all(|answer| answer.finish.is_some())
    }

    /// The answers so far.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Tokens the cache holds, and tokens it has room for.
    pub fn cached(&self) -> (usize, usize) {
        (self.decoder.len(), self.decoder.capacity())
    }

    /// Ends the writing. Answers that have not ended count as cancelled. The cache holds the
    /// prompts and all but the last token of the longest answer.
    pub fn finish(mut self) -> (Vec<Answer>, KvCache) {
        for answer in &mut self.answers {
            answer.finish.get_or_insert(FinishReason::Cancelled);
        }
        (self.answers, self.decoder.into_cache())
    }
}

/// Writes answers to the end, or until `on_token` breaks off.
///
/// # Errors
/// Those of [`Writing::new`] and [`Writing::step`].
pub fn write(
    janus: &Janus,
    prompt: Prompt,
    request: TextRequest,
    mut on_token: impl FnMut(NewToken) -> ControlFlow<()>,
) -> Result<Vec<Answer>, InferError> {
    let mut writing = Writing::new(janus, prompt, request)?;
    while !writing.is_done() {
        if writing.step()?.into_iter().any(|token| on_token(token).is_break()) {
            break;
        }
    }
    Ok(writing.finish().0)
}
