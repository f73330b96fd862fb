//! Colour and shape of what is in a picture.

use std::ops::Range;

use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::Found;
use super::ground::{Differences, differences, median};
use super::parts::{Part, parts};
use crate::scenes::draw::{Outline, covered};
use crate::scenes::look::{Colour, Shape};
use crate::scenes::scene::SIDE;

/// A colour further from all of the palette, in RGB, is none of them.
const OFF: f32 = 75.0;
/// A mask that shares less with the best shape, of what either covers, has none.
const LIKENESS: f32 = 0.78;
/// How far the soft edge of a part may reach, in pixels.
const EDGE: usize = 2;
/// What differs by less of the inside's difference is no edge, but noise.
const FAINT: f32 = 0.12;
/// How much larger or smaller than by its area a shape is tried.
const SCALES: [f32; 3] = [0.95, 1.0, 1.05];
/// Widths of an edge in pixels: as it is drawn, and as it is left by blurring.
const SOFTNESS: [f32; 2] = [1.0, 2.2];
/// Tangents of half the angles that are tried: 8 degrees, and half of that.
const TURNS: [f32; 5] = [-0.07, -0.035, 0.0, 0.035, 0.07];

/// Everything in a picture, from the left. Large pictures are looked at in the size of scenes.
pub fn find(picture: &RgbImage) -> Vec<Found> {
    let longer = picture.width().max(picture.height());
    if longer == 0 {
        return Vec::new();
    }
    if longer > SIDE as u32 {
        let of = |side: u32| (side as f32 * SIDE / longer as f32).round().max(1.0) as u32;
        let (width, height) = (of(picture.width()), of(picture.height()));
        return find(&resize(picture, width, height, FilterType::Triangle));
    }
    let scale = longer as f32 / SIDE;
    let differences = differences(picture);
    let parts = parts(&differences, scale);
    let mut taken = vec![false; differences.values.len()];
    parts.iter().flat_map(|part| &part.pixels).for_each(|at| taken[*at] = true);
    let mut found: Vec<Found> = parts
        .into_iter()
        .map(|part| {
            let mask = Mask::new(&part, &differences, &taken);
            Found {
                shape: mask.shape(),
                colour: colour(picture, &part, differences.width),
                centre: mask.centre.map(|x| x / scale),
                radius: (mask.area / std::f32::consts::PI).sqrt() / scale,
            }
        })
        .collect();
    found.sort_by(|a, b| a.centre[0].total_cmp(&b.centre[0]));
    found
}

/// The palette's colour of the inside: edges are soft, and may have a line along them.
fn colour(picture: &RgbImage, part: &Part, width: usize) -> Option<Colour> {
    let depths = depths(part, width);
    let deepest = depths.iter().copied().max().unwrap_or(0);
    let inside = part.pixels.iter().zip(&depths).filter(|(_, depth)| **depth * 2 > deepest);
    let inside: Vec<[u8; 3]> = inside
        .map(|(at, _)| picture.get_pixel((at % width) as u32, (at / width) as u32).0)
        .collect();
    let middle: [f32; 3] = std::array::from_fn(|channel| {
        median(inside.iter().map(|pixel| f32::from(pixel[channel])).collect())
    });
    let distance = |colour: Colour| {
        let squares = colour.rgb().iter().zip(middle).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        squares.sqrt()
    };
    let nearest = Colour::ALL.into_iter().min_by(|a, b| distance(*a).total_cmp(&distance(*b)))?;
    (distance(nearest) < OFF).then_some(nearest)
}

/// How many steps each pixel is from the edge of its part.
fn depths(part: &Part, width: usize) -> Vec<u32> {
    let numbers: std::collections::HashMap<usize, usize> =
        part.pixels.iter().enumerate().map(|(number, at)| (*at, number)).collect();
    let mut depths = vec![0; part.pixels.len()];
    for depth in 1.. {
        let inner = |number: &usize| {
            let at = part.pixels[*number];
            // Beyond the picture there is nothing; rows are never joined, as parts are not.
            let around = [Some(at + 1), at.checked_sub(1), Some(at + width), at.checked_sub(width)];
            depths[*number] == depth - 1
                && around.into_iter().all(|at| {
                    at.and_then(|at| numbers.get(&at)).is_some_and(|n| depths[*n] >= depth - 1)
                })
        };
        let inner: Vec<usize> = (0..depths.len()).filter(inner).collect();
        if inner.is_empty() {
            break;
        }
        inner.into_iter().for_each(|number| depths[number] = depth);
    }
    depths
}

