//! Rows M of the catalogue of bad inputs: pictures.

use std::path::Path;

use image::{DynamicImage, ImageFormat};
use janus_model::processor::{
    Conversation, ErrorKind, ImageError, ImageLimits, Message, Orientation, Part, Processor,
    ProcessorError, PromptError, RgbImage8, Role, decode_image, load_image,
};
use proptest::prelude::*;

use crate::pictures::{
    ANIMATED_WEBP, chunk, encode, from_hex, jpeg_header, jpeg_with_orientation, picture,
    png_header, png_with,
};

fn decode(bytes: &[u8]) -> Result<RgbImage8, ImageError> {
    decode_image(bytes, &ImageLimits::default(), Orientation::Upright)
}

/// The message of the refusal, after checking that the picture's owner is blamed and nothing about
/// our machine is told.
fn refusal(bytes: &[u8]) -> String {
    let error = decode(bytes).expect_err("a bad picture");
    assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
    let message = error.to_string();
    assert!(!message.contains("0x7f") && !message.contains(".rs:"), "{message}");
    message
}

#[test]
fn m1_empty_text_html_and_unknown_bytes_are_named() {
    for (bytes, expected) in [
        (&b""[..], "not an image: the file is empty"),
        (b"hello, I am a text", "not an image (found text)"),
        (b"BM is how this text begins, no bitmap", "not an image (found text)"),
        (b"  <!DOCTYPE html><html>", "not an image (found an HTML page)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not an image (found a Git LFS pointer)"),
        (
            b"\x00\xff\xfe\x01\x02\x03\x04\x05\x06",
            "not an image (found unknown bytes [00, ff, fe, 01",
        ),
    ] {
        let message = refusal(bytes);
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn m1_a_file_that_is_not_one_is_refused_without_opening_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let load = |path: &Path| load_image(path, &ImageLimits::default(), Orientation::Upright);
    let error = load(folder.path()).expect_err("a directory");
    assert_eq!(error.kind(), ErrorKind::Io, "as for weights and configurations");
    assert!(error.to_string().ends_with("is a directory, not a file"), "{error}");

    let error = load(&folder.path().join("absent.png")).expect_err("no file");
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(error.to_string().ends_with("absent.png does not exist"), "{error}");

    let text = folder.path().join("page.png");
    std::fs::write(&text, "<html>").expect("a writable folder");
    let error = load(&text).expect_err("a page");
    assert!(error.to_string().ends_with("page.png"), "{error}");
    let source = std::error::Error::source(&error).expect("the reason").to_string();
    assert_eq!(source, "not an image (found an HTML page)");
    assert!(error.hint().expect("advice").contains("PNG"));

    let limits = ImageLimits { max_bytes: 5, ..Default::default() };
    let error = load_image(&text, &limits, Orientation::Upright).expect_err("six bytes");
    assert!(error.to_string().contains("6 bytes or more, the limit is 5"), "{error}");
    let error = decode_image(b"<html>", &limits, Orientation::Upright).expect_err("six bytes");
    assert_eq!(error.to_string(), "the image file has 6 bytes, the limit is 5");
}

#[cfg(unix)]
#[test]
fn m1_pipes_devices_and_dangling_links_do_not_hang() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pipe, link) = (folder.path().join("pipe.png"), folder.path().join("link.png"));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    std::os::unix::fs::symlink("nowhere", &link).expect("a link");
    let load = |path: &Path| load_image(path, &ImageLimits::default(), Orientation::Upright);
    for path in [&pipe, Path::new("/dev/zero")] {
        let error = load(path).expect_err("not a file");
        assert!(error.to_string().contains("a pipe, socket or device"), "{error}");
    }
    assert_eq!(load(&link).expect_err("dangling").kind(), ErrorKind::Missing);
}

