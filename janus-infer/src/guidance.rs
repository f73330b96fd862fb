//! Classifier-free guidance: every picture is drawn by several rows that differ in their prompt.
//!
//! From words: `logits = u + w · (c − u)` with `c` from the prompt and `u` from its unconditional
//! twin, in which all but the first token (begin of sentence) and the last (begin of image) are
//! padding. That padding is **attended** like text, and the twin is as long as the prompt: so the
//! model was trained.
//!
//! From pictures (editing) there are three rows: `c = (f + v · p) / (1 + v)`, where `f` reads the
//! whole prompt, `p` the same with padding in place of the pictures' codes, and `u` is the twin, of
//! which the pictures are hidden, too. A row that counts for nothing (`u` at w = 1, `p` at v = 0)
//! is not computed.
//!
//! Layout: all whole prompts, then all `p`, then all twins, in the same order. The references
//! interleave them; in blocks each part is contiguous, so that taking them apart copies nothing.
//!
//! Paper: Janus (arXiv 2410.13848), section 3.4; original: `generation_inference.py`. Editing: the
//! example of Janus-4o, <https://github.com/FreedomIntelligence/ShareGPT-4o-Image>.

use burn::tensor::Tensor;

use crate::error::InferError;

/// How strongly the prompt is followed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// `w`. 1 is no guidance, and then no twin is computed; 5 is the reference's default.
    pub weight: f32,
    /// `v`, for drawing from pictures; `None` where there are none.
    pub pictures: Option<f32>,
}

impl Default for Guidance {
    fn default() -> Self {
        Self::words(Self::WORDS)
    }
}

impl Guidance {
    /// `w` of Janus.
    pub const WORDS: f32 = 5.0;
    /// `v` of Janus-4o.
    pub const PICTURES: f32 = 5.0;

    /// For drawing from words.
    pub fn words(weight: f32) -> Self {
        Self { weight, pictures: None }
    }

    /// For drawing from words and pictures.
    pub fn editing(weight: f32, pictures: f32) -> Self {
        Self { weight, pictures: Some(pictures) }
    }

    /// Checks the weights.
    ///
    /// # Errors
    /// [`InferError::Request`] unless they are numbers from 0 to 1000.
    pub fn validate(&self) -> Result<(), InferError> {
        let check = |field, weight: f32| {
            if (0.0..=1000.0).contains(&weight) {
                return Ok(());
            }
            Err(InferError::request(field, format!("{weight} is not a number from 0 to 1000")))
        };
        check("guidance", self.weight)?;
        self.pictures.map_or(Ok(()), |weight| check("guidance by pictures", weight))
    }

    /// Whether twins are needed.
    pub fn has_twins(&self) -> bool {
        self.weight != 1.0
    }

    /// `v`, where rows without codes are needed.
    pub(crate) fn parts(&self) -> Option<f32> {
        self.pictures.filter(|weight| *weight != 0.0)
    }

    /// Rows of one picture.
    fn each(&self) -> usize {
        1 + usize::from(self.parts().is_some()) + usize::from(self.has_twins())
    }

    /// Rows of the language model's batch for `images` pictures.
    pub fn rows(&self, images: usize) -> usize {
        self.each() * images
    }

    /// The prompts, once more where rows without codes are needed, and their twins.
    pub fn with_twins(&self, prompts: &[Vec<i32>], pad: i32) -> Vec<Vec<i32>> {
        let parts = prompts.iter().filter(|_| self.parts().is_some()).cloned();
        let twins = prompts.iter().filter(|_| self.has_twins()).map(|ids| unconditional(ids, pad));
        prompts.iter().cloned().chain(parts).chain(twins).collect()
    }

