use insta::assert_snapshot;
use serde_json::Value;

use crate::{fixtures, run};

fn estimate(words: &[&str]) -> Value {
    let mut all = vec!["estimate", "--device", "cpu", "--json"];
    all.extend(words);
    let ran = run(&fixtures(), &all);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    ran.json()
}

/// Everything but what the machine has to spare.
fn plan(words: &[&str]) -> Value {
    let mut plan = estimate(words)["plans"][0].clone();
    assert!(plan["available_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{plan:#}");
    let known = plan.as_object_mut().unwrap();
    known.retain(|key, _| !["available_bytes", "most_images_at_once"].contains(&key.as_str()));
    for memory in ["ask", "generate"] {
        let text = plan[memory].to_string();
        assert!(text.contains("\"fits\":"), "{text}");
    }
    plan["ask"]["fits"] = Value::Null;
    for one in plan["generate"].as_array_mut().unwrap() {
        one["memory"]["fits"] = Value::Null;
    }
    plan
}

#[test]
fn published_models_need_no_file() {
    assert_snapshot!(
        "estimate_1b",
        format!("{:#}", plan(&["janus-pro-1b", "--dtype", "bf16", "-n", "1"]))
    );
}

#[test]
fn a_folder_gives_its_own_sizes_and_format() {
    for model in ["tiny-pro/original", "tiny-pro/hf"] {
        let plans = estimate(&[model]);
        let formats: Vec<_> =
            plans["plans"].as_array().unwrap().iter().map(|plan| plan["dtype"].clone()).collect();
        assert_eq!(formats, ["float32", "bfloat16", "float16", "int8", "int4"]);
        // Only the format of the file can be used where it lies.
        let mapped = |i: usize| plans["plans"][i]["ask"]["mapped"].as_object().unwrap().len();
        assert_eq!([mapped(0), mapped(1), mapped(2)], [0, 3, 0], "{plans:#}");
    }
}

#[test]
fn more_pictures_take_more_and_no_guidance_takes_half_the_cache() {
    let cache = |words: &[&str]| {
        let plan = plan(words);
        let of = |one: &Value| one["memory"]["cache_bytes"].as_u64().unwrap();
        plan["generate"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    let model = ["janus-pro-1b", "--dtype", "bf16", "-n", "1,2,16"];
    let guided = cache(&model);
    assert_eq!([guided[0] * 2, guided[0] * 16], [guided[1], guided[2]]);
    let mut words = model.to_vec();
    words.extend(["--cfg", "1"]);
    assert_eq!(cache(&words)[0] * 2, guided[0]);
}

#[test]
fn bad_requests_are_refused() {
    let bad = |words: &[&str]| {
        let mut all = vec!["estimate"];
        all.extend(words);
        run(&fixtures(), &all)
    };
    assert_snapshot!("estimate_nothing_there", bad(&["nowhere"]));
    assert_snapshot!("estimate_no_pictures", bad(&["janus-pro-1b", "-n", "0"]));
    assert_snapshot!("estimate_cfg", bad(&["janus-pro-1b", "--cfg", "nan"]));
    assert_snapshot!(
        "estimate_dtype",
        bad(&["janus-pro-1b", "--device", "ndarray", "--dtype", "bf16"])
    );
}
