//! Classifier-free guidance: every picture is drawn by two rows that differ in their prompt.
//!
//! `logits = u + w · (c − u)` with `c` from the prompt and `u` from its unconditional twin, in
//! which all but the first token (begin of sentence) and the last (begin of image) are padding.
//! That padding is **attended** like text, and the twin is as long as the prompt: so the model
//! was trained.
//!
//! Layout: all conditional rows, then all twins in the same order. The reference interleaves
//! them; in blocks both halves are contiguous, so that taking them apart copies nothing.
//!
//! Paper: Janus (arXiv 2410.13848), section 3.4; original: `generation_inference.py`.

use burn::tensor::Tensor;

use crate::error::InferError;

/// How strongly the prompt is followed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// `w`. 1 is no guidance, and then no twin is computed; 5 is the reference's default.
    pub weight: f32,
}

impl Default for Guidance {
    fn default() -> Self {
        Self { weight: 5.0 }
    }
}

impl Guidance {
    /// Checks the weight.
    ///
    /// # Errors
    /// [`InferError::Request`] unless it is a number from 0 to 1000.
    pub fn validate(&self) -> Result<(), InferError> {
        if (0.0..=1000.0).contains(&self.weight) {
            return Ok(());
        }
        let problem = format!("{} is not a number from 0 to 1000", self.weight);
        Err(InferError::request("guidance", problem))
    }

    /// Whether twins are needed.
    pub fn has_twins(&self) -> bool {
        self.weight != 1.0
    }

    /// Rows of the language model's batch for `images` pictures.
    pub fn rows(&self, images: usize) -> usize {
        if self.has_twins() { 2 * images } else { images }
    }

    /// The prompts, followed by their twins where there are any.
    pub fn with_twins(&self, prompts: &[Vec<i32>], pad: i32) -> Vec<Vec<i32>> {
        let twins = prompts.iter().filter(|_| self.has_twins()).map(|ids| unconditional(ids, pad));
        prompts.iter().cloned().chain(twins).collect()
    }

    /// Joins the logits of the two halves, in their own dtype (f32).
    ///
    /// # Shapes
    /// - `logits`: `[R, C]`, R = N or 2N
    /// - output: `[N, C]`
    pub fn mix(&self, logits: Tensor<2>) -> Tensor<2> {
        if !self.has_twins() {
            return logits;
        }
        let images = logits.dims()[0] / 2;
        let conditional = logits.clone().slice_dim(0, 0..images); // [N, C]
        let unconditional = logits.slice_dim(0, images..2 * images);
        unconditional.clone() + (conditional - unconditional) * self.weight
    }

    /// Gives both rows of a picture the same next token.
    ///
    /// # Shapes
    /// - `x`: `[N, 1, D]`
    /// - output: `[R, 1, D]`
    pub fn repeat(&self, x: Tensor<3>) -> Tensor<3> {
        if self.has_twins() { x.repeat_dim(0, 2) } else { x }
    }
}

/// The twin of a prompt: first and last id kept, all others padding.
pub fn unconditional(ids: &[i32], pad: i32) -> Vec<i32> {
    let last = ids.len().saturating_sub(1);
    let twin = |(i, id): (usize, &i32)| if i == 0 || i == last { *id } else { pad };
    ids.iter().enumerate().map(twin).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_twin_keeps_both_ends() {
        assert_eq!(unconditional(&[1, 2, 3, 4], 9), [1, 9, 9, 4]);
        assert_eq!(unconditional(&[1, 4], 9), [1, 4]);
        assert_eq!(unconditional(&[1], 9), [1]);
        assert!(unconditional(&[], 9).is_empty());
    }

    #[test]
    fn twins_follow_all_prompts_and_are_absent_at_weight_1() {
        let prompts = [vec![1, 2, 4], vec![1, 3, 4]];
        let rows = Guidance { weight: 5.0 }.with_twins(&prompts, 9);
        assert_eq!(rows, [[1, 2, 4], [1, 3, 4], [1, 9, 4], [1, 9, 4]]);
        assert_eq!(Guidance { weight: 1.0 }.with_twins(&prompts, 9), prompts);
    }

    #[test]
    fn logits_are_mixed_row_by_row() {
        let device = Device::flex();
        let logits = [[1.0_f32, 2.0], [3.0, 4.0], [0.5, 2.0], [1.0, 6.0]];
        let logits = Tensor::<2>::from_data(logits, &device);
        let mixed = Guidance { weight: 5.0 }.mix(logits.clone()).into_data();
        assert_eq!(mixed.try_to_vec::<f32>().expect("f32"), [3.0, 2.0, 11.0, -4.0]);
        let same = Guidance { weight: 1.0 }.mix(logits.clone()).into_data();
        assert_eq!(same, logits.into_data());
    }

    #[test]
    fn weights_out_of_range_are_refused() {
        for weight in [f32::NAN, f32::INFINITY, -0.5, 1001.0] {
            assert!(Guidance { weight }.validate().is_err(), "{weight}");
        }
        Guidance { weight: 0.0 }.validate().expect("all unconditional");
    }
}