#[test]
fn m2_every_truncation_is_refused() {
    for (format, name) in
        [(ImageFormat::Png, "PNG"), (ImageFormat::Jpeg, "JPEG"), (ImageFormat::WebP, "WebP")]
    {
        let whole = encode(picture(), format);
        assert!(decode(&whole).is_ok(), "{name}");
        for part in [9, 10, 25, 50, 75, 90, 99] {
            let cut = whole.len() * part / 100;
            let message = refusal(&whole[..cut]);
            assert!(message.contains(name), "{name} cut to {part} %: {message}");
        }
    }
    // A JPEG that lacks nothing but its end marker is refused as well, as in Pillow.
    let jpeg = encode(picture(), ImageFormat::Jpeg);
    assert_eq!(refusal(&jpeg[..jpeg.len() - 2]), "the JPEG file is truncated");
    let gif = encode(picture(), ImageFormat::Gif);
    refusal(&gif[..gif.len() / 2]);
}

#[test]
fn m2_damage_is_refused() {
    let mut png = encode(picture(), ImageFormat::Png);
    let data = png.windows(4).position(|w| w == b"IDAT").expect("pixels");
    png[data + 20] ^= 0xff;
    assert!(refusal(&png).starts_with("the PNG file is damaged"));

    let mut jpeg = encode(picture(), ImageFormat::Jpeg);
    let table = jpeg.windows(2).position(|w| w == [0xff, 0xc4]).expect("a Huffman table");
    // More codes of one bit than one bit has values.
    jpeg[table + 5] = 200;
    assert!(refusal(&jpeg).starts_with("the JPEG file is damaged"));
}

#[test]
fn m3_dimension_bomb_is_refused_from_the_header() {
    let message = refusal(&png_header(100_000, 100_000, 8, 2));
    assert_eq!(message, "the image is 100000x100000: a side may have 16384 pixels");
    // Not even the chunk behind the header is needed.
    assert_eq!(refusal(&png_header(100_000, 100_000, 8, 2)[..33]), message);
    let message = refusal(&jpeg_header(65_535, 65_535));
    assert_eq!(message, "the image is 65535x65535: a side may have 16384 pixels");
    let message = refusal(&png_header(16_000, 16_000, 8, 0));
    assert_eq!(message, "the image is 16000x16000: the limit is 40000000 pixels in all");
    // 39 megapixels of eight bytes each.
    let message = refusal(&png_header(16_000, 2_450, 16, 6));
    assert!(
        message.ends_with("decoding takes 313600000 bytes, the limit is 268435456"),
        "{message}"
    );
    let error = decode(&png_header(100_000, 100_000, 8, 2)).expect_err("a bomb");
    assert!(error.hint().expect("advice").contains("smaller"));
}

#[test]
fn m3_a_small_gif_with_a_huge_frame_is_refused() {
    // Screen 1x1, one frame of 65535x65535 without data.
    let gif = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0;";
    refusal(gif);
    let mut bmp = encode(picture(), ImageFormat::Bmp);
    bmp[18..26].copy_from_slice(&[0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0x0f]);
    refusal(&bmp);
}

#[test]
fn m4_odd_shapes_work_or_are_refused() {
    for (width, height) in [(0, 5), (5, 0), (0, 0)] {
        assert!(refusal(&png_header(width, height, 8, 2)).ends_with("it has no pixels"));
    }
    // Height 0 announces a marker that says it later; nobody writes that.
    assert!(refusal(&jpeg_header(40, 0)).contains("JPEG"));
    let one = decode(&encode(image::RgbImage::new(1, 1), ImageFormat::Png)).expect("1x1 works");
    assert_eq!((one.width(), one.height()), (1, 1));
    let values = janus_model::processor::ImageProcessorConfig::default().understanding_pixels(&one);
    assert!(values.data.iter().all(|v| *v == -1.0));

    let long = encode(image::RgbImage::new(10_000, 1), ImageFormat::Png);
    let message = refusal(&long);
    assert_eq!(message, "the image is 10000x1: the longer side may be 200 times the shorter");
    assert!(decode(&encode(image::RgbImage::new(1, 200), ImageFormat::Png)).is_ok());
}

