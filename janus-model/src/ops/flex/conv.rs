//! Convolutions forward and back as matrix products; see [`crate::ops::conv2d`]. Forward with stride 1,
//! [`conv_tiles`] do it where the processor can.
//!
//! A few rows of the result at a time: what each of their places sees is laid out as a column,
//! `[C_in·k·k, places]`, small enough to stay in the cache, and met with the weight
//! `[C_out, C_in·k·k]`. A 1×1 kernel needs no layout, the picture is the matrix. Pieces, or whole
//! pictures on the way back, run in parallel.
//!
//! 2·C_out·C_in·k²·H·W FLOP forward, twice that back.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;
use rayon::prelude::*;

use super::share::{Matrix, product};
use super::tiles::Sink;
use super::{conv_tiles, numbers};
use crate::ops::Convolution;
use crate::ops::products::{Products, products};
use crate::ops::shared::Shared;

/// Numbers in the columns at hand: 2 MiB.
const COLUMNS: usize = 1 << 19;
/// Sums of weight gradients that are added up last, so that their order never depends on threads.
const PARTS: usize = 8;

#[derive(Clone, Copy)]
pub struct Size {
    pub count: usize,
    pub input: [usize; 3],  // C_in, H, W
    pub output: [usize; 3], // C_out, H', W'
    pub kernel: [usize; 2],
    pub rule: Convolution,
    pub products: Products,
}

impl Size {
    fn new(x: &FloatTensor<Flex>, weight: &FloatTensor<Flex>, rule: Convolution) -> Self {
        let (x, w) = (x.layout().shape(), weight.layout().shape());
        let kernel = [w[2], w[3]];
        let [height, width] = rule.output([x[2], x[3]], kernel);
        assert_eq!(x[1], w[1], "conv2d: channels differ");
        let output = [w[0], height, width];
        let input = [x[1], x[2], x[3]];
        Self { count: x[0], input, output, kernel, rule, products: products() }
    }

    /// Length of a column.
    pub fn column(&self) -> usize {
        self.input[0] * self.kernel[0] * self.kernel[1]
    }

    /// Whether the picture already is the matrix of columns.
    fn plain(&self) -> bool {
        self.kernel == [1, 1] && self.rule == Convolution::default()
    }

    /// Rows of the result that are worked out at once.
    fn rows(&self) -> usize {
        let [_, height, width] = self.output;
        (COLUMNS / (self.column() * width).max(1)).clamp(1, height.max(1))
    }

    pub fn picture(&self) -> usize {
        self.input.iter().product()
    }

    pub fn result(&self) -> usize {
        self.output.iter().product()
    }

    /// # Safety
    /// As [`product`].
    unsafe fn product(&self, at: *mut f32, stride: usize, add: bool, a: Matrix, b: Matrix) {
        // SAFETY: the same contract.
        unsafe { product(self.products, Sink { at, stride, add }, a, b) }
    }
}

/// `[N, C_out, H', W']`.
pub fn forward(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    bias: FloatTensor<Flex>,
    rule: Convolution,
) -> FloatTensor<Flex> {
    let [x, weight, bias] = [x, weight, bias].map(|tensor| tensor.to_contiguous());
    let size = Size::new(&x, &weight, rule);
    let (x, weight, bias) = (numbers(&x), numbers(&weight), numbers(&bias));
    let y = conv_tiles::forward(x, weight, bias, size);
    let y = y.unwrap_or_else(|| forward_in_columns(x, weight, bias, size));
    let [channels, height, width] = size.output;
    FloatTensor::<Flex>::from_data(TensorData::new(y, [size.count, channels, height, width]))
}

