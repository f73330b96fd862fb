use std::path::Path;

use insta::assert_snapshot;
use janus_model::processor::{ImageLimits, Orientation, RgbImage8, load_image};
use serde_json::Value;

use crate::generate::{PROMPT, codes};
use crate::{Ran, fixtures, run};

pub fn picture(path: &Path) -> RgbImage8 {
    load_image(path, &ImageLimits::default(), Orientation::Raw).unwrap()
}

/// Runs with the small model and without a prompt.
fn draw(folder: &Path, words: &[&str]) -> Ran {
    let model = fixtures().join("tiny-odd/hf");
    let mut all = vec!["generate", "--device", "cpu", "--model", model.to_str().unwrap()];
    all.extend(words);
    run(folder, &all)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn paths(json: &Value) -> Vec<&str> {
    json["images"].as_array().unwrap().iter().map(|i| i["path"].as_str().unwrap()).collect()
}

#[test]
fn a_file_of_prompts_is_drawn_together_and_each_picture_is_that_of_its_prompt() {
    let here = tempfile::tempdir().unwrap();
    let text = format!("\u{feff}{PROMPT}\r\n\r\n  \r\na lighthouse at dusk, seen from the sea\r\n");
    std::fs::write(here.path().join("prompts.txt"), text).unwrap();
    let words = ["--prompts", "prompts.txt", "-n", "2", "--seed", "5", "-o", "all/", "--json"];
    let ran = draw(here.path(), &words);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "note: seed 5\n"), "{ran}");
    let all = ran.json();
    let expected = ["all/0001-1.png", "all/0001-2.png", "all/0002-1.png", "all/0002-2.png"];
    assert_eq!(paths(&all), expected);
    assert_eq!(names(&here.path().join("all")).len(), 4);
    assert_eq!(all["images"][2]["prompt"], "a lighthouse at dusk, seen from the sea");
    assert_eq!((&all["complete"], &all["prompt"]), (&Value::Bool(true), &Value::Null));

    let alone = |prompt: &str, output: &str| {
        draw(here.path(), &[prompt, "-n", "2", "--seed", "5", "-o", output, "--json"]).json()
    };
    let (cube, light) =
        (alone(PROMPT, "c.png"), alone("a lighthouse at dusk, seen from the sea", "l.png"));
    for (image, (json, index)) in
        [(&cube, 0), (&cube, 1), (&light, 0), (&light, 1)].into_iter().enumerate()
    {
        assert_eq!(codes(&all, image), codes(json, index), "picture {image}");
    }
}

#[test]
fn lines_of_json_have_their_own_seed_and_name() {
    let here = tempfile::tempdir().unwrap();
    let lines = "{\"prompt\": \"a cat\", \"seed\": 9}\n\n{\"prompt\": \"a cat\", \"output\": \"cat.jpg\"}\n";
    std::fs::write(here.path().join("p.jsonl"), lines).unwrap();
    std::fs::create_dir(here.path().join("out")).unwrap();
    let words = ["--prompts", "p.jsonl", "--seed", "3", "-o", "out", "--json"];
    let json = draw(here.path(), &words).json();
    assert_eq!(paths(&json), ["out/0001.png", "out/cat.jpg"]);
    assert_eq!((&json["images"][0]["seed"], &json["images"][1]["seed"]), (&9.into(), &3.into()));
    assert_ne!(codes(&json, 0), codes(&json, 1));
    assert_eq!(
        (&json["images"][0]["format"], &json["images"][1]["format"]),
        (&"png".into(), &"jpeg".into())
    );
    // Names in the file may also say the format of all.
    let again = draw(here.path(), &["--prompts", "p.jsonl", "-o", "out", "--skip-existing"]);
    assert_eq!((again.code, again.stdout.as_str()), (0, ""), "{again}");
    assert!(again.stderr.contains("note: left out because their files exist: 2\n"), "{again}");
    let format = ["--prompts", "p.jsonl", "-o", "out", "--format", "png", "--model", "nowhere"];
    let ran = run(here.path(), &[&["generate"], &format[..]].concat());
    assert_snapshot!("generate_prompts_format", ran);
}

