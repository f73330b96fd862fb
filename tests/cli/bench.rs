use crate::{fixtures, run};

const STAGES: [&str; 8] = [
    "load",
    "vision",
    "prefill",
    "text_token",
    "image_prefill",
    "image_step",
    "vq_decode",
    "image",
];

#[test]
fn every_stage_is_timed() {
    let words = ["bench", "--model", "tiny-odd/hf", "--device", "cpu", "--prefill", "20"];
    let more = ["--text-tokens", "3", "--codes", "4", "--repeat", "2", "-n", "2"];
    let ran = run(&fixtures(), &[&words[..], &more, &["--json"]].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    let json = ran.json();
    let stages = json["stages"].as_array().unwrap();
    let names: Vec<_> = stages.iter().map(|stage| stage["name"].as_str().unwrap()).collect();
    assert_eq!(names, STAGES);
    for stage in &stages[1..] {
        assert_eq!(stage["runs"].as_array().unwrap().len(), 2, "{stage:#}");
        assert!(stage["seconds"].as_f64().unwrap() > 0.0, "{stage:#}");
    }
    assert_eq!((&json["codes"], &json["num_images"]), (&4.into(), &2.into()));
    // All matrices that one token passes, twice two bytes each.
    let of = |name: &str| stages[STAGES.iter().position(|s| *s == name).unwrap()].clone();
    assert!(of("image_step")["weight_bytes"].as_u64().unwrap() > 100_000);
    assert_eq!(of("image")["items"], 2);
    // Beside what the machine does at most, where that is what takes the time.
    let most = |name: &str| json["ceiling"][name].as_f64().unwrap();
    for (name, rate, ceiling) in [
        ("vision", "flop_per_second", "flop_per_second"),
        ("vq_decode", "flop_per_second", "flop_per_second"),
        ("image_step", "bytes_per_second", "bytes_per_second"),
    ] {
        let (stage, most) = (of(name), most(ceiling));
        let share = stage[rate].as_f64().unwrap() / most;
        let told = stage["of_ceiling"].as_f64().unwrap();
        assert!(most > 0.0 && (told / share - 1.0).abs() < 1e-9, "{stage:#}");
    }
    assert!(of("load")["of_ceiling"].is_null() && of("image")["flop"].is_null());

    let text = run(&fixtures(), &[&words[..], &more].concat());
    assert_eq!(text.code, 0, "{text}");
    for line in [
        "image step, 4 rows",
        "prefill, 20 tokens",
        "2 pictures, whole",
        "vision tower",
        "GFLOP/s",
        "per cent are of",
    ] {
        assert!(text.stdout.contains(line), "{text}");
    }
}

#[test]
fn a_prompt_beyond_the_context_is_refused() {
    let words = ["bench", "--model", "tiny-odd/hf", "--device", "cpu", "--prefill", "99999"];
    let ran = run(&fixtures(), &words);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran}");
    assert!(ran.stderr.contains("99999 tokens"), "{ran}");
}
