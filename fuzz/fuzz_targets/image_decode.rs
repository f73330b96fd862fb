//! A picture file under small limits: header, decoding, and the pixels the vision tower sees.
#![no_main]

use janus_fuzz::{allow_caught_panics, check, check_error};
use janus_model::processor::{ImageLimits, ImageProcessorConfig, Orientation, decode_image};
use libfuzzer_sys::fuzz_target;

/// Several buffers of the largest picture, and the 16 MiB that `image-webp` sets aside for a partition
/// of which a file merely says that it is that long.
const MEMORY: usize = 24 << 20;

fuzz_target!(init: allow_caught_panics(), |bytes: &[u8]| {
    check(MEMORY, || {
        let limits = ImageLimits {
            max_bytes: 1 << 16,
            max_pixels: 1 << 16,
            max_side: 512,
            max_ratio: 200,
            max_decoder_bytes: 1 << 20,
        };
        let raw = decode_image(bytes, &limits, Orientation::Raw);
        let upright = decode_image(bytes, &limits, Orientation::Upright);
        let (raw, upright) = match (raw, upright) {
            (Ok(raw), Ok(upright)) => (raw, upright),
            (Err(raw), Err(upright)) => {
                let _ = (raw.kind(), raw.hint());
                check_error(&raw);
                return assert_eq!(raw.to_string(), upright.to_string());
            }
            (raw, upright) => panic!("turning decides: {raw:?}, {upright:?}"),
        };
        let (width, height) = (raw.width(), raw.height());
        assert!(width.max(height) <= 512 && width * height <= 1 << 16, "{width}x{height}");
        assert_eq!(raw.pixels().len(), width * height * 3);
        let turned = (upright.width(), upright.height());
        assert!(turned == (width, height) || turned == (height, width), "{turned:?}");
        let config = ImageProcessorConfig { image_size: 16, ..Default::default() };
        let values = config.understanding_pixels(&upright);
        assert!(values.data.iter().all(|value| (-1.0..=1.0).contains(value)));
    });
});
