//! Rows M of the catalogue of bad inputs, as a person at a terminal meets them.

use std::fmt::Write;
use std::path::Path;

use image::{DynamicImage, ImageFormat};
use insta::assert_snapshot;

use crate::pictures::{
    ANIMATED_WEBP, chunk, encode, from_hex, jpeg_header, jpeg_with_orientation, picture,
    png_header, png_with,
};
use crate::{Ran, fixtures, run};

/// Asks about a file; there is no model, and there need not be one.
fn refused(name: &str, bytes: &[u8]) -> String {
    let here = tempfile::tempdir().unwrap();
    std::fs::write(here.path().join(name), bytes).unwrap();
    let ran = run(here.path(), &["ask", name, "-q", "What?", "--model", "nowhere"]);
    assert!(ran.code != 0 && ran.code != 70, "{ran}");
    ran.to_string()
}

fn all_refused(files: &[(&str, Vec<u8>)]) -> String {
    files.iter().fold(String::new(), |mut text, (name, bytes)| {
        let _ = writeln!(text, "=== {name}\n{}", refused(name, bytes));
        text
    })
}

/// Asks the tiny model for a few greedy tokens about a picture.
fn ask(picture: &Path, more: &[&str]) -> Ran {
    let words = ["ask", picture.to_str().unwrap(), "-q", "What?", "--model", "tiny-pro/original"];
    let fixed = ["--device", "cpu", "--max-new-tokens", "8", "--json"];
    run(&fixtures(), &[&words[..], &fixed, more].concat())
}

fn answer(picture: &Path, more: &[&str]) -> serde_json::Value {
    let ran = ask(picture, more);
    assert_eq!(ran.code, 0, "{ran}");
    ran.json()["token_ids"].clone()
}

#[test]
fn m1_no_pictures() {
    assert_snapshot!(
        "bad_m1",
        all_refused(&[
            ("empty.png", vec![]),
            ("text.png", b"hello, I am a text".to_vec()),
            ("page.jpg", b"<!DOCTYPE html><html>".to_vec()),
            ("pointer.png", b"version https://git-lfs.github.com/spec/v1\n".to_vec()),
            ("unknown.webp", vec![0, 255, 254, 1, 2, 3, 4, 5, 6]),
        ])
    );
}

