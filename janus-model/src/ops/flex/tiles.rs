//! `y = a·b` on processors that multiply pairs of bf16 (AVX-512 BF16): factors as they are, or
//! rounded to bf16 at twice the speed; sums in f32 either way.
//!
//! Both factors are packed first: what is met at once lies side by side, four bytes per line, which
//! is one f32 or a pair of bf16. Then [`TALL`]×[`WIDE`] sums stay in registers while panels stream
//! by, 768 FLOP (bf16: 1536) for 176 bytes of cache. Packing reads each factor once.
//!
//! Anywhere else, [`multiply`] declines, and `gemm` does it in f32.

use half::bf16;

/// Rows of a tile: with two registers each, 24 of 32 registers hold sums.
pub const TALL: usize = 12;
/// Columns of a tile: two registers.
pub const WIDE: usize = 32;

/// Numbers somewhere in memory, as lines along which products are summed: rows of the left factor,
/// columns of the right one.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Lines<'a> {
    numbers: Numbers<'a>,
    count: usize,
    inner: usize,
    /// From line to line, and along a line.
    strides: [usize; 2],
}

#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
enum Numbers<'a> {
    Wide(&'a [f32]),
    Narrow(&'a [bf16]),
}

impl<'a> Lines<'a> {
    /// `count` lines of `inner` numbers.
    ///
    /// # Panics
    /// When the last number lies outside of `values`.
    pub fn wide(values: &'a [f32], [count, inner]: [usize; 2], strides: [usize; 2]) -> Self {
        Self::new(Numbers::Wide(values), values.len(), [count, inner], strides)
    }

    /// As [`Self::wide`], of bf16, line after line.
    pub fn narrow(values: &'a [bf16], [count, inner]: [usize; 2]) -> Self {
        Self::new(Numbers::Narrow(values), values.len(), [count, inner], [inner, 1])
    }

    fn new(
        numbers: Numbers<'a>,
        held: usize,
        [count, inner]: [usize; 2],
        strides: [usize; 2],
    ) -> Self {
        let last = count.saturating_sub(1) * strides[0] + inner.saturating_sub(1) * strides[1];
        assert!(count * inner == 0 || last < held, "lines: the last number lies outside");
        Self { numbers, count, inner, strides }
    }
}

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

/// Whether the processor can.
pub fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::available();
    #[cfg(not(target_arch = "x86_64"))]
    false
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
    if x86::available() {
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

#[cfg(target_arch = "x86_64")]
pub use x86::turned;

/// `[rows, input]` in one panel of pairs of bf16: `[input / 2, wide]`, for [`super::steps`]; zeros
/// behind it, up to a multiple of 16 pairs.
///
/// # Panics
/// Unless the panel has 8, 16 or 32 lanes, and rows enough for them.
#[cfg(target_arch = "x86_64")]
pub fn pairs(x: &[f32], [rows, input]: [usize; 2], wide: usize) -> Vec<u32> {
    assert!(available() && rows <= wide, "pairs: {rows} rows in {wide}");
    let lines = Lines::wide(x, [rows, input], [input, 1]);
    let mut panel = vec![0; input.div_ceil(2).next_multiple_of(16) * wide];
    let to = panel.as_mut_ptr();
    // SAFETY: the processor can, and the panel has room for so many lanes of every step.
    unsafe {
        match wide {
            8 => x86::pack::<true, 8>(lines, 0, to),
            16 => x86::pack::<true, 16>(lines, 0, to),
            32 => x86::pack::<true, 32>(lines, 0, to),
            _ => panic!("pairs: {wide} lanes"),
        }
    }
    panel
}

/// The left factor packed once, `[count, inner]`: panels of [`TALL`] lines, of which `line` gives one.
///
/// # Panics
/// Where the processor cannot.
pub fn panels(
    [count, inner]: [usize; 2],
    half: bool,
    line: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<u32> {
    assert!(available(), "panels: the processor lacks what they take");
    let each = inner.div_ceil(if half { 2 } else { 1 }) * TALL;
    let mut panels = vec![0; count.div_ceil(TALL) * each];
    #[cfg(target_arch = "x86_64")]
    if inner > 0 {
        use rayon::prelude::*;
        let pieces = panels.par_chunks_exact_mut(each).enumerate();
        pieces.for_each_init(Vec::new, |room, (panel, to)| {
            let first = panel * TALL;
            let held = TALL.min(count - first);
            room.resize(held * inner, 0.0f32);
            (first..).zip(room.chunks_exact_mut(inner)).for_each(|(index, to)| line(index, to));
            let lines = Lines::wide(room, [held, inner], [inner, 1]);
            // SAFETY: the processor can, and a panel has room for its lines.
            unsafe {
                match half {
                    true => x86::pack::<true, TALL>(lines, 0, to.as_mut_ptr()),
                    false => x86::pack::<false, TALL>(lines, 0, to.as_mut_ptr()),
                }
            }
        });
    }
    let _ = line;
    panels
}

/// Up to [`TALL`]×[`WIDE`] numbers of a product: a panel of [`panels`], and a right factor of which
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

/// Numbers of two lines rounded to bf16, one of each in four bytes; zeros where there is no second.
///
/// # Panics
/// Where the processor cannot, and where a line is shorter than the result.
pub fn pair_up(first: &[f32], second: Option<&[f32]>, to: &mut [u32]) {
    assert!(available() && first.len() >= to.len(), "pairs: the first line is too short");
    assert!(second.is_none_or(|second| second.len() >= to.len()), "pairs: too short");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the processor can; lines are as long as the result.
    unsafe {
        x86::pair_up(first.as_ptr(), second.map(<[f32]>::as_ptr), to);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::cell::RefCell;

    use rayon::prelude::*;

    use super::{Lines, Numbers, Sink, TALL, WIDE};
    use crate::ops::Instructions;

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

    pub fn available() -> bool {
        Instructions::get().bf16
    }

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
    /// As [`super::multiply`], on a processor where it is [`available`].
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

    /// Numbers of a line that lie in four bytes.
    const fn each<const HALF: bool>() -> usize {
        if HALF { 2 } else { 1 }
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

    /// `R` lines from `first` on, side by side: `[steps, R]`, zeros beyond the end.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn pack<const HALF: bool, const R: usize>(from: Lines, first: usize, to: *mut u32) {
        for group in (0..R).step_by(16) {
            let held = from.count.saturating_sub(first + group).min(16);
            let part = Part { from, first: first + group, held, stored: mask((R - group).min(16)) };
            let to = to.wrapping_add(group);
            // SAFETY: the same contract, for up to 16 lines.
            unsafe {
                match from.strides {
                    [_, 1] => part.along::<HALF, R>(to),
                    [1, _] => part.across::<HALF, R>(to),
                    _ => part.scattered::<HALF, R>(to),
                }
            }
        }
    }

    /// The lowest `count` of sixteen.
    fn mask(count: usize) -> __mmask16 {
        ((1u32 << count.min(16)) - 1) as __mmask16
    }

    /// Up to 16 lines on their way into a panel.
    struct Part<'a> {
        from: Lines<'a>,
        first: usize,
        /// Lines that there are; zeros stand for the others.
        held: usize,
        /// Lines that the panel has room for.
        stored: __mmask16,
    }

    impl Part<'_> {
        /// Sixteen numbers side by side, those of `mask`; nothing else is touched.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn load(&self, [line, k]: [usize; 2], mask: __mmask16) -> __m512 {
            let [down, across] = self.from.strides;
            let at = (self.first + line) * down + k * across;
            // SAFETY: the caller asks only for numbers inside of the lines.
            unsafe {
                match self.from.numbers {
                    Numbers::Wide(values) => {
                        _mm512_maskz_loadu_ps(mask, values.as_ptr().wrapping_add(at))
                    }
                    Numbers::Narrow(values) => {
                        let at = values.as_ptr().wrapping_add(at).cast();
                        let bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at));
                        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
                    }
                }
            }
        }

        /// Numbers of a line lie side by side: 16 lines at a time are turned.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn along<const HALF: bool, const R: usize>(&self, to: *mut u32) {
            let (inner, each) = (self.from.inner, each::<HALF>());
            for k in (0..inner).step_by(16 * each) {
                let mut rows = [_mm512_setzero_si512(); 16];
                for (line, row) in rows.iter_mut().enumerate().take(self.held) {
                    // SAFETY: the line is there, and goes beyond `k`.
                    *row = unsafe { self.sixteen::<HALF>(line, k) };
                }
                let steps = (inner - k).div_ceil(each).min(16);
                for (step, row) in turned(rows).iter().enumerate().take(steps) {
                    let to = to.wrapping_add((k / each + step) * R).cast();
                    // SAFETY: the panel has room for this step.
                    unsafe { _mm512_mask_storeu_epi32(to, self.stored, *row) };
                }
            }
        }

        /// Sixteen steps of a line from `k` on, zeros beyond its end.
        ///
        /// Weights are asked for sixteen lines ahead: a line is a page or more, and processors do
        /// not fetch across pages by themselves.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn sixteen<const HALF: bool>(&self, line: usize, k: usize) -> __m512i {
            let left = self.from.inner - k;
            if let Numbers::Narrow(values) = self.from.numbers {
                let down = self.from.strides[0];
                let at = values.as_ptr().wrapping_add((self.first + line) * down + k);
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(16 * down).cast());
                if HALF {
                    // As they lie, they are pairs.
                    let held = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
                    // SAFETY: the mask ends with the line.
                    return unsafe { _mm512_maskz_loadu_epi16(held, at.cast()) };
                }
            }
            // SAFETY: the masks end with the line.
            unsafe {
                let low = self.load([line, k], mask(left));
                match HALF {
                    true => {
                        let rest = mask(left.saturating_sub(16));
                        narrow(low, self.load([line, k + 16], rest))
                    }
                    false => _mm512_castps_si512(low),
                }
            }
        }

        /// Lines lie side by side.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn across<const HALF: bool, const R: usize>(&self, to: *mut u32) {
            let (inner, each, held) = (self.from.inner, each::<HALF>(), mask(self.held));
            for k in (0..inner).step_by(each) {
                // SAFETY: the mask ends with the last line; the panel has room for this step.
                unsafe {
                    let low = self.load([0, k], held);
                    let numbers = match HALF {
                        true => {
                            let next = if k + 1 < inner { held } else { 0 };
                            paired(narrow(low, self.load([0, k + 1], next)))
                        }
                        false => _mm512_castps_si512(low),
                    };
                    let to = to.wrapping_add(k / each * R).cast();
                    _mm512_mask_storeu_epi32(to, self.stored, numbers);
                }
            }
        }

        /// Nothing lies side by side: one number at a time.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
        unsafe fn scattered<const HALF: bool, const R: usize>(&self, to: *mut u32) {
            let (inner, each) = (self.from.inner, each::<HALF>());
            for k in (0..inner).step_by(each) {
                for line in 0..self.stored.count_ones() as usize {
                    let number = |k: usize| {
                        let mask = __mmask16::from(line < self.held && k < inner);
                        // SAFETY: the mask says whether there is such a number.
                        unsafe { self.load([line, k], mask) }
                    };
                    let numbers = match HALF {
                        true => paired(narrow(number(k), number(k + 1))),
                        false => _mm512_castps_si512(number(k)),
                    };
                    let to = to.wrapping_add(k / each * R + line).cast();
                    // SAFETY: the panel has room for this line of this step.
                    unsafe { _mm512_mask_storeu_epi32(to, 1, numbers) };
                }
            }
        }
    }

    /// 32 numbers rounded to bf16, to the nearest, ties to even; subnormal ones become zeros.
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn narrow(low: __m512, high: __m512) -> __m512i {
        // SAFETY: both types are 64 bytes, and any bits will do.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
    }

    /// The lower 16 of 32 numbers, each with one of the upper 16 behind it.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn paired(numbers: __m512i) -> __m512i {
        const ORDER: [u16; 32] = {
            let (mut order, mut i) = ([0; 32], 0);
            while i < 16 {
                (order[2 * i], order[2 * i + 1]) = (i as u16, 16 + i as u16);
                i += 1;
            }
            order
        };
        // SAFETY: 64 bytes, wherever they lie.
        let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
        _mm512_permutexvar_epi16(order, numbers)
    }

    /// As [`super::pair_up`].
    ///
    /// # Safety
    /// The lines must be as long as the result.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn pair_up(first: *const f32, second: Option<*const f32>, to: &mut [u32]) {
        for (at, to) in (0..).step_by(16).zip(to.chunks_mut(16)) {
            let held = mask(to.len());
            // SAFETY: the mask ends with the result.
            unsafe {
                let low = _mm512_maskz_loadu_ps(held, first.add(at));
                let high = match second {
                    Some(second) => _mm512_maskz_loadu_ps(held, second.add(at)),
                    None => _mm512_setzero_ps(),
                };
                _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), held, paired(narrow(low, high)));
            }
        }
    }

    /// Rows and columns exchanged.
    #[target_feature(enable = "avx512f")]
    pub fn turned(rows: [__m512i; 16]) -> [__m512i; 16] {
        let mut twos = rows;
        for i in (0..16).step_by(2) {
            twos[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
            twos[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        }
        // Quarter p of `fours[4i + c]` is column 4p + c of rows 4i to 4i + 3.
        let mut fours = twos;
        for i in (0..16).step_by(4) {
            for j in 0..2 {
                let (a, b) = (twos[i + j], twos[i + 2 + j]);
                fours[i + 2 * j] = _mm512_unpacklo_epi64(a, b);
                fours[i + 2 * j + 1] = _mm512_unpackhi_epi64(a, b);
            }
        }
        let mut columns = fours;
        for c in 0..4 {
            let [even, odd] = [(0, 4), (8, 12)].map(|(a, b)| {
                let (a, b) = (fours[a + c], fours[b + c]);
                (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b))
            });
            columns[c] = _mm512_shuffle_i32x4::<0x88>(even.0, odd.0);
            columns[4 + c] = _mm512_shuffle_i32x4::<0x88>(even.1, odd.1);
            columns[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even.0, odd.0);
            columns[12 + c] = _mm512_shuffle_i32x4::<0xdd>(even.1, odd.1);
        }
        columns
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
