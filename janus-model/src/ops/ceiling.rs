//! What this machine can do at most, measured: what kernels are judged by.
//!
//! Reading: every thread adds up a piece of memory of its own, far larger than any cache, in one
//! stream or in two, asking for it early or earlier, whichever is fastest. Arithmetic: every thread
//! multiplies and adds in registers, and nothing else. The best of several turns, for other programs
//! only take away.

use std::time::Instant;

use rayon::prelude::*;

use super::instructions::Instructions;
use super::simd::{ask, multiply_add, widest};

/// Bytes that all threads read together, and one of them at least.
const READ: [usize; 2] = [512 << 20, 32 << 20];
/// Streams of a thread, and bytes that are asked for ahead.
const WAYS: [(usize, usize); 4] = [(1, 4096), (1, 16384), (2, 4096), (2, 16384)];
/// Turns of which the best counts.
const TURNS: usize = 3;
/// Chains of sums that do not wait for each other: more than any processor has at work.
const CHAINS: usize = 12;
/// Links of a chain.
const LINKS: usize = 1 << 20;

/// Bytes read, and FLOP done, in a second on all threads.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    /// Bytes from memory; 0 where there is none to measure it with.
    pub read: f64,
    /// Multiplications and additions of f32.
    pub wide: f64,
    /// The same of pairs of bf16 into f32, where the processor has them.
    pub narrow: Option<f64>,
}

impl Ceiling {
    /// Takes a second or less, and half a gibibyte of memory (more where there are more than 16 threads).
    pub fn measure() -> Self {
        Self { read: read(), wide: arithmetic(chains), narrow: pairs() }
    }

    /// FLOP a second of products whose factors are rounded to bf16, or are not. What is not rounded is
    /// counted once, if matrices do it in thirds, too.
    pub fn products(&self, rounded: bool) -> f64 {
        match self.narrow {
            Some(narrow) if rounded => narrow,
            Some(narrow) if Instructions::get().matrices => self.wide.max(narrow / 3.0),
            _ => self.wide,
        }
    }
}

/// The best rate of some turns of work that counts what it does, on all threads at once.
fn best(work: impl Fn(usize) -> f64 + Sync) -> f64 {
    let turn = |_| {
        let start = Instant::now();
        let done: f64 =
            (0..rayon::current_num_threads()).into_par_iter().with_max_len(1).map(&work).sum();
        done / start.elapsed().as_secs_f64()
    };
    (0..TURNS).map(turn).fold(0.0, f64::max)
}

fn read() -> f64 {
    let threads = rayon::current_num_threads();
    let bytes = (READ[0] / threads).max(READ[1]);
    // Memory of its own, that it goes back to the system.
    let Ok(mut memory) = memmap2::MmapMut::map_anon(threads * bytes) else { return 0.0 };
    memory.par_chunks_mut(bytes).for_each(|piece| piece.fill(1));
    let way = |(streams, ahead)| {
        best(|thread| {
            let piece = bytemuck::cast_slice(&memory[thread * bytes..][..bytes]);
            std::hint::black_box(read_in(piece, streams, ahead));
            bytes as f64
        })
    };
    WAYS.into_iter().map(way).fold(0.0, f64::max)
}

widest! {
    /// All numbers added up, in so many streams, each asked for so many bytes ahead.
    fn read_in(numbers: &[u64], streams: usize, ahead: usize) -> u64 {
        const LINE: usize = 8;
        let _ = FMA;
        let part = numbers.len() / streams;
        let mut sums = [[0u64; LINE]; 2];
        for at in (0..part).step_by(LINE) {
            for (stream, sums) in sums.iter_mut().enumerate().take(streams) {
                let line = &numbers[stream * part + at..][..LINE];
                ask(line.as_ptr().wrapping_byte_add(ahead), 64);
                for (sum, number) in sums.iter_mut().zip(line) {
                    *sum = sum.wrapping_add(*number);
                }
            }
        }
        sums.iter().flatten().fold(0, |sum, lane| sum.wrapping_add(*lane))
    }
}

/// FLOP a second of so many chains of `links`, which return how much that was.
fn arithmetic(chains: impl Fn(usize) -> f64 + Sync) -> f64 {
    best(|_| chains(LINKS))
}

/// f32 in vectors as wide as the processor's.
fn chains(links: usize) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        let there = Instructions::get();
        if there.avx512 {
            // SAFETY: the feature is there.
            return unsafe { x86::wide(links) };
        }
        if there.avx2 {
            // SAFETY: the features are there.
            return unsafe { x86::half_wide(links) };
        }
    }
    const LANES: usize = 4;
    let by = std::hint::black_box([0.5f32; LANES]);
    let mut sums = [[1.0f32; LANES]; CHAINS];
    for _ in 0..links {
        for sums in &mut sums {
            for lane in 0..LANES {
                let fused = cfg!(target_arch = "aarch64");
                sums[lane] = match fused {
                    true => multiply_add::<true>(sums[lane], by[lane], by[lane]),
                    false => sums[lane] * by[lane] + by[lane],
                };
            }
        }
    }
    std::hint::black_box(sums);
    (2 * CHAINS * LANES * links) as f64
}

/// Pairs of bf16, where there are instructions for them: whichever are the fastest.
fn pairs() -> Option<f64> {
    #[cfg(all(target_arch = "x86_64", feature = "cpu"))]
    if Instructions::get().matrices {
        return Some(arithmetic(super::flex::multiply_matrices));
    }
    #[cfg(target_arch = "x86_64")]
    if Instructions::get().bf16 {
        // SAFETY: the features are there.
        return Some(arithmetic(|links| unsafe { x86::pairs(links) }));
    }
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::CHAINS;

    macro_rules! chains {
        ($name:ident, $features:literal, $lanes:literal, $set:ident, $multiply_add:ident) => {
            #[target_feature(enable = $features)]
            pub fn $name(links: usize) -> f64 {
                let by = black_box($set(0.5));
                let mut sums = [$set(1.0); CHAINS];
                for _ in 0..links {
                    for sum in &mut sums {
                        *sum = $multiply_add(*sum, by, by);
                    }
                }
                black_box(sums);
                (2 * $lanes * CHAINS * links) as f64
            }
        };
    }
    chains!(wide, "avx512f", 16, _mm512_set1_ps, _mm512_fmadd_ps);
    chains!(half_wide, "avx2,fma", 8, _mm256_set1_ps, _mm256_fmadd_ps);

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn pairs(links: usize) -> f64 {
        let one = |bits: i32| {
            // SAFETY: any bits are pairs of bf16.
            unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(bits)) }
        };
        let by = black_box([one(0x3f00_3f00), one(0x3e80_3e80)]);
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..links {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, by[0], by[1]);
            }
        }
        black_box(sums);
        (4 * 16 * CHAINS * links) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_reads_everything() {
        let numbers: Vec<u64> = (0..4096).collect();
        for streams in [1, 2] {
            assert_eq!(read_in(&numbers, streams, 4096), 4096 * 4095 / 2);
        }
    }

    #[test]
    fn chains_count_what_they_do() {
        #[cfg(target_arch = "x86_64")]
        {
            let there = Instructions::get();
            let lanes = if there.avx512 {
                16
            } else if there.avx2 {
                8
            } else {
                4
            };
            assert_eq!(chains(3), (3 * 2 * lanes * CHAINS) as f64);
            if there.bf16 {
                // SAFETY: the features are there.
                let pairs = unsafe { x86::pairs(3) };
                assert_eq!(pairs, 2.0 * chains(3));
            }
        }
        assert!((0..2).all(|_| best(|_| 1.0) > 0.0));
    }
}
