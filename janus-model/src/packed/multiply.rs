//! Products with packed weights.
//!
//! Bodies for two kinds of processors are in files of their own; elsewhere the compiler makes of
//! [`plain`] what it can. All give the same sums, bit by bit: sums of whole numbers are exact, and
//! what follows is the same in all. Bytes of weights decide up to some eight rows; beyond, 512
//! products of a group cost a dozen instructions.

use std::sync::LazyLock;

use rayon::prelude::*;

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::{BLOCK, Bits, GROUP, Line, PANEL, Packed, round, scale, weight};
#[cfg(target_arch = "x86_64")]
use super::{avx2, vnni};
use crate::ops::portions::in_portions;
use crate::ops::shared::Shared;
use crate::ops::simd::widest;

/// Rows of activations that meet a panel together.
const TOGETHER: usize = 8;
/// Panels that are one piece of work, and that one or two rows meet together where a body can. Two
/// streams are read up to half as fast again as one, if they are asked for into the second cache;
/// one stream is faster into the first.
pub(super) const ABREAST: usize = 2;

/// Activations as they are multiplied: 8 bits, in groups.
pub(super) struct Rounded {
    /// `[rows, groups · 32]`.
    pub values: Vec<i8>,
    /// `[rows, groups]`: what a group is multiplied by.
    pub scales: Vec<f32>,
    /// `[rows, groups]`: what takes away again what the offset of weights adds to a sum.
    pub start: Vec<i32>,
    pub groups: usize,
}

/// Who multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// [`plain`].
    Plain,
    /// `neon.rs`, with the dot product or without.
    #[cfg(target_arch = "aarch64")]
    Neon { dot: bool },
    /// `avx2.rs`.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// `vnni.rs`.
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Body {
    /// Those that the processor can, the fastest first.
    fn all() -> Vec<Self> {
        let mut bodies = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            bodies.extend(vnni::available().then_some(Self::Vnni));
            bodies.extend(avx2::available().then_some(Self::Avx2));
        }
        #[cfg(target_arch = "aarch64")]
        {
            bodies.extend(neon::has_dot_product().then_some(Self::Neon { dot: true }));
            bodies.push(Self::Neon { dot: false });
        }
        bodies.push(Self::Plain);
        bodies
    }

    /// The fastest.
    fn best() -> Self {
        static BEST: LazyLock<Body> = LazyLock::new(|| Body::all()[0]);
        *BEST
    }

    /// Adds the products of panels of `each` lines with some rows of activations, from `first` on;
    /// `sums` has those of the first panel first.
    fn meet(
        self,
        (lines, each): (&[Line], usize),
        bits: Bits,
        x: &Rounded,
        first: usize,
        sums: &mut [[f32; PANEL]],
    ) {
        let panels = lines.len() / each;
        let rows = sums.len() / panels;
        #[cfg(target_arch = "x86_64")]
        if self == Self::Vnni && panels == ABREAST && rows <= 2 {
            // SAFETY: only where it is available is there such a body.
            return unsafe { vnni::meet_abreast(lines, bits, x, first, sums) };
        }
        for (lines, sums) in lines.chunks_exact(each).zip(sums.chunks_exact_mut(rows)) {
            self.meet_panel(lines, bits, x, first, sums);
        }
    }

    fn meet_panel(
        self,
        lines: &[Line],
        bits: Bits,
        x: &Rounded,
        first: usize,
        sums: &mut [[f32; PANEL]],
    ) {
        match self {
            Self::Plain => {
                for (row, sums) in sums.iter_mut().enumerate() {
                    plain(lines, bits, x, first + row, sums);
                }
            }
            // SAFETY: only where it is available is there such a body.
            #[cfg(target_arch = "aarch64")]
            Self::Neon { dot } => unsafe { neon::meet(lines, bits, x, first, sums, dot) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::meet(lines, bits, x, first, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { vnni::meet(lines, bits, x, first, sums) },
        }
    }
}

impl Rounded {
    fn new(x: &[f32], rows: usize, input: usize, bits: Bits) -> Self {
        let groups = 2 * input.div_ceil(BLOCK);
        let mut values = vec![0; rows * groups * GROUP];
        let (mut scales, mut start) = (vec![0.0; rows * groups], vec![0; rows * groups]);
        let parts = values.par_chunks_mut(groups * GROUP);
        let parts = parts.zip(scales.par_chunks_mut(groups)).zip(start.par_chunks_mut(groups));
        parts.zip(x.par_chunks(input)).with_min_len(8).for_each(
            |(((values, scales), start), x)| {
                round::activations(x, values, scales, start);
                start.iter_mut().for_each(|sum| *sum *= -bits.offset());
            },
        );
        Self { values, scales, start, groups }
    }
}

/// A matrix while it is multiplied.
struct Part<'a> {
    lines: &'a [Line],
    output: usize,
    /// Its first piece of work, of those of all matrices.
    first: usize,
    to: Shared,
}

/// `[rows, in]` gives `[rows, out]` for each of these matrices, which are [alike](Packed::alike).
/// Activations are rounded once for all, and no thread waits for others between two of them.
pub(super) fn multiply(matrices: &[&Packed], x: &[f32], rows: usize) -> Vec<Vec<f32>> {
    multiply_by(matrices, x, rows, Body::best())
}

