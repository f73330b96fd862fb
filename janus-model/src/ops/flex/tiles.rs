//! `y = a·b` on processors that multiply pairs of bf16 (AVX-512 BF16, AMX): factors as they are, or
//! rounded to bf16 at twice the speed, or many times where there are [`matrices`]; sums in f32 either
//! way.
//!
//! Both factors are packed first, into [`panels`](super::panels). Then [`TALL`]×[`WIDE`] sums stay in
//! registers while panels stream by, 768 FLOP (bf16: 1536) for 176 bytes of cache. Packing reads each
//! factor once.
//!
//! Anywhere else, [`multiply`] declines, and `gemm` does it in f32.

#[cfg(target_arch = "x86_64")]
use super::matrices;
#[cfg(target_arch = "x86_64")]
use super::panels::Panels;
use super::panels::{Lines, available};

/// Rows of a tile in vectors: with two registers each, 24 of 32 registers hold sums.
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

/// Who works tiles out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub enum Body {
    /// Vectors of f32.
    Wide,
    /// Vectors of pairs of bf16.
    Pairs,
    /// [`matrices`] of pairs of bf16.
    Matrices,
    /// The same where one factor is bf16, and each number of the other one is the three bf16 that it is
    /// the sum of: nothing is rounded. (Of two f32, it would be six products of such parts, and vectors
    /// are as fast.)
    Thirds,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Body {
    /// Of factors that are rounded to bf16, or of which one is bf16 already, or neither; nobody where the
    /// processor cannot. Whether one is, is asked where it matters.
    pub fn get(half: bool, narrow: impl FnOnce() -> bool) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if matrices::available() && (half || narrow()) {
            return Some(if half { Self::Matrices } else { Self::Thirds });
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = narrow;
        available().then_some(if half { Self::Pairs } else { Self::Wide })
    }

    /// Numbers of a step: one f32, or a pair.
    pub fn each(self) -> usize {
        if self == Self::Wide { 1 } else { 2 }
    }

    /// Rows of a tile.
    pub fn tall(self) -> usize {
        if self.of_matrices() { 32 } else { TALL }
    }

    /// Whether [`matrices`] do it.
    pub fn of_matrices(self) -> bool {
        matches!(self, Self::Matrices | Self::Thirds)
    }

    /// Parts in which a panel has each of such numbers.
    pub fn thirds(self, lines: &Lines) -> usize {
        if self == Self::Thirds { lines.thirds() } else { 1 }
    }

    /// Steps that a panel has (of every part of numbers), of lines of so many numbers.
    pub fn steps(self, inner: usize) -> usize {
        let steps = inner.div_ceil(self.each());
        if self.of_matrices() { steps.next_multiple_of(16) } else { steps }
    }

    /// To be called by a thread before [`meet`], and kept meanwhile.
    pub fn ready(self) -> Ready {
        #[cfg(target_arch = "x86_64")]
        return Ready(self.of_matrices().then(matrices::Configured::new));
        #[cfg(not(target_arch = "x86_64"))]
        Ready()
    }
}

