//! What becomes of picture files on their way into the model, for comparison with Pillow
//! (`tests/reference/photos.py`):
//!
//! ```sh
//! cargo run --release -p janus-model --example pixels -- MODEL OUT.safetensors PICTURE…
//! ```
//! Writes `N.source` (u8, `[H, W, 3]`, upright) and `N.pixels` (f32, `[3, S, S]`) of each.
#![allow(clippy::unwrap_used)] // a program for developers

use std::path::Path;

use janus_model::JanusConfig;
use janus_model::processor::{ImageLimits, Orientation, Processor, load_image};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, out, pictures @ ..] = args.as_slice() else {
        return Err("usage: pixels MODEL OUT.safetensors PICTURE…".into());
    };
    let (config, _) = JanusConfig::from_dir(Path::new(model))?;
    let processor = Processor::for_model(Path::new(model), &config)?;
    let mut tensors = Vec::new();
    for (number, path) in pictures.iter().enumerate() {
        let image = load_image(Path::new(path), &ImageLimits::default(), Orientation::Upright)?;
        let pixels = processor.image.understanding_pixels(&image).data;
        let side = config.vision.image_size;
        let bytes = pixels.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = vec![image.height(), image.width(), 3];
        tensors.push((format!("{number}.source"), Dtype::U8, shape, image.pixels().to_vec()));
        tensors.push((format!("{number}.pixels"), Dtype::F32, vec![3, side, side], bytes));
    }
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.clone(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    safetensors::serialize_to_file(views, None, Path::new(out))?;
    Ok(())
}
