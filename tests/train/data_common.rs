//! A processor without a model, pictures, and an image tokenizer that is none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use janus_model::processor::{PixelValues, Processor, RgbImage8};
use janus_train::data::{Encode, Objective, Tokens};

/// Codes of a drawn picture in these tests.
pub const CODES: usize = 6;

/// A folder of `tests/fixtures` that has a tokenizer and image rules: 144 tokens per picture that
/// is read, 96 pixels per side.
pub fn processor(name: &str) -> Arc<Processor> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    Arc::new(Processor::from_dir(&fixtures.join(name)).unwrap())
}

pub fn tokens(objective: Objective) -> Tokens {
    Tokens { processor: processor("tiny-pro/original"), codes: CODES, objective }
}

/// With the side of the published models.
pub fn full_size(objective: Objective) -> Tokens {
    let name = "tiny-pro/original";
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let mut processor = Processor::from_dir(&fixtures.join(name)).unwrap();
    processor.image.image_size = 384;
    processor.num_image_tokens = 576;
    Tokens { processor: Arc::new(processor), codes: CODES, objective }
}

/// A picture that no other number has.
pub fn rgb(number: usize) -> RgbImage8 {
    let (width, height) = (20 + number % 7, 16);
    let pixels = (0..width * height * 3).map(|i| ((i * 7 + number * 31) % 256) as u8).collect();
    RgbImage8::new(width, height, pixels).unwrap()
}

pub fn png(number: usize) -> Vec<u8> {
    rgb(number).to_png().unwrap()
}

/// Writes a picture into a folder; its name is given back.
pub fn save(folder: &Path, number: usize) -> String {
    let name = format!("p{number}.png");
    std::fs::write(folder.join(&name), png(number)).unwrap();
    name
}

pub fn write(folder: &Path, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, contents).unwrap();
    path
}

/// Codes that depend on the pixels: coarse sums of a few stretches.
#[derive(Default)]
pub struct Toy {
    pub calls: usize,
    pub pictures: usize,
}

impl Toy {
    pub fn codes(pixels: &PixelValues) -> Vec<i32> {
        let part = pixels.data.len() / CODES;
        let sum = |values: &[f32]| values.iter().map(|v| ((v + 1.0) * 127.5) as u64).sum::<u64>();
        pixels.data.chunks_exact(part).take(CODES).map(|c| (sum(c) % 16_384) as i32).collect()
    }
}

impl Encode for Toy {
    fn fingerprint(&self) -> [u8; 32] {
        [9; 32]
    }

    fn encode(&mut self, pictures: &[PixelValues]) -> Result<Vec<Vec<i32>>, String> {
        self.calls += 1;
        self.pictures += pictures.len();
        Ok(pictures.iter().map(Self::codes).collect())
    }
}
