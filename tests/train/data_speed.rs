//! How fast pictures are made ready; a number to look at, not a bound.

use std::time::Instant;

use janus_model::processor::RgbImage8;
use janus_train::data::{
    Kind, Loader, Objective, OnBad, Options, Packing, Prepare, Shuffle, Source, Spec,
};

use crate::data_common::{Toy, full_size, write};

/// `--ignored --nocapture`: photos of 640x480 as JPEG, to be read and to be drawn.
#[test]
#[ignore = "measures"]
fn pictures_per_second() {
    const PICTURES: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let pixels = (0..640 * 480 * 3).map(|i| ((i / 31) ^ (i % 977)) as u8).collect();
    let photo = RgbImage8::new(640, 480, pixels).unwrap();
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg)
        .encode(photo.pixels(), 640, 480, image::ExtendedColorType::Rgb8)
        .unwrap();
    for n in 0..PICTURES {
        write(folder.path(), &format!("{n}.jpg"), &jpeg);
        write(folder.path(), &format!("{n}.txt"), "a photo");
    }
    for (kind, ratio) in [(Kind::Understand, [1, 0, 0]), (Kind::Draw, [0, 0, 1])] {
        for workers in [0, 1, 2] {
            let spec = Spec { kind: Some(kind), ..Spec::of(folder.path()) };
            let sources = Source::open(&spec, (0, 1.0), Shuffle::Seed(1)).unwrap();
            let tokens = full_size(Objective::exact(4096));
            let options = Options {
                ratio,
                batch: 10,
                rows: 10,
                packing: Packing::Isolated,
                on_bad: OnBad::default(),
                workers,
                ahead: 16,
            };
            let mut loader = Loader::new(sources, Prepare::new(tokens), options).unwrap();
            let start = Instant::now();
            for _ in 0..PICTURES / 10 {
                loader.next(&mut Toy::default()).unwrap();
            }
            let rate = PICTURES as f64 / start.elapsed().as_secs_f64();
            println!("{kind}, {workers} threads ahead: {rate:.0} pictures/s");
        }
    }
}
