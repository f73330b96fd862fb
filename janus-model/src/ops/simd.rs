//! Safe bodies compiled for the widest vectors at hand, and the functions they share.
//!
//! A body is written once, in loops over fixed lanes that the compiler turns into vector
//! registers; [`widest`] compiles it for AVX-512, AVX2+FMA and the target's baseline, and chooses
//! when it runs.

/// Lanes of a reduction: a fixed number, so that sums do not depend on the processor's width.
pub const LANES: usize = 32;

/// Declares a function whose body is compiled several times; in it, `FMA` says whether the
/// processor multiplies and adds in one instruction.
macro_rules! widest {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<const FMA: bool>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma,avx2")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                #[target_feature(enable = "fma,avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                let there = $crate::ops::Instructions::get();
                if there.avx512 {
                    // SAFETY: the features are there.
                    return unsafe { avx512($($arg),*) };
                }
                if there.avx2 {
                    // SAFETY: the features are there.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(crate) use widest;

/// Asks for memory that will be read soon, wherever it may lie: processors fetch ahead by themselves
/// within a page only.
#[inline(always)]
pub fn ask<T>(from: *const T, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, without effect where nothing is.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast::<i8>().wrapping_add(line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, bytes);
}

/// Fused where the target has it: the library call that stands in for it elsewhere is slow.
#[inline(always)]
pub fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// eˣ within 1e-7 of itself: `2ⁿ · eʳ` with |r| ≤ ln 2 / 2, by the series of eʳ. Below −87 it
/// stays at e⁻⁸⁷, not a number stays none.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    /// Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_145_75; // the highest 16 bits, so that n times it is exact
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    let x = x.clamp(-87.0, 88.0);
    let shifted = multiply_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FMA>(n, -LN_2_HIGH, x);
    let r = multiply_add::<FMA>(n, -LN_2_LOW, r);
    let mut y = 1.0 / 5040.0;
    for term in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        y = multiply_add::<FMA>(y, r, term);
    }
    f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// Sum of `term(i)` for `i` below `count`, in lanes.
#[inline(always)]
pub fn sum(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let body = count - count % LANES;
    for start in (0..body).step_by(LANES) {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane += term(start + i);
        }
    }
    lanes.iter_mut().zip(body..count).for_each(|(lane, i)| *lane += term(i));
    fold(&mut lanes)
}

/// Sum of the lanes, halving.
#[inline(always)]
pub fn fold<const LANES: usize>(lanes: &mut [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The largest of the values, of those that are numbers.
#[inline(always)]
pub fn largest(values: &[f32]) -> f32 {
    // One instruction, which keeps the first where the second is no number.
    let larger = |most: f32, value: f32| if value > most { value } else { most };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for values in values.chunks(LANES) {
        lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane = larger(*lane, *value));
    }
    // Halving: one after the other, each would wait for the one before.
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = larger(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

widest! {
    /// `eˣ / Σ eˣ`, of x below its largest.
    pub fn softmax(line: &mut [f32]) {
        let most = largest(line);
        let mut sums = [0.0f32; LANES];
        let mut chunks = line.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for (x, sum) in chunk.iter_mut().zip(&mut sums) {
                *x = exp::<FMA>(*x - most);
                *sum += *x;
            }
        }
        // What is left in whole lanes, too: number by number, it would take longer than many of them.
        let rest = chunks.into_remainder();
        let mut last = [0.0f32; LANES];
        last[..rest.len()].copy_from_slice(rest);
        last.iter_mut().for_each(|x| *x = exp::<FMA>(*x - most));
        for ((x, last), sum) in rest.iter_mut().zip(last).zip(&mut sums) {
            *x = last;
            *sum += last;
        }
        let share = 1.0 / fold(&mut sums);
        line.iter_mut().for_each(|x| *x *= share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far(found: f32, exact: f64) -> f64 {
        (f64::from(found) - exact).abs() / exact
    }

    /// Measured: 1.0e-7 at most, with and without one rounding for product and sum.
    #[test]
    fn exp_is_exact_to_a_unit_or_two() {
        let mut worst = 0.0f64;
        for i in -86_900..87_900 {
            let x = i as f32 / 1000.0 + 0.000_37;
            worst = worst.max(far(exp::<true>(x), f64::from(x).exp()));
            worst = worst.max(far(exp::<false>(x), f64::from(x).exp()));
        }
        println!("measured {worst:.1e}");
        assert!(worst < 2e-7, "{worst:.1e}");
        assert_eq!(exp::<true>(0.0), 1.0);
        assert!(exp::<true>(f32::NAN).is_nan());
        assert!(exp::<true>(f32::NEG_INFINITY) < 1.7e-38);
    }

    /// Measured: 6.2e-7 at most, for numbers up to 14 below the largest, whose distance is rounded.
    #[test]
    fn softmax_is_that_of_every_number() {
        let mut worst = 0.0f64;
        for count in [1, 2, 31, 32, 33, 63, 64, 100, 577] {
            let line: Vec<f32> = (0..count).map(|i| ((i * 37) % 101) as f32 / 7.0 - 9.0).collect();
            let exact: Vec<f64> = line.iter().map(|x| f64::from(*x).exp()).collect();
            let whole: f64 = exact.iter().sum();
            let mut found = line.clone();
            softmax(&mut found);
            for (found, exact) in found.iter().zip(exact) {
                worst = worst.max(far(*found, exact / whole));
            }
            found[count / 2] = f32::NAN;
            softmax(&mut found);
            assert!(found.iter().all(|x| x.is_nan()));
        }
        println!("measured {worst:.1e}");
        assert!(worst < 2e-6, "{worst:.1e}");
        softmax(&mut []);
    }

    #[test]
    fn reductions_read_every_value() {
        for count in [0, 1, 31, 32, 33, 100] {
            let values: Vec<f32> = (0..count).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
            assert_eq!(sum(count, |i| values[i]), values.iter().sum::<f32>());
            let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest(&values), most);
            for bad in 0..count {
                let mut values = values.clone();
                values[bad] = f32::NAN;
                assert!(sum(count, |i| values[i]).is_nan());
                let others = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(largest(&values), others);
            }
        }
    }
}
