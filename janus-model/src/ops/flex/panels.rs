//! Factors as [`tiles`](super::tiles) and [`steps`](super::steps) read them, on processors that multiply
//! pairs of bf16 (AVX-512 BF16): what is met at once lies side by side, four bytes per line, which is
//! one f32 or a pair of bf16, rounded to it where it was not. [`matrices`](super::matrices) have a left
//! factor of which sixteen steps of one line lie side by side ([`LINES`]).
//!
//! Every number is read once and written once.

use std::ops::Range;

use half::bf16;

use super::tiles::Body;
#[cfg(target_arch = "x86_64")]
use crate::ops::Instructions;

/// Numbers somewhere in memory, as lines along which products are summed: rows of the left factor,
/// columns of the right one.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Lines<'a> {
    numbers: Numbers<'a>,
    /// Lines.
    pub count: usize,
    /// Numbers of a line.
    pub inner: usize,
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

    /// Some numbers of every line.
    ///
    /// # Panics
    /// When lines have no such numbers.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub fn along(self, numbers: Range<usize>) -> Self {
        assert!(numbers.start < numbers.end && numbers.end <= self.inner, "lines: too short");
        let skipped = numbers.start * self.strides[1];
        let held = match self.numbers {
            Numbers::Wide(values) => Numbers::Wide(&values[skipped..]),
            Numbers::Narrow(values) => Numbers::Narrow(&values[skipped..]),
        };
        Self { numbers: held, inner: numbers.len(), ..self }
    }

    /// Parts of each number that [`matrices`](super::matrices) take where nothing is rounded.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub fn thirds(&self) -> usize {
        match self.numbers {
            Numbers::Wide(_) => THIRDS,
            Numbers::Narrow(_) => 1,
        }
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

/// What lies side by side in a panel of `R` lines, for a constant: all lines of a step, `[steps, R]`.
#[cfg(target_arch = "x86_64")]
pub const STEPS: bool = false;
/// Sixteen steps of a line: `[steps / 16, R, 16]`, zeros behind the last step.
#[cfg(target_arch = "x86_64")]
pub const LINES: bool = true;

/// Parts of a number that is not rounded, for [`matrices`](super::matrices).
pub const THIRDS: usize = 3;

/// Packed numbers that are fetched at once. What matrices read across two of these takes three times as
/// long, so panels begin with one.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Line([u32; 16]);

/// Packed numbers, of which the first begins a [`Line`].
#[derive(Default)]
pub struct Panels(Vec<Line>);

impl Panels {
    /// As many as these, zeros where there were none.
    pub fn resize(&mut self, count: usize) {
        self.0.resize(count.div_ceil(16), Line::default());
    }

    /// They.
    pub fn numbers(&self) -> &[u32] {
        bytemuck::cast_slice(&self.0)
    }

    /// They, to be changed.
    pub fn numbers_mut(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// Whether the processor can.
pub fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return Instructions::get().bf16;
    #[cfg(not(target_arch = "x86_64"))]
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
            8 => x86::pack::<true, 8, STEPS>(lines, 0, to),
            16 => x86::pack::<true, 16, STEPS>(lines, 0, to),
            32 => x86::pack::<true, 32, STEPS>(lines, 0, to),
            _ => panic!("pairs: {wide} lanes"),
        }
    }
    panel
}

/// The left factor packed once, `[count, inner]`: panels as `body` has them, of which `line` gives one
/// line. For [`Body::Thirds`] it is the one that is bf16.
///
/// # Panics
/// Where the processor cannot.
pub fn pack(
    [count, inner]: [usize; 2],
    body: Body,
    line: impl Fn(usize, &mut [f32]) + Sync,
) -> Panels {
    assert!(available(), "panels: the processor lacks what they take");
    let tall = body.tall();
    let each = body.steps(inner) * tall;
    let mut panels = Panels::default();
    panels.resize(count.div_ceil(tall) * each);
    #[cfg(target_arch = "x86_64")]
    if inner > 0 {
        use rayon::prelude::*;
        let pieces = panels.numbers_mut().par_chunks_exact_mut(each).enumerate();
        pieces.for_each_init(Vec::new, |room, (panel, to)| {
            let first = panel * tall;
            let held = tall.min(count - first);
            room.resize(held * inner, 0.0f32);
            (first..).zip(room.chunks_exact_mut(inner)).for_each(|(index, to)| line(index, to));
            let lines = Lines::wide(room, [held, inner], [inner, 1]);
            // SAFETY: the processor can, and a panel has room for its lines.
            unsafe { super::tiles::pack_left(body, 1, lines, 0, to.as_mut_ptr()) };
        });
    }
    let _ = line;
    panels
}

