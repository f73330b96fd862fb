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