fn multiply_by(matrices: &[&Packed], x: &[f32], rows: usize, body: Body) -> Vec<Vec<f32>> {
    let (input, bits) = (matrices[0].input, matrices[0].bits);
    assert!(Packed::alike(matrices), "packed weights: matrices are not alike");
    assert_eq!(x.len(), rows * input, "packed weights: widths differ");
    if rows * input == 0 {
        return matrices.iter().map(|matrix| vec![0.0; rows * matrix.output]).collect();
    }
    let x = Rounded::new(x, rows, input, bits);
    let room = |matrix: &&Packed| Vec::<f32>::with_capacity(rows * matrix.output);
    let mut results: Vec<_> = matrices.iter().map(room).collect();
    let each = input.div_ceil(BLOCK) * bits.lines();
    let (mut parts, mut pieces) = (Vec::with_capacity(matrices.len()), 0);
    for (matrix, y) in matrices.iter().zip(&mut results) {
        let to = Shared::empty(y.spare_capacity_mut());
        let part = Part { lines: &matrix.lines, output: matrix.output, first: pieces, to };
        pieces += part.lines.len().div_ceil(ABREAST * each);
        parts.push(part);
    }
    let room = || [[0.0; PANEL]; ABREAST * TOGETHER];
    in_portions(pieces, room, |sums, piece| {
        let part = &parts[parts.partition_point(|part| part.first <= piece) - 1];
        part.meet(piece - part.first, (each, bits), (&x, rows), sums, body);
    });
    for (y, matrix) in results.iter_mut().zip(matrices) {
        // SAFETY: pieces have all panels, and each of them was met with all rows.
        unsafe { y.set_len(rows * matrix.output) };
    }
    results
}

impl Part<'_> {
    /// One piece of work: [`ABREAST`] panels of `each` lines, or what is left, and all rows; `sums` is
    /// room to work in.
    fn meet(
        &self,
        piece: usize,
        (each, bits): (usize, Bits),
        (x, rows): (&Rounded, usize),
        sums: &mut [[f32; PANEL]],
        body: Body,
    ) {
        let lines = &self.lines[piece * ABREAST * each..];
        let lines = &lines[..lines.len().min(ABREAST * each)];
        for first in (0..rows).step_by(TOGETHER) {
            let count = TOGETHER.min(rows - first);
            let sums = &mut sums[..lines.len() / each * count];
            sums.fill([0.0; PANEL]);
            body.meet((lines, each), bits, x, first, sums);
            for (at, sums) in sums.iter().enumerate() {
                let (row, column) = (first + at % count, (ABREAST * piece + at / count) * PANEL);
                let held = PANEL.min(self.output - column);
                // SAFETY: the row and the panel's columns lie in the result; no other piece owns
                // these columns.
                unsafe {
                    let to = self.to.at(row * self.output + column);
                    to.copy_from_nonoverlapping(sums.as_ptr(), held);
                }
            }
        }
    }
}

widest! {
    /// What every other body must equal, bit by bit.
    fn plain(lines: &[Line], bits: Bits, x: &Rounded, row: usize, sums: &mut [f32; PANEL]) {
        let _ = FMA;
        let values = &x.values[row * x.groups * GROUP..];
        for (block, lines) in lines.chunks_exact(bits.lines()).enumerate() {
            for half in 0..2 {
                let group = 2 * block + half;
                let mut whole = [x.start[row * x.groups + group]; PANEL];
                for k in 0..GROUP {
                    let value = i32::from(values[group * GROUP + k]);
                    for (lane, whole) in whole.iter_mut().enumerate() {
                        *whole += weight(lines, bits, lane, half * GROUP + k) * value;
                    }
                }
                let by = x.scales[row * x.groups + group];
                for (lane, (sum, whole)) in sums.iter_mut().zip(whole).enumerate() {
                    *sum += whole as f32 * (scale(&lines[0], half, lane).to_f32() * by);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, salt: u32) -> Vec<f32> {
        let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let some = std::iter::successors(Some(salt), next).skip(1).take(count);
        some.map(|x| (x >> 8) as f32 / 8_388_608.0 - 1.0).collect()
    }

    fn packed(weights: &[f32], output: usize, input: usize, bits: Bits) -> Packed {
        Packed::new([output, input], bits, |row, to| {
            to.copy_from_slice(&weights[row * input..][..input]);
        })
    }

    #[test]
    fn fast_is_plain_and_near_f64() {
        for bits in [Bits::Eight, Bits::Four] {
            for (output, input) in [(1, 1), (16, 64), (17, 65), (33, 96), (50, 200), (5, 2048)] {
                let weights = numbers(output * input, 7);
                let packed = packed(&weights, output, input, bits);
                let rounded = packed.values();
                for rows in [1, 2, 3, 7, 8, 9, 20] {
                    let x = numbers(rows * input, rows as u32);
                    let by = |body| multiply_by(&[&packed], &x, rows, body).remove(0);
                    let plain = by(Body::Plain);
                    for body in Body::all() {
                        let found = by(body);
                        assert_eq!(found, plain, "{body:?} {bits:?} {output} {input} {rows}");
                    }
                    let mut worst = 0.0f64;
                    for (at, y) in plain.iter().enumerate() {
                        let row = &rounded[at % output * input..][..input];
                        let x = &x[at / output * input..][..input];
                        let exact: f64 =
                            row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                        worst = worst.max((f64::from(*y) - exact).abs());
                    }
                    // Half a step of activations against weights up to 1, at random.
                    assert!(worst < 0.02 * (input as f64).sqrt(), "{output} {input} {worst}");
                }
            }
        }
    }

    #[test]
    fn matrices_met_together_are_met_as_if_alone() {
        for bits in [Bits::Eight, Bits::Four] {
            let outputs = [50, 0, 16, 33];
            let matrix = |output| packed(&numbers(output * 70, output as u32), output, 70, bits);
            let matrices = outputs.map(matrix);
            for rows in [0, 1, 2, 9] {
                let x = numbers(rows * 70, 5);
                let alone = |matrix| multiply(&[matrix], &x, rows).remove(0);
                let together = multiply(&matrices.each_ref(), &x, rows);
                assert_eq!(together, matrices.each_ref().map(alone));
            }
        }
    }
}
