//! Several pictures on one sheet.

use janus_model::processor::RgbImage8;

/// Pixels between two pictures.
const GAP: usize = 4;
/// Colour between them, and where there is none.
const PAPER: [u8; 3] = [255; 3];

/// Pictures of one size, row by row, as nearly square as their number allows. `None` without any,
/// or where sizes differ.
pub fn sheet(pictures: &[RgbImage8]) -> Option<RgbImage8> {
    let first = pictures.first()?;
    let (width, height) = (first.width(), first.height());
    if pictures.iter().any(|picture| (picture.width(), picture.height()) != (width, height)) {
        return None;
    }
    let columns = columns(pictures.len());
    let rows = pictures.len().div_ceil(columns);
    let whole = columns * (width + GAP) - GAP;
    let mut pixels = PAPER.repeat(whole * (rows * (height + GAP) - GAP));
    for (number, picture) in pictures.iter().enumerate() {
        let (left, top) = (number % columns * (width + GAP), number / columns * (height + GAP));
        for (y, line) in picture.pixels().chunks_exact(3 * width).enumerate() {
            let at = 3 * ((top + y) * whole + left);
            pixels[at..at + 3 * width].copy_from_slice(line);
        }
    }
    RgbImage8::new(whole, rows * (height + GAP) - GAP, pixels).ok()
}

/// The fewest columns that are not fewer than the rows.
fn columns(count: usize) -> usize {
    (1..).find(|columns| columns * columns >= count).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sheets_are_nearly_square() {
        let counts = [1, 2, 3, 4, 5, 9, 10];
        assert_eq!(counts.map(columns), [1, 2, 2, 2, 3, 3, 4]);
    }

    #[test]
    fn pictures_lie_in_their_order() {
        let pictures: Vec<_> = (1..=3).map(|grey| RgbImage8::filled(3, 2, [grey; 3])).collect();
        let sheet_of_3 = sheet(&pictures).expect("a sheet");
        assert_eq!((sheet_of_3.width(), sheet_of_3.height()), (3 + GAP + 3, 2 + GAP + 2));
        let at = |x: usize, y: usize| sheet_of_3.pixels()[3 * (y * sheet_of_3.width() + x)];
        assert_eq!((at(0, 0), at(2, 1), at(3 + GAP, 0), at(0, 2 + GAP)), (1, 1, 2, 3));
        assert_eq!(
            (at(3, 0), at(2 + GAP, 1), at(0, 2), at(3 + GAP, 2 + GAP)),
            (255, 255, 255, 255)
        );
        assert_eq!(sheet(&pictures[..1]), Some(pictures[0].clone()));
        assert_eq!(sheet(&[]), None);
        assert_eq!(sheet(&[pictures[0].clone(), RgbImage8::filled(1, 1, [0; 3])]), None);
    }
}
