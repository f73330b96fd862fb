//! From the bytes of a picture file to RGB, safely and as Pillow's `.convert("RGB")` would.
//!
//! Every number in a header is checked before anything is decoded. Only PNG, JPEG, WebP, GIF and
//! BMP are compiled in; the format is told from the first bytes, never from a name. Of an
//! animation only the first frame is decoded. Metadata is ignored, the EXIF orientation excepted.
//!
//! Conversions that are Pillow's and may surprise: alpha is **dropped**, not blended; 16-bit grey
//! is **clipped** to 255 (mode `I;16`), while 16-bit colour and grey+alpha keep their high byte.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::image::codecs::{bmp, gif, jpeg, png, webp};
use ::image::error::ImageError as CodecError;
use ::image::{DynamicImage, ImageDecoder, Limits};

use super::error::{ImageError, ImageLimit};
use super::files::read_file;
use super::image::RgbImage8;

/// What a picture may cost. Checked on the header, before decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of the file.
    pub max_bytes: u64,
    /// Width times height.
    pub max_pixels: u64,
    /// Width or height.
    pub max_side: u64,
    /// Long side over short side.
    pub max_ratio: u64,
    /// Bytes the decoder may allocate, its output included.
    pub max_decoder_bytes: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            max_bytes: 20 << 20,
            max_pixels: 40_000_000,
            max_side: 16_384,
            max_ratio: 200,
            max_decoder_bytes: 256 << 20,
        }
    }
}

/// Whether the EXIF orientation is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orientation {
    /// Turned as the photographer held the camera; values outside 1..=8 count as 1.
    #[default]
    Upright,
    /// As stored, which is what the reference code does.
    Raw,
}

/// Reads a picture file.
///
/// # Errors
/// Those of [`decode_image`], wrapped with the path, and [`ImageError::Read`]: directories, pipes
/// and devices are never opened.
pub fn load_image(
    path: &Path,
    limits: &ImageLimits,
    orientation: Orientation,
) -> Result<RgbImage8, ImageError> {
    let bytes = read_file(path, limits.max_bytes)?;
    decode_image(&bytes, limits, orientation)
        .map_err(|e| ImageError::File { path: path.to_owned(), source: Box::new(e) })
}

/// Decodes the first frame of a PNG, JPEG, WebP, GIF or BMP.
///
/// # Errors
/// [`ImageError::Empty`], [`ImageError::NotAnImage`], [`ImageError::UnsupportedFormat`],
/// [`ImageError::TooManyBytes`], [`ImageError::NoPixels`], [`ImageError::TooLarge`],
/// [`ImageError::Truncated`] and [`ImageError::Decode`].
pub fn decode_image(
    bytes: &[u8],
    limits: &ImageLimits,
    orientation: Orientation,
) -> Result<RgbImage8, ImageError> {
    if bytes.len() as u64 > limits.max_bytes {
        return Err(ImageError::TooManyBytes {
            bytes: bytes.len() as u64,
            limit: limits.max_bytes,
        });
    }
    let format = sniff(bytes)?;
    // The decoders are fuzzed by their authors, but a panic here would end a server's request
    // thread: it is turned into the same error as any other damage.
    catch_unwind(AssertUnwindSafe(|| decode_format(format, bytes, limits, orientation)))
        .unwrap_or_else(|_| Err(damaged(format, "the decoder gave up")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Png,
    Jpeg,
    WebP,
    Gif,
    Bmp,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
        }
    }
}

fn sniff(bytes: &[u8]) -> Result<Format, ImageError> {
    let at =
        |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|b| b.starts_with(magic));
    // "BM" alone may start a text; a BMP's second header has one of few sizes.
    let bmp_header = bytes.get(14..18).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    match bytes {
        [] => Err(ImageError::Empty),
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Ok(Format::Png),
        [0xff, 0xd8, 0xff, ..] => Ok(Format::Jpeg),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Format::Gif),
        _ if at(0, b"RIFF") && at(8, b"WEBP") => Ok(Format::WebP),
        [b'B', b'M', ..] if bmp_header.is_some_and(|size| (12..=124).contains(&size)) => {
            Ok(Format::Bmp)
        }
        _ => Err(not_decodable(bytes)),
    }
}

