//! Bicubic resizing that equals Pillow's to the bit.
//!
//! Janus was trained on pictures that Pillow (up to 12.x) had resized, and the vision tower sees
//! every rounding. Pillow resizes 8-bit pictures in two passes, horizontal then vertical, with
//! fixed-point weights of 22 fractional bits and with u8 between the passes; an axis that keeps
//! its size is skipped. When shrinking, the kernel is stretched by the scale (antialiasing).
//!
//! `cubic(t) = 1.5|t|³ - 2.5|t|² + 1` for `|t| < 1`, `-0.5|t|³ + 2.5|t|² - 4|t| + 2` for `|t| < 2`
//!
//! Source: `Resample.c` of Pillow 10-12 (Pillow 13 swaps the passes for some narrow pictures; the
//! order here is the one Janus was trained with).

use rayon::prelude::*;

use super::image::RgbImage8;

const CHANNELS: usize = 3;
const FRACTION_BITS: u32 = 22;
const HALF: i32 = 1 << (FRACTION_BITS - 1);
/// Reach of the cubic kernel in source pixels, before stretching.
const REACH: f64 = 2.0;

/// Resizes a picture to `width` x `height` exactly as `PIL.Image.resize(…, BICUBIC)` does.
///
/// Both sizes must be above 0; a size of 0 gives an empty picture.
pub fn resize_bicubic(image: &RgbImage8, width: usize, height: usize) -> RgbImage8 {
    let mut current = image.clone();
    if width != current.width() {
        current = resize_rows(&current, width);
    }
    if height != current.height() {
        current = resize_columns(&current, height);
    }
    current
}

/// The source pixels that make one output pixel: `weights[k]` belongs to pixel `start + k`.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

/// One window per output pixel of an axis that goes from `from` to `to` pixels.
fn windows(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let reach = REACH * stretch;
    // Pillow multiplies by the reciprocal; a division would round differently.
    let shrink = 1.0 / stretch;
    (0..to)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            // `as usize` truncates and saturates at 0, like C's cast followed by Pillow's clamp.
            let start = (center - reach + 0.5) as usize;
            let end = ((center + reach + 0.5) as usize).min(from);
            let mut weights: Vec<f64> =
                (start..end).map(|k| cubic((k as f64 - center + 0.5) * shrink)).collect();
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|w| *w /= sum);
            }
            Window { start, weights: weights.into_iter().map(to_fixed).collect() }
        })
        .collect()
}

fn cubic(t: f64) -> f64 {
    const A: f64 = -0.5;
    let t = t.abs();
    if t < 1.0 {
        ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0
    } else if t < 2.0 {
        (((t - 5.0) * t + 8.0) * t - 4.0) * A
    } else {
        0.0
    }
}

/// Rounds half away from zero, as Pillow's `normalize_coeffs_8bpc` does.
fn to_fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << FRACTION_BITS);
    (scaled + if weight < 0.0 { -0.5 } else { 0.5 }) as i32
}

