use crate::{Ran, copy_of, fixtures, janus, run};

#[test]
fn a_machine_that_runs_the_tests_is_fit() {
    let home = tempfile::tempdir().unwrap();
    let mut command = janus(&fixtures());
    command.args(["doctor", "--model", "tiny-pro/hf"]).env("HF_HOME", home.path());
    let ran = Ran::new(command);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    for part in [
        "cpu          processor, Burn Flex: works; weights bf16, arithmetic f32",
        "understanding whole",
        "drawing      whole",
        "tokenizer    can be used",
        "16777216     --max-header-size, JANUS_MAX_HEADER_SIZE",
        "no problem found",
    ] {
        assert!(ran.stdout.contains(part), "{part}\n{ran}");
    }
}

#[test]
fn software_devices_are_tested_on_request() {
    let tested = |words: &[&str]| -> Vec<bool> {
        let json = run(&fixtures(), words).json();
        let devices = json["devices"].as_array().unwrap().clone();
        devices.iter().filter(|d| d["software"] == false).for_each(|device| {
            assert_eq!(device["multiplies_right"], true, "{device}");
        });
        let software = devices.iter().filter(|device| device["software"] == true);
        software.map(|device| device["multiplies_right"] == true).collect()
    };
    assert!(tested(&["doctor", "--json"]).iter().all(|tested| !tested));
    assert!(tested(&["doctor", "--json", "--software"]).iter().all(|tested| *tested));
}

#[test]
fn settings_are_shown_and_secrets_are_not() {
    let mut command = janus(&fixtures());
    command.args(["doctor", "--json"]);
    command.env("HF_TOKEN", "hf_secret").env("HTTPS_PROXY", "http://me:secret@proxy:1");
    command.env("JANUS_MAX_TENSORS", "7").env("JANUS_MAX_TENSOR", "8");
    let ran = Ran::new(command);
    let json = ran.json();
    assert_eq!(ran.code, 1, "an unknown setting is a problem");
    assert!(!ran.to_string().contains("secret"), "{ran}");
    assert_eq!(json["environment"]["HTTPS_PROXY"], "http://…@proxy:1");
    let limits = json["limits"].as_array().unwrap();
    let limit = limits.iter().find(|limit| limit["flag"] == "--max-tensors").unwrap();
    assert_eq!((&limit["value"], &limit["variable"]), (&7.into(), &"JANUS_MAX_TENSORS".into()));
    assert_eq!(json["problems"].as_array().unwrap().len(), 1, "{json:#}");
    assert!(json["problems"][0]["problem"].as_str().unwrap().starts_with("JANUS_MAX_TENSOR is"));
}

#[test]
fn folders_that_cannot_hold_anything_are_a_problem() {
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut command = janus(here.path());
    command.args(["doctor", "--json"]).env("TMPDIR", "/proc/nowhere").env("HF_HOME", "/proc/x");
    let ran = Ran::new(command);
    let json = ran.json();
    if cfg!(target_os = "linux") {
        assert_eq!((ran.code, json["folders"][0]["writable"].as_bool()), (1, Some(false)), "{ran}");
        let hint = json["problems"][0]["hint"].as_str().unwrap();
        assert_eq!(hint, "choose another with HF_HOME or HF_HUB_CACHE");
    }
}

#[test]
fn a_broken_model_is_a_named_problem() {
    let folder = copy_of("tiny-pro/hf");
    let mut tensors = crate::read_tensors(&folder.path().join("model"));
    tensors.retain(|name, _| !name.contains("generation") && !name.contains("vqmodel"));
    crate::write_tensors(&folder.path().join("model"), &tensors);
    std::fs::remove_file(folder.path().join("model/tokenizer.json")).unwrap();
    let ran = run(folder.path(), &["doctor", "--json", "--model", "model"]);
    let json = ran.json();
    assert_eq!(ran.code, 1, "{ran}");
    assert_eq!(json["model"]["understanding_lacks"], 0, "{json:#}");
    assert!(json["model"]["drawing_lacks"].as_u64().unwrap() > 0);
    assert_eq!(json["model"]["tokenizer"], false);
    assert_eq!(json["problems"].as_array().unwrap().len(), 2, "{json:#}");

    let absent = run(folder.path(), &["doctor", "--model", "nowhere"]);
    assert_eq!(absent.code, 1);
    assert!(
        absent.stderr.starts_with("problem: nowhere: no such file or folder\nhint: "),
        "{absent}"
    );
}
