//! Image tokenizer, both ways.

use crate::common::{each, ints, values};

/// Measured: 2.8e-6 flex, 2.8e-6 flex-bf16, 2.9e-6 ndarray, 3.0e-6 wgpu.
#[test]
fn latents() {
    each(|case| {
        let vq = case.janus.gen_vision_model.as_ref().unwrap();
        case.close("vq.encode.z", vq.latents(case.fixture.float("vq.encode.input", case.device())));
    });
}

/// The original rule, both sides normalised; all codes equal.
#[test]
fn codes_of_a_picture() {
    each(|case| {
        let pixels = case.fixture.float("vq.encode.input", case.device());
        let codes = ints(case.janus.encode_codes(pixels).unwrap());
        assert_eq!(codes, case.fixture.i32s("vq.encode.codes"), "{}", case.target.name);
    });
}

/// Measured: 2.2e-6 flex, 2.2e-6 flex-bf16, 2.8e-6 ndarray, 2.6e-6 wgpu.
#[test]
fn picture_of_codes() {
    each(|case| {
        let codes = case.fixture.ids("vq.decode.codes", case.device());
        let pixels = case.janus.decode_codes(codes).unwrap();
        case.close("vq.decode.pixels", pixels.clone());
        // A value within rounding of a whole grey level may fall to either side of it.
        let expected = case.fixture.bytes("vq.decode.u8");
        let [_, channels, height, width] = pixels.dims();
        let pixels = values(pixels);
        for (i, expected) in expected.iter().enumerate() {
            let (place, channel) = (i / channels, i % channels);
            let value = pixels[channel * height * width + place];
            let grey = ((value + 1.0) / 2.0 * 255.0).clamp(0.0, 255.0) as u8;
            assert!(grey.abs_diff(*expected) <= 1, "byte {i}: {grey}, PyTorch has {expected}");
        }
    });
}
