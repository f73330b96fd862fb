//! Adapter folders that are damaged, meant for another model, or more than plain LoRA.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use janus_model::adapters::{AdapterFiles, AdapterReport, AdapterSave};
use janus_model::checkpoint::{Limits, Naming};
use janus_model::{Error, ErrorKind, Janus, LoadOptions};
use serde_json::{Value, json};

use crate::weights::{entry, folder, safetensors};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const Q_PROJ: &str = "base_model.model.model.language_model.layers.0.self_attn.q_proj";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-pro").join(name)
}

fn model() -> Janus {
    let options = LoadOptions { dtype: Some(DType::F32), ..Default::default() };
    Janus::load(&fixture("hf"), &Device::flex(), &options).unwrap().0
}

fn load(dir: &Path) -> Result<AdapterReport, Error> {
    model().load_adapter(dir, &Limits::default())
}

fn complete() -> Value {
    json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4})
}

/// The two halves of one layer of width 64, f32 zeros.
fn pair(module: &str, a: [usize; 2], b: [usize; 2]) -> Vec<u8> {
    let shape = |s: [usize; 2]| format!("[{},{}]", s[0], s[1]);
    let (first, second) = (4 * a[0] * a[1], 4 * b[0] * b[1]);
    let a = entry(&format!("{module}.lora_A.weight"), "F32", &shape(a), &format!("[0,{first}]"));
    let end = first + second;
    let range = format!("[{first},{end}]");
    let b = entry(&format!("{module}.lora_B.weight"), "F32", &shape(b), &range);
    safetensors(format!("{{{a},{b}}}"), &vec![0; end])
}

/// What an adapter of this configuration and these weights is refused for.
fn refused(config: &Value, weights: &[u8]) -> (ErrorKind, String, Option<String>) {
    let config = config.to_string();
    let (_root, dir) = folder(&[(CONFIG, config.as_bytes()), (WEIGHTS, weights)]);
    let error = load(&dir).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("model"), "the folder is named: {text}");
    (error.kind(), text, error.hint())
}

