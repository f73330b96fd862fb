//! What a picture shows before it is finished.
//!
//! Codes come in raster order, so what is drawn is a top part of the picture. The image tokenizer
//! decodes whole grids only: the missing codes are filled with the last one above them, which leaves
//! what is drawn undisturbed by a hard edge, and what was made up is painted grey afterwards. Its
//! convolutions and attention look around, so finished places may still change a little.
//!
//! The cost is that of decoding one picture, however little of it is drawn.

use janus_model::Janus;
use janus_model::processor::{ProcessorError, RgbImage8};

use crate::error::InferError;
use crate::generate::pictures;

/// Neutral: the middle of the range of pixels.
const GREY: [u8; 3] = [127; 3];

/// The picture so far, grey where it is not drawn yet.
///
/// # Errors
/// [`InferError::Request`] for codes that are too many or out of range.
pub fn preview(janus: &Janus, codes: &[i32]) -> Result<RgbImage8, InferError> {
    let config = janus.config();
    let (grid, total) = (config.gen_vision.grid(), config.image_codes());
    let image = pictures(janus, &[filled(codes, grid, total)], 1)?.remove(0);
    cover(image, codes.len(), grid)
}

/// A whole grid: each missing code is that above it, or the last one of the first row.
fn filled(codes: &[i32], grid: usize, total: usize) -> Vec<i32> {
    let mut all = codes.to_vec();
    while all.len() < total {
        let above = all.len().checked_sub(grid).map(|at| all[at]);
        all.push(above.or(codes.last().copied()).unwrap_or(0));
    }
    all
}

/// Paints every place from number `drawn` on.
fn cover(image: RgbImage8, drawn: usize, grid: usize) -> Result<RgbImage8, InferError> {
    let (width, height) = (image.width(), image.height());
    let block = width / grid;
    let mut pixels = image.into_pixels();
    for (y, line) in pixels.chunks_exact_mut(3 * width).enumerate() {
        // Places of this row that are drawn.
        let places = drawn.saturating_sub(y / block * grid).min(grid);
        line[3 * places * block..].as_chunks_mut().0.fill(GREY);
    }
    Ok(RgbImage8::new(width, height, pixels).map_err(ProcessorError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_codes_continue_those_above() {
        assert_eq!(filled(&[], 2, 4), [0, 0, 0, 0]);
        assert_eq!(filled(&[7], 2, 4), [7, 7, 7, 7]);
        assert_eq!(filled(&[7, 8, 9], 2, 6), [7, 8, 9, 8, 9, 8]);
        assert_eq!(filled(&[1, 2, 3, 4], 2, 4), [1, 2, 3, 4]);
    }

    #[test]
    fn what_is_not_drawn_is_grey_block_by_block() {
        let white = RgbImage8::filled(4, 4, [255; 3]);
        let rows = |drawn| {
            let image = cover(white.clone(), drawn, 2).expect("as large as before");
            let bytes: Vec<u8> = image.pixels().iter().step_by(3).copied().collect();
            bytes.chunks(4).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let (all, half, none) = (vec![255; 4], vec![255, 255, 127, 127], vec![127; 4]);
        assert_eq!(rows(0), [&none[..]; 4]);
        assert_eq!(rows(1), [&half[..], &half, &none, &none]);
        assert_eq!(rows(3), [&all[..], &all, &half, &half]);
        assert_eq!(rows(4), [&all[..]; 4]);
    }
}
