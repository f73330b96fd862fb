//! Many pictures: a few are drawn together, and each is handed over as soon as it is finished.
//!
//! [`Engine::draw`] takes orders, one per picture, each with its own prompt and chance;
//! [`Engine::generate`] is the plain case of it: so many pictures of each prompt. A picture is the
//! same whatever is drawn beside it.

use std::ops::ControlFlow;

use janus_model::processor::{RgbImage8, Slot};

use crate::editing::Sources;
use crate::engine::Engine;
use crate::error::InferError;
use crate::generate::{ImageRequest, ImageSpec, Progress, draw, pictures};
use crate::guidance::Guidance;
use crate::sampling::{Sampler, Sampling};

/// How pictures are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawOptions {
    /// How strongly the prompt is followed.
    pub guidance: Guidance,
    /// How codes are chosen.
    pub sampling: Sampling,
    /// Together with its index and prompt, this decides a picture.
    pub seed: u64,
    /// Index of the first picture of each prompt.
    pub first: u64,
    /// Pictures per prompt.
    pub count: usize,
    /// Pictures drawn together, at least 1. Bounds the memory, changes no picture.
    pub at_once: usize,
}

impl Default for DrawOptions {
    /// One picture with the reference's settings.
    fn default() -> Self {
        let Manner { guidance, sampling, at_once } = Manner::default();
        Self { guidance, sampling, seed: 0, first: 0, count: 1, at_once }
    }
}

/// One picture to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub prompt: String,
    /// Its chance: seed and index. With the prompt and the [`Manner`] it decides the picture.
    pub sampler: Sampler,
}

/// What all orders have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Manner {
    /// How strongly prompts are followed.
    pub guidance: Guidance,
    /// How codes are chosen.
    pub sampling: Sampling,
    /// Pictures drawn together, at least 1. Bounds the memory, changes no picture.
    pub at_once: usize,
}

impl Default for Manner {
    /// The reference's settings, four together.
    fn default() -> Self {
        Self { guidance: Guidance::default(), sampling: Sampling::default(), at_once: 4 }
    }
}

/// A finished picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Which of the prompts; from [`Engine::draw`], which of the orders.
    pub prompt: usize,
    /// Seed and index.
    pub sampler: Sampler,
    /// Its codes, in raster order.
    pub codes: Vec<i32>,
    /// Its pixels.
    pub image: RgbImage8,
}

/// What [`Engine::generate`] gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gallery {
    /// Finished pictures, prompt by prompt.
    pub pictures: Vec<Picture>,
    /// False where the callback broke off; what was finished by then is kept.
    pub complete: bool,
}

/// What a callback is told after each step.
#[derive(Clone, Copy, Debug)]
pub struct DrawProgress<'a> {
    /// Pictures finished before those being drawn.
    pub finished: usize,
    /// Pictures in all.
    pub pictures: usize,
    /// Those being drawn.
    pub step: Progress<'a>,
}

/// What the callback of [`Engine::draw`] is told.
#[derive(Debug)]
pub enum DrawEvent<'a> {
    /// Each picture of a group has one more code.
    Step(DrawProgress<'a>),
    /// A picture is finished.
    Finished(Picture),
}

