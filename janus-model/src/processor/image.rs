//! From an RGB picture to the floats that the networks read.
//!
//! Understanding (SigLIP): the long side is resized to `S` = 384 keeping the ratio, the picture is
//! centred on a grey `S`x`S` canvas, and `y = (x / 255 - mean) / std` maps it to [-1,1].
//! Generation (VQ encoder, training only): the **short** side is resized to `S`, the long side is
//! cropped around its centre, and the same map is applied. The crop position is not published;
//! the centre is what the tokenizer's own code base (LlamaGen) uses.
//!
//! Source: `image_processing_vlm.py` of deepseek-ai/Janus; Janus-Pro report, section 3.1.

use super::error::ImageError;
pub use super::image_config::{ImageProcessorConfig, SizeRule};
use super::resize::resize_bicubic;

/// An 8-bit RGB picture, rows from the top, `[height, width, 3]`. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage8 {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl RgbImage8 {
    /// Wraps pixels laid out as `[height, width, 3]`.
    ///
    /// # Errors
    /// [`ImageError::NoPixels`] for a side of 0, [`ImageError::PixelCount`] for another length
    /// than `height * width * 3`.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::NoPixels { width: width as u64, height: height as u64 });
        }
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if expected != Some(pixels.len()) {
            return Err(ImageError::PixelCount { found: pixels.len(), width, height });
        }
        Ok(Self { width, height, pixels })
    }

    /// [`RgbImage8::new`] for callers that computed the length themselves.
    pub(crate) fn from_parts(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        debug_assert_eq!(pixels.len(), width * height * 3);
        Self { width, height, pixels }
    }

    /// A picture of one colour; sides of 0 are raised to 1.
    pub fn filled(width: usize, height: usize, color: [u8; 3]) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        Self::from_parts(width, height, color.repeat(width * height))
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All bytes, `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Gives the bytes away, `[height, width, 3]`.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}

impl std::fmt::Debug for RgbImage8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbImage8({}x{})", self.width, self.height)
    }
}

/// One preprocessed picture: planar floats `[3, side, side]`, in [-1,1] with the published
/// mean and deviation of 0.5.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelValues {
    /// Height and width in pixels.
    pub side: usize,
    /// `3 * side * side` values, channel by channel.
    pub data: Vec<f32>,
}

impl ImageProcessorConfig {
    /// Resizes, pads and normalises one picture for the vision tower.
    ///
    /// # Shapes
    /// any picture -> `[3, image_size, image_size]`
    pub fn understanding_pixels(&self, image: &RgbImage8) -> PixelValues {
        let (width, height) = self.resized(image.width, image.height);
        let resized = resize_bicubic(image, width, height);
        let canvas = pad_to_square(&resized, self.image_size, self.background_color);
        self.normalize(&canvas)
    }

    /// Resizes and pads as [`ImageProcessorConfig::understanding_pixels`], in the range of the VQ
    /// encoder: for editing, where both must show the same, and all of it.
    ///
    /// # Shapes
    /// any picture -> `[3, image_size, image_size]`, always in [-1,1]
    pub fn editing_pixels(&self, image: &RgbImage8) -> PixelValues {
        let (width, height) = self.resized(image.width, image.height);
        let resized = resize_bicubic(image, width, height);
        let canvas = pad_to_square(&resized, self.image_size, self.background_color);
        let vq_range = Self { image_size: self.image_size, ..Self::default() };
        vq_range.normalize(&canvas)
    }

    /// Resizes, crops and normalises one picture for the VQ encoder.
    ///
    /// # Shapes
    /// any picture -> `[3, image_size, image_size]`, always in [-1,1]
    pub fn generation_pixels(&self, image: &RgbImage8) -> PixelValues {
        let side = self.image_size;
        let short = image.width.min(image.height);
        let scaled = |length: usize| (length as u64 * side as u64 / short as u64) as usize;
        let resized = resize_bicubic(image, scaled(image.width), scaled(image.height));
        // The VQ encoder's range is fixed by its own training, whatever the vision tower's file says.
        let vq_range = Self { image_size: side, ..Self::default() };
        vq_range.normalize(&crop_center(&resized, side))
    }

    /// Width and height after the resize: the long side becomes `image_size`, the short side
    /// follows by [`SizeRule`] and is at least `min_size`.
    pub fn resized(&self, width: usize, height: usize) -> (usize, usize) {
        let long = width.max(height).max(1);
        let scaled = |length: usize| {
            let size = match self.size_rule {
                // Equal to the reference's int(length / long * size) for all sides up to 3000.
                SizeRule::Original => {
                    (length as u64 * self.image_size as u64 / long as u64) as usize
                }
                SizeRule::HuggingFace => {
                    let delta = self.image_size as f64 / long as f64;
                    (length as f64 * delta).round_ties_even() as usize
                }
            };
            size.max(self.min_size)
        };
        (scaled(width), scaled(height))
    }

    /// # Shapes
    /// `[side, side, 3]` -> `[3, side, side]`
    fn normalize(&self, canvas: &RgbImage8) -> PixelValues {
        let plane = canvas.width * canvas.height;
        let mut data = vec![0.0; 3 * plane];
        for (channel, values) in data.chunks_exact_mut(plane.max(1)).enumerate() {
            let table = self.table(channel);
            for (value, pixel) in values.iter_mut().zip(canvas.pixels.chunks_exact(3)) {
                *value = table[usize::from(pixel[channel])];
            }
        }
        PixelValues { side: canvas.width, data }
    }

    /// What each byte of a channel becomes. The order of operations and the step from f64 to f32
    /// are the reference's: NumPy scales in f64, PyTorch normalises in f32.
    fn table(&self, channel: usize) -> [f32; 256] {
        let (mean, std) = (self.image_mean[channel] as f32, self.image_std[channel] as f32);
        std::array::from_fn(|byte| {
            let scaled = (byte as f64 * self.rescale_factor) as f32;
            if self.do_normalize { (scaled - mean) / std } else { scaled }
        })
    }
}

/// Centres a picture on a square of one colour; the odd pixel goes to the right and the bottom.
/// The picture must fit.
///
/// # Shapes
/// `[h, w, 3]` -> `[side, side, 3]`
pub fn pad_to_square(image: &RgbImage8, side: usize, background: [u8; 3]) -> RgbImage8 {
    let mut canvas = RgbImage8::filled(side, side, background);
    let (left, top) = ((side - image.width) / 2, (side - image.height) / 2);
    let rows = canvas.pixels.chunks_exact_mut(side * 3).skip(top);
    for (target, source) in rows.zip(image.pixels.chunks_exact(image.width * 3)) {
        target[left * 3..(left + image.width) * 3].copy_from_slice(source);
    }
    canvas
}

/// # Shapes
/// `[h, w, 3]`, both at least `side` -> `[side, side, 3]`
fn crop_center(image: &RgbImage8, side: usize) -> RgbImage8 {
    let (left, top) = ((image.width - side) / 2, (image.height - side) / 2);
    let rows = image.pixels.chunks_exact(image.width * 3).skip(top).take(side);
    let pixels = rows.flat_map(|row| &row[left * 3..(left + side) * 3]).copied().collect();
    RgbImage8::from_parts(side, side, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(table: &[f32; 256], byte: usize) -> u32 {
        table[byte].to_bits()
    }

    #[test]
    fn the_table_has_the_references_bits() {
        let table = ImageProcessorConfig::default().table(0);
        let golden = [
            (0, 0xbf80_0000),
            (1, 0xbf7d_fdfe),
            (126, 0xbc40_c0c0),
            (127, 0xbb80_8080),
            (128, 0x3b80_8100),
            (254, 0x3f7d_fdfe),
            (255, 0x3f80_0000),
        ];
        for (byte, expected) in golden {
            assert_eq!(bits(&table, byte), expected, "byte {byte}");
        }
    }

    #[test]
    fn both_size_rules() {
        let original = ImageProcessorConfig::default();
        let hugging_face =
            ImageProcessorConfig { size_rule: SizeRule::HuggingFace, ..Default::default() };
        assert_eq!(original.resized(640, 428), (384, 256));
        assert_eq!(hugging_face.resized(640, 428), (384, 257));
        // Beyond 27:1 the short side stops at min_size.
        assert_eq!(original.resized(1000, 5), (384, 14));
        assert_eq!(original.resized(1, 1), (384, 384));
    }

    #[test]
    fn understanding_pads_with_grey_only_beside_the_short_side() {
        let values = ImageProcessorConfig::default().understanding_pixels(&RgbImage8::filled(
            200,
            100,
            [255, 0, 255],
        ));
        assert_eq!((values.side, values.data.len()), (384, 3 * 384 * 384));
        let pixel = |c: usize, y: usize, x: usize| values.data[(c * 384 + y) * 384 + x];
        assert_eq!(pixel(0, 0, 0), -0.003_921_568_6);
        assert_eq!((pixel(0, 96, 0), pixel(1, 96, 0)), (1.0, -1.0));
        assert_eq!((pixel(0, 287, 383), pixel(0, 288, 383)), (1.0, -0.003_921_568_6));
    }

    #[test]
    fn generation_crops_the_centre_of_the_long_side() {
        let stripes: Vec<u8> =
            (0..12).flat_map(|x| if (4..8).contains(&x) { [255; 3] } else { [0; 3] }).collect();
        let image = RgbImage8::new(12, 4, stripes.repeat(4)).expect("12x4");
        let config = ImageProcessorConfig { image_size: 4, min_size: 1, ..Default::default() };
        let values = config.generation_pixels(&image);
        assert_eq!(values.data, vec![1.0; 3 * 16]);
    }

    #[test]
    fn a_picture_needs_pixels_and_the_right_length() {
        assert!(matches!(RgbImage8::new(0, 4, vec![]), Err(ImageError::NoPixels { .. })));
        let error = RgbImage8::new(2, 2, vec![0; 11]).expect_err("one byte short");
        assert_eq!(error.to_string(), "11 values are no 2x2 RGB picture");
        assert!(RgbImage8::new(usize::MAX, 2, vec![]).is_err());
    }
}