/// Names what the bytes are instead of a supported picture.
fn not_decodable(bytes: &[u8]) -> ImageError {
    let head = &bytes[..bytes.len().min(64)];
    let brand = head.get(8..12).filter(|_| head.get(4..8) == Some(b"ftyp"));
    let known: [(&[u8], &'static str); 12] = [
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"#?RADIANCE", "HDR"),
        (b"\x76\x2f\x31\x01", "EXR"),
        (b"\0\0\x01\0", "ICO"),
        (b"%PDF", "PDF"),
        (b"<svg", "SVG"),
        (b"8BPS", "PSD"),
        (b"\0\0\0\x0cjP", "JPEG 2000"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL ", "JPEG XL"),
        (b"qoif", "QOI"),
    ];
    let format = match brand {
        Some(b"avif" | b"avis") => Some("AVIF"),
        Some(b"heic" | b"heix" | b"mif1" | b"msf1") => Some("HEIC"),
        _ => known.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name),
    };
    if let Some(format) = format {
        return ImageError::UnsupportedFormat { format };
    }
    let text = std::str::from_utf8(head).ok().map(|text| text.trim_start().to_ascii_lowercase());
    let found = match text {
        Some(text) if text.starts_with("<?xml") && contains(bytes, b"<svg") => {
            return ImageError::UnsupportedFormat { format: "SVG" };
        }
        Some(text) if text.starts_with("<!doctype html") || text.starts_with("<html") => {
            "an HTML page".to_owned()
        }
        Some(text) if text.starts_with("version https://git-lfs") => "a Git LFS pointer".to_owned(),
        Some(text) if !text.contains('\0') => "text".to_owned(),
        _ => format!("unknown bytes {:02x?}", &head[..head.len().min(8)]),
    };
    ImageError::NotAnImage { found }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes[..bytes.len().min(1024)].windows(needle.len()).any(|window| window == needle)
}

fn decode_format(
    format: Format,
    bytes: &[u8],
    limits: &ImageLimits,
    orientation: Orientation,
) -> Result<RgbImage8, ImageError> {
    let source = Cursor::new(bytes);
    let fail = |e| codec_error(format, e);
    let run = Run { format, limits, orientation, clip_grey: false };
    match format {
        Format::Png => {
            // Sizes come first in a PNG: a bomb is refused even if nothing follows them.
            run.check(png_size(bytes)?, 0)?;
            let essential = png_essentials(bytes);
            let mut codec_limits = Limits::default();
            codec_limits.max_alloc = Some(limits.max_decoder_bytes);
            let source = Cursor::new(essential.as_slice());
            let decoder = png::PngDecoder::with_limits(source, codec_limits).map_err(fail)?;
            // A grey picture with a transparent colour arrives as grey+alpha, like a true one.
            Run { clip_grey: bytes.get(PNG_COLOR_TYPE) == Some(&0), ..run }.finish(decoder)
        }
        Format::Jpeg => {
            let decoder = jpeg::JpegDecoder::new(source).map_err(fail)?;
            run.check(decoder.dimensions(), decoder.total_bytes())?;
            if !jpeg_has_end(bytes) {
                return Err(ImageError::Truncated { format: format.name() });
            }
            run.finish(decoder)
        }
        Format::WebP => run.finish(webp::WebPDecoder::new(source).map_err(fail)?),
        Format::Gif => run.finish(gif::GifDecoder::new(source).map_err(fail)?),
        Format::Bmp => run.finish(bmp::BmpDecoder::new(source).map_err(fail)?),
    }
}

/// Offset of the colour type in a PNG file.
const PNG_COLOR_TYPE: usize = 25;

fn png_size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let truncated = || ImageError::Truncated { format: Format::Png.name() };
    let number = |offset: usize| {
        let field = bytes.get(offset..)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*field))
    };
    if bytes.get(12..16).ok_or_else(truncated)? != b"IHDR" {
        return Err(damaged(Format::Png, "the first chunk is not IHDR"));
    }
    number(16).zip(number(20)).ok_or_else(truncated)
}

/// The PNG with only the chunks that make its first picture, and its EXIF. Compressed texts,
/// colour profiles and further frames, whose contents may be bombs, never reach the decoder.
fn png_essentials(bytes: &[u8]) -> Vec<u8> {
    let (signature, mut rest) = bytes.split_at(8);
    let mut kept = signature.to_vec();
    while let Some(length) = rest.first_chunk::<4>() {
        // Length, name, contents, checksum.
        let total = u32::from_be_bytes(*length) as usize + 12;
        let chunk = &rest[..total.min(rest.len())];
        let name = chunk.get(4..8).unwrap_or_default();
        // The small cap keeps an EXIF block from being the bomb; a real orientation fits.
        let exif = name == b"eXIf" && total <= 1 << 16;
        if exif || matches!(name, b"IHDR" | b"PLTE" | b"tRNS" | b"IDAT" | b"IEND") {
            kept.extend_from_slice(chunk);
        }
        rest = &rest[chunk.len()..];
    }
    kept
}

/// Whether the markers lead to the end-of-image marker. Decoders fill the rest of a cut file with
/// grey; Pillow, and we, refuse it.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(window) = bytes.get(at..at + 2) {
        match (window[0], window[1]) {
            (0xff, 0xd9) => return true,
            // Stuffed bytes, restarts, fill bytes and a repeated start carry no length.
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
            (0xff, 0xff) => at += 1,
            (0xff, _) => {
                let Some(length) = bytes.get(at + 2..at + 4) else {
                    return false;
                };
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
            _ => at += 1,
        }
    }
    false
}

