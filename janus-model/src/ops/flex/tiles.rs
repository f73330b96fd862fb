//! `y = a·b` on processors that multiply pairs of bf16 (AVX-512 BF16): factors as they are, or
//! rounded to bf16 at twice the speed; sums in f32 either way.
//!
//! Both factors are packed first, into [`panels`](super::panels). Then [`TALL`]×[`WIDE`] sums stay in
//! registers while panels stream by, 768 FLOP (bf16: 1536) for 176 bytes of cache. Packing reads each
//! factor once.
//!
//! Anywhere else, [`multiply`] declines, and `gemm` does it in f32.

use super::panels::{Lines, available};

/// Rows of a tile: with two registers each, 24 of 32 registers hold sums.
pub const TALL: usize = 12;
/// Columns of a tile: two registers.
pub const WIDE: usize = 32;

/// Where a product goes: its first number, the distance of its rows, and whether it is added to
/// what is there.
#[derive(Clone, Copy)]
pub struct Sink {
    /// The first number.
    pub at: *mut f32,
    /// From row to row.
    pub stride: usize,
    /// Whether the product is added.
    pub add: bool,
}

/// How a product is worked out.
#[derive(Clone, Copy)]
pub struct Way {
    /// Factors are rounded to bf16.
    pub half: bool,
    /// On all threads; otherwise on this one.
    pub parallel: bool,
}

/// The product of the lines of `a` with those of `b`; `false`, and nothing is done, where the
/// processor cannot.
///
/// # Safety
/// `y` must be valid for as many rows and columns as there are lines, and nobody else may use these
/// numbers meanwhile.
pub unsafe fn multiply(y: Sink, a: Lines, b: Lines, way: Way) -> bool {
    assert_eq!(a.inner, b.inner, "product: widths differ");
    #[cfg(target_arch = "x86_64")]
    if available() {
        // SAFETY: the same contract; the features were just detected.
        unsafe {
            match way.half {
                true => x86::multiply::<true>(y, a, b, way.parallel),
                false => x86::multiply::<false>(y, a, b, way.parallel),
            }
        }
        return true;
    }
    let _ = (y, way);
    false
}