/// What meets what, in turn.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Course {
    /// Of vectors: where the right factor has each step.
    steps: Vec<usize>,
    /// Of matrices: where the left and the right factor have sixteen steps.
    sixteens: Vec<[u32; 2]>,
    /// From step to step of the right factor in the latter.
    distance: usize,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Course {
    /// Of a right factor that is packed, of lines of so many numbers.
    fn packed(body: Body, inner: usize, thirds: [usize; 2]) -> Self {
        let at = |step: usize| (step / 16 * 16 * thirds[1] + step % 16) * WIDE;
        Self::new(body, (0..body.steps(inner)).map(at).collect(), thirds, 16 * WIDE)
    }

    /// Of a right factor that has step after step at `steps`, and its parts so far `apart`; each factor in
    /// so many `thirds`, one of them in one. Steps of matrices are whole sixteens, in each of which all are
    /// equally far from one to the next.
    ///
    /// # Panics
    /// Unless they are, or where 4 GiB do not hold a factor.
    pub fn new(body: Body, steps: Vec<usize>, thirds: [usize; 2], apart: usize) -> Self {
        if !body.of_matrices() {
            return Self { steps, sixteens: Vec::new(), distance: 0 };
        }
        // The smallest products first.
        let meets: &[[usize; 2]] = match thirds {
            [1, 1] => &[[0, 0]],
            [_, 1] => &[[2, 0], [1, 0], [0, 0]],
            _ => &[[0, 2], [0, 1], [0, 0]],
        };
        let distance = steps.get(1).map_or(0, |second| second - steps[0]);
        let narrow = |at: usize| u32::try_from(at).expect("tiles: a factor is too large");
        let sixteen = |(index, steps): (usize, &[usize])| {
            assert!(steps.len() == 16 && steps.windows(2).all(|two| two[1] == two[0] + distance));
            let first = steps[0];
            meets.iter().map(move |[left, right]| {
                let left = (index * thirds[0] + left) * 16 * body.tall();
                [left, first + right * apart].map(narrow)
            })
        };
        let sixteens = steps.chunks(16).enumerate().flat_map(sixteen).collect();
        Self { steps: Vec::new(), sixteens, distance }
    }
}

