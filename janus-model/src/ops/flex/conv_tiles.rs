//! Convolutions of stride 1 on processors with [`tiles`]: the picture itself is the right
//! factor.
//!
//! A few rows of the picture at a time are laid out as `[row, step, place]`, with the border around
//! them; a step is a channel, or a pair of them rounded to bf16. What 32 places of a result see at one
//! place of the kernel then lies side by side, wherever in the kernel that is: nothing is copied nine
//! times, and the layout of some rows stays in the cache. The weight is packed once. Sums are worked
//! out channel after channel, and in each over the kernel.
//!
//! 2·C_out·C_in·k²·H·W FLOP; the picture is read little more than once.

use rayon::prelude::*;

use super::conv::Size;
use super::panels;
use super::tiles::{self, Sink};
use crate::ops::shared::Shared;

/// Numbers of the layout at hand: 2 MiB.
const LAYOUT: usize = 1 << 19;
/// Tiles that meet a panel of the weight while it is in the nearest cache.
const TOGETHER: usize = 4;

/// `[N, C_out, H', W']`; nothing where the processor cannot, the stride is not 1, or rows are so short
/// that more than a quarter of a tile would be for nothing.
pub fn forward(x: &[f32], weight: &[f32], bias: &[f32], size: Size) -> Option<Vec<f32>> {
    let [channels, height, width] = size.output;
    let short = 4 * width < 3 * width.next_multiple_of(tiles::WIDE);
    if !panels::available() || size.rule.stride != 1 || short {
        return None;
    }
    let layout = Layout::new(size);
    let steps = layout.offsets();
    let inner = steps.len() * layout.channels();
    let left = panels::pack([channels, inner], layout.half, |channel, to| {
        layout.in_order(&weight[channel * size.column()..][..size.column()], to);
    });
    let mut y = Vec::<f32>::with_capacity(size.count * size.result());
    let shared = Shared::empty(y.spare_capacity_mut());
    let rows = layout.rows();
    let pieces = height.div_ceil(rows);
    (0..size.count * pieces).into_par_iter().for_each_init(Vec::new, |room, piece| {
        let (picture, first) = (piece / pieces, piece % pieces * rows);
        let rows = first..height.min(first + rows);
        layout.fill(&x[picture * size.picture()..][..size.picture()], rows.clone(), room);
        // Tiles of 32 places, by the row of the result and the first of them.
        let places = rows
            .clone()
            .flat_map(|row| (0..width).step_by(tiles::WIDE).map(move |place| [row, place]));
        let places: Vec<_> = places.collect();
        for places in places.chunks(TOGETHER) {
            for channel in (0..channels).step_by(tiles::TALL) {
                for [row, place] in places.iter().copied() {
                    let tall = tiles::TALL.min(channels - channel);
                    let wide = tiles::WIDE.min(width - place);
                    let at = picture * size.result() + (channel * height + row) * width + place;
                    let seen = (row - rows.start) * layout.row() + place;
                    // SAFETY: these places of these channels are this piece's; rows of the layout are
                    // whole tiles and what the last place of the last one sees.
                    unsafe {
                        for (i, bias) in bias[channel..][..tall].iter().enumerate() {
                            let to = shared.at(at + i * height * width);
                            (0..wide).for_each(|place| to.add(place).write(*bias));
                        }
                        let y = Sink { at: shared.at(at), stride: height * width, add: true };
                        let panel = &left[channel * steps.len()..];
                        tiles::meet(y, [tall, wide], panel, &room[seen..], &steps, layout.half);
                    }
                }
            }
        }
    });
    // SAFETY: pieces have all rows of all pictures, and tiles all their places.
    unsafe { y.set_len(size.count * size.result()) };
    Some(y)
}

/// How some rows of the picture are laid out.
struct Layout {
    size: Size,
    /// Pairs of channels, rounded to bf16.
    half: bool,
    /// Channels, or pairs of them.
    steps: usize,
    /// Places of a row: with the border, and up to whole tiles.
    places: usize,
}

impl Layout {
    fn new(size: Size) -> Self {
        let half = size.products.rounded();
        let steps = size.input[0].div_ceil(if half { 2 } else { 1 });
        let places = size.output[2].next_multiple_of(tiles::WIDE) + size.kernel[1] - 1;
        Self { size, half, steps, places }
    }

    /// Numbers of a row.
    fn row(&self) -> usize {
        self.steps * self.places
    }

    /// Rows of the result that are worked out from one layout: many, for those between two are laid
    /// out twice, but enough pieces for all threads.
    fn rows(&self) -> usize {
        let all = self.size.count * self.size.output[1];
        let fair = all.div_ceil(4 * rayon::current_num_threads());
        let room = (LAYOUT / self.row().max(1)).saturating_sub(self.size.kernel[0] - 1);
        room.min(fair).clamp(1, self.size.output[1].max(1))
    }

    /// From a place of the result to what it sees, step by step.
    fn offsets(&self) -> Vec<usize> {
        let [tall, wide] = self.size.kernel;
        let offset = |step: usize, down: usize, across: usize| {
            (down * self.steps + step) * self.places + across
        };
        let kernel = (0..tall).flat_map(|down| (0..wide).map(move |across| (down, across)));
        let step = |step| kernel.clone().map(move |(down, across)| offset(step, down, across));
        (0..self.steps).flat_map(step).collect()
    }

    /// Channels of a step.
    fn channels(&self) -> usize {
        if self.half { 2 } else { 1 }
    }

    /// The weight of an output, `[C_in, k·k]`, in the order of the steps, numbers of a pair side by
    /// side.
    fn in_order(&self, weight: &[f32], to: &mut [f32]) {
        let (each, kernel) = (self.channels(), self.size.kernel[0] * self.size.kernel[1]);
        to.fill(0.0); // the last channel may have no other
        for (channel, weight) in weight.chunks_exact(kernel).enumerate() {
            let to = &mut to[channel / each * each * kernel + channel % each..];
            to.iter_mut().step_by(each).zip(weight).for_each(|(to, weight)| *to = *weight);
        }
    }

    /// Lays out what some rows of the result see of a picture.
    fn fill(&self, x: &[f32], rows: std::ops::Range<usize>, room: &mut Vec<u32>) {
        let ([channels, height, width], [top, left, ..]) =
            (self.size.input, self.size.rule.padding);
        let (count, each) = (rows.len() + self.size.kernel[0] - 1, self.channels());
        room.resize(count * self.row(), 0);
        for (down, to) in room.chunks_exact_mut(self.row()).enumerate() {
            let row = (rows.start + down).checked_sub(top).filter(|row| *row < height);
            for (step, to) in to.chunks_exact_mut(self.places).enumerate() {
                let line = |channel: usize| {
                    let at = (channel * height + row?) * width;
                    (channel < channels).then(|| &x[at..at + width])
                };
                let Some(first) = line(each * step) else {
                    to.fill(0);
                    continue;
                };
                to[..left].fill(0);
                let seen = (to.len() - left).min(width);
                to[left + seen..].fill(0);
                let to = &mut to[left..left + seen];
                match self.half {
                    true => panels::pair_up(&first[..seen], line(2 * step + 1), to),
                    false => to.copy_from_slice(bytemuck::cast_slice(&first[..seen])),
                }
            }
        }
    }
}
