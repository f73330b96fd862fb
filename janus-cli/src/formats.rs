//! Formats that pictures are written in.

use std::path::Path;

use clap::ValueEnum;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use janus_model::processor::RgbImage8;

use crate::metadata::{self, Record};
use crate::report::{Exit, Failure};

/// A format of picture files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Exact; says how it was drawn
    Png,
    /// Small, not exact
    Jpeg,
    /// Exact, mostly smaller than PNG
    Webp,
}

impl Format {
    /// The one a file name speaks of.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::Webp),
            _ => None,
        }
    }

    /// For names made here.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }

    /// As people write it; in small letters, as after `--format`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Webp => "WebP",
        }
    }
}

/// How pictures become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    pub format: Format,
    /// Of JPEG.
    pub quality: u8,
}

impl Encoding {
    /// What a JPEG is written with unless asked otherwise: no blocks to be seen.
    pub const QUALITY: u8 = 95;

    /// A whole file. Only PNG has a place for the record.
    ///
    /// # Errors
    /// [`Exit::Internal`]: encoders refuse only what is no picture.
    pub fn encode(self, image: &RgbImage8, record: Option<&Record>) -> Result<Vec<u8>, Failure> {
        let (width, height) = (image.width() as u32, image.height() as u32);
        let mut bytes = Vec::new();
        let done: Result<(), String> = match self.format {
            Format::Png => metadata::write_png(&mut bytes, image, record).map_err(text),
            Format::Jpeg => JpegEncoder::new_with_quality(&mut bytes, self.quality)
                .encode(image.pixels(), width, height, ExtendedColorType::Rgb8)
                .map_err(text),
            Format::Webp => WebPEncoder::new_lossless(&mut bytes)
                .encode(image.pixels(), width, height, ExtendedColorType::Rgb8)
                .map_err(text),
        };
        let name = self.format.name();
        done.map(|()| bytes)
            .map_err(|why| Failure::new(Exit::Internal, format!("cannot write {name}: {why}")))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use janus_model::processor::{ImageLimits, Orientation, decode_image};

    use super::*;

    #[test]
    fn names_tell_the_format() {
        let of = |name: &str| Format::of(Path::new(name));
        assert_eq!((of("a.png"), of("a.PNG")), (Some(Format::Png), Some(Format::Png)));
        assert_eq!((of("a.jpg"), of("a.b.jpeg")), (Some(Format::Jpeg), Some(Format::Jpeg)));
        assert_eq!(of("a.webp"), Some(Format::Webp));
        assert_eq!((of("a.tiff"), of("png"), of(".png")), (None, None, None));
        for format in [Format::Png, Format::Jpeg, Format::Webp] {
            assert_eq!(of(&format!("a.{}", format.extension())), Some(format));
        }
    }

    #[test]
    fn exact_formats_are_exact_and_jpeg_is_close() {
        let pixels = (0..32 * 16 * 3).map(|i| (i / 7 % 256) as u8).collect();
        let image = RgbImage8::new(32, 16, pixels).expect("pixels");
        let back = |format, quality| {
            let bytes = Encoding { format, quality }.encode(&image, None).expect("a picture");
            let back = decode_image(&bytes, &ImageLimits::default(), Orientation::Raw);
            (bytes.len(), back.expect("our own file"))
        };
        assert_eq!(back(Format::Png, 95).1, image);
        assert_eq!(back(Format::Webp, 95).1, image);
        let (fine, coarse) = (back(Format::Jpeg, 95), back(Format::Jpeg, 5));
        assert!(fine.0 > coarse.0, "quality is heeded");
        let off = |other: &RgbImage8| -> u32 {
            let pairs = image.pixels().iter().zip(other.pixels());
            pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).sum()
        };
        assert!(off(&fine.1) < off(&coarse.1));
    }
}