fn forward_in_columns(x: &[f32], weight: &[f32], bias: &[f32], size: Size) -> Vec<f32> {
    let ([channels, height, width], rows) = (size.output, size.rows());
    let mut y = vec![0.0; size.count * size.result()];
    let shared = Shared::new(&mut y);
    let pieces = height.div_ceil(rows);
    (0..size.count * pieces).into_par_iter().for_each_init(Vec::new, |columns, piece| {
        let (picture, first) = (piece / pieces, piece % pieces * rows);
        let x = &x[picture * size.picture()..][..size.picture()];
        let rows = first..height.min(first + rows);
        let places = rows.len() * width;
        let y = shared.at(picture * size.result() + first * width);
        for (channel, bias) in bias.iter().enumerate() {
            // SAFETY: these rows of this channel belong to this piece alone.
            let y =
                unsafe { std::slice::from_raw_parts_mut(y.add(channel * height * width), places) };
            y.fill(*bias);
        }
        let columns = lay_out(x, size, rows, columns);
        let weight = Matrix::new(weight, [channels, size.column()], [size.column(), 1]);
        // SAFETY: as above, for all channels.
        unsafe { size.product(y, height * width, true, weight, columns) };
    });
    y
}

/// Gradients by `x`, the weight and the bias.
pub fn backward(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    gradient: FloatTensor<Flex>,
    rule: Convolution,
) -> [FloatTensor<Flex>; 3] {
    let [x, weight, gradient] = [x, weight, gradient].map(|tensor| tensor.to_contiguous());
    let size = Size::new(&x, &weight, rule);
    let (shape, weight_shape) = (x.layout().shape().clone(), weight.layout().shape().clone());
    let (x, weight, gradient) = (numbers(&x), numbers(&weight), numbers(&gradient));
    let mut by_x = vec![0.0; x.len()];
    let each = size.count.div_ceil(PARTS).max(1);
    let parts: Vec<(Vec<f32>, Vec<f32>)> = by_x
        .par_chunks_mut((each * size.picture()).max(1))
        .zip(x.par_chunks((each * size.picture()).max(1)))
        .zip(gradient.par_chunks((each * size.result()).max(1)))
        .map(|((by_x, x), gradient)| some_back(by_x, x, weight, gradient, size))
        .collect();
    let (mut by_weight, mut by_bias) = (vec![0.0f32; weight.len()], vec![0.0f32; size.output[0]]);
    for (weight, bias) in &parts {
        by_weight.iter_mut().zip(weight).for_each(|(sum, part)| *sum += part);
        by_bias.iter_mut().zip(bias).for_each(|(sum, part)| *sum += part);
    }
    let channels = size.output[0];
    [
        FloatTensor::<Flex>::from_data(TensorData::new(by_x, shape)),
        FloatTensor::<Flex>::from_data(TensorData::new(by_weight, weight_shape)),
        FloatTensor::<Flex>::from_data(TensorData::new(by_bias, [channels])),
    ]
}

/// Fills the gradients of some pictures; returns what they add to those of weight and bias.
fn some_back(
    by_x: &mut [f32],
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    size: Size,
) -> (Vec<f32>, Vec<f32>) {
    let ([channels, height, width], column) = (size.output, size.column());
    let (mut by_weight, mut by_bias) = (vec![0.0; weight.len()], vec![0.0; channels]);
    let (mut columns, mut back) = (Vec::new(), Vec::new());
    let weight = Matrix::new(weight, [channels, column], [column, 1]);
    let pictures = x.chunks_exact(size.picture()).zip(gradient.chunks_exact(size.result()));
    for (by_x, (x, gradient)) in by_x.chunks_exact_mut(size.picture()).zip(pictures) {
        for (sum, gradient) in by_bias.iter_mut().zip(gradient.chunks_exact(height * width)) {
            *sum += gradient.iter().sum::<f32>();
        }
        for first in (0..height).step_by(size.rows()) {
            let rows = first..height.min(first + size.rows());
            let places = rows.len() * width;
            let gradient = &gradient[first * width..];
            let gradient = Matrix::new(gradient, [channels, places], [height * width, 1]);
            let seen = lay_out(x, size, rows.clone(), &mut columns);
            // SAFETY: both buffers are borrowed by these calls alone; `back` has room for the
            // columns, and where the picture is the matrix, `by_x` for its places.
            unsafe {
                size.product(by_weight.as_mut_ptr(), column, true, gradient, seen.turned());
                if size.plain() {
                    let by_x = by_x.as_mut_ptr().add(first * width);
                    size.product(by_x, height * width, true, weight.turned(), gradient);
                } else {
                    back.resize(column * places, 0.0);
                    size.product(back.as_mut_ptr(), places, false, weight.turned(), gradient);
                }
            }
            if !size.plain() {
                put_back(by_x, size, rows, &back);
            }
        }
    }
    (by_weight, by_bias)
}

