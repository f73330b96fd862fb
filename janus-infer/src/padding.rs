//! Prompts of different lengths in one batch: filled up on the left.
//!
//! The last token of every row then stands in the last column, where the next one is predicted.
//! Filling is hidden from attention and does not count as a position. It is not to be confused
//! with the padding **inside** an unconditional prompt, which is attended like text; see
//! [`crate::guidance`].

use burn::tensor::{Device, Tensor, TensorData};
use janus_model::llama::Mask;
use janus_model::rope::Positions;

/// How many columns at the left of each row are filling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Padding {
    filled: Vec<usize>,
}

impl Padding {
    /// `None` where no row is padded: then neither mask nor positions need the rows at all.
    pub fn new(filled: Vec<usize>) -> Option<Self> {
        filled.iter().any(|n| *n > 0).then_some(Self { filled })
    }

    /// Which of the first `total` columns may be looked at: `[B, total]`.
    pub fn mask(&self, total: usize, device: &Device) -> Mask {
        let real = |n: &usize| (0..total).map(|column| column >= *n).collect::<Vec<bool>>();
        let real: Vec<bool> = self.filled.iter().flat_map(real).collect();
        Mask::Padded(Tensor::from_data(TensorData::new(real, [self.filled.len(), total]), device))
    }

    /// Positions of `tokens` columns from column `start` on, `[B, tokens]`; filling has 0.
    pub fn positions(&self, start: usize, tokens: usize, device: &Device) -> Positions {
        let row = |n: &usize| {
            let n = *n;
            (start..start + tokens).map(move |column| column.saturating_sub(n) as i32)
        };
        let positions: Vec<i32> = self.filled.iter().flat_map(row).collect();
        let data = TensorData::new(positions, [self.filled.len(), tokens]);
        Positions::Each(Tensor::from_data(data, device))
    }
}

/// Fills rows up to the longest one with `pad`; also says by how much.
pub(crate) fn left_pad(rows: &[Vec<i32>], pad: i32) -> (Vec<Vec<i32>>, Vec<usize>) {
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    let filled: Vec<usize> = rows.iter().map(|row| longest - row.len()).collect();
    let fill = |(row, n): (&Vec<i32>, &usize)| [vec![pad; *n], row.clone()].concat();
    (rows.iter().zip(&filled).map(fill).collect(), filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_on_the_left() {
        let (rows, filled) = left_pad(&[vec![1, 2, 3], vec![4]], 9);
        assert_eq!(rows, [[1, 2, 3], [9, 9, 4]]);
        assert_eq!(filled, [0, 2]);
        assert_eq!(Padding::new(vec![0, 0]), None);
    }

    #[test]
    fn filling_is_hidden_and_not_counted() {
        let padding = Padding::new(vec![0, 2]).expect("one row is padded");
        let device = Device::flex();
        let Positions::Each(positions) = padding.positions(1, 3, &device) else {
            panic!("rows differ")
        };
        let positions = positions.into_data().try_to_vec::<i32>().expect("i32");
        assert_eq!(positions, [1, 2, 3, 0, 0, 1]);
        let Mask::Padded(real) = padding.mask(4, &device) else { panic!("rows differ") };
        let real: Vec<bool> = real.into_data().iter::<bool>().collect();
        assert_eq!(real, [true, true, true, true, false, false, true, true]);
    }
}