/// Numbers of two lines rounded to bf16, one of each in four bytes; zeros where there is no second. Or part
/// `third` of them, 1 to [`THIRDS`], which needs no rounding.
///
/// # Panics
/// Where the processor cannot, and where a line is shorter than the result.
pub fn pair_up(first: &[f32], second: Option<&[f32]>, third: Option<usize>, to: &mut [u32]) {
    assert!(available() && first.len() >= to.len(), "pairs: the first line is too short");
    assert!(second.is_none_or(|second| second.len() >= to.len()), "pairs: too short");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the processor can; lines are as long as the result.
    unsafe {
        let lines = (first.as_ptr(), second.map(<[f32]>::as_ptr));
        match third {
            None => x86::pair_up::<0>(lines, to),
            Some(1) => x86::pair_up::<1>(lines, to),
            Some(2) => x86::pair_up::<2>(lines, to),
            Some(_) => x86::pair_up::<3>(lines, to),
        }
    }
    let _ = third;
}

#[cfg(target_arch = "x86_64")]
pub mod x86 {
    use std::arch::x86_64::*;

    use super::{LINES, Lines, Numbers, STEPS, THIRDS};

    /// Numbers of a line that lie in four bytes.
    pub const fn each<const HALF: bool>() -> usize {
        if HALF { 2 } else { 1 }
    }