#[test]
fn a_folder_that_is_no_adapter_says_what_is_missing() {
    let (_root, dir) = folder(&[]);
    let error = load(&dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(error.to_string().contains("no adapter_config.json here"), "{error}");
    let (_root, dir) = folder(&[(CONFIG, complete().to_string().as_bytes())]);
    let error = load(&dir).unwrap_err();
    assert!(error.to_string().contains("no adapter_model.safetensors here"), "{error}");
    assert_eq!(load(&fixture("absent")).unwrap_err().kind(), ErrorKind::Missing);
}

#[test]
fn a_plain_pair_is_taken() {
    let config = complete().to_string();
    let weights = pair(Q_PROJ, [2, 64], [64, 2]);
    let (_root, dir) = folder(&[(CONFIG, config.as_bytes()), (WEIGHTS, &weights)]);
    let report = load(&dir).unwrap();
    assert_eq!(report.layers[0].name, "language_model.model.layers.0.self_attn.q_proj");
    assert_eq!((report.layers[0].rank, report.layers[0].scale), (2, 2.0));
}

/// Whatever changes the result and is not plain LoRA.
#[test]
fn other_methods_are_refused_by_name() {
    let weights = pair(Q_PROJ, [2, 64], [64, 2]);
    for (setting, value) in [
        ("peft_type", json!("IA3")),
        ("use_dora", json!(true)),
        ("bias", json!("lora_only")),
        ("modules_to_save", json!(["lm_head"])),
        ("trainable_token_indices", json!([1, 2])),
        ("lora_bias", json!(true)),
        ("layer_replication", json!([[0, 4], [2, 5]])),
        ("alora_invocation_tokens", json!([7])),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("a_method_of_tomorrow", json!({"strength": 3})),
        ("alpha_pattern", json!({"layers\\.(1|2)\\..*": 8})),
    ] {
        let mut config = complete();
        config[setting] = value;
        let (kind, text, hint) = refused(&config, &weights);
        assert_eq!(kind, ErrorKind::Config, "{text}");
        assert!(text.contains(setting) && text.contains("not supported"), "{text}");
        assert!(hint.is_some(), "{setting}");
    }
}

#[test]
fn numbers_that_make_no_adapter_are_refused() {
    let weights = pair(Q_PROJ, [2, 64], [64, 2]);
    for (setting, value) in [
        ("r", json!(0)),
        ("r", json!(1_000_000_000)),
        ("lora_alpha", json!(0)),
        ("lora_alpha", json!(1e30)),
    ] {
        let mut config = complete();
        config[setting] = value;
        let (kind, text, _) = refused(&config, &weights);
        assert_eq!(kind, ErrorKind::Config, "{text}");
        assert!(text.contains(&format!("{setting} = ")) && text.contains("outside"), "{text}");
    }
    for words in [
        r#"{"peft_type": "LORA", "r": 2, "lora_alpha": NaN}"#,
        r#"{"peft_type": "LORA", "r": -2, "lora_alpha": 4}"#,
        r#"{"peft_type": "LORA", "r": 2, "r": 3, "lora_alpha": 4}"#,
        r#"{"peft_type": "LORA", "r": 2}"#,
        "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": \u{1b}4}",
        "[]",
        "",
    ] {
        let (_root, dir) = folder(&[(CONFIG, words.as_bytes()), (WEIGHTS, &weights)]);
        let error = load(&dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
        assert!(!error.to_string().contains('\u{1b}'));
        assert!(error.to_string().contains("not an adapter configuration"), "{error}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let b_half = {
        let entry = entry(&format!("{Q_PROJ}.lora_B.weight"), "F32", "[64,2]", "[0,512]");
        safetensors(format!("{{{entry}}}"), &[0; 512])
    };
    let foreign = {
        let entry = entry(&format!("{Q_PROJ}.lora_magnitude_vector"), "F32", "[64]", "[0,256]");
        safetensors(format!("{{{entry}}}"), &[0; 256])
    };
    let elsewhere = "base_model.model.model.language_model.layers.9.self_attn.q_proj";
    let table = "base_model.model.model.language_model.embed_tokens";
    for (weights, expected) in [
        (b_half, "q_proj.lora_A.weight' is missing"),
        (foreign, "lora_magnitude_vector' is no lora_A.weight"),
        (pair(elsewhere, [2, 64], [64, 2]), "no layer 'model.language_model.layers.9.self_attn.q_"),
        (pair(table, [2, 64], [640, 2]), "no layer 'model.language_model.embed_tokens'"),
        (pair("other.q_proj", [2, 64], [64, 2]), "'other.q_proj.lora_A.weight' is no"),
        (pair(Q_PROJ, [2, 48], [64, 2]), "q_proj.lora_A.weight': expected [2, 64], found [2, 48]"),
        (pair(Q_PROJ, [2, 64], [48, 2]), "q_proj.lora_B.weight': expected [64, 2], found [48, 2]"),
        (pair(Q_PROJ, [3, 64], [64, 3]), "q_proj.lora_A.weight': expected [2, any], found [3, 64]"),
        (pair(Q_PROJ, [2, 0], [0, 2]), "expected [2, any], found [2, 0]"),
        (safetensors("{}", &[]), "it holds no tensors"),
    ] {
        let (kind, text, hint) = refused(&complete(), &weights);
        assert_eq!(kind, ErrorKind::Config, "{text}");
        assert!(text.contains(expected), "{expected}: {text}");
        assert!(hint.is_some(), "{text}");
    }
    let mut config = complete();
    config["r"] = json!(1000);
    let (_, text, _) = refused(&config, &pair(Q_PROJ, [1000, 64], [64, 1000]));
    assert!(text.contains("rank 1000 for a weight of 64 x 64"), "{text}");
}

#[test]
fn damaged_weights_are_refused() {
    let whole = pair(Q_PROJ, [2, 64], [64, 2]);
    let (kind, _, _) = refused(&complete(), &whole[..whole.len() - 1]);
    assert_eq!(kind, ErrorKind::BadData);
    let mut nan = whole.clone();
    let last = nan.len() - 4;
    nan[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let config = complete().to_string();
    let (_root, dir) = folder(&[(CONFIG, config.as_bytes()), (WEIGHTS, &nan)]);
    let error = load(&dir).unwrap_err();
    assert!(error.to_string().contains("NaN or infinite"), "{error}");
    let whole_numbers = String::from_utf8_lossy(&whole).into_owned().replace("F32", "I32");
    let (kind, text, _) = refused(&complete(), whole_numbers.as_bytes());
    assert_eq!(kind, ErrorKind::BadData, "{text}");
    // A configuration larger than anybody writes.
    let limits = Limits { json_bytes: 10, ..Default::default() };
    let (_root, dir) = folder(&[(CONFIG, config.as_bytes()), (WEIGHTS, &whole)]);
    assert!(AdapterFiles::open(&dir, &limits).unwrap_err().to_string().contains("the limit is 10"));
}

/// After an error the model is as it was.
#[test]
fn a_misfit_leaves_the_model_alone() {
    let mut janus = model();
    janus.load_adapter(&fixture("adapter-decoder"), &Limits::default()).unwrap();
    let config = complete().to_string();
    let weights = pair("base_model.model.nothing", [2, 64], [64, 2]);
    let (_root, dir) = folder(&[(CONFIG, config.as_bytes()), (WEIGHTS, &weights)]);
    janus.load_adapter(&dir, &Limits::default()).unwrap_err();
    assert_eq!(janus.linears_mut().iter().filter(|(_, linear)| linear.lora.is_some()).count(), 4);
}

#[test]
fn nothing_is_no_adapter() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("adapter");
    let options = AdapterSave { base: None, naming: Naming::Original };
    let error = model().save_adapter(&dir, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(!dir.exists());
    fs::write(&dir, "a file").unwrap();
    let mut janus = model();
    janus.load_adapter(&fixture("adapter-decoder"), &Limits::default()).unwrap();
    assert_eq!(janus.save_adapter(&dir, &options).unwrap_err().kind(), ErrorKind::Io);
}