#[cfg(unix)]
#[test]
fn m1_paths_that_are_no_files() {
    let here = tempfile::tempdir().unwrap();
    std::fs::create_dir(here.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("nowhere", here.path().join("dangling.png")).unwrap();
    std::os::unix::fs::symlink("loop.png", here.path().join("loop.png")).unwrap();
    let pipe = here.path().join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut text = String::new();
    for name in ["", "absent.png", "folder", "dangling.png", "loop.png", "pipe.png", "/dev/zero"] {
        let ran = run(here.path(), &["ask", name, "-q", "What?", "--model", "nowhere"]);
        let _ = writeln!(text, "=== {name:?}\n{ran}");
    }
    assert_snapshot!("bad_m1_paths", text);
}

#[test]
fn m2_damage() {
    let png = encode(picture(), ImageFormat::Png);
    let jpeg = encode(picture(), ImageFormat::Jpeg);
    let webp = encode(picture(), ImageFormat::WebP);
    let mut pixels = png.clone();
    let data = png.windows(4).position(|w| w == b"IDAT").unwrap();
    pixels[data + 20] ^= 0xff;
    let mut table = jpeg.clone();
    let at = jpeg.windows(2).position(|w| w == [0xff, 0xc4]).unwrap();
    table[at + 5] = 200;
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    assert_snapshot!(
        "bad_m2",
        all_refused(&[
            ("cut.png", half(&png)),
            ("cut.jpg", half(&jpeg)),
            ("cut.webp", half(&webp)),
            ("no-end.jpg", jpeg[..jpeg.len() - 2].to_vec()),
            ("pixels.png", pixels),
            ("table.jpg", table),
        ])
    );
}

#[test]
fn m3_bombs() {
    assert_snapshot!(
        "bad_m3",
        all_refused(&[
            ("side.png", png_header(100_000, 100_000, 8, 2)),
            ("side.jpg", jpeg_header(65_535, 65_535)),
            ("pixels.png", png_header(16_000, 16_000, 8, 0)),
            ("memory.png", png_header(16_000, 2_450, 16, 6)),
        ])
    );
    // A file that is too large is refused by its size.
    let here = tempfile::tempdir().unwrap();
    std::fs::File::create(here.path().join("huge.png")).unwrap().set_len(21 << 20).unwrap();
    let ran = run(here.path(), &["ask", "huge.png", "-q", "What?", "--model", "nowhere"]);
    assert_snapshot!("bad_m3_bytes", ran);
}

#[test]
fn m4_odd_shapes() {
    let long = encode(image::RgbImage::new(10_000, 1), ImageFormat::Png);
    assert_snapshot!(
        "bad_m4",
        all_refused(&[
            ("0x5.png", png_header(0, 5, 8, 2)),
            ("5x0.png", png_header(5, 0, 8, 2)),
            ("40x0.jpg", jpeg_header(40, 0)),
            ("10000x1.png", long.clone()),
        ])
    );
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("long.png");
    std::fs::write(&path, long).unwrap();
    // What the hint says helps.
    answer(&path, &["--max-image-ratio", "10000"]);
    std::fs::write(&path, encode(image::RgbImage::new(1, 1), ImageFormat::Png)).unwrap();
    answer(&path, &[]);
}

/// The answer to one picture's file, and to the same pixels as a plain PNG.
fn same_answer(bytes: &[u8], plain: impl Into<DynamicImage>, more: &[&str]) {
    let here = tempfile::tempdir().unwrap();
    let (one, other) = (here.path().join("one"), here.path().join("other.png"));
    std::fs::write(&one, bytes).unwrap();
    std::fs::write(&other, encode(plain, ImageFormat::Png)).unwrap();
    assert_eq!(answer(&one, more), answer(&other, &[]));
}

#[test]
fn m5_of_an_animation_the_first_picture_is_taken() {
    let first = image::RgbImage::from_pixel(3, 2, image::Rgb([250, 10, 20]));
    same_answer(&from_hex(ANIMATED_WEBP), first, &[]);
}

#[test]
fn m6_metadata_is_ignored() {
    let garbage = vec![0xff; 1 << 16];
    let texts = [b"zTXt", b"iTXt", b"iCCP", b"eXIf"].map(|name| chunk(name, &garbage));
    same_answer(&png_with(&texts), picture(), &[]);
}

#[test]
fn m6_pictures_are_turned_upright_unless_asked_otherwise() {
    let stored = image::load_from_memory(&jpeg_with_orientation(1, 8)).unwrap();
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("turned.jpg");
    for orientation in 2..=8 {
        std::fs::write(&path, jpeg_with_orientation(orientation, 8)).unwrap();
        let raw = answer(&path, &["--raw-orientation"]);
        assert_ne!(answer(&path, &[]), raw, "{orientation}: the answer tells pictures apart");
    }
    for orientation in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        let upright = match orientation {
            2 => stored.fliph(),
            3 => stored.rotate180(),
            4 => stored.flipv(),
            5 => stored.rotate90().fliph(),
            6 => stored.rotate90(),
            7 => stored.rotate270().fliph(),
            8 => stored.rotate270(),
            _ => stored.clone(),
        };
        let file = jpeg_with_orientation(orientation, 8);
        same_answer(&file, upright, &[]);
        same_answer(&file, stored.clone(), &["--raw-orientation"]);
    }
}