impl Engine {
    /// Draws one picture per order, in their sequence. Returns whether all of them were finished.
    ///
    /// `on_event` may break off. At a step, the pictures being drawn are given up, unless it was
    /// their last: then they are still handed over. At a finished picture, all others are.
    ///
    /// # Errors
    /// Those of [`janus_model::processor::Processor::generate`], before anything is drawn, and of
    /// [`draw`].
    pub fn draw(
        &self,
        orders: &[Order],
        manner: &Manner,
        on_event: impl FnMut(DrawEvent<'_>) -> ControlFlow<()>,
    ) -> Result<bool, InferError> {
        self.run(&self.specs(orders, 0)?, None, manner, on_event)
    }

    /// The same, from pictures and words: each order says what is to be changed.
    ///
    /// # Errors
    /// As [`Engine::draw`]; [`InferError::Request`] where `manner` has no weight for pictures.
    pub fn edit(
        &self,
        pictures: &[RgbImage8],
        orders: &[Order],
        manner: &Manner,
        on_event: impl FnMut(DrawEvent<'_>) -> ControlFlow<()>,
    ) -> Result<bool, InferError> {
        // Prompts first: a wrong one costs nothing yet.
        let specs = self.specs(orders, pictures.len())?;
        let sources = Sources::new(self.janus(), &self.processor().image, pictures)?;
        self.run(&specs, Some(sources), manner, on_event)
    }

    fn run(
        &self,
        specs: &[ImageSpec],
        sources: Option<Sources>,
        manner: &Manner,
        mut on_event: impl FnMut(DrawEvent<'_>) -> ControlFlow<()>,
    ) -> Result<bool, InferError> {
        let mut finished = 0;
        for some in specs.chunks(manner.at_once.max(1)) {
            let request = ImageRequest {
                images: some.to_vec(),
                guidance: manner.guidance,
                sampling: manner.sampling,
                pad: self.processor().tokenizer.special().pad as i32,
                sources: sources.clone(),
            };
            let mut go_on = ControlFlow::Continue(());
            let drawn = draw(self.janus(), &request, |step| {
                let progress = DrawProgress { finished, pictures: specs.len(), step };
                go_on = on_event(DrawEvent::Step(progress));
                go_on
            })?;
            if !drawn.complete {
                return Ok(false);
            }
            for (spec, codes) in some.iter().zip(drawn.codes) {
                // One at a time: decoding is the moment of most memory.
                let image = pictures(self.janus(), std::slice::from_ref(&codes), 1)?.remove(0);
                let picture = Picture { prompt: finished, sampler: spec.sampler, codes, image };
                finished += 1;
                if on_event(DrawEvent::Finished(picture)).is_break() {
                    return Ok(finished == specs.len());
                }
            }
            if go_on.is_break() {
                break;
            }
        }
        Ok(finished == specs.len())
    }

    /// Draws `count` pictures of each prompt. `on_step` is called after every step and may break
    /// off; pictures finished by then are kept.
    ///
    /// # Errors
    /// As [`Engine::draw`].
    pub fn generate(
        &self,
        prompts: &[String],
        options: &DrawOptions,
        mut on_step: impl FnMut(DrawProgress<'_>) -> ControlFlow<()>,
    ) -> Result<Gallery, InferError> {
        let mut orders = Vec::new();
        for prompt in prompts {
            orders.extend((0..options.count as u64).map(|index| {
                let stream = options.first.wrapping_add(index);
                Order { prompt: prompt.clone(), sampler: Sampler { seed: options.seed, stream } }
            }));
        }
        let DrawOptions { guidance, sampling, at_once, .. } = *options;
        let mut pictures = Vec::with_capacity(orders.len());
        let manner = Manner { guidance, sampling, at_once };
        let complete = self.draw(&orders, &manner, |event| match event {
            DrawEvent::Step(progress) => on_step(progress),
            DrawEvent::Finished(mut picture) => {
                picture.prompt /= options.count;
                pictures.push(picture);
                ControlFlow::Continue(())
            }
        })?;
        Ok(Gallery { pictures, complete })
    }

    /// Prompts of orders that start from so many pictures.
    fn specs(&self, orders: &[Order], pictures: usize) -> Result<Vec<ImageSpec>, InferError> {
        let mut specs: Vec<ImageSpec> = Vec::with_capacity(orders.len());
        for (number, order) in orders.iter().enumerate() {
            // Pictures of one prompt follow each other.
            let same = number.checked_sub(1).filter(|last| orders[*last].prompt == order.prompt);
            let (prompt, slots) = match same {
                Some(last) => (specs[last].prompt.clone(), specs[last].slots.clone()),
                None => self.prompt(&order.prompt, pictures)?,
            };
            specs.push(ImageSpec { prompt, slots, sampler: order.sampler });
        }
        Ok(specs)
    }

    /// Ids of a prompt, and where its pictures stand.
    fn prompt(&self, words: &str, pictures: usize) -> Result<(Vec<i32>, Vec<Slot>), InferError> {
        let processor = self.processor();
        let (ids, slots) = match pictures {
            0 => (processor.generate(words)?.conditional, Vec::new()),
            _ => {
                let codes = self.janus().config().image_codes();
                let prompt = processor.edit(words, pictures, codes)?;
                (prompt.ids, prompt.slots)
            }
        };
        Ok((ids.into_iter().map(|id| id as i32).collect(), slots))
    }

    /// Tokens that a prompt takes, its pictures included.
    ///
    /// # Errors
    /// Those of [`janus_model::processor::Processor::generate`].
    pub fn prompt_tokens(&self, words: &str, pictures: usize) -> Result<usize, InferError> {
        Ok(self.prompt(words, pictures)?.0.len())
    }
}