/// What the places of some rows of the result see, `[C_in·k·k, places]`.
fn lay_out<'a>(
    x: &'a [f32],
    size: Size,
    rows: std::ops::Range<usize>,
    columns: &'a mut Vec<f32>,
) -> Matrix<'a> {
    let ([_, height, width], places) = (size.output, rows.len() * size.output[2]);
    if size.plain() {
        let x = &x[rows.start * width..];
        return Matrix::new(x, [size.column(), places], [height * width, 1]);
    }
    columns.resize(size.column() * places, 0.0);
    for (line, to) in columns.chunks_exact_mut(places).enumerate() {
        for (row, to) in rows.clone().zip(to.chunks_exact_mut(width)) {
            let Some(from) = source(size, line, row) else {
                to.fill(0.0);
                continue;
            };
            let (before, inside, first) = span(size, line);
            let (start, rest) = to.split_at_mut(before);
            let (middle, end) = rest.split_at_mut(inside);
            start.fill(0.0);
            end.fill(0.0);
            let x = &x[from + first..];
            match size.rule.stride {
                1 => middle.copy_from_slice(&x[..inside]),
                stride => middle.iter_mut().enumerate().for_each(|(i, to)| *to = x[i * stride]),
            }
        }
    }
    Matrix::new(columns, [size.column(), places], [places, 1])
}

/// Adds gradients of columns to what they were laid out from.
fn put_back(by_x: &mut [f32], size: Size, rows: std::ops::Range<usize>, columns: &[f32]) {
    let width = size.output[2];
    for (line, from) in columns.chunks_exact(rows.len() * width).enumerate() {
        for (row, from) in rows.clone().zip(from.chunks_exact(width)) {
            let Some(to) = source(size, line, row) else { continue };
            let (before, inside, first) = span(size, line);
            let (to, from) = (&mut by_x[to + first..], &from[before..before + inside]);
            match size.rule.stride {
                1 => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
                stride => from.iter().enumerate().for_each(|(i, from)| to[i * stride] += from),
            }
        }
    }
}

/// Where the row of the picture begins that row `row` of the result sees in this line of the
/// columns; nothing above and below the picture.
fn source(size: Size, line: usize, row: usize) -> Option<usize> {
    let ([_, height, width], [tall, wide]) = (size.input, size.kernel);
    let (channel, down) = (line / (tall * wide), line / wide % tall);
    let row = (row * size.rule.stride + down).checked_sub(size.rule.padding[0])?;
    (row < height).then_some((channel * height + row) * width)
}

/// Of one row of results: places that see left of the picture, places that see the picture, and
/// the first column these see.
fn span(size: Size, line: usize) -> (usize, usize, usize) {
    let (width, stride, left) = (size.input[2], size.rule.stride, size.rule.padding[1]);
    let across = line % size.kernel[1];
    let before = left.saturating_sub(across).div_ceil(stride).min(size.output[2]);
    // Where nothing is seen, any column inside the picture will do.
    let first = (before * stride + across).saturating_sub(left).min(width);
    let inside = width.saturating_sub(first).div_ceil(stride).min(size.output[2] - before);
    (before, inside, first)
}
