//! From the image decoder's floats to pictures and PNG files.
//!
//! `v = clip((x + 1) / 2 · 255, 0, 255)`, then a cast to u8 that **truncates**. Rounding would be
//! nicer and would differ from the reference in about half of all bytes.
//!
//! Source: `generation_inference.py` of deepseek-ai/Janus.

use ::image::ImageEncoder;
use ::image::codecs::png::PngEncoder;

use super::error::ImageError;
use super::image::RgbImage8;

/// Turns one decoded picture into 8-bit RGB.
///
/// `pixels` is planar `[3, height, width]`, nominally in [-1,1] and clipped to it. NaN becomes 0.
///
/// # Errors
/// [`ImageError::PixelCount`] where the length is not `3 * height * width`.
pub fn to_rgb(pixels: &[f32], width: usize, height: usize) -> Result<RgbImage8, ImageError> {
    let plane = width * height;
    if pixels.len() != 3 * plane {
        return Err(ImageError::PixelCount { found: pixels.len(), width, height });
    }
    let (red, rest) = pixels.split_at(plane);
    let (green, blue) = rest.split_at(plane);
    let bytes = red
        .iter()
        .zip(green)
        .zip(blue)
        .flat_map(|((&r, &g), &b)| [to_u8(r), to_u8(g), to_u8(b)])
        .collect();
    Ok(RgbImage8::from_parts(width, height, bytes))
}

/// One value of [-1,1] to 0..=255, truncating; NaN, which Python leaves undefined here, to 0.
fn to_u8(x: f32) -> u8 {
    // Rust's `as` saturates, truncates and maps NaN to 0: the clip is part of the cast.
    ((x + 1.0) / 2.0 * 255.0) as u8
}

impl RgbImage8 {
    /// Writes the picture as a PNG file.
    ///
    /// # Errors
    /// [`ImageError::Encode`] where the encoder refuses, as it does for an empty picture.
    pub fn to_png(&self) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes)
            .write_image(
                self.pixels(),
                self.width() as u32,
                self.height() as u32,
                ::image::ExtendedColorType::Rgb8,
            )
            .map_err(|source| ImageError::Encode { reason: source.to_string() })?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::decode::{ImageLimits, Orientation, decode_image};

    #[test]
    fn values_are_clipped_and_truncated() {
        let cases = [
            (-1.0, 0),
            (1.0, 255),
            (-7.0, 0),
            (7.0, 255),
            (0.0, 127),
            (0.9999, 254),
            (f32::INFINITY, 255),
            (f32::NEG_INFINITY, 0),
            (f32::NAN, 0),
        ];
        for (x, expected) in cases {
            assert_eq!(to_u8(x), expected, "{x}");
        }
    }

    #[test]
    fn planes_become_pixels() {
        let image = to_rgb(&[-1.0, 1.0, 0.0, 0.0, 1.0, -1.0], 2, 1).expect("two pixels");
        assert_eq!(image.pixels(), [0, 127, 255, 255, 127, 0]);
        assert!(matches!(to_rgb(&[0.0; 5], 2, 1), Err(ImageError::PixelCount { found: 5, .. })));
    }

    #[test]
    fn a_png_reads_back_unchanged() {
        let image = RgbImage8::from_parts(3, 2, (0..18).map(|v| v * 14).collect());
        let png = image.to_png().expect("a picture with pixels");
        let back = decode_image(&png, &ImageLimits::default(), Orientation::Upright);
        assert_eq!(back.expect("our own file"), image);
    }
}
