//! Rows C1–C5 and I5: configurations that must be refused by field, before anything is allocated.

use std::path::PathBuf;

use janus_model::config::MAX_CONFIG_BYTES;
use janus_model::{ErrorKind, JanusConfig};
use proptest::prelude::*;
use serde_json::{Value, json};

fn fixture(folder: &str) -> Value {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let text = std::fs::read_to_string(root.join(folder).join("config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A valid configuration with one field set to `value`, or removed by `null`.
fn with(folder: &str, pointer: &str, value: Value) -> Value {
    let mut config = fixture(folder);
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Value::Null => drop(parent.remove(name)),
        value => drop(parent.insert(name.to_owned(), value)),
    }
    config
}

/// The message of the refusal, which must be of the class "configuration".
fn refused(text: &str) -> String {
    let error = JanusConfig::from_json(text).expect_err("must be refused");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    error.to_string()
}

/// The first of `says` is the whole path of the field, in the words of the file's dialect.
fn field_refused(folder: &str, pointer: &str, value: Value, says: &[&str]) {
    let message = refused(&with(folder, pointer, value.clone()).to_string());
    let named = message.split([':', ' ']).next();
    assert_eq!(named, Some(says[0]), "{pointer} = {value}: {message:?}");
    for word in says {
        assert!(message.contains(word), "{pointer} = {value}: {message:?} lacks {word:?}");
    }
}

const ORIGINAL: &str = "tiny-pro/original";
const HF: &str = "tiny-odd/hf";

#[test]
fn c1_a_missing_field_is_named_by_its_path() {
    let null = Value::Null;
    field_refused(
        ORIGINAL,
        "/aligner_config/params/n_embed",
        null.clone(),
        &["aligner_config.params.n_embed", "missing"],
    );
    field_refused(
        ORIGINAL,
        "/gen_vision_config/params/n_embed",
        null.clone(),
        &["gen_vision_config.params.n_embed", "missing"],
    );
    field_refused(ORIGINAL, "/vision_config", null.clone(), &["vision_config", "missing"]);
    field_refused(
        ORIGINAL,
        "/language_config",
        null,
        &["language_config", "not a Janus configuration"],
    );
}

#[test]
fn c1_a_wrong_type_is_named_with_what_was_found() {
    field_refused(
        ORIGINAL,
        "/vision_config/params/image_size",
        json!("96"),
        &["vision_config.params.image_size", "whole number", "string"],
    );
    field_refused(
        ORIGINAL,
        "/vision_config/params/image_size",
        json!(96.5),
        &["vision_config.params.image_size", "96.5"],
    );
    field_refused(
        ORIGINAL,
        "/vision_config/params",
        json!([1]),
        &["vision_config.params", "an object", "a list"],
    );
    field_refused(
        HF,
        "/text_config/rms_norm_eps",
        json!("tiny"),
        &["text_config.rms_norm_eps", "finite number"],
    );
    field_refused(
        HF,
        "/vq_config/channel_multiplier",
        json!([1, -2]),
        &["vq_config.channel_multiplier"],
    );
    field_refused(HF, "/vision_config/patch_size", json!([8, 16]), &["vision_config.patch_size"]);
    assert!(refused("[]").contains("expected an object"));
}

#[test]
fn c1_an_unknown_kind_is_refused_by_name() {
    field_refused(
        ORIGINAL,
        "/model_type",
        json!("llava"),
        &["model_type", "llava", "multi_modality"],
    );
    field_refused(
        ORIGINAL,
        "/vision_config/cls",
        json!("EvaTower"),
        &["vision_config.cls", "EvaTower"],
    );
    field_refused(
        ORIGINAL,
        "/aligner_config/params/projector_type",
        json!("linear"),
        &["aligner_config.params.projector_type", "linear"],
    );
    field_refused(
        HF,
        "/text_config/hidden_act",
        json!("gelu"),
        &["text_config.hidden_act", "gelu"],
    );
    field_refused(
        HF,
        "/vision_config/hidden_act",
        json!("gelu_pytorch_tanh"),
        &["vision_config.hidden_act"],
    );
    field_refused(HF, "/vision_config/use_qk_norm", json!(true), &["vision_config.use_qk_norm"]);
    field_refused(
        HF,
        "/text_config/rope_scaling",
        json!({"rope_type": "yarn"}),
        &["text_config.rope_scaling.rope_type", "yarn"],
    );
    field_refused(HF, "/text_config/attention_bias", json!(true), &["text_config.attention_bias"]);
}

#[test]
fn c1_comments_are_not_json() {
    let text = format!("// sizes\n{}", fixture(ORIGINAL));
    let error = JanusConfig::from_json(&text).unwrap_err();
    assert!(error.to_string().contains("not valid JSON"), "{error}");
    assert!(error.hint().unwrap().contains("comments"));
}

#[test]
fn c2_absurd_sizes_are_refused_with_the_range() {
    let huge = json!(1u64 << 40);
    for (pointer, value) in [
        ("/language_config/num_hidden_layers", json!(1_000_000_000)),
        ("/language_config/num_hidden_layers", json!(0)),
        ("/language_config/num_hidden_layers", json!(-1)),
        ("/language_config/vocab_size", huge.clone()),
        ("/language_config/hidden_size", json!(0)),
        ("/language_config/num_attention_heads", json!(0)),
        ("/language_config/head_dim", json!(u64::MAX)),
        ("/vision_config/params/patch_size", json!(0)),
        ("/vision_config/params/patch_size", json!(97)),
        ("/vision_config/params/image_size", json!(1u64 << 60)),
        ("/vision_config/params/width", huge.clone()),
        ("/vision_config/params/layers", huge.clone()),
        ("/vision_config/params/heads", json!(0)),
        ("/vision_config/params/mlp_ratio", json!(1e300)),
        ("/vision_config/params/mlp_ratio", json!(-1)),
        ("/vision_config/params/layer_norm_eps", json!(2)),
        ("/gen_vision_config/params/image_token_size", huge.clone()),
        ("/gen_vision_config/params/ch", json!(33)),
        ("/gen_vision_config/params/num_res_blocks", json!(0)),
        ("/gen_vision_config/params/z_channels", json!(0)),
        ("/aligner_config/params/depth", json!(1u64 << 33)),
        ("/gen_aligner_config/params/depth", json!(0)),
        ("/gen_head_config/params/image_token_embed", json!(0)),
    ] {
        field_refused(ORIGINAL, pointer, value, &[&path(pointer)]);
    }
    for (pointer, value) in [
        ("/text_config/num_hidden_layers", json!(0)),
        ("/text_config/vocab_size", huge.clone()),
        ("/text_config/hidden_size", json!(0)),
        ("/vision_config/image_size", json!(1u64 << 60)),
        ("/vision_config/patch_size", json!(0)),
        ("/vision_config/hidden_size", huge.clone()),
        ("/vision_config/num_hidden_layers", json!(0)),
        ("/vision_config/num_attention_heads", json!(7)),
        ("/vision_config/mlp_ratio", json!(1e300)),
        ("/vision_config/layer_norm_eps", json!(2)),
        ("/vision_config/projection_dim", json!(0)),
        ("/vision_config/depth", json!(0)),
        ("/vq_config/num_embeddings", json!(1u64 << 50)),
        ("/vq_config/embed_dim", json!(0)),
        ("/vq_config/base_channels", json!(33)),
        ("/vq_config/channel_multiplier", json!([])),
        ("/vq_config/channel_multiplier", json!([1, 65])),
        ("/vq_config/channel_multiplier", json!([1, 1, 1, 1, 1, 1, 1])),
        ("/vq_config/latent_channels", json!(0)),
        ("/vq_config/num_res_blocks", json!(0)),
        ("/vq_config/projection_dim", json!(0)),
        ("/vq_config/num_hidden_layers", json!(0)),
    ] {
        field_refused(HF, pointer, value, &[&path(pointer)]);
    }
}

/// How an error writes a JSON pointer.
fn path(pointer: &str) -> String {
    pointer[1..].replace('/', ".")
}

#[test]
fn c2_heads_must_divide() {
    field_refused(
        ORIGINAL,
        "/vision_config/params/heads",
        json!(7),
        &["vision_config.params.heads", "7", "48"],
    );
    field_refused(
        HF,
        "/text_config/num_key_value_heads",
        json!(4),
        &["text_config.num_key_value_heads", "4", "6"],
    );
    field_refused(HF, "/text_config/head_dim", json!(13), &["text_config.head_dim", "odd"]);
    // 64 / 6 rounded down would be another model.
    field_refused(
        ORIGINAL,
        "/language_config/num_attention_heads",
        json!(6),
        &["language_config.num_attention_heads", "6", "hidden_size 64"],
    );
    let mut config = with(HF, "/text_config/head_dim", Value::Null);
    config["text_config"]["num_attention_heads"] = json!(10);
    let message = refused(&config.to_string());
    assert!(message.starts_with("text_config.num_attention_heads: 10 does not"), "{message}");
    // Given, the width of a head need not follow from the others.
    config["text_config"]["head_dim"] = json!(6);
    JanusConfig::from_json(&config.to_string()).unwrap();
}

#[test]
fn c2_channels_must_fill_the_groups() {
    let mut config = fixture(ORIGINAL);
    let params = &mut config["gen_vision_config"]["params"];
    // The levels would fit, the first convolution does not.
    params["ch"] = json!(16);
    params["encoder_ch_mult"] = json!([2, 2]);
    params["decoder_ch_mult"] = json!([2, 2]);
    let message = refused(&config.to_string());
    let wanted = "gen_vision_config.params.ch: 16 channels cannot be cut into 32 groups";
    assert_eq!(message, wanted);
}

#[test]
fn c2_select_layer_is_held_to_the_blocks_there_are() {
    let layers = |select: i64| {
        let config = with(ORIGINAL, "/vision_config/params/select_layer", json!(select));
        JanusConfig::from_json(&config.to_string()).unwrap().0.vision.num_hidden_layers
    };
    assert_eq!([-2, -1, 1, 2, 3, i64::MAX].map(layers), [1, 2, 1, 2, 2, 2]);
}

#[test]
fn c2_parts_must_fit_each_other() {
    field_refused(
        ORIGINAL,
        "/aligner_config/params/input_dim",
        json!(1024),
        &["aligner_config.params.input_dim", "1024", "vision_config.params.width is 48"],
    );
    field_refused(
        ORIGINAL,
        "/gen_head_config/params/image_token_size",
        json!(99),
        &["gen_head_config.params.image_token_size", "99", "128"],
    );
    field_refused(
        HF,
        "/vision_config/num_image_tokens",
        json!(576),
        &["vision_config.num_image_tokens", "576", "144"],
    );
    field_refused(HF, "/vq_config/num_patches", json!(32), &["vq_config.num_patches", "32", "12"]);
    for (pointer, name) in [
        ("/vision_config/projection_dim", "vision_config.projection_dim"),
        ("/vq_config/projection_dim", "vq_config.projection_dim"),
        ("/vq_config/image_token_embed_dim", "vq_config.image_token_embed_dim"),
    ] {
        field_refused(HF, pointer, json!(64), &[name, "64", "text_config.hidden_size is 48"]);
    }
    for none in [-9, 0] {
        field_refused(
            ORIGINAL,
            "/vision_config/params/select_layer",
            json!(none),
            &["vision_config.params.select_layer", &none.to_string()],
        );
    }
}

#[test]
fn c3_numbers_must_be_finite_and_positive() {
    for value in ["NaN", "Infinity", "1e999"] {
        // Put in as text, because JSON libraries do not write them.
        let text = with(HF, "/text_config/rms_norm_eps", json!(987_654)).to_string();
        let text = text.replace("987654", value);
        assert!(text.contains(value));
        refused(&text);
        let hint = JanusConfig::from_json(&text).unwrap_err().hint().unwrap();
        assert!(hint.contains("NaN") && hint.contains("1e308"), "{hint}");
    }
    for value in [json!(0.0), json!(-1e-6), json!(1e300)] {
        field_refused(
            HF,
            "/text_config/rms_norm_eps",
            value.clone(),
            &["text_config.rms_norm_eps"],
        );
        field_refused(
            HF,
            "/vision_config/layer_norm_eps",
            value,
            &["vision_config.layer_norm_eps"],
        );
    }
    field_refused(HF, "/text_config/rope_theta", json!(-10000.0), &["text_config.rope_theta"]);
}

#[test]
fn c4_deep_json_and_large_files_are_refused() {
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(refused(&deep).contains("recursion limit"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    // A sparse gigabyte: refused by length, never read.
    std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let error = JanusConfig::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&MAX_CONFIG_BYTES.to_string()), "{error}");
}

#[test]
fn c4_bytes_that_are_no_text_are_the_files_fault() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), b"{\"model_type\": \"j\xffnus\"}").unwrap();
    let error = JanusConfig::from_dir(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let message = error.to_string();
    assert!(
        message.ends_with("config.json: not UTF-8 text: byte 17 begins no character"),
        "{message}"
    );
}

