use insta::assert_snapshot;
use janus_model::processor::{ImageLimits, Orientation, load_image};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::ask::numbers;
use crate::{Ran, fixtures, run};

pub const PROMPT: &str = "a red cube on a blue sphere";

pub fn codes(json: &Value, image: usize) -> Vec<i64> {
    let codes = json["images"][image]["codes"].as_array().unwrap();
    codes.iter().map(|code| code.as_i64().unwrap()).collect()
}

pub fn generate(folder: &std::path::Path, model: &str, words: &[&str]) -> Ran {
    let model = fixtures().join(model);
    let mut all = vec!["generate", PROMPT, "--device", "cpu", "--model", model.to_str().unwrap()];
    all.extend(words);
    run(folder, &all)
}

#[test]
fn the_greedy_picture_is_pytorchs() {
    for (model, folder) in crate::MODELS {
        let here = tempfile::tempdir().unwrap();
        let path = format!("{model}/{folder}");
        let words = ["--temperature", "0", "--output", "cube.png", "--json"];
        let ran = generate(here.path(), &path, &words);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
        let json = ran.json();
        assert_eq!(json["images"][0]["path"], "cube.png");
        assert_eq!(codes(&json, 0), numbers(model, "gen.codes"), "{path}");

        let bytes = std::fs::read(fixtures().join(model).join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let expected = file.tensor("vq.decode.u8").unwrap();
        let png = here.path().join("cube.png");
        let image = load_image(&png, &ImageLimits::default(), Orientation::Raw).unwrap();
        let far = |(a, b): (&u8, &u8)| a.abs_diff(*b) > 1;
        assert_eq!(image.pixels().len(), expected.data().len());
        assert!(!image.pixels().iter().zip(expected.data()).any(far), "{path}: above one level");
    }
}

/// What bf16 makes of the same codes: measured 5 levels of 255, where PyTorch's bf16 makes 10.
#[test]
fn a_picture_in_bf16_is_nearly_the_same() {
    let here = tempfile::tempdir().unwrap();
    let words = ["--temperature", "0", "--output", "cube.png", "--json", "--dtype", "bf16"];
    let ran = generate(here.path(), "tiny-pro/original", &words);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    assert_eq!(codes(&ran.json(), 0), numbers("tiny-pro", "gen.codes"));
    // And it is drawn again as it was drawn, whatever is the default.
    let model = fixtures().join("tiny-pro/original");
    let words = ["generate", "--reproduce", "cube.png", "--output", "again.png", "--model"];
    let again = run(here.path(), &[&words[..], &[model.to_str().unwrap()]].concat());
    assert_eq!((again.code, again.stdout.as_str()), (0, "again.png\nidentical\n"), "{again}");
    let bytes = std::fs::read(fixtures().join("tiny-pro/expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let expected = file.tensor("vq.decode.u8").unwrap();
    let png = here.path().join("cube.png");
    let image = load_image(&png, &ImageLimits::default(), Orientation::Raw).unwrap();
    let far = image.pixels().iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b)).max();
    println!("measured: {far:?} levels");
    assert!(far.unwrap() <= 8, "{far:?} levels");
}

/// Rounded steps are asked for by name, are in the picture's record, and are drawn again so.
#[test]
fn steps_are_rounded_where_that_is_asked_for() {
    let here = tempfile::tempdir().unwrap();
    let draw = |name: &str, words: &[&str]| {
        let all = ["-n", "2", "--seed", "7", "--json", "--dtype", "bf16", "-o", name];
        let ran = generate(here.path(), "tiny-pro/original", &[&all[..], words].concat());
        assert_eq!(ran.code, 0, "{ran}");
        let record =
            crate::generate_again::record(&here.path().join(name.replace(".png", "-1.png")));
        (ran.json(), record["products"].clone())
    };
    let (exact, products) = draw("exact.png", &[]);
    assert_eq!(products, "bf16");
    let (rounded, products) = draw("rounded.png", &["--rounded-steps"]);
    assert_eq!(products, "bf16-steps");
    let (alone, _) = draw("alone.png", &["--rounded-steps", "--at-once", "1"]);
    assert_eq!(codes(&rounded, 1), codes(&alone, 1), "a picture depends on those beside it");
    #[cfg(target_arch = "x86_64")]
    if janus_model::ops::Instructions::get().bf16 {
        assert_ne!(codes(&rounded, 0), codes(&exact, 0), "nothing was rounded");
    }
    let model = fixtures().join("tiny-pro/original");
    let words = ["generate", "--reproduce", "rounded-2.png", "--output", "a.png", "--model"];
    let again = run(here.path(), &[&words[..], &[model.to_str().unwrap()]].concat());
    assert_eq!((again.code, again.stdout.as_str()), (0, "a.png\nidentical\n"), "{again}");
    // Asked for, it is done, whatever the record says; here it says nothing else but bf16.
    let words = ["--reproduce", "exact-2.png", "--rounded-steps", "--output", "c.png", "--model"];
    let other = run(here.path(), &[&["generate"], &words[..], &[model.to_str().unwrap()]].concat());
    #[cfg(target_arch = "x86_64")]
    if janus_model::ops::Instructions::get().bf16 {
        assert_eq!((other.code, other.stdout.as_str()), (1, "c.png\ndiffers\n"), "{other}");
    }
    let record = crate::generate_again::record(&here.path().join("c.png"));
    assert_eq!(record["products"], "bf16-steps");
    let ran = generate(here.path(), "tiny-pro/original", &["--rounded-steps", "-o", "b.png"]);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("--rounded-steps is for weights in bf16"), "{ran}");
    assert!(ran.stderr.contains("hint: add --dtype bf16"), "{ran}");
}

