//! Picture files that nobody should trust, made byte by byte.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat};

/// A picture as a file.
pub fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).expect("an encodable picture");
    bytes.into_inner()
}

/// Noise-like, so that files are long enough to cut.
pub fn picture() -> image::RgbImage {
    image::RgbImage::from_fn(40, 30, |x, y| {
        image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y * 7) as u8])
    })
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

/// A chunk of a PNG.
pub fn chunk(name: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let named = [name, contents].concat();
    let length = (contents.len() as u32).to_be_bytes();
    [&length[..], &named, &crc32(&named).to_be_bytes()].concat()
}

/// A PNG whose header is right and whose pixels are missing.
pub fn png_header(width: u32, height: u32, depth: u8, color: u8) -> Vec<u8> {
    let sizes = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = [&sizes[..], &[depth, color, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n", &chunk(b"IHDR", &header)[..], &chunk(b"IDAT", b"\x78\x9c")].concat()
}

/// A real PNG with chunks put in behind the header.
pub fn png_with(extra: &[Vec<u8>]) -> Vec<u8> {
    let png = encode(picture(), ImageFormat::Png);
    [&png[..33], &extra.concat(), &png[33..]].concat()
}

/// A real JPEG with other sizes in its frame header.
pub fn jpeg_header(width: u16, height: u16) -> Vec<u8> {
    let mut jpeg = encode(picture(), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).expect("a baseline frame");
    jpeg[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    jpeg[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    jpeg
}

/// A JPEG of 40x30 with an EXIF block of one entry.
pub fn jpeg_with_orientation(value: u16, directory: u32) -> Vec<u8> {
    let jpeg = encode(picture(), ImageFormat::Jpeg);
    let entry = [&[0x12, 0x01, 3, 0, 1, 0, 0, 0][..], &value.to_le_bytes(), &[0, 0]].concat();
    // The next directory is this one: a loop.
    let tiff =
        [b"II*\0", &directory.to_le_bytes()[..], &[1, 0], &entry, &8u32.to_le_bytes()].concat();
    let exif = [b"Exif\0\0", &tiff[..]].concat();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

/// Three lossless frames of 3x2: (250,10,20), (1,2,200), (250,10,20). Written by Pillow.
pub const ANIMATED_WEBP: &str = "52494646b800000057454250565038580a00000002000000020000010000414e494d06000000000000000000414e4d462a000000000000000000020000010000320000025650384c110000002f02400000075085ea97a2ff8188e87f0000414e4d4628000000000000000000020000010000320000005650384c100000002f024000000750812c72ff0311d1ff00414e4d462a000000000000000000020000010000320000005650384c110000002f02400000075085ea97a2ff8188e87f0000";

/// Bytes from their digits.
pub fn from_hex(text: &str) -> Vec<u8> {
    let digit = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(digit).collect()
}
