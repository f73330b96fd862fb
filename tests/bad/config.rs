//! Rows C: configurations that are incomplete, absurd, or something else altogether.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use janus_model::config::{ConfigError, Dialect};
use janus_model::{ErrorKind, JanusConfig};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::weights::assert_says;

const FIXTURES: [&str; 4] =
    ["tiny-pro/original", "tiny-pro/hf", "tiny-odd/original-bin", "tiny-odd/hf"];
const ORIGINAL: usize = 0;
const HF: usize = 1;

fn text(fixture: usize) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    fs::read_to_string(folder.join(FIXTURES[fixture]).join("config.json")).unwrap()
}

/// A valid configuration with the field at this path replaced or added.
fn with(fixture: usize, path: &str, value: Value) -> String {
    let mut json: Value = serde_json::from_str(&text(fixture)).unwrap();
    let place = path.split('.').fold(&mut json, |place, name| &mut place[name]);
    *place = value;
    json.to_string()
}

#[track_caller]
fn refusal(text: &str, words: &[&str]) -> ConfigError {
    let error = JanusConfig::from_json(text).unwrap_err();
    assert_says(&error, words);
    assert_eq!(error.kind(), ErrorKind::Config);
    error
}

#[track_caller]
fn round_trips(text: &str) {
    let (config, _) = JanusConfig::from_json(text).unwrap();
    config.validate().unwrap();
    for dialect in [Dialect::Original, Dialect::HuggingFace] {
        if config.check_dialect(dialect).is_err() {
            continue;
        }
        let written = config.to_json(dialect, "bfloat16", None);
        let read = JanusConfig::from_json(&written).unwrap();
        assert_eq!(read, (config.clone(), dialect), "{written}");
    }
}

#[test]
fn the_fixtures_are_valid() {
    (0..FIXTURES.len()).for_each(|fixture| round_trips(&text(fixture)));
}

#[test]
fn c1_a_wrong_field_is_named_by_its_path() {
    let rows = [
        (ORIGINAL, "vision_config.params.image_size", json!("96"), "a whole number"),
        (ORIGINAL, "vision_config.params.image_size", json!(1.5), "a whole number"),
        (ORIGINAL, "vision_config.cls", json!("Other"), "\"Other\" is not supported"),
        (ORIGINAL, "gen_head_config.params.n_embed", Value::Null, "missing"),
        (ORIGINAL, "aligner_config", Value::Null, "missing"),
        (ORIGINAL, "language_config", json!([]), "an object"),
        (ORIGINAL, "gen_vision_config.params.encoder_ch_mult", json!([1, "2"]), "whole numbers"),
        (HF, "text_config.tie_word_embeddings", json!("yes"), "true or false"),
        (HF, "vision_config.hidden_act", json!("relu"), "not supported"),
        (HF, "vq_config.double_latent", json!(true), "not supported"),
        (HF, "model_type", json!("llama"), "not supported"),
        (HF, "text_config.rope_scaling", json!({"rope_type": "llama3"}), "not supported"),
    ];
    for (fixture, path, value, words) in rows {
        let error = refusal(&with(fixture, path, value), &[path, words]);
        assert!(matches!(error, ConfigError::Field { .. }), "{error:?}");
    }
}

#[test]
fn c1_other_files_are_refused() {
    for text in ["", "{", "// sizes\n{}", "{\"model_type\": \"janus\",}", "NaN"] {
        let error = refusal(text, &["not valid JSON"]);
        assert!(error.hint().unwrap().contains("comments"), "{text}");
    }
    refusal("[]", &["config.json", "an object", "a list"]);
    refusal("{}", &["language_config", "text_config", "not a Janus configuration"]);
}

/// Found by fuzzing: JSON leaves U+0080 to U+009F as they are, and terminals obey them.
#[test]
fn c1_values_in_messages_are_escaped() {
    for path in ["vision_config.params.image_size", "vision_config.params.select_layer"] {
        refusal(&with(ORIGINAL, path, json!("\u{9b}31m\u{7f}")), &[path, "\\u{9b}31m\\u{7f}"]);
    }
}

#[test]
fn c2_absurd_numbers() {
    let rows = [
        (ORIGINAL, "language_config.num_hidden_layers", json!(1_000_000_000)),
        (ORIGINAL, "language_config.vocab_size", json!(1_u64 << 40)),
        (ORIGINAL, "language_config.num_attention_heads", json!(0)),
        (ORIGINAL, "language_config.num_key_value_heads", json!(0)),
        (ORIGINAL, "language_config.num_key_value_heads", json!(3)),
        (ORIGINAL, "language_config.hidden_size", json!(-1)),
        (ORIGINAL, "language_config.head_dim", json!(u64::MAX)),
        (ORIGINAL, "vision_config.params.select_layer", json!(i64::MIN)),
        (ORIGINAL, "vision_config.params.image_size", json!(0)),
        (HF, "vision_config.patch_size", json!(0)),
        (HF, "vision_config.mlp_ratio", json!(1e308)),
        (HF, "vision_config.num_image_tokens", json!(1)),
    ];
    for (fixture, path, value) in rows {
        refusal(&with(fixture, path, value), &[path.rsplit('.').next().unwrap()]);
    }
    // Named by the field of the original dialect.
    let rows = [
        ("vq_config.base_channels", json!(u64::MAX)),
        ("vq_config.channel_multiplier", json!([1; 64])),
        ("vq_config.channel_multiplier", json!([])),
        ("vision_config.num_attention_heads", json!(7)),
        ("vision_config.projection_dim", json!(1)),
    ];
    for (path, value) in rows {
        refusal(&with(HF, path, value), &["config"]);
    }
}

