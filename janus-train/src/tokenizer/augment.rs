//! A picture as the tokenizer sees it in training: a random square of it, perhaps mirrored.
//!
//! The short side becomes `side / f` for a random `f` between `min_crop` and 1, then a random
//! square of `side` pixels is cut out. As in LlamaGen, but for one thing: large pictures are
//! resized in one antialiased step, where the original first halves them to save time.

use janus_model::processor::resize::resize_bicubic;
use janus_model::processor::{ImageProcessorConfig, PixelValues, RgbImage8};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::random::{happens, hash};

/// What is left to chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// Least share of the short side that is seen.
    pub min_crop: f64,
    /// Whether every other picture is mirrored.
    pub flip: bool,
    /// Most that is added to or taken from what the encoder sees, number by number, of pixels in
    /// [-1, 1]; what is to come out stays as it is. So codes are not spent on noise, which no model
    /// could draw on purpose.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub noise: f64,
}

// Serde asks by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// The middle of a picture, as every tokenizer of ours is asked later.
pub fn middle(image: &RgbImage8, side: usize) -> PixelValues {
    let rules = ImageProcessorConfig { image_size: side, ..ImageProcessorConfig::default() };
    rules.generation_pixels(image)
}

impl AugmentConfig {
    /// A square of `side` pixels; `chance` decides which.
    pub fn square(&self, image: &RgbImage8, side: usize, chance: u64) -> PixelValues {
        // Numbers 0..n, each as likely as the others, as far as 64 bits can tell.
        let among =
            |n: usize, what: u64| ((u128::from(hash(&[chance, what])) * n as u128) >> 64) as usize;
        let longest = (side as f64 / self.min_crop).ceil() as usize;
        let short = side + among(longest - side + 1, 1);
        let scale = short as f64 / image.width().min(image.height()) as f64;
        let scaled = |length: usize| ((length as f64 * scale).round() as usize).max(side);
        let resized = resize_bicubic(image, scaled(image.width()), scaled(image.height()));
        let left = among(resized.width() - side + 1, 2);
        let top = among(resized.height() - side + 1, 3);
        let mirrored = self.flip && happens(hash(&[chance, 4]), 0.5);
        let mut pixels = Vec::with_capacity(side * side * 3);
        for row in resized.pixels().chunks_exact(resized.width() * 3).skip(top).take(side) {
            let row = &row[left * 3..(left + side) * 3];
            match mirrored {
                true => pixels.extend(row.chunks_exact(3).rev().flatten()),
                false => pixels.extend_from_slice(row),
            }
        }
        // The length is right by construction.
        RgbImage8::new(side, side, pixels)
            .map_or_else(|_| middle(image, side), |square| middle(&square, side))
    }

    /// Pixels as the encoder sees them; `chance` decides.
    pub fn noisy(&self, mut pixels: Vec<f32>, chance: u64) -> Vec<f32> {
        if self.noise > 0.0 {
            pixels.par_iter_mut().enumerate().for_each(|(at, pixel)| {
                let even = (hash(&[chance, at as u64]) >> 40) as f32 / (1 << 24) as f32; // 0..1
                *pixel += (2.0 * even - 1.0) * self.noise as f32;
            });
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns of their own brightness, so that a place can be told from a pixel.
    fn columns(width: usize, height: usize) -> RgbImage8 {
        let row: Vec<u8> = (0..width).flat_map(|x| [(x * 255 / width) as u8; 3]).collect();
        RgbImage8::new(width, height, row.repeat(height)).expect("a picture")
    }

    #[test]
    fn chance_decides_and_nothing_else() {
        let (image, augment) =
            (columns(60, 40), AugmentConfig { min_crop: 0.5, flip: true, noise: 0.0 });
        let all: Vec<_> = (0..64).map(|chance| augment.square(&image, 16, chance)).collect();
        assert!(all.iter().all(|square| square.side == 16 && square.data.len() == 768));
        assert_eq!(all[5], augment.square(&image, 16, 5));
        let mirrored = all.iter().filter(|square| square.data[0] > square.data[15]).count();
        assert!((16..48).contains(&mirrored), "{mirrored}");
        let spans: Vec<f32> = all.iter().map(|s| (s.data[0] - s.data[15]).abs()).collect();
        let (least, most) = spans.iter().fold((9.0f32, 0.0f32), |(a, b), s| (a.min(*s), b.max(*s)));
        // Of the 60 columns, 20 to 40 are seen.
        assert!(least < 0.75 && most > 1.0 && most < 1.4, "{least} {most}");
    }

    #[test]
    fn noise_is_even_and_by_chance() {
        let with = |noise| AugmentConfig { min_crop: 1.0, flip: false, noise };
        let noisy = with(0.1).noisy(vec![0.5; 30_000], 3);
        assert_eq!(noisy, with(0.1).noisy(vec![0.5; 30_000], 3));
        assert_ne!(noisy, with(0.1).noisy(vec![0.5; 30_000], 4));
        assert!(noisy.iter().all(|pixel| (0.4..=0.6).contains(pixel)));
        let mean = noisy.iter().sum::<f32>() / 30_000.0;
        let square = noisy.iter().map(|pixel| (pixel - 0.5).powi(2)).sum::<f32>() / 30_000.0;
        assert!(
            (mean - 0.5).abs() < 0.002 && (square - 0.01 / 3.0).abs() < 1e-4,
            "{mean} {square}"
        );
        assert_eq!(with(0.0).noisy(vec![0.5; 3], 3), [0.5; 3]);
    }

    #[test]
    fn without_chance_it_is_a_square_of_the_whole_height() {
        let augment = AugmentConfig { min_crop: 1.0, flip: false, noise: 0.0 };
        let image = columns(16, 16);
        assert_eq!(augment.square(&image, 16, 7), middle(&image, 16));
        // A tiny picture is made larger.
        assert_eq!(augment.square(&columns(3, 2), 16, 7).side, 16);
    }
}
