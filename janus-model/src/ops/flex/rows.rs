//! One weight row against a few rows of activations, widened in registers.
//!
//! The same safe body is compiled for AVX-512, AVX2+FMA and for whatever the target's baseline
//! is (NEON on aarch64), and chosen when it runs. Accumulators are arrays of lanes, which the
//! compiler keeps in vector registers; with one or two rows several of them are needed to hide
//! the latency of the multiply-add.

use half::{bf16, f16};

use crate::ops::simd::{fold, multiply_add};

/// A stored weight that becomes an f32 without rounding.
pub trait Widen: bytemuck::Pod + Send + Sync {
    /// The same number in f32.
    fn widen(self) -> f32;
}

impl Widen for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Widen for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Widen for f16 {
    /// Without a branch, so that it vectorises: exponent and fraction are moved up and rescaled
    /// (which also normalises subnormals), then infinity and NaN get their exponent back.
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
        let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16)
    }
}

/// `sums[r] = Σ w[i] · x[r][i]` for the `sums.len()` (≤ 8) rows of `x`.
pub fn dot<W: Widen>(w: &[W], x: &[f32], sums: &mut [f32]) {
    assert!(x.len() == w.len() * sums.len(), "dot: lengths differ");
    #[cfg(target_arch = "x86_64")]
    {
        let there = crate::ops::Instructions::get();
        if there.avx512 {
            // SAFETY: the features are there.
            return unsafe { x86::dot_avx512(w, x, sums) };
        }
        if there.avx2 {
            // SAFETY: the features are there.
            return unsafe { x86::dot_avx2(w, x, sums) };
        }
    }
    by_rows::<W, { cfg!(target_arch = "aarch64") }>(w, x, sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Widen, by_rows};

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma,avx2")]
    pub fn dot_avx512<W: Widen>(w: &[W], x: &[f32], sums: &mut [f32]) {
        by_rows::<W, true>(w, x, sums);
    }

    #[target_feature(enable = "fma,avx2")]
    pub fn dot_avx2<W: Widen>(w: &[W], x: &[f32], sums: &mut [f32]) {
        by_rows::<W, true>(w, x, sums);
    }
}

/// Chooses how many lanes the row count leaves registers for.
#[inline(always)]
fn by_rows<W: Widen, const FMA: bool>(w: &[W], x: &[f32], sums: &mut [f32]) {
    match sums.len() {
        1 => tile::<W, FMA, 1, 64>(w, x, sums),
        2 => tile::<W, FMA, 2, 64>(w, x, sums),
        3 => tile::<W, FMA, 3, 32>(w, x, sums),
        4 => tile::<W, FMA, 4, 32>(w, x, sums),
        5 => tile::<W, FMA, 5, 16>(w, x, sums),
        6 => tile::<W, FMA, 6, 16>(w, x, sums),
        7 => tile::<W, FMA, 7, 16>(w, x, sums),
        8 => tile::<W, FMA, 8, 16>(w, x, sums),
        rows => unreachable!("dot: {rows} rows, at most 8"),
    }
}

/// As [`dot`], for as many rows as are named, in so many lanes.
#[inline(always)]
pub fn tile<W: Widen, const FMA: bool, const ROWS: usize, const LANES: usize>(
    w: &[W],
    x: &[f32],
    sums: &mut [f32],
) {
    let width = w.len();
    let body = width - width % LANES;
    let mut lanes = [[0.0f32; LANES]; ROWS];
    for start in (0..body).step_by(LANES) {
        let mut wide = [0.0f32; LANES];
        for (to, from) in wide.iter_mut().zip(&w[start..start + LANES]) {
            *to = from.widen();
        }
        for (r, lanes) in lanes.iter_mut().enumerate() {
            let x = &x[r * width + start..][..LANES];
            for i in 0..LANES {
                lanes[i] = multiply_add::<FMA>(wide[i], x[i], lanes[i]);
            }
        }
    }
    for r in 0..ROWS {
        let rest = (body..width).map(|i| w[i].widen() * x[r * width + i]).sum::<f32>();
        sums[r] = fold(&mut lanes[r]) + rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_widens_exactly() {
        for bits in 0..=u16::MAX {
            let value = f16::from_bits(bits);
            let (ours, theirs) = (value.widen(), value.to_f32());
            assert!(
                ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
                "{bits:#x}"
            );
        }
    }

    #[test]
    fn dot_agrees_with_f64_on_odd_widths() {
        for width in [1, 15, 16, 63, 64, 65, 200, 2048] {
            for rows in 1..=8 {
                let w: Vec<bf16> =
                    (0..width).map(|i| bf16::from_f32((i as f32 * 0.37).sin())).collect();
                let x: Vec<f32> = (0..rows * width).map(|i| (i as f32 * 0.11).cos()).collect();
                let mut sums = vec![f32::NAN; rows];
                dot(&w, &x, &mut sums);
                for (r, sum) in sums.iter().enumerate() {
                    let terms =
                        w.iter().zip(&x[r * width..]).map(|(w, x)| w.to_f64() * f64::from(*x));
                    let exact: f64 = terms.sum();
                    assert!(
                        (f64::from(*sum) - exact).abs() < 2e-5,
                        "{width} {rows}: {sum} {exact}"
                    );
                }
            }
        }
    }
}