fn to_u8(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

fn resize_rows(image: &RgbImage8, width: usize) -> RgbImage8 {
    let windows = windows(image.width(), width);
    let row_in = image.width() * CHANNELS;
    let mut out = vec![0u8; width * image.height() * CHANNELS];
    if !out.is_empty() {
        out.par_chunks_exact_mut(width * CHANNELS)
            .zip(image.pixels().par_chunks_exact(row_in))
            .for_each(|(row, source)| resize_row(row, source, &windows));
    }
    RgbImage8::from_parts(width, image.height(), out)
}

fn resize_row(row: &mut [u8], source: &[u8], windows: &[Window]) {
    for (pixel, window) in row.chunks_exact_mut(CHANNELS).zip(windows) {
        let mut sum = [HALF; CHANNELS];
        let taps = source[window.start * CHANNELS..].chunks_exact(CHANNELS);
        for (tap, &weight) in taps.zip(&window.weights) {
            for channel in 0..CHANNELS {
                sum[channel] += i32::from(tap[channel]) * weight;
            }
        }
        for channel in 0..CHANNELS {
            pixel[channel] = to_u8(sum[channel]);
        }
    }
}

fn resize_columns(image: &RgbImage8, height: usize) -> RgbImage8 {
    let windows = windows(image.height(), height);
    let row = image.width() * CHANNELS;
    let mut out = vec![0u8; row * height];
    if !out.is_empty() {
        out.par_chunks_exact_mut(row).zip(&windows).for_each(|(target, window)| {
            let mut sums = vec![HALF; row];
            let taps = image.pixels()[window.start * row..].chunks_exact(row);
            for (tap, &weight) in taps.zip(&window.weights) {
                for (sum, &value) in sums.iter_mut().zip(tap) {
                    *sum += i32::from(value) * weight;
                }
            }
            for (value, sum) in target.iter_mut().zip(sums) {
                *value = to_u8(sum);
            }
        });
    }
    RgbImage8::from_parts(image.width(), height, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::image::{ImageProcessorConfig, pad_to_square};

    /// CRC-32 as in zlib.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
            })
        })
    }

    fn pattern(height: usize, width: usize) -> RgbImage8 {
        let mut pixels = Vec::with_capacity(height * width * 3);
        for y in 0..height {
            for x in 0..width {
                for c in 0..3 {
                    pixels.push(((7 * x + 13 * y + 29 * c + 5 * ((x * y) % 31)) % 256) as u8);
                }
            }
        }
        RgbImage8::from_parts(width, height, pixels)
    }

    /// Source height and width, resized height and width, CRC of the source, CRC and sum of the
    /// canvas; written by Pillow 12 through the original `VLMImageProcessor`.
    const GOLDEN: [(usize, usize, usize, usize, u32, u32, u64); 9] = [
        (427, 640, 256, 384, 0x47f2d347, 0xb989a6ca, 56332761),
        (640, 427, 384, 256, 0xc4387c42, 0x6184ff5e, 56334852),
        (428, 640, 256, 384, 0xd41b7f7a, 0x995848ee, 56332331),
        (1000, 333, 384, 127, 0x1ac5a081, 0x48f90a0b, 56256589),
        (100, 50, 384, 192, 0x115796ad, 0xa9724e27, 56185879),
        (384, 200, 384, 200, 0x70bbb669, 0xdf0c9bf8, 56315548),
        (37, 911, 15, 384, 0x2ab4e65d, 0x5f6b23ab, 56186976),
        (384, 384, 384, 384, 0x76c82a3d, 0x76c82a3d, 56414238),
        (500, 500, 384, 384, 0xb703753a, 0xb5f5d61a, 56400935),
    ];

    #[test]
    fn nine_canvases_equal_pillow() {
        let config = ImageProcessorConfig::default();
        for (h, w, new_h, new_w, source_crc, canvas_crc, canvas_sum) in GOLDEN {
            let source = pattern(h, w);
            assert_eq!(crc32(source.pixels()), source_crc, "source {h}x{w}");
            let (width, height) = config.resized(w, h);
            assert_eq!((height, width), (new_h, new_w), "size of {h}x{w}");
            let canvas = pad_to_square(&resize_bicubic(&source, width, height), 384, [127; 3]);
            let sum: u64 = canvas.pixels().iter().map(|&v| u64::from(v)).sum();
            assert_eq!(sum, canvas_sum, "sum of the canvas of {h}x{w}");
            assert_eq!(crc32(canvas.pixels()), canvas_crc, "canvas of {h}x{w}");
        }
    }

    #[test]
    fn an_equal_size_is_the_identity() {
        let source = pattern(17, 23);
        assert_eq!(resize_bicubic(&source, 23, 17), source);
    }

    #[test]
    fn a_flat_picture_stays_flat() {
        let source = RgbImage8::from_parts(5, 9, vec![200; 5 * 9 * 3]);
        for (width, height) in [(1, 1), (3, 20), (64, 2)] {
            let resized = resize_bicubic(&source, width, height);
            assert!(resized.pixels().iter().all(|&v| v == 200), "{width}x{height}");
        }
    }
}
