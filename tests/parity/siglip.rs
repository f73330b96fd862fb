//! Understanding encoder and its aligner.

use crate::common::each;

/// Measured: MEASURE siglip.embeddings
#[test]
fn patches_and_positions() {
    each(|case| {
        let tower = &case.janus.vision_model.as_ref().unwrap().vision_tower;
        case.close("siglip.embeddings", tower.embed(case.fixture.float("pixel_values", case.device())));
    });
}

/// Measured: MEASURE siglip.block
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

/// Measured: MEASURE siglip.output
#[test]
fn final_norm() {
    each(|case| {
        let tower = case.janus.vision_model.as_ref().unwrap();
        case.close("siglip.output", tower.forward(case.fixture.float("pixel_values", case.device())));
    });
}

/// Measured: MEASURE aligner.output
#[test]
fn projected_features() {
    each(|case| {
        let pixels = case.fixture.float("pixel_values", case.device());
        case.close("aligner.output", case.janus.encode_image(pixels).unwrap());
    });
}
