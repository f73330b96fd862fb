//! Text to pictures: prefill, one code per picture and step, pixels.
//!
//! ```text
//! prompts ─ guidance ─► rows [R, L] ─ embed ─► prefill ─┐
//!     ┌─────────────────── hidden [R, D] ◄──────────────┴──── one cached token ◄─┐
//!     └► image_logits ─► mix [N, C] ─ to the host ─► sampling ─► codes [N] ──────┘
//! ```
//! A picture always has the same number of codes: there is no end token. Each step moves data
//! between host and device once in either direction. The embedding of the last code is never
//! computed, and the cache holds exactly the tokens that are read.
//!
//! Prompts of one length run without mask, as in the reference; others are padded on the left.
//! Original: `generation_inference.py` of deepseek-ai/Janus.

use std::ops::ControlFlow;

use burn::tensor::{Tensor, TensorData};
use janus_model::Janus;
use janus_model::processor::output::to_rgb;
use janus_model::processor::{ProcessorError, RgbImage8, Slot};

use crate::decoder::{Decoder, download, upload, upload_column};
use crate::editing::Sources;
use crate::error::InferError;
use crate::guidance::Guidance;
use crate::padding::{Padding, left_pad};
use crate::sampling::{Sampler, Sampling};

/// One picture to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// Token ids, from begin-of-sentence to begin-of-image.
    pub prompt: Vec<i32>,
    /// Where pictures stand in it; empty where it is drawn from words.
    pub slots: Vec<Slot>,
    /// Its chance. A picture depends on its prompt, seed and index only, not on those drawn
    /// beside it.
    pub sampler: Sampler,
}

/// Pictures that are drawn together.
#[derive(Clone, Debug)]
pub struct ImageRequest {
    /// At least one; prompts may differ.
    pub images: Vec<ImageSpec>,
    /// How strongly prompts are followed.
    pub guidance: Guidance,
    /// How codes are chosen. The repetition penalty concerns the picture's own codes.
    pub sampling: Sampling,
    /// Id of the padding token.
    pub pad: i32,
    /// What they are drawn from, besides words; with it, every prompt has slots and the guidance a
    /// weight for pictures.
    pub sources: Option<Sources>,
}

impl ImageRequest {
    /// Pictures number `indices` of one prompt and seed, with the reference's settings.
    pub fn new(prompt: &[i32], pad: i32, seed: u64, indices: std::ops::Range<u64>) -> Self {
        let image = |stream| ImageSpec::words(prompt.to_vec(), Sampler { seed, stream });
        Self {
            images: indices.map(image).collect(),
            guidance: Guidance::default(),
            sampling: Sampling::default(),
            pad,
            sources: None,
        }
    }

    /// Embeddings of the prompts, rows in the blocks of the guidance, `[R, L, D]`, and how much of
    /// each row is filling.
    fn prompts(&self, janus: &Janus) -> Result<(Tensor<3>, Vec<usize>), InferError> {
        let prompts: Vec<Vec<i32>> = self.images.iter().map(|i| i.prompt.clone()).collect();
        let rows = self.guidance.with_twins(&prompts, self.pad);
        let (ids, filled) = left_pad(&rows, self.pad);
        let ids = upload(&ids, janus.config().language.vocab_size, &janus.device())?;
        let text = janus.embed_text(ids);
        let edits = self.guidance.pictures.is_some();
        let Some(sources) = self.sources.as_ref().filter(|_| edits) else {
            let words = self.sources.is_none() && !edits;
            if words && self.images.iter().all(|image| image.slots.is_empty()) {
                return Ok((text, filled));
            }
            let problem = "slots, a weight for pictures and pictures go together";
            return Err(InferError::request("pictures", problem));
        };
        for image in &self.images {
            sources.check(&image.slots, image.prompt.len())?;
        }
        let slots = self.images.iter().map(|image| image.slots.as_slice());
        let slots: Vec<_> = slots.zip(filled.iter().copied()).collect();
        Ok((sources.put(text, &slots, self.guidance), filled))
    }
}

impl ImageSpec {
    /// Drawn from words.
    pub fn words(prompt: Vec<i32>, sampler: Sampler) -> Self {
        Self { prompt, slots: Vec::new(), sampler }
    }
}

/// What a callback is told after each step.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Codes drawn of each picture.
    pub done: usize,
    /// Codes a picture has.
    pub total: usize,
    /// The codes so far, picture by picture, in raster order.
    pub codes: &'a [Vec<i32>],
}

/// What [`draw`] gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// `[N]` rows of codes in raster order: all of them, or fewer where the callback broke off.
    pub codes: Vec<Vec<i32>>,
    /// Whether all codes are there.
    pub complete: bool,
}

/// Pictures being drawn. [`Drawing::step`] adds one code to each.
#[derive(Debug)]
pub struct Drawing<'a> {
    janus: &'a Janus,
    samplers: Vec<Sampler>,
    guidance: Guidance,
    sampling: Sampling,
    decoder: Decoder,
    /// What the next step reads: the prompts, then the newest codes; `[R, T, D]`.
    input: Option<Tensor<3>>,
    codes: Vec<Vec<i32>>,
    total: usize,
}