/// Hugging Face's dialect has no field of its own for the width of the image head.
#[test]
fn c2_sizes_that_a_dialect_cannot_express() {
    let text = with(ORIGINAL, "gen_head_config.params.image_token_embed", json!(40));
    let (config, _) = JanusConfig::from_json(&text).unwrap();
    config.check_dialect(Dialect::Original).unwrap();
    let error = config.check_dialect(Dialect::HuggingFace).unwrap_err();
    assert_says(&error, &["gen_head_config.params.image_token_embed is 40"]);
    round_trips(&text);
}

#[test]
fn c3_numbers_that_are_none() {
    for (path, values) in [
        ("language_config.rope_theta", [json!(0), json!(-1.0), json!("1e4"), json!(1e300)]),
        ("language_config.rms_norm_eps", [json!(0.0), json!(-1e-6), json!([1e-6]), json!(2)]),
    ] {
        for value in values {
            refusal(&with(ORIGINAL, path, value), &[path]);
        }
    }
    // Written by hand, because JSON libraries do not write them.
    for number in ["NaN", "Infinity", "1e999"] {
        let start = r#""language_config": {"#;
        let text = text(ORIGINAL).replace(start, &format!(r#"{start}"rope_theta": {number},"#));
        refusal(&text, &["JSON"]);
    }
}

/// Found by fuzzing: without `float_roundtrip` the parser may miss a number by its last bit.
#[test]
fn c3_numbers_are_read_to_the_last_bit() {
    for number in [0.9073038322028689, 0.48183792520110524, 0.43295284981322557] {
        let text = with(HF, "vision_config.layer_norm_eps", json!(number));
        let (config, _) = JanusConfig::from_json(&text).unwrap();
        assert_eq!(config.vision.layer_norm_eps, number);
        round_trips(&text);
    }
    // The width of the MLP is written as a ratio: one bit less would be one unit less.
    let (mut config, _) = JanusConfig::from_json(&text(ORIGINAL)).unwrap();
    (config.vision.hidden_size, config.vision.num_attention_heads) = (112, 2);
    (config.aligner.input_dim, config.vision.intermediate_size) = (112, 211);
    round_trips(&config.to_json(Dialect::Original, "float32", None));
    let (read, _) = JanusConfig::from_json(&config.to_json(Dialect::Original, "", None)).unwrap();
    assert_eq!(read, config);
}

#[test]
fn c4_huge_or_deep() {
    refusal(&"[".repeat(10_000), &["recursion limit"]);
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("config.json");
    fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let error = JanusConfig::from_dir(root.path()).unwrap_err();
    assert_says(&error, &["config.json", "16777216"]);
    assert!(matches!(error, ConfigError::TooLarge { .. }), "{error:?}");
}

#[test]
fn c5_remote_code_is_ignored() {
    let plain = JanusConfig::from_json(&text(HF)).unwrap();
    let auto_map = with(HF, "auto_map", json!({"AutoModel": "evil.Model"}));
    assert_eq!(JanusConfig::from_json(&auto_map).unwrap(), plain);
    let trust = with(HF, "trust_remote_code", json!(true));
    assert_eq!(JanusConfig::from_json(&trust).unwrap(), plain);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        prop_assert!(JanusConfig::from_json(&text).is_err());
    }

    #[test]
    fn a_changed_file_gives_a_result(
        fixture in 0..FIXTURES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 32_u8..127), 1..4),
    ) {
        let mut bytes = text(fixture).into_bytes();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(text) = String::from_utf8(bytes) && JanusConfig::from_json(&text).is_ok() {
            round_trips(&text);
        }
    }

    #[test]
    fn any_number_in_any_field_gives_a_result(
        fixture in 0..FIXTURES.len(),
        field in any::<prop::sample::Index>(),
        number in prop_oneof![
            (0_u64..300).prop_map(|n| json!(n)), any::<i64>().prop_map(|n| json!(n)),
            any::<f64>().prop_map(|n| json!(n)), (0.0..5.0).prop_map(|n: f64| json!(n)),
        ],
    ) {
        let mut json: Value = serde_json::from_str(&text(fixture)).unwrap();
        let mut numbers = Vec::new();
        collect_numbers(&mut json, &mut numbers);
        let index = field.index(numbers.len());
        *numbers.swap_remove(index) = number;
        if JanusConfig::from_json(&json.to_string()).is_ok() {
            round_trips(&json.to_string());
        }
    }
}

fn collect_numbers<'a>(json: &'a mut Value, numbers: &mut Vec<&'a mut Value>) {
    match json {
        Value::Number(_) => numbers.push(json),
        Value::Array(list) => list.iter_mut().for_each(|value| collect_numbers(value, numbers)),
        Value::Object(map) => map.values_mut().for_each(|value| collect_numbers(value, numbers)),
        _ => {}
    }
}
