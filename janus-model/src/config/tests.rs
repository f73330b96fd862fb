use super::*;

#[test]
fn presets_are_possible() {
    for name in ["janus-pro-1b", "janus-pro-7b", "janus-1.3b"] {
        JanusConfig::preset(name).unwrap().validate().unwrap();
    }
}

#[test]
fn both_dialects_round_trip() {
    let mut odd = JanusConfig::pro_1b();
    odd.vision.intermediate_size = 4001;
    odd.language.num_key_value_heads = 2;
    odd.gen_vision.channel_multiplier = vec![1, 2, 1];
    odd.gen_vision.image_size = 96;
    odd.vision.image_size = 96;
    odd.vision.patch_size = 8;
    for config in [JanusConfig::pro_1b(), JanusConfig::pro_7b(), odd] {
        for dialect in [Dialect::Original, Dialect::HuggingFace] {
            let text = config.to_json(dialect, "bfloat16", None);
            assert_eq!(JanusConfig::from_json(&text).unwrap(), (config.clone(), dialect));
        }
    }
}

/// The width of the MLP is written as a ratio, and JSON may lose its last bit: no width must
/// come back one short, as 112 and 211 once did.
#[test]
fn every_mlp_width_survives_as_a_ratio() {
    for hidden_size in (1..=2048).step_by(7) {
        for intermediate_size in (1..=8192).step_by(13) {
            let vision =
                VisionConfig { hidden_size, intermediate_size, ..VisionConfig::siglip_large_384() };
            let text = serde_json::to_string(&vision.mlp_ratio()).unwrap();
            let ratio: f64 = serde_json::from_str(&text).unwrap();
            assert_eq!((hidden_size as f64 * ratio) as usize, intermediate_size, "{hidden_size}");
        }
    }
}
