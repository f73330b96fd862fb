//! Tiles of [`tiles`](super::tiles) on processors that multiply matrices of bf16 (AMX): 16×16 sums take 32
//! numbers of 16 rows and of 16 columns at once, and stay where they are, in four of eight registers of
//! 1 KiB. 65,536 FLOP for 4 KiB of cache, in the time in which vectors do an eighth of that.
//!
//! Sums are of f32. Of every pair, first and second numbers are summed apart for 32 steps, and subnormal
//! ones are zeros.

use std::arch::asm;
use std::arch::x86_64::*;

use super::panels::x86::mask;
use super::tiles::{Sink, WIDE};
use crate::ops::Instructions;

/// Rows of a tile.
pub const TALL: usize = 32;
/// Steps of a matrix.
const DEEP: usize = 16;
/// Packed numbers that are fetched for later while two matrices meet two: an eighth of what they read of
/// the left factor, so that eight tiles beside each other fetch the panel of the next eight. Four lines of
/// cache, as `whole` has them.
pub const FETCHED: usize = 64;

/// Whether the processor can, and the system lets us.
pub fn available() -> bool {
    Instructions::get().matrices
}

/// What registers hold, as `ldtilecfg` reads it.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// Registers of this thread are 16 rows of 64 bytes, until this is dropped: then they are given back, so
/// that the system need not keep them.
pub struct Configured(std::marker::PhantomData<*mut ()>); // of this thread

impl Configured {
    /// # Panics
    /// Where the processor cannot.
    pub fn new() -> Self {
        assert!(available(), "matrices: the processor lacks them");
        static SHAPES: Shapes = {
            let mut shapes =
                Shapes { palette: 1, start: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
            let mut register = 0;
            while register < 8 {
                (shapes.bytes[register], shapes.rows[register]) = (64, 16);
                register += 1;
            }
            shapes
        };
        // SAFETY: the processor can, and reads 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly)) };
        Self(std::marker::PhantomData)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: the processor can; nobody reads registers between two tiles.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Up to [`TALL`]×[`WIDE`] numbers of the result.
///
/// # Safety
/// The thread must be [`Configured`]. The panels hold so many times sixteen steps, where `course` says, those
/// of the right one so far from one to the next; the result has so many rows and columns.
#[target_feature(enable = "avx512f")]
pub unsafe fn tile(
    y: Sink,
    [rows, columns]: [usize; 2],
    left: *const u32,
    right: *const u32,
    course: (&[[u32; 2]], usize),
    next: *const u32,
) {
    if rows == TALL && columns == WIDE {
        // SAFETY: the result has all these numbers.
        return unsafe { whole(y, left, right, course, next) };
    }
    let mut sums = std::mem::MaybeUninit::<[[f32; WIDE]; TALL]>::uninit();
    let room = Sink { at: sums.as_mut_ptr().cast(), stride: WIDE, add: false };
    // SAFETY: there is room for a whole tile, which is written.
    let sums = unsafe {
        whole(room, left, right, course, next);
        sums.assume_init_ref()
    };
    for (i, sums) in sums.iter().enumerate().take(rows) {
        for half in [0, 16] {
            let held = mask(columns.saturating_sub(half));
            let at = y.at.wrapping_add(i * y.stride + half);
            // SAFETY: the mask ends with the columns of the result.
            unsafe {
                let sum = _mm512_loadu_ps(sums[half..].as_ptr());
                let before = _mm512_maskz_loadu_ps(if y.add { held } else { 0 }, at);
                _mm512_mask_storeu_ps(at, held, _mm512_add_ps(before, sum));
            }
        }
    }
}

/// Products of matrices in four chains that do not wait for each other, so many links each; FLOP done.
///
/// # Panics
/// Where the processor cannot.
pub fn multiply_only(links: usize) -> f64 {
    let _ready = Configured::new();
    let each = 2 * TALL * WIDE * DEEP * 2;
    let links = (links / DEEP).max(1);
    // SAFETY: the thread is configured; only registers are touched.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tilezero tmm4",
            "tilezero tmm6",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm4, tmm6",
            "tdpbf16ps tmm3, tmm4, tmm6",
            "dec {links}",
            "jnz 2b",
            links = inout(reg) links => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem),
        );
    }
    (each * links) as f64
}

/// A whole tile.
///
/// # Safety
/// As [`tile`].
unsafe fn whole(
    y: Sink,
    left: *const u32,
    right: *const u32,
    (course, step): (&[[u32; 2]], usize),
    next: *const u32,
) {
    assert!(!course.is_empty(), "matrices: a product of nothing");
    // The result is asked for while it is worked out: 64 lines that lie apart, and would be waited for.
    for row in 0..TALL {
        let at = y.at.wrapping_add(row * y.stride);
        // SAFETY: reads and writes nothing.
        unsafe {
            asm!("prefetchw [{0}]", "prefetchw [{0} + 64]", in(reg) at, options(nostack, readonly));
        }
    }
    // SAFETY: the caller says that all this is there. Registers hold nothing between two tiles.
    unsafe {
        asm!(
            "test {add}, {add}",
            "jnz 2f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 3f",
            "2:",
            "mov {at}, {across}",
            "shl {at}, 4",
            "add {at}, {upper}",
            "tileloadd tmm0, [{upper} + {across}*1]",
            "tileloadd tmm1, [{upper} + {across}*1 + 64]",
            "tileloadd tmm2, [{at} + {across}*1]",
            "tileloadd tmm3, [{at} + {across}*1 + 64]",
            "3:",
            "mov {from:e}, [{course}]",
            "mov {at:e}, [{course} + 4]",
            "lea {from}, [{left} + {from}*4]",
            "lea {at}, [{right} + {at}*4]",
            "tileloadd tmm4, [{from} + {line}*1]",
            "tileloadd tmm6, [{at} + {step}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{at} + {step}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{from} + {line}*1 + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "prefetcht1 [{next}]",
            "prefetcht1 [{next} + 64]",
            "prefetcht1 [{next} + 128]",
            "prefetcht1 [{next} + 192]",
            "add {next}, 256",
            "add {course}, 8",
            "dec {blocks}",
            "jnz 3b",
            "mov {at}, {across}",
            "shl {at}, 4",
            "add {at}, {upper}",
            "tilestored [{upper} + {across}*1], tmm0",
            "tilestored [{upper} + {across}*1 + 64], tmm1",
            "tilestored [{at} + {across}*1], tmm2",
            "tilestored [{at} + {across}*1 + 64], tmm3",
            add = in(reg) usize::from(y.add),
            upper = in(reg) y.at,
            across = in(reg) 4 * y.stride,
            left = in(reg) left,
            right = in(reg) right,
            line = in(reg) 64usize,
            step = in(reg) 4 * step,
            course = inout(reg) course.as_ptr() => _,
            blocks = inout(reg) course.len() => _,
            next = inout(reg) next => _,
            from = out(reg) _,
            at = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
