//! Understanding encoder and its aligner.

use crate::common::each;

/// Measured: 0 flex, 0 flex-bf16, 5.0e-7 ndarray, 4.0e-7 wgpu.
#[test]
fn patches_and_positions() {
    each(|case| {
        let tower = &case.janus.vision_model.as_ref().unwrap().vision_tower;
        case.close(
            "siglip.embeddings",
            tower.embed(case.fixture.float("pixel_values", case.device())),
        );
    });
}

/// Measured: 9.2e-7 flex, 9.2e-7 flex-bf16, 1.2e-6 ndarray, 1.1e-6 wgpu.
#[test]
fn every_block() {
    each(|case| {
        let tower = &case.janus.vision_model.as_ref().unwrap().vision_tower;
        let mut x = tower.embed(case.fixture.float("pixel_values", case.device()));
        for (i, block) in tower.blocks.iter().enumerate() {
            x = block.forward(x);
            case.close(&format!("siglip.block.{i}"), x.clone());
        }
        assert!(!case.fixture.has(&format!("siglip.block.{}", tower.blocks.len())));
    });
}

/// Measured: 9.6e-7 flex, 9.6e-7 flex-bf16, 8.4e-7 ndarray, 1.2e-6 wgpu.
#[test]
fn final_norm() {
    each(|case| {
        let tower = case.janus.vision_model.as_ref().unwrap();
        case.close(
            "siglip.output",
            tower.forward(case.fixture.float("pixel_values", case.device())),
        );
    });
}

/// Measured: 1.2e-6 flex, 1.2e-6 flex-bf16, 9.1e-7 ndarray, 1.2e-6 wgpu.
#[test]
fn projected_features() {
    each(|case| {
        let pixels = case.fixture.float("pixel_values", case.device());
        case.close("aligner.output", case.janus.encode_image(pixels).unwrap());
    });
}