/// Of a thread that meets panels.
#[allow(dead_code, reason = "it is there to be dropped")]
pub struct Ready(#[cfg(target_arch = "x86_64")] Option<matrices::Configured>);

/// The product of the lines of `a` with those of `b`; `false`, and nothing is done, where the
/// processor cannot, or where lines hold nothing.
///
/// # Safety
/// `y` must be valid for as many rows and columns as there are lines, and nobody else may use these
/// numbers meanwhile.
pub unsafe fn multiply(y: Sink, a: Lines, b: Lines, way: Way) -> bool {
    assert_eq!(a.inner, b.inner, "product: widths differ");
    if a.inner == 0 {
        return false;
    }
    let Some(body) = Body::get(way.half, || b.thirds() == 1) else { return false };
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the same contract; the processor has what the body takes.
    unsafe {
        x86::multiply(body, y, a, b, way.parallel);
    }
    let _ = (y, body);
    true
}

/// Up to [`Body::tall`]×[`WIDE`] numbers of a product: a panel as [`pack`](super::panels::pack) makes it,
/// and a right factor of which [`WIDE`] numbers of every step lie side by side, where the course says.
///
/// # Safety
/// `y` must be valid for so many rows and columns, and nobody else may use these numbers meanwhile.
/// The panel must have all steps, and the right factor [`WIDE`] numbers at each of them. The course must
/// be of this body, and the thread [`Body::ready`].
pub unsafe fn meet(
    body: Body,
    y: Sink,
    size: [usize; 2],
    panel: &[u32],
    right: &[u32],
    course: &Course,
) {
    debug_assert!(course.steps.iter().all(|at| at + WIDE <= right.len()));
    let _ = (y, size, panel);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the same contract; the processor has what the body takes.
    unsafe {
        x86::tile(body, y, size, [panel.as_ptr(), right.as_ptr()], course, panel.as_ptr());
    }
}

/// Up to [`WIDE`] lines as a right factor, and the course that a left one of one part meets them in.
///
/// # Panics
/// Where the processor lacks what the body takes, or where there are more lines.
#[cfg(target_arch = "x86_64")]
pub fn right(body: Body, lines: Lines) -> (Panels, Course) {
    assert!(available() && (!body.of_matrices() || matrices::available()) && lines.count <= WIDE);
    let thirds = [1, body.thirds(&lines)];
    let mut panel = Panels::default();
    panel.resize(body.steps(lines.inner) * thirds[1] * WIDE);
    // SAFETY: the processor can, and there is room for all steps.
    unsafe { x86::pack_right(body, lines, 0, panel.numbers_mut().as_mut_ptr()) };
    (panel, Course::packed(body, lines.inner, thirds))
}

/// [`Body::tall`] lines of bf16 from `first` on as a left factor.
///
/// # Panics
/// Where the processor lacks what the body takes, or the panel has no room for it.
#[cfg(target_arch = "x86_64")]
pub fn left(body: Body, lines: Lines, first: usize, panel: &mut Panels) {
    let panel = panel.numbers_mut();
    assert!(available() && (!body.of_matrices() || matrices::available()));
    assert!(body.thirds(&lines) == 1 && panel.len() >= body.steps(lines.inner) * body.tall());
    // SAFETY: the processor can, and there is room for all steps.
    unsafe { x86::pack_left(body, 1, lines, first, panel.as_mut_ptr()) };
}

#[cfg(target_arch = "x86_64")]
pub use x86::pack_left;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::cell::RefCell;
    use std::ops::Range;

    use rayon::prelude::*;

    use super::{Body, Course, Lines, Sink, TALL, WIDE, matrices};
    use crate::ops::flex::panels::x86::{mask, pack, pack_in_thirds};
    use crate::ops::flex::panels::{LINES, Line, STEPS};

    /// Columns per parallel piece of vectors, at most: packed, they stay in the second cache.
    const BLOCK: usize = 64;
    /// Packed numbers of a piece of matrices, at most: 1 MiB.
    const SHARE: usize = 1 << 18;
    /// Steps that matrices meet at a time, at most: so, 256 columns fit into such a piece, and a panel of
    /// the left factor into the second cache beside them.
    const SLICE: usize = 1024;

    thread_local! {
        /// Room for what is packed, kept so that its pages need not be asked for again.
        static ROOM: [RefCell<Vec<Line>>; 2] = const { [const { RefCell::new(Vec::new()) }; 2] };
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
        let count = count.div_ceil(16);
        ROOM.with(|rooms| match rooms[which].try_borrow_mut() {
            Ok(mut room) => {
                room.clear();
                room.reserve(count);
                work(Packed(room.as_mut_ptr().cast()));
            }
            // This thread waits inside of another product, and does a piece of this one meanwhile.
            Err(_) => work(Packed(Vec::<Line>::with_capacity(count).as_mut_ptr().cast())),
        });
    }

    /// [`Body::tall`] lines from `first` on as the body takes its left factor, in one part or in all.
    ///
    /// # Safety
    /// The processor must have what the body takes; there must be room for [`Body::steps`] of so many
    /// parts of lines.
    pub unsafe fn pack_left(body: Body, thirds: usize, from: Lines, first: usize, to: *mut u32) {
        // SAFETY: the same contract.
        unsafe {
            match body {
                Body::Wide => pack::<false, TALL, STEPS>(from, first, to),
                Body::Pairs => pack::<true, TALL, STEPS>(from, first, to),
                Body::Thirds if thirds > 1 => {
                    pack_in_thirds::<{ matrices::TALL }, LINES>(from, first, to);
                }
                Body::Matrices | Body::Thirds => {
                    pack::<true, { matrices::TALL }, LINES>(from, first, to);
                }
            }
        }
    }

    /// [`WIDE`] lines from `first` on as the body takes its right factor.
    ///
    /// # Safety
    /// As [`pack_left`].
    pub unsafe fn pack_right(body: Body, from: Lines, first: usize, to: *mut u32) {
        let (steps, thirds) = (body.steps(from.inner), body.thirds(&from));
        // SAFETY: the same contract; the last sixteen steps are zeros where there is none.
        unsafe {
            if body.of_matrices() && !from.inner.is_multiple_of(32) {
                let last = (steps - 16) * thirds * WIDE;
                to.add(last).write_bytes(0, 16 * thirds * WIDE);
            }
            match body {
                Body::Wide => pack::<false, WIDE, STEPS>(from, first, to),
                Body::Thirds if thirds > 1 => pack_in_thirds::<WIDE, STEPS>(from, first, to),
                Body::Pairs | Body::Matrices | Body::Thirds => {
                    pack::<true, WIDE, STEPS>(from, first, to);
                }
            }
        }
    }

    /// A product while it is worked out.
    struct Product<'a> {
        body: Body,
        y: Sink,
        rows: usize,
        /// Panels of the left factor, and packed numbers of one.
        left: (Packed, usize),
        b: Lines<'a>,
        slices: Vec<Slice>,
    }

    /// What meets at a time: these numbers of all lines.
    struct Slice {
        numbers: Range<usize>,
        /// Where a panel of the left factor has them.
        left: usize,
        course: Course,
    }

    /// Numbers of lines in slices, all at once for vectors.
    fn slices(body: Body, inner: usize, thirds: [usize; 2]) -> Vec<Slice> {
        let steps = body.steps(inner);
        let count = if body.of_matrices() { steps.div_ceil(SLICE).max(1) } else { 1 };
        let each = steps.div_ceil(count).next_multiple_of(16);
        let slice = |first: usize| {
            let numbers = first * body.each()..inner.min((first + each) * body.each());
            let course = Course::packed(body, numbers.len(), thirds);
            Slice { numbers, left: first * thirds[0] * body.tall(), course }
        };
        (0..steps).step_by(each.max(1)).map(slice).collect()
    }

    /// # Safety
    /// As [`super::multiply`], on a processor that has what the body takes.
    pub unsafe fn multiply(body: Body, y: Sink, a: Lines, b: Lines, parallel: bool) {
        let (steps, tall) = (body.steps(a.inner), body.tall());
        let thirds = [&a, &b].map(|lines| body.thirds(lines));
        let (panels, each) = (a.count.div_ceil(tall), tall * steps * thirds[0]);
        let slices = slices(body, a.inner, thirds);
        with_room(0, panels * each, |left| {
            let pack_left = |panel: usize| {
                let to = { left }.0.wrapping_add(panel * each);
                // SAFETY: the room is large enough for all panels.
                unsafe { pack_left(body, thirds[0], a, panel * tall, to) };
            };
            let threads = if parallel { rayon::current_num_threads() } else { 1 };
            let block = match body {
                // The left factor is read once for every block, which is what it costs them.
                _ if body.of_matrices() => {
                    let fair = b.count.div_ceil(2 * threads).next_multiple_of(WIDE);
                    let deep = steps.min(SLICE) * thirds[1];
                    fair.min(SHARE / deep.max(1) / WIDE * WIDE).max(WIDE)
                }
                _ if b.count >= 2 * threads * BLOCK => BLOCK,
                _ => WIDE,
            };
            let product = Product { body, y, rows: a.count, left: (left, each), b, slices };
            let fill = |piece: usize| {
                let columns = piece * block..b.count.min((piece + 1) * block);
                // SAFETY: the same contract; these columns are this piece's.
                unsafe { product.columns(columns) };
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

    impl Product<'_> {
        /// Some columns of the result.
        ///
        /// # Safety
        /// As [`multiply`], with the left factor packed; nobody else may use these columns.
        unsafe fn columns(&self, columns: Range<usize>) {
            let (groups, thirds) = (columns.len().div_ceil(WIDE), self.body.thirds(&self.b));
            let _ready = self.body.ready();
            for slice in &self.slices {
                let b = self.b.along(slice.numbers.clone());
                let panel = WIDE * self.body.steps(b.inner) * thirds;
                with_room(1, groups * panel, |right| {
                    let right = |group: usize| right.0.wrapping_add(group * panel);
                    for group in 0..groups {
                        let first = columns.start + group * WIDE;
                        // SAFETY: the room is large enough for all groups.
                        unsafe { pack_right(self.body, b, first, right(group)) };
                    }
                    // SAFETY: the same contract; all groups are packed.
                    unsafe { self.tiles(slice, columns.clone(), right) };
                });
            }
        }

        /// Tiles of some columns, row after row of them.
        ///
        /// # Safety
        /// As [`Self::columns`], with the right factor packed.
        unsafe fn tiles(
            &self,
            slice: &Slice,
            columns: Range<usize>,
            right: impl Fn(usize) -> *mut u32,
        ) {
            let (tall, (left, each)) = (self.body.tall(), self.left);
            let y = Sink { add: self.y.add || slice.left > 0, ..self.y };
            for (panel, row) in (0..self.rows).step_by(tall).enumerate() {
                let left = left.0.wrapping_add(panel * each + slice.left);
                for (group, column) in columns.clone().step_by(WIDE).enumerate() {
                    let at = y.at.wrapping_add(row * y.stride + column);
                    let size = [tall.min(self.rows - row), WIDE.min(columns.end - column)];
                    let fetched = group * slice.course.sixteens.len() * matrices::FETCHED;
                    let next = if group < 8 { each + fetched } else { 0 };
                    // SAFETY: the tile lies in the result; both panels are packed.
                    unsafe {
                        let sink = Sink { at, ..y };
                        let next = left.wrapping_add(next);
                        tile(self.body, sink, size, [left, right(group)], &slice.course, next);
                    }
                }
            }
        }
    }

    /// As [`super::meet`]. [`matrices`] fetch what lies at `next`, which need not be there.
    ///
    /// # Safety
    /// As there, on a processor that has what the body takes.
    #[inline]
    pub unsafe fn tile(
        body: Body,
        y: Sink,
        size: [usize; 2],
        [left, right]: [*const u32; 2],
        course: &Course,
        next: *const u32,
    ) {
        let Course { steps, sixteens, distance } = course;
        // SAFETY: the same contract.
        unsafe {
            match body {
                Body::Wide => in_vectors::<false>(y, size, left, right, steps),
                Body::Pairs => in_vectors::<true>(y, size, left, right, steps),
                Body::Matrices | Body::Thirds => {
                    matrices::tile(y, size, left, right, (sixteens, *distance), next);
                }
            }
        }
    }

    /// Up to [`TALL`]×[`WIDE`] numbers of the result.
    ///
    /// # Safety
    /// The panels hold so many steps; the result has so many rows and columns.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn in_vectors<const HALF: bool>(
        y: Sink,
        [rows, columns]: [usize; 2],
        left: *const u32,
        right: *const u32,
        along: &[usize],
    ) {
        let mut sums = [[_mm512_setzero_ps(); 2]; TALL];
        for (step, along) in along.iter().enumerate() {
            // SAFETY: the panels are as long as this.
            unsafe {
                // No closures: those are not always compiled into the loop they stand in.
                let right = right.add(*along);
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
        let (mut cases, mut worst) = (0, 0.0f64);
        // The last one is longer than a slice of matrices.
        for [rows, columns, inner] in [
            [1, 1, 1],
            [13, 33, 7],
            [12, 32, 64],
            [25, 70, 129],
            [37, 95, 31],
            [5, 300, 66],
            [5, 33, 4099],
        ] {
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
                    let expected = 0.5 + (0..inner).map(term).sum::<f64>();
                    let whole = 0.5 + (0..inner).map(|k| term(k).abs()).sum::<f64>();
                    worst = worst.max((f64::from(*y) - expected).abs() / whole);
                }
                cases += 1;
            }
        }
        assert_eq!(cases, 7 * 36);
        assert!(worst < 6e-7, "{worst:.1e}"); // measured: 1.9e-7 of Σ|a·b|
    }

    /// The same products as of these numbers in f32; by matrices, which take three parts of the other
    /// factor, their sums have another order.
    #[test]
    fn bf16_lines_are_what_they_say() {
        let mut worst = 0.0f64;
        for [rows, columns, inner] in
            [[30, 45, 70], [1, 1, 1], [33, 64, 32], [70, 33, 129], [33, 40, 4099]]
        {
            let a = numbers(rows * inner, 1);
            let b: Vec<bf16> =
                numbers(columns * inner, 2).into_iter().map(bf16::from_f32).collect();
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
                let found = product(Lines::narrow(&b, [columns, inner]));
                if Body::get(half, || true) != Some(Body::Thirds) {
                    assert_eq!(found, expected);
                    continue;
                }
                for (index, found) in found.unwrap().into_iter().enumerate() {
                    let (i, j) = (index / columns, index % columns);
                    let terms = a[i * inner..][..inner].iter().zip(&wide[j * inner..][..inner]);
                    let terms = terms.map(|(a, b)| f64::from(*a) * f64::from(*b));
                    let (exact, whole) =
                        (terms.clone().sum::<f64>(), terms.map(f64::abs).sum::<f64>());
                    worst = worst.max((f64::from(found) - exact).abs() / whole);
                }
            }
        }
        assert!(worst < 3e-7, "{worst:.1e}"); // measured: 6.1e-8 of Σ|a·b|
    }
}
