//! `x · Wᵀ` with f32 activations, straight from weights in f32, bf16 or f16.
//!
//! A decoding step reads every weight once and multiplies it with one row per sequence, so it
//! costs what reading costs: 2 bytes per bf16 weight against 2·rows FLOP. Few rows: each weight
//! row is widened in registers and met with all rows of `x` ([`super::strips`] for bf16 where the
//! processor has them, [`super::steps`] or [`super::matrix_steps`] where they may be rounded,
//! [`super::rows`] otherwise). Many
//! rows (prefill, pictures): [`super::tiles`] take bf16 as it is; elsewhere a block of weight rows
//! is widened to f32 in cache, then `gemm` does the arithmetic. In every case, blocks of output
//! columns run in parallel.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, TensorData};
use half::{bf16, f16};
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::matrix_steps::{self, Columns};
use super::panels::{self, Lines};
use super::rows::{self, Widen};
use super::steps::{self, Pairs};
use super::strips::Split;
use super::tiles::{self, Sink, Way};
use crate::ops::portions::in_portions;
use crate::ops::products::{Products, products};
use crate::ops::shared::Shared;

/// Up to this many rows of `x`, weights are widened in registers.
pub const FEW_ROWS: usize = 8;
/// The same where there are [`strips`](super::strips), which read a piece of weights from the cache
/// for every few rows: as measured, docs/benchmarks.md. As many as [`steps`] take.
const STRIP_ROWS: usize = steps::ROWS;
/// Weight rows per parallel piece: large enough to hide the scheduling, small enough to balance.
const BLOCK: usize = 64;

/// `[rows, in]` in f32 and `[out, in]` give `[rows, out]` in f32.
pub fn linear(x: FloatTensor<Flex>, weight: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
    let (rows, input) = (x.layout().shape()[0], x.layout().shape()[1]);
    let output = weight.layout().shape()[0];
    assert_eq!(weight.layout().shape()[1], input, "linear: widths differ");
    let x_values = &x.storage::<f32>()[..rows * input];
    let size = Size { rows, input, output };
    let y = match weight.dtype() {
        DType::BF16 => {
            let weight = &weight.storage::<bf16>()[..output * input];
            let fast = match rows {
                0..=STRIP_ROWS => in_strips(x_values, weight, size),
                _ => in_tiles(x_values, weight, size),
            };
            fast.unwrap_or_else(|| product(x_values, weight, size))
        }
        DType::F16 => product(x_values, &weight.storage::<f16>()[..output * input], size),
        _ => product(x_values, &weight.storage::<f32>()[..output * input], size),
    };
    FloatTensor::<Flex>::from_data(TensorData::new(y, [rows, output]))
}

#[derive(Clone, Copy)]
struct Size {
    rows: usize,
    input: usize,
    output: usize,
}

/// Few rows of `x`, where the processor has [`strips`](super::strips) for them, or
/// [`steps`](super::steps) if they may be rounded.
fn in_strips(x: &[f32], weight: &[bf16], size: Size) -> Option<Vec<f32>> {
    let shape = [size.rows, size.input];
    if products() == Products::Bf16Steps {
        #[cfg(target_arch = "x86_64")]
        if let Some(x) = Columns::new(x, shape) {
            return Some(blocks(weight, size, matrix_steps::BLOCK, |weight, to| {
                x.meet(weight, to)
            }));
        }
        if let Some(x) = Pairs::new(x, shape) {
            return Some(blocks(weight, size, steps::BLOCK, |weight, to| x.meet(weight, to)));
        }
    }
    let x = Split::new(x, shape)?;
    Some(blocks(weight, size, BLOCK, |weight, to| x.meet(weight, to)))
}

/// Sums of activation and weight rows, as `meet` tells them, of so many weight rows at a time.
fn blocks(
    weight: &[bf16],
    size: Size,
    block: usize,
    meet: impl Fn(&[bf16], &mut dyn FnMut(usize, usize, f32)) + Sync,
) -> Vec<f32> {
    let mut y = vec![0.0; size.rows * size.output];
    if size.input == 0 || y.is_empty() {
        return y;
    }
    let shared = Shared::new(&mut y);
    let pieces = size.output.div_ceil(block);
    in_portions(
        pieces,
        || (),
        |(), piece| {
            let first = piece * block;
            let weight = &weight[first * size.input..size.output.min(first + block) * size.input];
            // SAFETY: row < rows and first + weight < output, so the place is inside `y`; no other
            // piece owns this column.
            meet(weight, &mut |row, weight, sum| unsafe {
                *shared.at(row * size.output + first + weight) = sum;
            });
        },
    );
    y
}

/// Many rows of `x`, where the processor has [`tiles`] for them.
fn in_tiles(x: &[f32], weight: &[bf16], size: Size) -> Option<Vec<f32>> {
    if !panels::available() {
        return None;
    }
    if size.input == 0 {
        return None;
    }
    let mut y = Vec::<f32>::with_capacity(size.rows * size.output);
    let sink = Sink { at: y.as_mut_ptr(), stride: size.output, add: false };
    let x = Lines::wide(x, [size.rows, size.input], [size.input, 1]);
    let weight = Lines::narrow(weight, [size.output, size.input]);
    let way = Way { half: products().rounded(), parallel: true };
    // SAFETY: there is room for a row for every row of `x`, and a column for every row of the weight; the
    // product writes all of them without reading.
    unsafe {
        let done = tiles::multiply(sink, x, weight, way);
        y.set_len(if done { size.rows * size.output } else { 0 });
        done.then_some(y)
    }
}

fn product<W: Widen>(x: &[f32], weight: &[W], size: Size) -> Vec<f32> {
    let mut y = vec![0.0; size.rows * size.output];
    if size.input == 0 || y.is_empty() {
        return y;
    }
    let shared = Shared::new(&mut y);
    weight.par_chunks(BLOCK * size.input).enumerate().for_each(|(block, weight)| {
        let first = block * BLOCK;
        if size.rows <= FEW_ROWS {
            few_rows(x, weight, size, first, shared);
        } else {
            many_rows(x, weight, size, first, shared);
        }
    });
    y
}

/// Each weight row against all rows of `x`, in registers.
fn few_rows<W: Widen>(x: &[f32], weight: &[W], size: Size, first: usize, y: Shared) {
    for (index, row) in weight.chunks_exact(size.input).enumerate() {
        let mut sums = [0.0; FEW_ROWS];
        rows::dot(row, x, &mut sums[..size.rows]);
        for (r, sum) in sums[..size.rows].iter().enumerate() {
            // SAFETY: r < rows and first + index < output, so the place is inside `y`; no other
            // piece owns this column.
            unsafe { *y.at(r * size.output + first + index) = *sum };
        }
    }
}

/// A block of weight rows widened to f32, then a matrix product.
fn many_rows<W: Widen>(x: &[f32], weight: &[W], size: Size, first: usize, y: Shared) {
    let wide: Vec<f32> = weight.iter().map(|w| w.widen()).collect();
    let block = weight.len() / size.input;
    let (input, output) = (size.input as isize, size.output as isize);
    // SAFETY: `y` has rows × output elements and columns first..first + block belong to this
    // piece alone; `x` is rows × input and `wide` block × input, both row-major.
    unsafe {
        gemm::gemm(
            size.rows,
            block,
            size.input,
            y.at(first),
            1,
            output,
            false,
            x.as_ptr(),
            1,
            input,
            wide.as_ptr(),
            input,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
