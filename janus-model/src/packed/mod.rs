//! Matrices of weights in 8 or 4 bits, and products with them on the CPU.
//!
//! A decoding step reads every weight once, so half the bytes are half the time. 32 weights of a
//! row share one scale in f16: 8.5 or 4.5 bits per weight, as in llama.cpp's Q8_0 and Q4_0.
//! Activations are rounded to 8 bits in groups of 32, too; products are then of whole numbers, and
//! exact, and one multiplication per group makes them f32. Every row of activations is worked out
//! by itself: how many there are does not show in any of them.
//!
//! | file | concern |
//! |---|---|
//! | `mod.rs` | how weights lie |
//! | `round.rs` | which whole numbers stand for weights and activations |
//! | `multiply.rs` | products, with the body that all others equal |
//! | `kept.rs` `kept_x86.rs` | keys and values in 8 bits, and attention over them |
//! | `vnni.rs` `avx2.rs` `neon.rs` | the same, faster |
//!
//! Files hold them, too: [`crate::checkpoint::packed`].

#[cfg(target_arch = "x86_64")]
mod avx2;
mod kept;
#[cfg(target_arch = "x86_64")]
mod kept_x86;
mod multiply;
#[cfg(target_arch = "aarch64")]
mod neon;
mod round;
#[cfg(target_arch = "x86_64")]
mod vnni;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

pub(crate) use kept::{Kept, STEP, attend};

use burn::tensor::{Bytes, DType, Tensor, TensorData};
use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Weights that share a scale.
const GROUP: usize = 32;
/// Outputs of a panel.
const PANEL: usize = 16;
/// Weights of an output in a block: two groups, so that blocks are whole cache lines.
const BLOCK: usize = 2 * GROUP;

/// Bits of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bits {
    /// −127 to 127; 8.5 bits with the scale.
    #[serde(rename = "int8")]
    Eight,
    /// −8 to 7; 4.5 bits with the scale.
    #[serde(rename = "int4")]
    Four,
}

impl Bits {
    /// What people type for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eight => "int8",
            Self::Four => "int4",
        }
    }

    /// Bytes of so many weights with their scales.
    pub fn bytes(self, weights: u64) -> u64 {
        match self {
            Self::Eight => weights * 17 / 16,
            Self::Four => weights * 9 / 16,
        }
    }

    /// What is added to a weight so that it is not negative.
    const fn offset(self) -> i32 {
        match self {
            Self::Eight => 128,
            Self::Four => 8,
        }
    }

    /// Lines of a block: one of scales, the rest of weights.
    const fn lines(self) -> usize {
        match self {
            Self::Eight => 1 + PANEL * BLOCK / 64,
            Self::Four => 1 + PANEL * BLOCK / 128,
        }
    }
}

/// A cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Bytes of a [`Line`].
pub(crate) const LINE: usize = size_of::<Line>();

/// Where lines are.
#[derive(Clone)]
enum Lines {
    /// In memory.
    Own(Arc<[Line]>),
    /// In a mapped file, at whole lines.
    Mapped(Arc<Bytes>),
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        match self {
            Self::Own(lines) => lines,
            Self::Mapped(bytes) => bytemuck::cast_slice(bytes),
        }
    }
}

/// A matrix of weights, `[out, in]`, as it is multiplied.
///
/// Panel after panel of 16 outputs, so that sums of 16 outputs fill a register; in each, block
/// after block of 64 inputs. A block is a line of 2×16 scales, then for each of its two groups eight
/// steps of 16 outputs × 4 inputs. With 4 bits a line holds two steps, the first in the lower halves
/// of its bytes. What is missing in the last panel or block is zero.
#[derive(Clone)]
pub struct Packed {
    lines: Lines,
    bits: Bits,
    output: usize,
    input: usize,
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}, {}]", self.bits.name(), self.output, self.input)
    }
}

impl Packed {
    /// Rounds a matrix of f32, bf16 or f16, `[out, in]`, on all threads.
    ///
    /// # Panics
    /// When it is of another format.
    pub fn of(weight: Tensor<2>, bits: Bits) -> Self {
        let shape = weight.dims();
        Self::of_data(&weight.into_data(), shape, bits)
    }