#[test]
fn only_what_is_missing_is_drawn_again() {
    let here = tempfile::tempdir().unwrap();
    std::fs::write(here.path().join("p.txt"), "a cat\na dog\n").unwrap();
    let words = ["--prompts", "p.txt", "-n", "2", "--seed", "3", "-o", ".", "--json"];
    let all = draw(here.path(), &words).json();
    let lost = here.path().join("0002-1.png");
    let before = std::fs::read(&lost).unwrap();
    std::fs::remove_file(&lost).unwrap();
    let kept = std::fs::metadata(here.path().join("0001-1.png")).unwrap().modified().unwrap();
    let ran = draw(here.path(), &[&words[..], &["--skip-existing"]].concat());
    let note = "note: left out because their files exist: 3\nnote: seed 3\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (0, note), "{ran}");
    let rest = ran.json();
    assert_eq!(paths(&rest), ["./0002-1.png"]);
    assert_eq!(codes(&rest, 0), codes(&all, 2));
    assert_eq!(std::fs::read(&lost).unwrap(), before);
    let still = std::fs::metadata(here.path().join("0001-1.png")).unwrap().modified().unwrap();
    assert_eq!(still, kept);
}

#[test]
fn prompts_come_through_a_pipe() {
    let here = tempfile::tempdir().unwrap();
    let mut command = crate::janus(here.path());
    command.args([
        "generate",
        "--prompts",
        "-",
        "-o",
        ".",
        "--device",
        "cpu",
        "--temperature",
        "0",
    ]);
    command.arg("--model").arg(fixtures().join("tiny-odd/hf")).write_stdin("a cat\na dog");
    let ran = Ran::new(command);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "./0001.png\n./0002.png\n"), "{ran}");
}

#[test]
fn files_of_prompts_that_cannot_be_used_are_refused_by_line() {
    let here = tempfile::tempdir().unwrap();
    let with = |name: &str, content: &[u8], output: &str| {
        std::fs::write(here.path().join(name), content).unwrap();
        run(here.path(), &["generate", "--prompts", name, "-o", output, "--model", "nowhere"])
    };
    let lines = |content: &str| with("p.jsonl", content.as_bytes(), ".");
    let good = "{\"prompt\": \"a cat\"}\n";
    assert_snapshot!("prompts_key", lines(&format!("{good}{{\"prompt\": \"a\", \"sed\": 1}}")));
    assert_snapshot!("prompts_no_json", lines(&format!("{good}a dog")));
    assert_snapshot!("prompts_list", lines("[1]"));
    assert_snapshot!("prompts_seed", lines("{\"prompt\": \"a\", \"seed\": -1}"));
    assert_snapshot!("prompts_empty_prompt", lines("{\"prompt\": \" \"}"));
    assert_snapshot!("prompts_path", lines("{\"prompt\": \"a\", \"output\": \"../a.png\"}"));
    assert_snapshot!("prompts_suffix", lines("{\"prompt\": \"a\", \"output\": \"a.gif\"}"));
    let twice =
        "{\"prompt\": \"a\", \"output\": \"a.png\"}\n{\"prompt\": \"b\", \"output\": \"A.png\"}";
    assert_snapshot!("prompts_twice", lines(twice));
    assert_snapshot!("prompts_utf8", with("p.txt", b"a cat\n\xff\n", "."));
    assert_snapshot!("prompts_none", with("p.txt", b"\n \r\n", "."));
    assert_snapshot!("prompts_no_folder", with("p.txt", b"a cat", "out"));
    assert_snapshot!("prompts_into_file", with("p.txt", b"a cat", "p.txt"));
    assert_snapshot!("prompts_deep_folder", with("p.txt", b"a cat", "a/b/"));
    let long = with("p.txt", &vec![b'a'; 70_000], ".");
    assert_snapshot!("prompts_long", long);
    assert_eq!(with("p.txt", &vec![b'\n'; (16 << 20) + 1], ".").code, 65);
    let many = ["generate", "--prompts", "p.txt", "-o", ".", "--model", "nowhere", "-n", "60000"];
    std::fs::write(here.path().join("p.txt"), "a\nb\n").unwrap();
    assert_snapshot!("prompts_many", run(here.path(), &many));
    let absent = ["generate", "--prompts", "absent.txt", "-o", ".", "--model", "nowhere"];
    assert_snapshot!("prompts_absent", run(here.path(), &absent));
    let both = ["generate", "a cat", "--prompts", "p.txt", "-o", ".", "--model", "nowhere"];
    assert_snapshot!("prompts_and_prompt", run(here.path(), &both));
    assert_eq!(names(here.path()), ["p.jsonl", "p.txt"]);
}

