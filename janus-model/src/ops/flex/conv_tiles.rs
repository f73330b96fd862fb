//! Convolutions of stride 1 on processors with [`tiles`]: the picture itself is the right
//! factor.
//!
//! A few rows of the picture at a time are laid out as `[row, step, place]`, with the border around
//! them; a step is a channel, or a pair of them rounded to bf16. What 32 places of a result see at one
//! place of the kernel then lies side by side, wherever in the kernel that is: nothing is copied nine
//! times, and the layout of some rows stays in the cache. The weight is packed once. Sums are worked
//! out channel after channel, and in each over the kernel; by matrices, place after place of the kernel,
//! and in each over the channels, which lie equally far from one to the next.
//!
//! 2·C_out·C_in·k²·H·W FLOP; the picture is read little more than once.

use rayon::prelude::*;

use super::conv::Size;
use super::panels::{self, Panels};
use super::tiles::{self, Body, Course, Sink};
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
    if size.rule.stride != 1 || short {
        return None;
    }
    // Weights that are bf16, whatever they lie in.
    let narrow = || weight.iter().all(|weight| weight.to_bits() << 16 == 0);
    let layout = Layout::new(size, narrow)?;
    let (body, steps) = (layout.body, layout.offsets());
    let (tall, inner) = (body.tall(), steps.len() * body.each());
    let panel = steps.len();
    let course = Course::new(body, steps, [1, layout.thirds], layout.steps * layout.places);
    let left = panels::pack([channels, inner], body, |channel, to| {
        layout.in_order(&weight[channel * size.column()..][..size.column()], to);
    });
    let mut y = Vec::<f32>::with_capacity(size.count * size.result());
    let shared = Shared::empty(y.spare_capacity_mut());
    let rows = layout.rows();
    let pieces = height.div_ceil(rows);
    (0..size.count * pieces).into_par_iter().for_each_init(Panels::default, |room, piece| {
        let (picture, first) = (piece / pieces, piece % pieces * rows);
        let rows = first..height.min(first + rows);
        layout.fill(&x[picture * size.picture()..][..size.picture()], rows.clone(), room);
        let (left, room) = (left.numbers(), room.numbers());
        // Tiles of 32 places, by the row of the result and the first of them.
        let places = rows
            .clone()
            .flat_map(|row| (0..width).step_by(tiles::WIDE).map(move |place| [row, place]));
        let places: Vec<_> = places.collect();
        let _ready = body.ready();
        for places in places.chunks(TOGETHER) {
            for channel in (0..channels).step_by(tall) {
                for [row, place] in places.iter().copied() {
                    let tall = tall.min(channels - channel);
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
                        let panel = &left[channel * panel..];
                        tiles::meet(body, y, [tall, wide], panel, &room[seen..], &course);
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
    /// Who reads it: a step is a channel, or a pair of them rounded to bf16.
    body: Body,
    /// Parts of each number: its rows lie one after another.
    thirds: usize,
    /// Channels, or pairs of them.
    steps: usize,
    /// Places of a row: with the border, and up to whole tiles.
    places: usize,
}

impl Layout {
    /// Nothing where the processor cannot.
    fn new(size: Size, narrow: impl FnOnce() -> bool) -> Option<Self> {
        let channels = size.input[0];
        let body = match Body::get(size.products.rounded(), narrow)? {
            // Matrices would be filled with more than one zero for every channel.
            Body::Matrices if !channels.is_multiple_of(32) => Body::Pairs,
            Body::Thirds if !channels.is_multiple_of(32) => Body::Wide,
            body => body,
        };
        let thirds = if body == Body::Thirds { panels::THIRDS } else { 1 };
        let steps = channels.div_ceil(body.each());
        let places = size.output[2].next_multiple_of(tiles::WIDE) + size.kernel[1] - 1;
        Some(Self { size, body, thirds, steps, places })
    }

    /// Numbers of a row.
    fn row(&self) -> usize {
        self.thirds * self.steps * self.places
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
            down * self.row() + step * self.places + across
        };
        let kernel = (0..tall).flat_map(|down| (0..wide).map(move |across| (down, across)));
        let kernel: Vec<_> = kernel.collect();
        let mut offsets = vec![0; self.steps * kernel.len()];
        for step in 0..self.steps {
            for (place, (down, across)) in kernel.iter().enumerate() {
                offsets[self.turn(step, place)] = offset(step, *down, *across);
            }
        }
        offsets
    }

    /// When a step meets a place of the kernel.
    fn turn(&self, step: usize, place: usize) -> usize {
        match self.body.of_matrices() {
            true => place * self.steps + step,
            false => step * self.size.kernel[0] * self.size.kernel[1] + place,
        }
    }

    /// The weight of an output, `[C_in, k·k]`, in the order of the steps, numbers of a pair side by
    /// side.
    fn in_order(&self, weight: &[f32], to: &mut [f32]) {
        let (each, kernel) = (self.body.each(), self.size.kernel[0] * self.size.kernel[1]);
        to.fill(0.0); // the last channel may have no other
        for (channel, weight) in weight.chunks_exact(kernel).enumerate() {
            for (place, weight) in weight.iter().enumerate() {
                to[self.turn(channel / each, place) * each + channel % each] = *weight;
            }
        }
    }

    /// Lays out what some rows of the result see of a picture.
    fn fill(&self, x: &[f32], rows: std::ops::Range<usize>, room: &mut Panels) {
        let ([channels, height, width], [top, left, ..]) =
            (self.size.input, self.size.rule.padding);
        let (count, each) = (rows.len() + self.size.kernel[0] - 1, self.body.each());
        room.resize(count * self.row());
        for (down, to) in room.numbers_mut().chunks_exact_mut(self.row()).take(count).enumerate() {
            let row = (rows.start + down).checked_sub(top).filter(|row| *row < height);
            for (at, to) in to.chunks_exact_mut(self.places).enumerate() {
                let (third, step) = (at / self.steps, at % self.steps);
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
                match self.body {
                    Body::Wide => to.copy_from_slice(bytemuck::cast_slice(&first[..seen])),
                    _ => {
                        let third = (self.body == Body::Thirds).then_some(third + 1);
                        panels::pair_up(&first[..seen], line(2 * step + 1), third, to);
                    }
                }
            }
        }
    }
}