#[test]
fn m7_other_formats() {
    assert_snapshot!(
        "bad_m7",
        all_refused(&[
            ("a.tiff", b"II*\0\x08\0\0\0".to_vec()),
            ("a.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n".to_vec()),
            ("a.exr", b"\x76\x2f\x31\x01\x02\0\0\0".to_vec()),
            ("a.avif", b"\0\0\0\x20ftypavif\0\0\0\0".to_vec()),
            ("a.heic", b"\0\0\0\x20ftypheic\0\0\0\0".to_vec()),
            ("a.ico", b"\0\0\x01\0\x01\0\x10\x10".to_vec()),
            ("a.pdf", b"%PDF-1.7\n".to_vec()),
            ("a.svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec()),
        ])
    );
}

#[test]
fn m8_every_colour_type_is_read_as_pillow_reads_it() {
    let bytes = std::fs::read(fixtures().join("images/expected.safetensors")).unwrap();
    let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for name in ["cmyk.jpg", "palette-alpha.png", "grey-16.png", "rgba.png", "bits-1.png"] {
        let view = expected.tensor(name).unwrap();
        let (height, width) = (view.shape()[0] as u32, view.shape()[1] as u32);
        let pillow = image::RgbImage::from_raw(width, height, view.data().to_vec()).unwrap();
        same_answer(&std::fs::read(fixtures().join("images").join(name)).unwrap(), pillow, &[]);
    }
}

#[test]
fn m10_more_pictures_than_the_context_holds() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("small.png");
    std::fs::write(&path, encode(picture(), ImageFormat::Png)).unwrap();
    let again = [path.to_str().unwrap(); 14];
    let ran = ask(&path, &again);
    assert_eq!(ran.code, 2, "{ran}");
    let message = ran.error()["message"].as_str().unwrap().to_owned();
    assert!(message.ends_with("the context holds 2048"), "{message}");
}

#[test]
fn devices_that_are_not_there() {
    let mut text = String::new();
    for device in ["cuda:7", "vulkan:99", "metal", "webgpu:99", "cpu:1"] {
        let words = ["ask", "-q", "hi", "--model", "tiny-pro/hf", "--device", device];
        let ran = run(&fixtures(), &words);
        assert!(matches!(ran.code, 2 | 66), "{ran}");
        let hint = ran.stderr.contains("hint: ") || ran.stderr.contains("--help");
        assert!(hint, "{ran}");
        // Which devices there are differs from machine to machine.
        if !device.starts_with("webgpu") && !cfg!(any(feature = "wgpu", feature = "cuda")) {
            let _ = writeln!(text, "=== {device}\n{ran}");
        }
    }
    if !text.is_empty() && cfg!(feature = "ndarray") && cfg!(feature = "wgpu-parity") {
        assert_snapshot!("bad_devices", text);
    }
}

#[test]
fn half_a_model_does_what_it_can() {
    let folder = crate::copy_of("tiny-pro/original");
    let model = folder.path().join("model");
    let mut tensors = crate::read_tensors(&model);
    tensors.retain(|name, _| !name.starts_with("gen_"));
    crate::write_tensors(&model, &tensors);
    let words = ["-q", "hi", "--model", "model", "--device", "cpu", "--max-new-tokens", "2"];
    let ran = run(folder.path(), &[&["ask"], &words[..]].concat());
    assert_eq!(ran.code, 0, "{ran}");
    let words =
        ["generate", "x", "-o", "x.png", "--model", "model", "--device", "cpu", "--seed", "1"];
    assert_snapshot!("bad_half_generate", run(folder.path(), &words));
    let mut tensors = crate::read_tensors(&fixtures().join("tiny-pro/original"));
    tensors.retain(|name, _| !name.starts_with("vision_model.") && !name.starts_with("aligner."));
    crate::write_tensors(&model, &tensors);
    assert_eq!(run(folder.path(), &words).code, 0);
    let words = ["ask", "-q", "hi", "--model", "model", "--device", "cpu"];
    assert_snapshot!("bad_half_ask", run(folder.path(), &words));
}