#[test]
fn every_format_holds_the_same_picture() {
    let here = tempfile::tempdir().unwrap();
    let seeded = |words: &[&str]| {
        let ran = draw(here.path(), &[&["a cat", "--seed", "1"], words].concat());
        assert_eq!(ran.code, 0, "{ran}");
    };
    seeded(&["-o", "a.png"]);
    seeded(&["-o", "a.webp"]);
    seeded(&["-o", "a.jpg"]);
    seeded(&["-o", "b.jpeg", "--quality", "20"]);
    seeded(&["-o", "raw", "--format", "png", "--no-metadata"]);
    let read = |name: &str| std::fs::read(here.path().join(name)).unwrap();
    let start = |name: &str| read(name)[..4].to_vec();
    assert_eq!((start("a.png"), start("raw")), (b"\x89PNG".to_vec(), b"\x89PNG".to_vec()));
    assert_eq!((start("a.webp"), &start("a.jpg")[..3]), (b"RIFF".to_vec(), &b"\xff\xd8\xff"[..]));
    let open = |name: &str| picture(&here.path().join(name));
    assert_eq!(open("a.png"), open("a.webp"));
    assert_eq!(open("a.png"), open("raw"));
    let difference = |name: &str| -> u64 {
        let (a, b) = (open("a.png"), open(name));
        a.pixels().iter().zip(b.pixels()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
    };
    assert!(difference("a.jpg") > 0 && difference("a.jpg") < difference("b.jpeg"));
    assert!(read("a.jpg").len() > read("b.jpeg").len());
    let says = |name: &str| String::from_utf8_lossy(&read(name)).contains("a cat");
    assert_eq!(["a.png", "raw", "a.webp", "a.jpg"].map(says), [true, false, false, false]);
}

#[test]
fn a_sheet_has_all_pictures_in_their_order() {
    let here = tempfile::tempdir().unwrap();
    let words = ["a cat", "-n", "3", "--seed", "1", "--grid", "all.png", "-o", "a.png"];
    let ran = draw(here.path(), &words);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "a-1.png\na-2.png\na-3.png\nall.png\n"),
        "{ran}"
    );
    let sheet = picture(&here.path().join("all.png"));
    assert_eq!((sheet.width(), sheet.height()), (96 + 4 + 96, 96 + 4 + 96));
    for (number, (left, top)) in [(1, (0, 0)), (2, (100, 0)), (3, (0, 100))] {
        let one = picture(&here.path().join(format!("a-{number}.png")));
        for (y, line) in one.pixels().chunks_exact(3 * 96).enumerate() {
            let at = 3 * ((top + y) * sheet.width() + left);
            assert_eq!(&sheet.pixels()[at..at + 3 * 96], line, "picture {number}, row {y}");
        }
    }
}

#[test]
fn the_last_preview_is_the_picture() {
    let here = tempfile::tempdir().unwrap();
    let words =
        ["a cat", "--seed", "1", "-o", "a.png", "--preview", "now.webp", "--preview-every", "5"];
    let ran = draw(here.path(), &words);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "a.png\n"), "{ran}");
    assert_eq!(picture(&here.path().join("now.webp")), picture(&here.path().join("a.png")));
    assert_eq!(names(here.path()), ["a.png", "now.webp"]);
}