impl<'a> Drawing<'a> {
    /// Checks a request and makes room for it; nothing is computed but the prompts' embeddings.
    ///
    /// # Errors
    /// [`InferError::Sampling`], [`InferError::Request`] and [`InferError::TooLong`].
    pub fn new(janus: &'a Janus, request: &ImageRequest) -> Result<Self, InferError> {
        request.sampling.validate()?;
        request.guidance.validate()?;
        let config = janus.config();
        let total = config.image_codes();
        let (input, filled) = request.prompts(janus)?; // [R, L, D]
        let [batch, prompt, _] = input.dims();
        let capacity = prompt + total - 1;
        let limit = config.language.max_position_embeddings;
        if capacity > limit {
            return Err(InferError::TooLong { prompt, more: total - 1, limit });
        }
        let cache = janus.cache(batch, capacity);
        Ok(Self {
            janus,
            samplers: request.images.iter().map(|image| image.sampler).collect(),
            guidance: request.guidance,
            sampling: request.sampling,
            decoder: Decoder::new(janus, cache, Padding::new(filled)),
            input: Some(input),
            codes: vec![Vec::with_capacity(total); request.images.len()],
            total,
        })
    }

    /// Draws one more code of every picture. Returns whether there are more to draw.
    ///
    /// # Errors
    /// [`InferError::Logits`], [`InferError::Device`], [`InferError::Model`]; the drawing cannot
    /// go on after an error.
    pub fn step(&mut self) -> Result<bool, InferError> {
        let Some(input) = self.input.take() else { return Ok(false) };
        let hidden = self.decoder.read(self.janus, input); // [R, D]
        let logits = self.guidance.mix(self.janus.image_logits(hidden)?); // [N, C]
        let width = logits.dims()[1];
        let logits = download(logits)?;
        let step = self.done() as u64;
        let mut newest = Vec::with_capacity(self.samplers.len());
        for (image, logits) in logits.chunks_exact(width).enumerate() {
            let sampler = self.samplers[image];
            let code = sampler.choose(&self.sampling, logits, step, &self.codes[image])? as i32;
            newest.push(code);
        }
        for (codes, code) in self.codes.iter_mut().zip(&newest) {
            codes.push(*code);
        }
        if self.done() < self.total {
            let codes = upload_column(newest, &self.janus.device()); // [N, 1]
            self.input = Some(self.guidance.repeat(self.janus.embed_codes(codes)?)); // [R, 1, D]
        }
        Ok(self.input.is_some())
    }

    /// Codes drawn of each picture.
    pub fn done(&self) -> usize {
        self.codes.first().map_or(0, Vec::len)
    }

    /// The codes so far.
    pub fn progress(&self) -> Progress<'_> {
        Progress { done: self.done(), total: self.total, codes: &self.codes }
    }

    /// Rows of the language model's batch: all of every picture.
    pub fn rows(&self) -> usize {
        self.guidance.rows(self.codes.len())
    }

    /// Tokens the cache holds, and tokens it has room for.
    pub fn cached(&self) -> (usize, usize) {
        (self.decoder.len(), self.decoder.capacity())
    }

    /// Ends the drawing.
    pub fn finish(self) -> Drawn {
        Drawn { complete: self.done() == self.total, codes: self.codes }
    }
}

/// Draws pictures to the end, or until `on_step` breaks off.
///
/// # Errors
/// Those of [`Drawing::new`] and [`Drawing::step`].
pub fn draw(
    janus: &Janus,
    request: &ImageRequest,
    mut on_step: impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Drawn, InferError> {
    let mut drawing = Drawing::new(janus, request)?;
    loop {
        let more = drawing.step()?;
        let go_on = on_step(drawing.progress());
        if !more || go_on.is_break() {
            return Ok(drawing.finish());
        }
    }
}

/// Pixels of complete pictures, `chunk` at a time: the image tokenizer's activations are far
/// larger than its output, so their number bounds the memory.
///
/// Each picture is planar, `[3, S, S]`, nominally in [-1, 1] and not clamped.
///
/// # Errors
/// [`InferError::Request`] for codes that are too few, too many or out of range.
pub fn pixels(
    janus: &Janus,
    codes: &[Vec<i32>],
    chunk: usize,
) -> Result<Vec<Vec<f32>>, InferError> {
    let config = janus.config();
    let (total, known) = (config.image_codes(), config.gen_vision.num_embeddings);
    let in_range = |code: &i32| usize::try_from(*code).is_ok_and(|code| code < known);
    for row in codes {
        if row.len() != total || !row.iter().all(in_range) {
            let problem = format!("a picture has {total} codes, each in 0..{known}");
            return Err(InferError::request("codes", problem));
        }
    }
    let plane = 3 * config.gen_vision.image_size * config.gen_vision.image_size;
    let mut pictures = Vec::with_capacity(codes.len());
    for some in codes.chunks(chunk.max(1)) {
        let data = TensorData::new(some.concat(), [some.len(), total]);
        let decoded = janus.decode_codes(Tensor::from_data(data, &janus.device()))?;
        pictures.extend(download(decoded)?.chunks_exact(plane).map(<[f32]>::to_vec));
    }
    Ok(pictures)
}

/// Complete pictures as 8-bit RGB; see [`pixels`].
///
/// # Errors
/// Those of [`pixels`].
pub fn pictures(
    janus: &Janus,
    codes: &[Vec<i32>],
    chunk: usize,
) -> Result<Vec<RgbImage8>, InferError> {
    let side = janus.config().gen_vision.image_size;
    let rgb = |planes: Vec<f32>| to_rgb(&planes, side, side).map_err(ProcessorError::from);
    Ok(pixels(janus, codes, chunk)?.into_iter().map(rgb).collect::<Result<_, _>>()?)
}