/// How much of each pixel around a part is covered by it.
struct Mask {
    left: usize,
    top: usize,
    width: usize,
    values: Vec<f32>,
    area: f32,
    centre: [f32; 2],
}

impl Mask {
    /// Of a part with its soft edge, which is nobody's else.
    fn new(part: &Part, differences: &Differences, taken: &[bool]) -> Self {
        let range = |of: &dyn Fn(usize) -> usize, end: usize| {
            let all = || part.pixels.iter().map(|at| of(*at));
            let (low, high) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
            // Room for the edge, and for shapes that do not fit.
            low.saturating_sub(EDGE)..(high + EDGE + 1).min(end)
        };
        let columns = range(&|at| at % differences.width, differences.width);
        let rows = range(&|at| at / differences.width, differences.height);
        let (left, top, width) = (columns.start, rows.start, columns.len());
        let values = vec![0.0; width * rows.len()];
        let mut mask = Self { left, top, width, values, area: 0.0, centre: [0.0; 2] };
        for at in &part.pixels {
            let (x, y) = (at % differences.width, at / differences.width);
            let around = |at: usize, range: &Range<usize>| {
                at.saturating_sub(EDGE).max(range.start)..(at + EDGE + 1).min(range.end)
            };
            for (row, column) in
                around(y, &rows).flat_map(|y| around(x, &columns).map(move |x| (y, x)))
            {
                let other = row * differences.width + column;
                let share = (differences.values[other] / part.strength).min(1.0);
                if other == *at || (!taken[other] && share > FAINT) {
                    mask.values[(row - top) * width + column - left] = share;
                }
            }
        }
        mask.area = mask.values.iter().sum();
        mask.centre = [0, 1].map(|axis| {
            let all = mask.values.iter().enumerate();
            all.map(|(at, value)| value * mask.place(at)[axis]).sum::<f32>() / mask.area
        });
        mask
    }

    fn place(&self, at: usize) -> [f32; 2] {
        [(self.left + at % self.width) as f32 + 0.5, (self.top + at / self.width) as f32 + 0.5]
    }

    /// The shape that shares most with the mask, however it is turned, and about as large.
    fn shape(&self) -> Option<Shape> {
        let upright = |shape| {
            let likeness =
                SOFTNESS.map(|softness| (self.like(shape, 0.0, 1.0, softness), softness));
            let [sharp, soft] = likeness;
            let (likeness, softness) = if soft.0 > sharp.0 { soft } else { sharp };
            (shape, likeness, softness)
        };
        let mut shapes = Shape::ALL.map(upright);
        shapes.sort_by(|a, b| b.1.total_cmp(&a.1));
        // Being turned by so little makes nothing else of the two that fit best.
        let (shape, likeness) = shapes[..2]
            .iter()
            .map(|(shape, _, softness)| (*shape, self.best(*shape, *softness)))
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        (likeness >= LIKENESS).then_some(shape)
    }

    fn best(&self, shape: Shape, softness: f32) -> f32 {
        let ways = TURNS.into_iter().flat_map(|turn| SCALES.map(|scale| (turn, scale)));
        ways.map(|(turn, scale)| self.like(shape, turn, scale, softness)).fold(0.0, f32::max)
    }

    /// How like a shape the mask is that has its middle, and so many times its size.
    fn like(&self, shape: Shape, turn: f32, scale: f32, softness: f32) -> f32 {
        let (area, offset) = shape.moments();
        let radius = scale * (self.area / area).sqrt();
        let [x, y] = self.centre;
        let outline = Outline::of(shape, [x, y - offset * radius], radius, turn);
        self.likeness(|at| covered(outline.distance(at) / softness))
    }

    /// Of what either covers, the part that both do.
    fn likeness(&self, other: impl Fn([f32; 2]) -> f32) -> f32 {
        let (mut both, mut either) = (0.0, 0.0);
        for (at, value) in self.values.iter().enumerate() {
            let other = other(self.place(at));
            both += value.min(other);
            either += value.max(other);
        }
        both / f32::max(either, 1e-6)
    }
}