#[test]
fn c4_only_regular_files_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config.json")).unwrap();
    let error = JanusConfig::from_dir(dir.path()).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = JanusConfig::from_dir(empty.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(error.to_string().contains("config.json"), "{error}");
}

#[test]
fn c5_remote_code_is_ignored() {
    let plain = JanusConfig::from_json(&fixture(ORIGINAL).to_string()).unwrap();
    let mut config = fixture(ORIGINAL);
    config["auto_map"] = json!({"AutoModel": "modeling_evil.Evil"});
    config["trust_remote_code"] = json!(true);
    assert_eq!(JanusConfig::from_json(&config.to_string()).unwrap(), plain);
}

/// I5: the configuration of another size beside the weights.
#[cfg(feature = "cpu")]
#[test]
fn i5_a_configuration_of_another_size_is_told_with_both_shapes() {
    use burn::tensor::Device;
    use janus_model::{Janus, LoadOptions};
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(ORIGINAL);
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(root.join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let mut config = fixture(ORIGINAL);
    for part in ["aligner_config", "gen_aligner_config", "gen_head_config"] {
        config[part]["params"]["n_embed"] = json!(128);
    }
    config["language_config"]["hidden_size"] = json!(128);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let error = Janus::load(dir.path(), &Device::flex(), &LoadOptions::default()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("128") && message.contains("64"), "{message}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("128") && hint.contains("64") && hint.contains("width"), "{hint}");
    assert_eq!(error.kind(), ErrorKind::Config);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_gives_a_result(text in ".{0,200}") {
        let _ = JanusConfig::from_json(&text);
    }

    /// Any number anywhere: a result, and what is accepted survives being written and read.
    #[test]
    fn any_number_in_any_field_gives_a_result(
        which in 0usize..64, number in prop_oneof![any::<i64>().prop_map(Value::from), (-1e6..1e6).prop_map(|x: f64| Value::from((x * 1024.0).round() / 1024.0))],
    ) {
        for folder in [ORIGINAL, HF] {
            let mut config = fixture(folder);
            let fields = numbers(&config, String::new());
            let pointer = &fields[which % fields.len()];
            *config.pointer_mut(pointer).unwrap() = number.clone();
            if let Ok((sizes, dialect)) = JanusConfig::from_json(&config.to_string()) {
                let again = JanusConfig::from_json(&sizes.to_json(dialect, "bfloat16", None));
                prop_assert_eq!(again.unwrap(), (sizes, dialect));
            }
        }
    }
}

/// JSON pointers of all numbers.
fn numbers(value: &Value, path: String) -> Vec<String> {
    match value {
        Value::Number(_) => vec![path],
        Value::Object(map) => {
            map.iter().flat_map(|(name, value)| numbers(value, format!("{path}/{name}"))).collect()
        }
        _ => Vec::new(),
    }
}