    /// `R` lines from `first` on, in this order ([`STEPS`](super::STEPS) or [`LINES`](super::LINES));
    /// zeros beyond the end.
    ///
    /// # Safety
    /// On a processor where it is [`available`](super::available); there must be room for all steps.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    pub unsafe fn pack<const HALF: bool, const R: usize, const ORDER: bool>(
        from: Lines,
        first: usize,
        to: *mut u32,
    ) {
        // SAFETY: the same contract.
        unsafe { pack_third::<HALF, R, ORDER, WHOLE>(from, first, to) };
    }

    /// As [`pack`], each number in [`THIRDS`](super::THIRDS) parts that are bf16 and add up to it:
    /// sixteen steps of the first parts, sixteen of the second ones, sixteen of the third ones.
    ///
    /// # Safety
    /// As [`pack`], with room for all parts.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    pub unsafe fn pack_in_thirds<const R: usize, const ORDER: bool>(
        from: Lines,
        first: usize,
        to: *mut u32,
    ) {
        // SAFETY: the same contract.
        unsafe {
            pack_third::<true, R, ORDER, 1>(from, first, to);
            pack_third::<true, R, ORDER, 2>(from, first, to.wrapping_add(16 * R));
            pack_third::<true, R, ORDER, 3>(from, first, to.wrapping_add(32 * R));
        }
    }

    /// # Safety
    /// As [`pack_in_thirds`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn pack_third<
        const HALF: bool,
        const R: usize,
        const ORDER: bool,
        const THIRD: usize,
    >(
        from: Lines,
        first: usize,
        to: *mut u32,
    ) {
        for group in (0..R).step_by(16) {
            let held = from.count.saturating_sub(first + group).min(16);
            let part = Part { from, first: first + group, held, stored: mask((R - group).min(16)) };
            let to = to.wrapping_add(place::<R, ORDER, THIRD>(group, 0));
            // SAFETY: the same contract, for up to 16 lines.
            unsafe {
                match from.strides {
                    [_, 1] => part.along::<HALF, R, ORDER, THIRD>(to),
                    [1, _] => part.across::<HALF, R, ORDER, THIRD>(to),
                    _ => part.scattered::<HALF, R, ORDER, THIRD>(to),
                }
            }
        }
    }

    /// Numbers as they are, for a constant that otherwise is a part of them, 1 to [`THIRDS`].
    const WHOLE: usize = 0;

    /// Where in a panel of `R` lines a line has a step.
    #[inline]
    fn place<const R: usize, const ORDER: bool, const THIRD: usize>(
        line: usize,
        step: usize,
    ) -> usize {
        let sixteens = step / 16 * if THIRD == WHOLE { 1 } else { THIRDS };
        match ORDER {
            STEPS => (sixteens * 16 + step % 16) * R + line,
            LINES => (sixteens * R + line) * 16 + step % 16,
        }
    }

    /// A part of numbers: the upper 8 bits of 24, the next 8, and the last, each of which is a bf16.
    /// What is infinite or no number has one part.
    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    fn third<const THIRD: usize>(x: __m512) -> __m512 {
        if THIRD == WHOLE {
            return x;
        }
        let top = |x| _mm512_and_ps(x, _mm512_castsi512_ps(_mm512_set1_epi32(-0x1_0000)));
        let below =
            _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(x), _mm512_set1_ps(f32::INFINITY));
        let first = _mm512_mask_blend_ps(below, x, top(x));
        let rest = _mm512_maskz_sub_ps(below, x, first);
        match THIRD {
            1 => first,
            2 => top(rest),
            _ => _mm512_sub_ps(rest, top(rest)),
        }
    }

    /// The lowest `count` of sixteen.
    #[inline]
    pub fn mask(count: usize) -> __mmask16 {
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
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn load<const THIRD: usize>(
            &self,
            [line, k]: [usize; 2],
            mask: __mmask16,
        ) -> __m512 {
            let [down, across] = self.from.strides;
            let at = (self.first + line) * down + k * across;
            // SAFETY: the caller asks only for numbers inside of the lines.
            unsafe {
                match self.from.numbers {
                    Numbers::Wide(values) => {
                        let at = values.as_ptr().wrapping_add(at);
                        third::<THIRD>(_mm512_maskz_loadu_ps(mask, at))
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
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn along<const HALF: bool, const R: usize, const ORDER: bool, const THIRD: usize>(
            &self,
            to: *mut u32,
        ) {
            let (inner, each) = (self.from.inner, each::<HALF>());
            for k in (0..inner).step_by(16 * each) {
                let mut rows = [_mm512_setzero_si512(); 16];
                for (line, row) in rows.iter_mut().enumerate().take(self.held) {
                    // SAFETY: the line is there, and goes beyond `k`.
                    *row = unsafe { self.sixteen::<HALF, THIRD>(line, k) };
                }
                if ORDER == LINES {
                    // SAFETY: the panel has room for these steps, whole sixteens.
                    unsafe { self.store_lines::<R, THIRD>(rows, to, k / each) };
                    continue;
                }
                let steps = (inner - k).div_ceil(each).min(16);
                for (step, row) in turned(rows).iter().enumerate().take(steps) {
                    let to = to.wrapping_add(place::<R, ORDER, THIRD>(0, k / each + step)).cast();
                    // SAFETY: the panel has room for this step.
                    unsafe { _mm512_mask_storeu_epi32(to, self.stored, *row) };
                }
            }
        }

        /// Sixteen steps of sixteen lines, from `step` on.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn store_lines<const R: usize, const THIRD: usize>(
            &self,
            lines: [__m512i; 16],
            to: *mut u32,
            step: usize,
        ) {
            for (line, steps) in lines.iter().enumerate().take(self.stored.count_ones() as usize) {
                let to = to.wrapping_add(place::<R, LINES, THIRD>(line, step)).cast();
                // SAFETY: the panel has room for these steps of this line.
                unsafe { _mm512_storeu_si512(to, *steps) };
            }
        }

        /// Sixteen steps of a line from `k` on, zeros beyond its end.
        ///
        /// With every piece of weights, one of those behind these sixteen lines is asked for, as they lie
        /// where whole lines are wanted: a line is a page or more, and processors do not fetch across pages
        /// by themselves.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn sixteen<const HALF: bool, const THIRD: usize>(
            &self,
            line: usize,
            k: usize,
        ) -> __m512i {
            let left = self.from.inner - k;
            if let Numbers::Narrow(values) = self.from.numbers {
                let down = self.from.strides[0];
                let at = values.as_ptr().wrapping_add((self.first + line) * down + k);
                let behind = (self.first + 16) * down;
                let ahead = behind
                    + if self.from.inner == down { 16 * k + 32 * line } else { line * down + k };
                _mm_prefetch::<_MM_HINT_T1>(values.as_ptr().wrapping_add(ahead).cast());
                if HALF {
                    // As they lie, they are pairs.
                    let held = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
                    // SAFETY: the mask ends with the line.
                    return unsafe { _mm512_maskz_loadu_epi16(held, at.cast()) };
                }
            }
            // SAFETY: the masks end with the line.
            unsafe {
                let low = self.load::<THIRD>([line, k], mask(left));
                match HALF {
                    true => {
                        let rest = mask(left.saturating_sub(16));
                        narrow(low, self.load::<THIRD>([line, k + 16], rest))
                    }
                    false => _mm512_castps_si512(low),
                }
            }
        }

        /// Lines lie side by side.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn across<
            const HALF: bool,
            const R: usize,
            const ORDER: bool,
            const THIRD: usize,
        >(
            &self,
            to: *mut u32,
        ) {
            let (inner, each, held) = (self.from.inner, each::<HALF>(), mask(self.held));
            let mut sixteen = [_mm512_setzero_si512(); 16];
            for k in (0..inner).step_by(each) {
                // SAFETY: the mask ends with the last line; the panel has room for this step.
                unsafe {
                    let low = self.load::<THIRD>([0, k], held);
                    let numbers = match HALF {
                        true => {
                            let next = if k + 1 < inner { held } else { 0 };
                            paired(narrow(low, self.load::<THIRD>([0, k + 1], next)))
                        }
                        false => _mm512_castps_si512(low),
                    };
                    let step = k / each;
                    if ORDER == STEPS {
                        let to = to.wrapping_add(place::<R, ORDER, THIRD>(0, step)).cast();
                        _mm512_mask_storeu_epi32(to, self.stored, numbers);
                        continue;
                    }
                    sixteen[step % 16] = numbers;
                    if step % 16 == 15 || k + each >= inner {
                        self.store_lines::<R, THIRD>(turned(sixteen), to, step / 16 * 16);
                        sixteen = [_mm512_setzero_si512(); 16];
                    }
                }
            }
        }

        /// Nothing lies side by side: one number at a time.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        unsafe fn scattered<
            const HALF: bool,
            const R: usize,
            const ORDER: bool,
            const THIRD: usize,
        >(
            &self,
            to: *mut u32,
        ) {
            let (inner, each) = (self.from.inner, each::<HALF>());
            let whole = if ORDER == LINES { 16 * each } else { each };
            for k in (0..inner.next_multiple_of(whole)).step_by(each) {
                for line in 0..self.stored.count_ones() as usize {
                    let number = |k: usize| {
                        let mask = __mmask16::from(line < self.held && k < inner);
                        // SAFETY: the mask says whether there is such a number.
                        unsafe { self.load::<THIRD>([line, k], mask) }
                    };
                    let numbers = match HALF {
                        true => paired(narrow(number(k), number(k + 1))),
                        false => _mm512_castps_si512(number(k)),
                    };
                    let to = to.wrapping_add(place::<R, ORDER, THIRD>(line, k / each)).cast();
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
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    pub unsafe fn pair_up<const THIRD: usize>(
        (first, second): (*const f32, Option<*const f32>),
        to: &mut [u32],
    ) {
        for (at, to) in (0..).step_by(16).zip(to.chunks_mut(16)) {
            let held = mask(to.len());
            // SAFETY: the mask ends with the result.
            unsafe {
                let low = _mm512_maskz_loadu_ps(held, first.add(at));
                let high = match second {
                    Some(second) => _mm512_maskz_loadu_ps(held, second.add(at)),
                    None => _mm512_setzero_ps(),
                };
                let pairs = paired(narrow(third::<THIRD>(low), third::<THIRD>(high)));
                _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), held, pairs);
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
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// A number is the sum of its three parts, each of which is a bf16; one that is not finite stays so.
    #[test]
    fn thirds_add_up() {
        if !available() {
            return; // Nobody cuts numbers there.
        }
        let mut numbers: Vec<f32> = (0..4096u32)
            .map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b1)))
            .filter(|x| x.is_finite() && x.abs() > 1e-30)
            .collect();
        numbers.extend([
            0.0,
            -0.0,
            1.0,
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
        ]);
        let part = |third: usize| {
            let mut pairs = vec![0u32; numbers.len()];
            pair_up(&numbers, None, Some(third), &mut pairs);
            pairs.into_iter().map(|pair| f32::from_bits(pair << 16)).collect::<Vec<_>>()
        };
        let parts = [1, 2, 3].map(part);
        for (i, x) in numbers.iter().enumerate() {
            let sum = parts[0][i] + parts[1][i] + parts[2][i];
            assert!(sum == *x || sum.is_nan() && x.is_nan(), "{x:e}: {sum:e}");
            assert!(x.is_nan() || parts[0][i].abs() <= x.abs(), "{x:e}");
        }
        assert!(parts[2].iter().filter(|part| **part != 0.0).count() > 1000);
    }
}
