use crate::{fixtures, run};

#[test]
fn devices_lists_the_processor_and_says_what_auto_takes() {
    let ran = run(&fixtures(), &["devices"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    assert!(ran.stdout.contains("processor, Burn Flex: f32 bf16 f16"), "{ran}");
    assert!(ran.stdout.contains("* taken by --device auto"), "{ran}");
}

#[test]
fn devices_json_has_exactly_one_automatic_device() {
    let json = run(&fixtures(), &["devices", "--json"]).json();
    let all: Vec<_> = json["backends"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|backend| backend["devices"].as_array().unwrap())
        .collect();
    let auto: Vec<_> = all.iter().filter(|device| device["auto"] == true).collect();
    assert_eq!(auto.len(), 1, "{json:#}");
    assert_eq!(auto[0]["device"], json["auto"]);
    // lavapipe and its like are listed, but no graphics cards.
    assert!(all.iter().all(|device| device["software"] == false || device["auto"] == false));
}

#[test]
fn one_device_can_be_asked_for() {
    let json = run(&fixtures(), &["devices", "--device", "cpu", "--json"]).json();
    assert_eq!(json["device"], "cpu");
    assert_eq!(json["default"]["weights"], "bf16");
    let auto = run(&fixtures(), &["devices", "--device", "auto"]);
    assert!(auto.stdout.starts_with("* "), "{auto}");
}

#[test]
fn devices_that_are_not_there_say_so() {
    let unknown = run(&fixtures(), &["devices", "--device", "tpu"]);
    insta::assert_snapshot!("device_unknown", unknown);
    insta::assert_snapshot!("device_number", run(&fixtures(), &["devices", "--device", "cuda:x"]));
    insta::assert_snapshot!(
        "device_cpu_number",
        run(&fixtures(), &["devices", "--device", "cpu:0"])
    );
    let mut command = crate::janus(&fixtures());
    command.args(["devices"]).env("JANUS_DEVICE", "toaster");
    assert_eq!(crate::Ran::new(command).code, 2);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_backend_that_was_not_compiled_in_names_its_feature() {
    let ran = run(&fixtures(), &["devices", "--device", "cuda", "--json"]);
    assert_eq!(ran.code, 2);
    let error = ran.error();
    assert!(error["message"].as_str().unwrap().starts_with("this janus was built without cuda"));
    assert!(error["hint"].as_str().unwrap().contains("feature `cuda`"));
}

#[cfg(any(feature = "wgpu", feature = "wgpu-parity"))]
#[test]
fn an_adapter_number_that_is_too_high_is_refused() {
    let ran = run(&fixtures(), &["devices", "--device", "webgpu:77"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (66, ""), "{ran}");
    assert!(ran.stderr.starts_with("error: "), "{ran}");
    assert!(ran.stderr.contains("\nhint: "), "{ran}");
}
