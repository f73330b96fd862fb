use std::path::Path;

use insta::assert_snapshot;
use janus_model::processor::RgbImage8;
use safetensors::SafeTensors;

use crate::{fixtures, run};

const QUESTION: &str = "What is in this picture?";

/// The first picture of a fixture as a PNG file.
pub fn picture(model: &str, folder: &Path) {
    let bytes = std::fs::read(fixtures().join(model).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("image.source.0").unwrap();
    let (height, width) = (view.shape()[0], view.shape()[1]);
    let image = RgbImage8::new(width, height, view.data().to_vec()).unwrap();
    std::fs::write(folder.join("picture.png"), image.to_png().unwrap()).unwrap();
}

/// Whole numbers of a fixture.
pub fn numbers(model: &str, key: &str) -> Vec<i64> {
    let bytes = std::fs::read(fixtures().join(model).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(key).unwrap();
    view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn the_greedy_answer_is_pytorchs() {
    // Only these: Hugging Face folders ask for its rounding of sizes, and so for other pixels.
    for (model, folder) in [("tiny-pro", "original"), ("tiny-odd", "original-bin")] {
        let here = tempfile::tempdir().unwrap();
        picture(model, here.path());
        let path = fixtures().join(model).join(folder);
        let expected = numbers(model, "greedy.ids");
        let count = expected.len().to_string();
        let words = ["ask", "picture.png", "-q", QUESTION, "--model", path.to_str().unwrap()];
        let mut words = words.to_vec();
        words.extend(["--max-new-tokens", &count, "--device", "cpu", "--json"]);
        let ran = run(here.path(), &words);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
        let json = ran.json();
        let ids: Vec<i64> =
            json["token_ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        // The reference never stops; the command ends at the end token.
        assert_eq!(ids, expected[..ids.len()], "{model}/{folder}");
        assert!(ids.len() == expected.len() || json["finish"] == "stop", "{json:#}");
        assert_eq!(json["prompt_tokens"], numbers(model, "prompt.text_ids").len());

        words.pop();
        let text = run(here.path(), &words);
        assert_eq!(text.stdout, format!("{}\n", json["text"].as_str().unwrap()));
    }
}

#[test]
fn chance_is_repeatable_and_says_its_seed() {
    let ask = |seed: &[&str]| {
        let mut words = vec!["ask", "-q", "hello", "--model", "tiny-pro/hf", "--device", "cpu"];
        words.extend(["--temperature", "1", "--max-new-tokens", "12"]);
        words.extend(seed);
        run(&fixtures(), &words)
    };
    let (one, again, other) = (ask(&["--seed", "1"]), ask(&["--seed", "1"]), ask(&["--seed", "2"]));
    assert_eq!(one.stdout, again.stdout);
    assert_ne!(one.stdout, other.stdout);
    assert!(one.stderr.contains("note: seed 1\n"), "{one}");
    assert!(ask(&[]).stderr.contains("note: seed "));
}

#[test]
fn auto_says_what_it_chose() {
    let words = ["ask", "-q", "hello", "--model", "tiny-pro/hf", "--max-new-tokens", "1"];
    let ran = run(&fixtures(), &words);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stderr.starts_with("note: using "), "{ran}");
}

#[test]
fn bad_requests_are_refused_before_the_model_is_read() {
    let ask = |words: &[&str]| {
        let mut all = vec!["ask", "--model", "nowhere", "-q", "hello"];
        all.extend(words);
        run(&fixtures(), &all)
    };
    assert_snapshot!("ask_no_image", ask(&["absent.png"]));
    assert_snapshot!("ask_folder", ask(&["images"]));
    assert_snapshot!("ask_not_an_image", ask(&["README.md"]));
    assert_snapshot!("ask_top_p", ask(&["--top-p", "1.5"]));
    assert_snapshot!("ask_temperature", ask(&["--temperature", "-1"]));
    assert_snapshot!("ask_no_model", ask(&["--device", "cpu"]));
    assert_snapshot!("ask_no_tokens", ask(&["--max-new-tokens", "0"]));
    assert_snapshot!("ask_empty_stop", ask(&["--stop", ""]));
    let question = |question: &str, images: &[&str]| {
        let mut words = vec!["ask", "--model", "nowhere", "-q", question];
        words.extend(images);
        run(&fixtures(), &words)
    };
    assert_snapshot!("ask_places", question("<image> or <image>?", &["images/rgb.png"]));
    assert_snapshot!("ask_nothing", question(" ", &[]));
}

#[test]
fn a_prompt_beyond_the_context_is_refused() {
    let long = "word ".repeat(3000);
    let words = ["ask", "-q", &long, "--model", "tiny-pro/hf", "--device", "cpu"];
    let ran = run(&fixtures(), &words);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran}");
    assert!(ran.stderr.contains("the context holds 2048\nhint: "), "{ran}");
}

/// Answers with the tiny model, greedily.
fn greedy(words: &[&str], stdin: &str) -> crate::Ran {
    let mut command = crate::janus(&fixtures());
    command.args(["ask", "--model", "tiny-pro/original", "--device", "cpu", "--json"]);
    command.args(["--max-new-tokens", "12", "--seed", "1"]).args(words).write_stdin(stdin);
    let ran = crate::Ran::new(command);
    assert_eq!(ran.code, 0, "{ran}");
    ran
}

#[test]
fn pictures_stand_where_the_question_has_them() {
    // Two that this model tells apart.
    let (one, two) = ("images/grey.png", "images/palette.png");
    let ask = |question: &str| greedy(&[one, two, "-q", question], "").json();
    let first = ask("Which is older?");
    assert_eq!(first, ask("<image><image>Which is older?"));
    let placed = ask("Is <image> older than <image>?");
    assert_ne!(first["token_ids"], placed["token_ids"]);
    let swapped = greedy(&[two, one, "-q", "Is <image> older than <image>?"], "").json();
    assert_ne!(placed["token_ids"], swapped["token_ids"]);
}

#[test]
fn a_question_comes_from_stdin_with_or_without_a_line_break() {
    let typed = greedy(&["-q", "What is it?"], "").json();
    assert_eq!(greedy(&["-q", "-"], "What is it?\n").json(), typed);
    assert_eq!(greedy(&["-q", "-"], "What is it?").json(), typed);
}

#[test]
fn the_system_prompt_can_be_replaced_or_left_away() {
    let asked = |system: &[&str]| greedy(&[&["-q", "Hello"], system].concat(), "").json();
    let tokens = |system: &[&str]| asked(system)["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&["--system", ""]) < tokens(&["--system", "Be brief."]));
    assert!(tokens(&["--system", "Be brief."]) < tokens(&[]));
}

#[test]
fn a_stop_text_ends_the_answer() {
    let free = greedy(&["-q", "Hello"], "").json();
    let text = free["text"].as_str().unwrap();
    let middle = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
    let stop: String = text[middle..].chars().take(2).collect();
    let cut = greedy(&["-q", "Hello", "--stop", &stop], "").json();
    assert_eq!(cut["text"], text[..text.find(&stop).unwrap()]);
    assert_eq!(cut["finish"], "stop");
}

#[test]
fn flags_without_effect_are_told() {
    let ran = greedy(&["-q", "Hello", "--top-p", "0.9"], "");
    assert_eq!(ran.stderr, "note: --top-p changes nothing at --temperature 0\n");
}