#[test]
fn m5_only_the_first_frame_is_decoded() {
    // What follows the first picture is garbage, a hundred thousand times.
    let mut gif = encode(picture(), ImageFormat::Gif);
    let first = decode(&gif).expect("one frame");
    gif.pop();
    let broken_frame = b",\0\0\0\0\x28\0\x1e\0\0\x02\x02\xff\xff\0";
    gif.extend(broken_frame.repeat(100_000));
    assert_eq!(decode(&gif).expect("the first frame is fine"), first);

    let control = [&1u32.to_be_bytes()[..], &[0; 22]].concat();
    let frame = [chunk(b"fcTL", &control), chunk(b"fdAT", &[0xff; 40])].concat();
    let extra = [chunk(b"acTL", &[0, 1, 0x86, 0xa0, 0, 0, 0, 0]), frame.repeat(10_000)];
    assert_eq!(
        decode(&png_with(&extra)).expect("the default picture").pixels(),
        picture().as_raw()
    );

    let webp = decode(&from_hex(ANIMATED_WEBP)).expect("an animation");
    assert_eq!(webp.pixels(), [250, 10, 20].repeat(6));
}

#[test]
fn m6_metadata_never_reaches_a_decoder() {
    let garbage = vec![0xff; 1 << 16];
    let texts = [b"zTXt", b"iTXt", b"iCCP", b"tEXt", b"eXIf"].map(|name| chunk(name, &garbage));
    assert_eq!(decode(&png_with(&texts)).expect("texts are ignored").pixels(), picture().as_raw());
    // A wrong checksum on a chunk nobody reads is no damage.
    let mut broken = chunk(b"zTXt", &garbage);
    broken.pop();
    broken.push(0);
    assert!(decode(&png_with(&[broken])).is_ok());
}

#[test]
fn m6_orientation_is_applied_and_clamped() {
    let size = |value: u16, directory: u32, orientation: Orientation| {
        let bytes = jpeg_with_orientation(value, directory);
        let image =
            decode_image(&bytes, &ImageLimits::default(), orientation).expect("a turned picture");
        (image.width(), image.height())
    };
    for value in [5, 6, 7, 8] {
        assert_eq!(size(value, 8, Orientation::Upright), (30, 40), "orientation {value}");
        assert_eq!(size(value, 8, Orientation::Raw), (40, 30), "orientation {value}");
    }
    for value in [0, 1, 9, 255, 262, 65_535] {
        assert_eq!(size(value, 8, Orientation::Upright), (40, 30), "orientation {value}");
    }
    // The directory lies outside the block.
    assert_eq!(size(6, 0xffff_fff0, Orientation::Upright), (40, 30));
}