/// Up to [`TALL`]×[`WIDE`] numbers of a product: a panel as [`pack`](super::panels::pack) makes it, and a right factor of which
/// [`WIDE`] numbers of every step lie side by side, as far from its beginning as `steps` says.
///
/// # Safety
/// `y` must be valid for so many rows and columns, and nobody else may use these numbers meanwhile.
/// The panel must have all steps, and the right factor [`WIDE`] numbers at each of them.
pub unsafe fn meet(
    y: Sink,
    size: [usize; 2],
    panel: &[u32],
    right: &[u32],
    steps: &[usize],
    half: bool,
) {
    debug_assert!(panel.len() >= steps.len() * TALL);
    debug_assert!(steps.iter().all(|at| at + WIDE <= right.len()));
    assert!(available(), "tiles: the processor lacks what they take");
    let _ = (y, size, half);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the same contract; the processor can.
    unsafe {
        let (panel, right) = (panel.as_ptr(), right.as_ptr());
        let at = |step: usize| *steps.get_unchecked(step);
        match half {
            true => x86::tile::<true>(y, size, panel, right, at, steps.len()),
            false => x86::tile::<false>(y, size, panel, right, at, steps.len()),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::cell::RefCell;

    use rayon::prelude::*;

    use super::{Lines, Sink, TALL, WIDE};
    use crate::ops::flex::panels::x86::{each, mask, pack};

    /// Columns per parallel piece, at most: packed, they stay in the second cache.
    const BLOCK: usize = 64;

    thread_local! {
        /// Room for what is packed, kept so that its pages need not be asked for again.
        static ROOM: [RefCell<Vec<u32>>; 2] = const { [const { RefCell::new(Vec::new()) }; 2] };
    }

    /// Packed numbers while parallel pieces fill and read them.
    #[derive(Clone, Copy)]
    struct Packed(*mut u32);

    // SAFETY: every panel is filled by one piece, and read when all are filled.
    unsafe impl Send for Packed {}
    // SAFETY: as above.
    unsafe impl Sync for Packed {}
    // SAFETY: every piece writes columns of its own.
    unsafe impl Send for Sink {}
    // SAFETY: as above.
    unsafe impl Sync for Sink {}

    /// Calls `work` with room for so many packed numbers, which it fills before it reads them.
    fn with_room(which: usize, count: usize, work: impl FnOnce(Packed)) {
        ROOM.with(|rooms| match rooms[which].try_borrow_mut() {
            Ok(mut room) => {
                room.clear();
                room.reserve(count);
                work(Packed(room.as_mut_ptr()));
            }
            // This thread waits inside of another product, and does a piece of this one meanwhile.
            Err(_) => work(Packed(Vec::with_capacity(count).as_mut_ptr())),
        });
    }

    /// # Safety
    /// As [`super::multiply`], on a processor where it is [`available`](super::available).
    pub unsafe fn multiply<const HALF: bool>(y: Sink, a: Lines, b: Lines, parallel: bool) {
        let steps = a.inner.div_ceil(each::<HALF>());
        let panels = a.count.div_ceil(TALL);
        with_room(0, panels * TALL * steps, |left| {
            let pack_left = |panel: usize| {
                let to = { left }.0.wrapping_add(panel * TALL * steps);
                // SAFETY: the room is large enough for all panels.
                unsafe { pack::<HALF, TALL>(a, panel * TALL, to) };
            };
            let threads = if parallel { rayon::current_num_threads() } else { 1 };
            let block = if b.count >= 2 * threads * BLOCK { BLOCK } else { WIDE };
            let fill = |piece: usize| {
                // SAFETY: the same contract; columns from `piece · block` on are this piece's.
                unsafe { columns::<HALF>(y, [a.count, steps], left, b, [piece, block]) };
            };
            let pieces = b.count.div_ceil(block);
            if parallel {
                (0..panels).into_par_iter().with_min_len(4).for_each(pack_left);
                (0..pieces).into_par_iter().for_each(fill);
            } else {
                (0..panels).for_each(pack_left);
                (0..pieces).for_each(fill);
            }
        });
    }

    /// One block of columns of the result.
    unsafe fn columns<const HALF: bool>(
        y: Sink,
        [rows, steps]: [usize; 2],
        left: Packed,
        b: Lines,
        [piece, block]: [usize; 2],
    ) {
        let first = piece * block;
        let columns = block.min(b.count - first);
        let groups = columns.div_ceil(WIDE);
        with_room(1, groups * WIDE * steps, |right| {
            let right = |group: usize| right.0.wrapping_add(group * WIDE * steps);
            for group in 0..groups {
                // SAFETY: the room is large enough for all groups.
                unsafe { pack::<HALF, WIDE>(b, first + group * WIDE, right(group)) };
            }
            for row in (0..rows).step_by(TALL) {
                for group in 0..groups {
                    let column = group * WIDE;
                    let at = y.at.wrapping_add(row * y.stride + first + column);
                    let size = [TALL.min(rows - row), WIDE.min(columns - column)];
                    // SAFETY: the tile lies in the result; both panels are packed.
                    unsafe {
                        let left = left.0.wrapping_add(row * steps);
                        let along = |step| step * WIDE;
                        tile::<HALF>(Sink { at, ..y }, size, left, right(group), along, steps);
                    }
                }
            }
        });
    }

    /// Up to [`TALL`]×[`WIDE`] numbers of the result. `along` says where in the right factor a step is.
    ///
    /// # Safety
    /// The panels hold so many steps; the result has so many rows and columns.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn tile<const HALF: bool>(
        y: Sink,
        [rows, columns]: [usize; 2],
        left: *const u32,
        right: *const u32,
        along: impl Fn(usize) -> usize,
        steps: usize,
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; TALL];
        for step in 0..steps {
            // SAFETY: the panels are as long as this.
            unsafe {
                // No closures: those are not always compiled into the loop they stand in.
                let right = right.add(along(step));
                let first = _mm512_loadu_si512(right.cast());
                let second = _mm512_loadu_si512(right.add(16).cast());
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_epi32((*left.add(step * TALL + i)).cast_signed());
                    sums[0] = multiply_add::<HALF>(a, first, sums[0]);
                    sums[1] = multiply_add::<HALF>(a, second, sums[1]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate().take(rows) {
            for (half, sum) in sums.iter().enumerate() {
                let held = mask(columns.saturating_sub(16 * half));
                let at = y.at.wrapping_add(i * y.stride + 16 * half);
                // SAFETY: the mask ends with the columns of the result.
                unsafe {
                    let before = _mm512_maskz_loadu_ps(if y.add { held } else { 0 }, at);
                    _mm512_mask_storeu_ps(at, held, _mm512_add_ps(before, *sum));
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    fn multiply_add<const HALF: bool>(a: __m512i, b: __m512i, sum: __m512) -> __m512 {
        match HALF {
            // SAFETY: all types are 64 bytes, and any bits will do.
            true => unsafe {
                let pairs = |x| std::mem::transmute::<__m512i, __m512bh>(x);
                _mm512_dpbf16_ps(sum, pairs(a), pairs(b))
            },
            false => _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// Numbers in (-1, 1), always the same ones.
    fn numbers(count: usize, salt: u32) -> Vec<f32> {
        let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let some = std::iter::successors(Some(salt), next).skip(1).take(count);
        some.map(|x| (x >> 8) as f32 / 8_388_608.0 - 1.0).collect()
    }

    /// Line after line, or number by number, or apart.
    fn strides([count, inner]: [usize; 2], way: usize) -> [usize; 2] {
        [[inner, 1], [1, count], [2 * inner + 1, 2]][way]
    }

    #[test]
    fn products_are_those_of_single_numbers() {
        let round = |half: bool, x: f32| if half { bf16::from_f32(x).to_f32() } else { x };
        let (mut cases, mut worst) = (0, 0.0f32);
        for [rows, columns, inner] in
            [[1, 1, 1], [13, 33, 7], [12, 32, 64], [25, 70, 129], [37, 95, 31], [5, 300, 66]]
        {
            for case in 0..36 {
                let (half, parallel) = (case % 2 == 1, case / 2 % 2 == 1);
                let [to_left, to_right] = [case / 4 % 3, case / 12]
                    .map(|way| move |count: usize| strides([count, inner], way));
                let (left, right) = (to_left(rows), to_right(columns));
                let [a, b] = [(rows, left), (columns, right)].map(|(count, [down, across])| {
                    numbers(count * down + inner * across, count as u32)
                });
                let mut y = vec![0.5f32; rows * columns];
                let sink = Sink { at: y.as_mut_ptr(), stride: columns, add: true };
                let lines = [
                    Lines::wide(&a, [rows, inner], left),
                    Lines::wide(&b, [columns, inner], right),
                ];
                // SAFETY: `y` has as many rows and columns as there are lines.
                let done = unsafe { multiply(sink, lines[0], lines[1], Way { half, parallel }) };
                assert_eq!(done, available());
                if !done {
                    return; // Nothing to compare on this processor; `gemm` does it.
                }
                for (index, y) in y.iter().enumerate() {
                    let (i, j) = (index / columns, index % columns);
                    let term = |k: usize| {
                        let a = round(half, a[i * left[0] + k * left[1]]);
                        f64::from(a) * f64::from(round(half, b[j * right[0] + k * right[1]]))
                    };
                    let expected = 0.5 + (0..inner).map(term).sum::<f64>() as f32;
                    worst = worst.max((y - expected).abs());
                }
                cases += 1;
            }
        }
        assert_eq!(cases, 6 * 36);
        assert!(worst < 1e-5, "{worst}"); // measured: 5.7e-6
    }

    #[test]
    fn bf16_lines_are_what_they_say() {
        let [rows, columns, inner] = [30, 45, 70];
        let a = numbers(rows * inner, 1);
        let b: Vec<bf16> = numbers(columns * inner, 2).into_iter().map(bf16::from_f32).collect();
        let wide: Vec<f32> = b.iter().map(|x| x.to_f32()).collect();
        for half in [false, true] {
            let way = Way { half, parallel: true };
            let product = |right: Lines| {
                let mut y = vec![0.0f32; rows * columns];
                let sink = Sink { at: y.as_mut_ptr(), stride: columns, add: false };
                let left = Lines::wide(&a, [rows, inner], [inner, 1]);
                // SAFETY: `y` has as many rows and columns as there are lines.
                unsafe { multiply(sink, left, right, way) }.then_some(y)
            };
            let expected = product(Lines::wide(&wide, [columns, inner], [inner, 1]));
            assert_eq!(product(Lines::narrow(&b, [columns, inner])), expected);
        }
    }
}
