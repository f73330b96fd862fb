//! Pictures that a drawing starts from: what the model reads of them.
//!
//! Each is read twice, as the vision tower sees it and as the codes it would be drawn with, at the
//! places of [`EditPrompt`]. The rows of [`Guidance`] differ in what they are shown:
//!
//! ```text
//! whole prompt   boi FEATURES eoi boi CODES eoi prompt …
//! without codes  boi FEATURES eoi boi  pad  eoi prompt …
//! twin           pad  pad     pad pad  pad  pad  pad   …
//! ```
//!
//! [`EditPrompt`]: janus_model::processor::EditPrompt

use burn::tensor::{Device, Int, Tensor, TensorData};
use janus_model::Janus;
use janus_model::processor::{ImageProcessorConfig, PixelValues, RgbImage8, Slot};

use crate::chat::PICTURES_AT_ONCE;
use crate::error::InferError;
use crate::guidance::Guidance;

/// Pictures as embeddings; made once, used for every drawing that starts from them.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `[n, tokens, D]`
    features: Tensor<3>,
    /// `[n, codes, D]`
    codes: Tensor<3>,
}

impl Sources {
    /// Reads pictures by the rules of the model's folder.
    ///
    /// # Errors
    /// [`InferError::Request`] for no pictures; [`InferError::Model`] where half of the model is not
    /// loaded.
    pub fn new(
        janus: &Janus,
        rules: &ImageProcessorConfig,
        pictures: &[RgbImage8],
    ) -> Result<Self, InferError> {
        let device = janus.device();
        let mut features = Vec::new();
        for some in pictures.chunks(PICTURES_AT_ONCE) {
            let pixels = some.iter().map(|picture| rules.understanding_pixels(picture));
            features.push(janus.encode_image(stacked(pixels.collect(), &device))?);
        }
        let mut codes = Vec::new();
        // One at a time: the image tokenizer works at full resolution.
        for picture in pictures {
            let pixels = stacked(vec![rules.editing_pixels(picture)], &device);
            codes.push(janus.embed_codes(janus.encode_codes(pixels)?)?);
        }
        if features.is_empty() {
            return Err(InferError::request("pictures", "there is none to draw from"));
        }
        Ok(Self { features: Tensor::cat(features, 0), codes: Tensor::cat(codes, 0) })
    }

    /// How many pictures.
    pub fn count(&self) -> usize {
        self.features.dims()[0]
    }

    /// Checks that every place is inside its prompt and belongs to a picture that is there.
    pub(crate) fn check(&self, slots: &[Slot], tokens: usize) -> Result<(), InferError> {
        let ends = |slot: &Slot| {
            [slot.features + self.features.dims()[1], slot.codes + self.codes.dims()[1]]
        };
        let fits = |slot: &Slot| {
            slot.picture < self.count() && ends(slot).into_iter().all(|end| end <= tokens)
        };
        if !slots.is_empty() && slots.iter().all(fits) {
            return Ok(());
        }
        let problem = format!("{slots:?} in {tokens} tokens, with {} pictures", self.count());
        Err(InferError::request("slots", problem))
    }

    /// Puts pictures into the embeddings of all rows, which `guidance` has laid out in blocks.
    ///
    /// # Shapes
    /// - `text`: `[R, T, D]`
    /// - `slots`: of each of the N pictures being drawn, with the filling at the left of its rows
    /// - output: `[R, T, D]`
    pub(crate) fn put(
        &self,
        text: Tensor<3>,
        slots: &[(&[Slot], usize)],
        guidance: Guidance,
    ) -> Tensor<3> {
        let [rows, tokens, width] = text.dims();
        let device = text.device();
        let flat = |x: Tensor<3>| {
            let [n, each, _] = x.dims();
            x.reshape([n * each, width])
        };
        let (each_features, each_codes) = (self.features.dims()[1], self.codes.dims()[1]);
        let first_feature = rows * tokens;
        let first_code = first_feature + self.count() * each_features;
        let mut order: Vec<i32> = (0..(rows * tokens) as i32).collect();
        let mut place = |start: usize, from: usize, count: usize| {
            for (order, from) in order[start..start + count].iter_mut().zip(from..) {
                *order = from as i32;
            }
        };
        let block = slots.len() * tokens;
        for (image, (slots, filled)) in slots.iter().enumerate() {
            let row = image * tokens + filled;
            for Slot { picture, features, codes } in slots.iter() {
                let from = first_feature + picture * each_features;
                place(row + features, from, each_features);
                place(row + codes, first_code + picture * each_codes, each_codes);
                if guidance.parts().is_some() {
                    place(block + row + features, from, each_features);
                }
            }
        }
        let all =
            Tensor::cat(vec![flat(text), flat(self.features.clone()), flat(self.codes.clone())], 0);
        let order = TensorData::from(order.as_slice());
        let order = Tensor::<1, Int>::from_data(order, &device);
        all.select(0, order).reshape([rows, tokens, width])
    }
}

/// `[N, 3, S, S]`
fn stacked(pictures: Vec<PixelValues>, device: &Device) -> Tensor<4> {
    let (count, side) = (pictures.len(), pictures.first().map_or(0, |picture| picture.side));
    let values = pictures.into_iter().flat_map(|picture| picture.data).collect::<Vec<f32>>();
    Tensor::from_data(TensorData::new(values, [count, 3, side, side]), device)
}