#[test]
fn m7_other_formats_are_named_and_refused() {
    for (bytes, format) in [
        (&b"II*\0\x08\0\0\0"[..], "TIFF"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "HDR"),
        (b"\x76\x2f\x31\x01\x02\0\0\0", "EXR"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x20ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\x01\0\x01\0\x10\x10", "ICO"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "SVG"),
        (b"<?xml version=\"1.0\"?>\n<svg/>", "SVG"),
    ] {
        assert_eq!(refusal(bytes), format!("{format} pictures are not supported"));
    }
}

#[test]
fn m8_every_colour_type_becomes_rgb_as_in_pillow() {
    let first = |bytes: &[u8]| -> [u8; 3] {
        decode(bytes).expect("a picture").pixels()[..3].try_into().expect("three bytes")
    };
    let png = |image: DynamicImage| encode(image, ImageFormat::Png);
    // Alpha is dropped, even where it is 0.
    let rgba = image::RgbaImage::from_pixel(2, 2, image::Rgba([9, 8, 7, 0]));
    assert_eq!(first(&png(rgba.into())), [9, 8, 7]);
    let grey_alpha = image::GrayAlphaImage::from_pixel(2, 2, image::LumaA([200, 3]));
    assert_eq!(first(&png(grey_alpha.into())), [200; 3]);
    // 16-bit colour keeps the high byte, 16-bit grey is clipped.
    let deep = image::ImageBuffer::from_pixel(2, 2, image::Rgb([255u16, 383, 65_535]));
    assert_eq!(first(&png(DynamicImage::ImageRgb16(deep))), [0, 1, 255]);
    for (value, expected) in [(0u16, 0), (200, 200), (256, 255), (65_535, 255)] {
        let grey = image::ImageBuffer::from_pixel(2, 2, image::Luma([value]));
        assert_eq!(first(&png(DynamicImage::ImageLuma16(grey))), [expected; 3], "{value}");
        let both = image::ImageBuffer::from_pixel(2, 2, image::LumaA([value, 9]));
        assert_eq!(
            first(&png(DynamicImage::ImageLumaA16(both))),
            [(value >> 8) as u8; 3],
            "{value}"
        );
    }
    // Palette, 1-bit, CMYK and YCCK: tests/parity/processor.rs, against files from Pillow.
}

fn processor() -> Processor {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-pro/original");
    Processor::from_dir(&folder).expect("the tiny model's files")
}

fn prompt_error(conversation: &Conversation, images: &[RgbImage8]) -> PromptError {
    match processor().understand(conversation, images) {
        Err(ProcessorError::Prompt(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn m10_images_and_places_must_match() {
    let image = RgbImage8::filled(8, 8, [1, 2, 3]);
    let ask = |range| Conversation::new(vec![Message::user_with_images(range, "What?")]);
    let error = prompt_error(&ask(0..2), std::slice::from_ref(&image));
    assert_eq!(error.to_string(), "a message refers to image 1, but 1 were given (counted from 0)");
    assert_eq!(error.kind(), ErrorKind::Usage);
    let error = prompt_error(&ask(0..1), &[image.clone(), image.clone()]);
    assert_eq!(
        error.to_string(),
        "2 images were given, but image 1 appears in no message (counted from 0)"
    );
    let answer = Message { role: Role::Assistant, content: vec![Part::Image(0)] };
    let error = prompt_error(&Conversation::new(vec![Message::user("hi"), answer]), &[image]);
    assert!(matches!(error, PromptError::ImageInAnswer), "{error}");
    assert!(matches!(prompt_error(&Conversation::new(vec![]), &[]), PromptError::Empty));
}

#[test]
fn m10_a_prompt_over_the_context_is_refused_with_both_numbers() {
    let image = RgbImage8::filled(8, 8, [1, 2, 3]);
    let images = vec![image; 15];
    // The tiny model holds 2048 tokens; 15 pictures take 15 x 146.
    let conversation = Conversation::with_system("", vec![Message::user_with_images(0..15, "?")]);
    let error = prompt_error(&conversation, &images);
    let PromptError::TooLong { tokens, limit: 2048 } = error else { panic!("{error}") };
    assert!(tokens > 15 * 146, "{tokens}");
    assert!(error.hint().expect("advice").contains("fewer images"));
}

fn valid_files() -> Vec<Vec<u8>> {
    let formats = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Gif,
        ImageFormat::Bmp,
    ];
    formats.map(|format| encode(picture(), format)).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_behind_a_magic_give_a_result(
        magic in 0usize..6,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let start: &[u8] = match magic {
            0 => b"\x89PNG\r\n\x1a\n",
            1 => b"\xff\xd8\xff",
            2 => b"GIF89a",
            3 => b"RIFF\0\0\0\0WEBP",
            4 => b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
            _ => b"",
        };
        let limits = ImageLimits { max_pixels: 1 << 20, ..Default::default() };
        let _ = decode_image(&[start, &bytes].concat(), &limits, Orientation::Upright);
    }

    #[test]
    fn a_changed_file_gives_a_result(
        which in 0usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = valid_files().swap_remove(which);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let limits = ImageLimits { max_pixels: 1 << 20, ..Default::default() };
        if let Ok(image) = decode_image(&bytes, &limits, Orientation::Upright) {
            prop_assert_eq!(image.pixels().len(), image.width() * image.height() * 3);
        }
    }
}
