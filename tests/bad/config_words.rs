//! Configurations: words of a file in messages, and sizes that one dialect has no word for.

use std::path::Path;

use janus_model::JanusConfig;
use janus_model::config::Dialect;
use serde_json::{Value, json};

/// The original configuration of the fixture with one field changed.
fn changed(pointer: &str, value: Value) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-pro/original");
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    *config.pointer_mut(pointer).unwrap() = value;
    config.to_string()
}

/// Found by fuzzing: JSON leaves U+0080 to U+009F as they are, and terminals obey them.
#[test]
fn c1_values_in_messages_are_escaped() {
    for field in ["image_size", "select_layer"] {
        let text = changed(&format!("/vision_config/params/{field}"), json!("\u{9b}31m\u{7f}"));
        let message = JanusConfig::from_json(&text).unwrap_err().to_string();
        assert!(message.contains("\\u{9b}31m\\u{7f}") && message.contains(field), "{message}");
    }
}

/// Hugging Face's dialect has no field of its own for the width of the image head.
#[test]
fn c2_sizes_that_a_dialect_cannot_express() {
    let text = changed("/gen_head_config/params/image_token_embed", json!(40));
    let (config, _) = JanusConfig::from_json(&text).unwrap();
    config.check_dialect(Dialect::Original).unwrap();
    let error = config.check_dialect(Dialect::HuggingFace).unwrap_err().to_string();
    assert!(error.contains("image_token_embed") && error.contains("40"), "{error}");
    let written = config.to_json(Dialect::Original, "bfloat16", None);
    assert_eq!(JanusConfig::from_json(&written).unwrap().0, config);
}