#[test]
fn a_picture_does_not_depend_on_those_beside_it() {
    let here = tempfile::tempdir().unwrap();
    let draw = |words: &[&str]| {
        let mut all = vec!["--seed", "7", "--json"];
        all.extend(words);
        let ran = generate(here.path(), "tiny-odd/hf", &all);
        assert_eq!(ran.code, 0, "{ran}");
        assert!(ran.stderr.contains("note: seed 7\n"), "{ran}");
        ran.json()
    };
    let three = draw(&["-n", "3", "--at-once", "2", "-o", "a.png"]);
    let one = draw(&["-o", "b.png"]);
    assert_eq!(codes(&three, 0), codes(&one, 0));
    assert_ne!(codes(&three, 0), codes(&three, 1));
    assert_ne!(codes(&three, 0), codes(&three, 2));
    let read = |name: &str| std::fs::read(here.path().join(name)).unwrap();
    assert_eq!(read("a-1.png"), read("b.png"));
    // The rest of a series, under the names that it would have had.
    let last = draw(&["--first", "2", "-o", "c.png"]);
    assert_eq!(
        (&last["images"][0]["path"], codes(&last, 0)),
        (&"c-3.png".into(), codes(&three, 2))
    );
    std::fs::remove_file(here.path().join("c-3.png")).unwrap();
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 4);
}

#[test]
fn bad_requests_are_refused_before_the_model_is_read() {
    let here = tempfile::tempdir().unwrap();
    std::fs::write(here.path().join("old.png"), "precious").unwrap();
    let draw = |words: &[&str]| {
        let mut all = vec!["generate", PROMPT, "--model", "nowhere"];
        all.extend(words);
        run(here.path(), &all)
    };
    assert_snapshot!("generate_exists", draw(&["-o", "old.png"]));
    assert_snapshot!("generate_not_png", draw(&["-o", "new.tiff"]));
    assert_snapshot!("generate_no_folder", draw(&["-o", "nowhere/new.png"]));
    assert_snapshot!("generate_cfg", draw(&["-o", "new.png", "--cfg", "nan"]));
    assert_snapshot!("generate_none", draw(&["-o", "new.png", "-n", "0"]));
    assert_snapshot!("generate_contradiction", draw(&["-o", "new.png", "--format", "jpeg"]));
    assert_snapshot!("generate_quality_png", draw(&["-o", "new.png", "--quality", "80"]));
    assert_snapshot!("generate_quality_0", draw(&["-o", "new.jpg", "--quality", "0"]));
    assert_snapshot!("generate_every", draw(&["-o", "new.png", "--preview-every", "2"]));
    assert_snapshot!("generate_grid_is_output", draw(&["-o", "new.png", "--grid", "./new.png"]));
    assert_snapshot!("generate_grid_exists", draw(&["-o", "new.png", "--grid", "old.png"]));
    assert_snapshot!("generate_preview_format", draw(&["-o", "new.png", "--preview", "now.gif"]));
    let many = ["-o", "new.png", "-n", "257", "--grid", "all.png"];
    assert_snapshot!("generate_grid_many", draw(&many));
    let both = ["-o", "new.png", "--force", "--skip-existing"];
    assert_snapshot!("generate_force_and_skip", draw(&both));
    assert_snapshot!("generate_any_model", draw(&["-o", "new.png", "--any-model"]));
    let empty = run(here.path(), &["generate", " ", "-o", "new.png", "--model", "nowhere"]);
    assert_snapshot!("generate_empty", empty);
    let nothing = run(here.path(), &["generate", "-o", "new.png", "--model", "nowhere"]);
    assert_snapshot!("generate_nothing", nothing);
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read(here.path().join("old.png")).unwrap(), b"precious");
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_half_picture() {
    let here = tempfile::tempdir().unwrap();
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$JANUS\" generate x --model \"$MODEL\" \
                  --device cpu --temperature 0 -o x.png";
    let mut command = assert_cmd::Command::new("sh");
    command.args(["-c", script]).current_dir(here.path()).env("NO_COLOR", "1");
    command.env("JANUS", env!("CARGO_BIN_EXE_janus")).env("MODEL", fixtures().join("tiny-pro/hf"));
    let ran = Ran::new(command);
    assert_eq!((ran.code, ran.stdout.as_str()), (74, ""), "{ran}");
    assert!(ran.stderr.contains("x.png: cannot write"), "{ran}");
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0);
}