    /// Joins the logits of the blocks, in their own dtype (f32).
    ///
    /// # Shapes
    /// - `logits`: `[R, C]`, R a multiple of N
    /// - output: `[N, C]`
    pub fn mix(&self, logits: Tensor<2>) -> Tensor<2> {
        let images = logits.dims()[0] / self.each();
        let block = |number| logits.clone().slice_dim(0, number * images..(number + 1) * images);
        let mut conditional = block(0); // [N, C]
        if let Some(weight) = self.parts() {
            conditional = (conditional + block(1) * weight) / (1.0 + weight);
        }
        if !self.has_twins() {
            return conditional;
        }
        let unconditional = block(self.each() - 1);
        unconditional.clone() + (conditional - unconditional) * self.weight
    }

    /// Gives all rows of a picture the same next token.
    ///
    /// # Shapes
    /// - `x`: `[N, 1, D]`
    /// - output: `[R, 1, D]`
    pub fn repeat(&self, x: Tensor<3>) -> Tensor<3> {
        match self.each() {
            1 => x,
            rows => x.repeat_dim(0, rows),
        }
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
    use burn::tensor::{Device, TensorData};

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
        let rows = Guidance::words(5.0).with_twins(&prompts, 9);
        assert_eq!(rows, [[1, 2, 4], [1, 3, 4], [1, 9, 4], [1, 9, 4]]);
        assert_eq!(Guidance::words(1.0).with_twins(&prompts, 9), prompts);
    }

    #[test]
    fn logits_are_mixed_row_by_row() {
        let device = Device::flex();
        let logits = [[1.0_f32, 2.0], [3.0, 4.0], [0.5, 2.0], [1.0, 6.0]];
        let logits = Tensor::<2>::from_data(logits, &device);
        let mixed = Guidance::words(5.0).mix(logits.clone()).into_data();
        assert_eq!(mixed.try_to_vec::<f32>().expect("f32"), [3.0, 2.0, 11.0, -4.0]);
        let same = Guidance::words(1.0).mix(logits.clone()).into_data();
        assert_eq!(same, logits.into_data());
    }

    #[test]
    fn editing_has_three_rows_unless_one_counts_for_nothing() {
        let prompts = [vec![1, 2, 4], vec![1, 3, 4]];
        let rows = |weight, pictures| {
            let guidance = Guidance::editing(weight, pictures);
            assert_eq!(guidance.rows(2), guidance.with_twins(&prompts, 9).len());
            guidance.with_twins(&prompts, 9)
        };
        let (both, twins) = (prompts.to_vec(), vec![vec![1, 9, 4]; 2]);
        assert_eq!(rows(5.0, 5.0), [&both[..], &both, &twins].concat());
        assert_eq!(rows(5.0, 0.0), [&both[..], &twins].concat());
        assert_eq!(rows(1.0, 5.0), [&both[..], &both].concat());
        assert_eq!(rows(1.0, 0.0), both);
    }

    #[test]
    fn three_logits_are_mixed_row_by_row() {
        let device = Device::flex();
        let logits = [[4.0_f32, -1.0], [8.0, 0.0], [1.0, 2.0], [5.0, 6.0], [0.0, 1.0], [2.0, 2.0]];
        let mix = |weight, pictures, rows: &[[f32; 2]]| {
            let values = TensorData::new(rows.concat(), [rows.len(), 2]);
            let guidance = Guidance::editing(weight, pictures);
            let mixed = guidance.mix(Tensor::from_data(values, &device)).into_data();
            mixed.try_to_vec::<f32>().expect("f32")
        };
        // c = (f + 2 p) / 3 = [2, 1], [6, 4]
        assert_eq!(mix(3.0, 2.0, &logits), [6.0, 1.0, 14.0, 8.0]);
        assert_eq!(mix(1.0, 2.0, &logits[..4])[2..], [6.0, 4.0]);
        assert_eq!(mix(2.0, 0.0, &logits[2..]), [2.0, 3.0, 8.0, 10.0]);
    }

    #[test]
    fn weights_out_of_range_are_refused() {
        for weight in [f32::NAN, f32::INFINITY, -0.5, 1001.0] {
            assert!(Guidance::words(weight).validate().is_err(), "{weight}");
            assert!(Guidance::editing(5.0, weight).validate().is_err(), "{weight}");
        }
        Guidance::words(0.0).validate().expect("all unconditional");
    }
}