    /// The same, for what a tensor of this shape is made of.
    ///
    /// # Panics
    /// As [`Self::of`].
    pub(crate) fn of_data(data: &TensorData, [output, input]: [usize; 2], bits: Bits) -> Self {
        fn from<'a, T: Copy + Sync>(
            weights: &'a [T],
            input: usize,
            wide: impl Fn(T) -> f32 + Sync + 'a,
        ) -> impl Fn(usize, &mut [f32]) + Sync + 'a {
            move |row, to| {
                for (to, weight) in to.iter_mut().zip(&weights[row * input..]) {
                    *to = wide(*weight);
                }
            }
        }
        let shape = [output, input];
        let known = "weights are f32, bf16 or f16";
        match data.dtype() {
            DType::BF16 => {
                let weights = data.as_slice::<bf16>().expect(known);
                Self::new(
                    shape,
                    bits,
                    from(weights, input, |weight| {
                        f32::from_bits(u32::from(weight.to_bits()) << 16)
                    }),
                )
            }
            DType::F16 => {
                let weights = data.as_slice::<f16>().expect(known);
                Self::new(shape, bits, from(weights, input, f16::to_f32))
            }
            _ => {
                let weights = data.as_slice::<f32>().expect(known);
                Self::new(shape, bits, from(weights, input, |weight| weight))
            }
        }
    }

    /// Rounds a matrix of which `row` gives one row in f32.
    fn new(
        [output, input]: [usize; 2],
        bits: Bits,
        row: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let (panels, blocks) = (output.div_ceil(PANEL), input.div_ceil(BLOCK));
        let each = blocks * bits.lines();
        let mut lines = vec![Line([0; 64]); panels * each];
        let fill = |weights: &mut Vec<f32>, (panel, lines): (usize, &mut [Line])| {
            for lane in 0..PANEL.min(output - panel * PANEL) {
                row(panel * PANEL + lane, &mut weights[..input]);
                round::weights(lines, lane, bits, weights);
            }
        };
        let room = || vec![0.0f32; blocks * BLOCK];
        lines.par_chunks_mut(each.max(1)).enumerate().for_each_init(room, fill);
        Self { lines: Lines::Own(lines.into()), bits, output, input }
    }

    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.output, self.input]
    }

    /// Bits of a weight.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// The product `x · Wᵀ`, in the format of `x`.
    ///
    /// # Shapes
    /// - `x`: `[rows, in]`
    /// - output: `[rows, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        Self::forward_each(&[self], x).remove(0)
    }

    /// The products of each of these matrices, which must be [alike](Self::alike), in one go.
    ///
    /// # Shapes
    /// As [`Self::forward`].
    ///
    /// # Panics
    /// When they are not alike, or none.
    pub fn forward_each(matrices: &[&Self], x: Tensor<2>) -> Vec<Tensor<2>> {
        let ([rows, _], device, dtype) = (x.dims(), x.device(), x.dtype());
        let data = x.into_data().convert::<f32>();
        let x = data.as_slice::<f32>().expect("they were just made f32");
        let products = multiply::multiply(matrices, x, rows).into_iter().zip(matrices);
        let tensor = |(y, matrix): (Vec<f32>, &&Self)| {
            Tensor::from_data(TensorData::new(y, [rows, matrix.output]), (&device, dtype))
        };
        products.map(tensor).collect()
    }

    /// Whether activations that are rounded for one of them are for all.
    pub fn alike(matrices: &[&Self]) -> bool {
        matrices.windows(2).all(|two| (two[0].input, two[0].bits) == (two[1].input, two[1].bits))
    }

    /// Bytes of a matrix; `None` where that is no number.
    pub(crate) fn length(bits: Bits, [output, input]: [usize; 2]) -> Option<usize> {
        let each = input.div_ceil(BLOCK).checked_mul(bits.lines() * LINE)?;
        output.div_ceil(PANEL).checked_mul(each)
    }

    /// The matrix as it lies.
    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }

    /// A matrix as [`Self::bytes`] gave it; used where it lies, if that is at a whole line.
    ///
    /// # Panics
    /// When there are not as many bytes as [`Self::length`] says.
    pub(crate) fn from_bytes(bytes: Bytes, bits: Bits, [output, input]: [usize; 2]) -> Self {
        assert_eq!(
            Some(bytes.len()),
            Self::length(bits, [output, input]),
            "packed weights: length"
        );
        let lines = match bytemuck::try_cast_slice::<u8, Line>(&bytes) {
            Ok(_) => Lines::Mapped(Arc::new(bytes)),
            Err(_) => {
                let mut lines = vec![Line([0; LINE]); bytes.len() / LINE];
                bytemuck::cast_slice_mut(&mut lines).copy_from_slice(&bytes);
                Lines::Own(lines.into())
            }
        };
        Self { lines, bits, output, input }
    }

    /// The weights as they were rounded, row after row: exact, for a scale has 11 bits and a whole
    /// number 8.
    pub(crate) fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.output * self.input];
        let rows = values.par_chunks_mut(self.input.max(1)).enumerate();
        rows.for_each(|(row, to)| self.row(row, to));
        values
    }

    fn row(&self, index: usize, to: &mut [f32]) {
        let (panel, lane) = (index / PANEL, index % PANEL);
        let blocks = self.input.div_ceil(BLOCK);
        for (block, to) in to.chunks_mut(BLOCK).enumerate() {
            let lines = &self.lines[(panel * blocks + block) * self.bits.lines()..];
            for (k, to) in to.iter_mut().enumerate() {
                let whole = weight(lines, self.bits, lane, k) - self.bits.offset();
                *to = scale(&lines[0], k / GROUP, lane).to_f32() * whole as f32;
            }
        }
    }
}

/// What a matrix of a model becomes where its decoder is rounded to so many bits: the heads, which
/// choose among thousands, stay at 8; all else stays as it is. `name` is that of its layer.
pub(crate) fn rounding(name: &str, bits: Bits) -> Option<Bits> {
    if name.starts_with("language_model.model.layers.") {
        Some(bits)
    } else if name.starts_with("gen_head.") || name == "language_model.lm_head" {
        Some(Bits::Eight)
    } else {
        None
    }
}

/// The scale of one output in a group of a block.
fn scale(line: &Line, group: usize, lane: usize) -> f16 {
    let at = 2 * (group * PANEL + lane);
    f16::from_le_bytes([line.0[at], line.0[at + 1]])
}

/// Weight `k` of a block, with its offset.
fn weight(lines: &[Line], bits: Bits, lane: usize, k: usize) -> i32 {
    let (step, at) = (k / 4, lane * 4 + k % 4);
    i32::from(match bits {
        Bits::Eight => lines[1 + step].0[at],
        Bits::Four => lines[1 + step / 2].0[at] >> (4 * (step % 2)) & 15,
    })
}