/// What is the same for all formats once a decoder has read its header.
struct Run<'a> {
    format: Format,
    limits: &'a ImageLimits,
    orientation: Orientation,
    clip_grey: bool,
}

impl Run<'_> {
    /// Holds a header against the limits; `bytes` is what the decoder will allocate.
    fn check(&self, (width, height): (u32, u32), bytes: u64) -> Result<(), ImageError> {
        let (width, height) = (u64::from(width), u64::from(height));
        let limits = self.limits;
        if width == 0 || height == 0 {
            return Err(ImageError::NoPixels { width, height });
        }
        let (short, long) = (width.min(height), width.max(height));
        let (which, limit) = if long > limits.max_side {
            (ImageLimit::Side, format!("a side may have {} pixels", limits.max_side))
        } else if width * height > limits.max_pixels {
            (ImageLimit::Pixels, format!("the limit is {} pixels in all", limits.max_pixels))
        } else if long > short.saturating_mul(limits.max_ratio) {
            let limit = format!("the longer side may be {} times the shorter", limits.max_ratio);
            (ImageLimit::Ratio, limit)
        } else if bytes > limits.max_decoder_bytes {
            let most = limits.max_decoder_bytes;
            (ImageLimit::Memory, format!("decoding takes {bytes} bytes, the limit is {most}"))
        } else {
            return Ok(());
        };
        Err(ImageError::TooLarge { width, height, limit, which })
    }

    fn finish(&self, mut decoder: impl ImageDecoder) -> Result<RgbImage8, ImageError> {
        self.check(decoder.dimensions(), decoder.total_bytes())?;
        let mut codec_limits = Limits::default();
        codec_limits.max_alloc = Some(self.limits.max_decoder_bytes);
        decoder.set_limits(codec_limits).map_err(|e| codec_error(self.format, e))?;
        // Damaged EXIF is no reason to refuse a picture.
        let turn = decoder.orientation().ok().filter(|_| self.orientation == Orientation::Upright);
        let decoded =
            DynamicImage::from_decoder(decoder).map_err(|e| codec_error(self.format, e))?;
        let mut rgb = DynamicImage::ImageRgb8(to_rgb(decoded, self.clip_grey));
        if let Some(turn) = turn {
            rgb.apply_orientation(turn);
        }
        let rgb = rgb.into_rgb8();
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        RgbImage8::new(width, height, rgb.into_raw())
    }
}

/// Pillow's `.convert("RGB")`, see the module's head.
fn to_rgb(image: DynamicImage, clip_grey: bool) -> ::image::RgbImage {
    let (width, height) = (image.width(), image.height());
    let grey = |value: u8| [value; 3];
    let high = |value: u16| (value >> 8) as u8;
    let clip = |value: u16| value.min(255) as u8;
    let pixels: Vec<u8> = match image {
        DynamicImage::ImageRgb8(rgb) => return rgb,
        DynamicImage::ImageLuma8(i) => i.pixels().flat_map(|p| grey(p.0[0])).collect(),
        DynamicImage::ImageLumaA8(i) => i.pixels().flat_map(|p| grey(p.0[0])).collect(),
        DynamicImage::ImageRgba8(i) => i.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]).collect(),
        DynamicImage::ImageLuma16(i) => i.pixels().flat_map(|p| grey(clip(p.0[0]))).collect(),
        DynamicImage::ImageLumaA16(i) if clip_grey => {
            i.pixels().flat_map(|p| grey(clip(p.0[0]))).collect()
        }
        DynamicImage::ImageLumaA16(i) => i.pixels().flat_map(|p| grey(high(p.0[0]))).collect(),
        DynamicImage::ImageRgb16(i) => i.as_raw().iter().map(|&v| high(v)).collect(),
        DynamicImage::ImageRgba16(i) => {
            i.pixels().flat_map(|p| [high(p.0[0]), high(p.0[1]), high(p.0[2])]).collect()
        }
        other => return other.into_rgb8(),
    };
    // The length is right by construction; an empty picture would be refused by the caller.
    ::image::RgbImage::from_raw(width, height, pixels).unwrap_or_default()
}

fn codec_error(format: Format, error: CodecError) -> ImageError {
    match error {
        CodecError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format: format.name() }
        }
        other => damaged(format, &other.to_string()),
    }
}

/// The reason comes from a decoder and may quote the file: cut, and without control characters.
fn damaged(format: Format, reason: &str) -> ImageError {
    let reason = reason.chars().filter(|c| !c.is_control()).take(200).collect();
    ImageError::Decode { format: format.name(), reason }
}
