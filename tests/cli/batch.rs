use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Ran, fixtures, run};

const QUESTION: &str = "What is in this picture?";

/// A folder with `pictures` that holds so many of the fixtures' pictures.
fn pictures(count: usize) -> TempDir {
    let here = tempfile::tempdir().unwrap();
    let folder = here.path().join("pictures");
    fs::create_dir(&folder).unwrap();
    let mut from: Vec<PathBuf> =
        fs::read_dir(fixtures().join("images")).unwrap().map(|e| e.unwrap().path()).collect();
    from.retain(|path| path.extension().is_some_and(|ending| ending != "safetensors"));
    from.sort();
    for (number, path) in from.iter().cycle().take(count).enumerate() {
        let ending = path.extension().unwrap().to_str().unwrap();
        fs::copy(path, folder.join(format!("{number:02}.{ending}"))).unwrap();
    }
    here
}

fn model() -> String {
    fixtures().join("tiny-pro/original").to_str().unwrap().to_owned()
}

/// The words of a run.
fn words(more: &[&str]) -> Vec<String> {
    let model = model();
    let fixed = ["batch", "--model", &model, "--device", "cpu", "--max-new-tokens", "10"];
    fixed.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

fn batch(folder: &Path, more: &[&str]) -> Ran {
    let words = words(more);
    run(folder, &words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What `ask` says.
fn ask(folder: &Path, more: &[&str]) -> Value {
    let model = model();
    let fixed = ["ask", "--model", &model, "--device", "cpu", "--max-new-tokens", "10", "--json"];
    run(folder, &[&fixed, more].concat()).json()
}

fn same_answer(line: &Value, asked: &Value) {
    for field in ["text", "token_ids", "finish", "prompt_tokens"] {
        assert_eq!(line[field], asked[field], "{field} of {line:#}");
    }
}

#[test]
fn a_folder_is_answered_as_ask_does_in_groups_of_any_size() {
    let here = pictures(7);
    let folder = here.path();
    let answered = |name: &str, size: &str| {
        let flags = ["pictures", "-q", QUESTION, "-o", name, "--batch-size", size];
        let ran = batch(folder, &flags);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran}");
        assert_eq!(ran.stderr, "note: 7 answers, 0 errors\n");
        fs::read_to_string(folder.join(name)).unwrap()
    };
    let one = answered("one.jsonl", "1");
    assert_eq!(answered("four.jsonl", "4"), one);
    let lines = lines(&folder.join("one.jsonl"));
    for (number, line) in lines.iter().enumerate() {
        let name = line["id"].as_str().unwrap();
        assert!(name.starts_with(&format!("{number:02}.")), "{name}");
        assert_eq!((&line["images"], &line["question"]), (&json!([name]), &json!(QUESTION)));
        same_answer(line, &ask(folder, &[&format!("pictures/{name}"), "-q", QUESTION]));
    }
    let ran = batch(folder, &["pictures", "-q", QUESTION, "-o", "-"]);
    assert_eq!((ran.code, ran.stdout), (0, one));
}

#[test]
fn chance_belongs_to_the_row() {
    let here = pictures(5);
    let flags = ["pictures", "-q", QUESTION, "--temperature", "1", "--seed", "3"];
    for (name, size) in [("a.jsonl", "1"), ("b.jsonl", "3")] {
        let ran = batch(here.path(), &[&flags[..], &["-o", name, "--batch-size", size]].concat());
        assert_eq!(ran.code, 0, "{ran}");
    }
    let (a, b) = (lines(&here.path().join("a.jsonl")), lines(&here.path().join("b.jsonl")));
    assert_eq!(a, b);
    let first = a[0]["images"][0].as_str().unwrap();
    let path = format!("pictures/{first}");
    let asked = ask(here.path(), &[&path, "-q", QUESTION, "--temperature", "1", "--seed", "3"]);
    same_answer(&a[0], &asked);

    // Without a seed, a run goes on with the one its file was begun with.
    let flags = ["pictures", "-q", QUESTION, "--temperature", "1", "-o", "c.jsonl"];
    assert_eq!(batch(here.path(), &flags).code, 0);
    let whole = fs::read(here.path().join("c.jsonl")).unwrap();
    fs::write(here.path().join("c.jsonl"), &whole[..whole.len() / 2]).unwrap();
    assert_eq!(batch(here.path(), &flags).code, 0);
    assert_eq!(fs::read(here.path().join("c.jsonl")).unwrap(), whole);
}

#[test]
fn lines_of_both_kinds_are_answered() {
    let here = pictures(2);
    let pictures: Vec<String> = lines_of_folder(&here.path().join("pictures"));
    let (a, b) = (format!("pictures/{}", pictures[0]), format!("pictures/{}", pictures[1]));
    let rows = [
        json!({"id": "first", "images": [a, b], "question": "Is <image> older than <image>?"}),
        json!({"question": "Hello", "system": "Be brief."}),
        json!({"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "Hello"}]}),
        json!({"messages": [
            {"role": "user", "content": "<image>What is it?"},
            {"role": "assistant", "content": "A cat."},
            {"role": "user", "content": "And <image>?"}
        ], "images": [a, b], "id": 4}),
    ];
    let text: Vec<String> = rows.iter().map(Value::to_string).collect();
    // A mark in front, ends of lines as on Windows, and a blank line.
    let text = format!("\u{feff}{}\r\n", text.join("\r\n\r\n"));
    fs::write(here.path().join("in.jsonl"), text).unwrap();
    let ran = batch(here.path(), &["in.jsonl", "-o", "out.jsonl", "--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    assert_eq!(ran.json()["answers"], 4);
    let out = lines(&here.path().join("out.jsonl"));
    let ids: Vec<&Value> = out.iter().map(|line| &line["id"]).collect();
    assert_eq!(ids, [&json!("first"), &json!(3), &json!(5), &json!(4)]);
    let ask = |words: &[&str]| ask(here.path(), words);
    same_answer(&out[0], &ask(&[&a, &b, "-q", "Is <image> older than <image>?"]));
    same_answer(&out[1], &ask(&["-q", "Hello", "--system", "Be brief."]));
    same_answer(&out[2], &ask(&["-q", "Hello", "--system", ""]));
    assert_eq!(out[3]["question"], "And <image>?");
    let one_picture = ask(&[&a, "-q", "What is it?"])["prompt_tokens"].as_u64().unwrap();
    assert!(out[3]["prompt_tokens"].as_u64().unwrap() > one_picture + 144, "{:#}", out[3]);
}

fn lines_of_folder(folder: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| name(e.unwrap())).collect();
    names.sort();
    names
}

/// Killed without warning after so many lines; then the same command again, to the end.
#[test]
#[cfg(unix)]
fn a_killed_run_goes_on_and_ends_in_the_same_bytes() {
    let here = pictures(21);
    let out = |name: &str| here.path().join(name);
    let flags = |name| ["pictures", "-q", QUESTION, "-o", name, "--batch-size", "3"];
    assert_eq!(batch(here.path(), &flags("whole.jsonl")).code, 0);
    let whole = fs::read(out("whole.jsonl")).unwrap();
    for after in [0, 1, 4, 9, 17] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_janus"));
        command.args(words(&flags("killed.jsonl"))).current_dir(here.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).env("BURN_DEVICE", "none");
        let mut child = command.spawn().unwrap();
        let written = || fs::read(out("killed.jsonl")).unwrap_or_default();
        let enough = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'\n').count() >= after;
        while child.try_wait().unwrap().is_none() && !enough(&written()) {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(whole.starts_with(&written()), "after {after}");
    }
    let ran = batch(here.path(), &flags("killed.jsonl"));
    assert_eq!(ran.code, 0, "{ran}");
    assert!(fs::read(out("killed.jsonl")).unwrap() == whole);
}

/// What any moment of a crash leaves: a part of the file, or zeros where its end should be.
#[test]
fn any_part_of_the_file_is_enough_to_go_on() {
    let here = pictures(4);
    fs::write(here.path().join("pictures/02b.png"), "no picture").unwrap();
    let flags = ["pictures", "-q", QUESTION, "-o", "out.jsonl", "--batch-size", "2"];
    let out = here.path().join("out.jsonl");
    assert_eq!(batch(here.path(), &flags).code, 1);
    let whole = fs::read(&out).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for end in [0, 1, 5, first - 1, first, first + 7, whole.len() / 2, whole.len() - 1, whole.len()]
    {
        fs::write(&out, &whole[..end]).unwrap();
        let ran = batch(here.path(), &flags);
        assert_eq!(ran.code, 1, "{ran}");
        assert!(fs::read(&out).unwrap() == whole, "cut at {end}");
    }
    fs::write(&out, [&whole[..first], &[0; 99]].concat()).unwrap();
    assert_eq!(batch(here.path(), &flags).code, 1);
    assert!(fs::read(&out).unwrap() == whole, "zeros");
}

#[test]
fn a_file_of_other_settings_or_inputs_is_refused_and_kept() {
    let here = pictures(2);
    let flags = ["pictures", "-q", QUESTION, "-o", "out.jsonl"];
    let out = here.path().join("out.jsonl");
    assert_eq!(batch(here.path(), &flags).code, 0);
    let whole = fs::read(&out).unwrap();
    let again = |more: &[&str]| batch(here.path(), &[&flags, more].concat());
    assert_snapshot!("batch_other_settings", again(&["--temperature", "1"]));
    let names = lines_of_folder(&here.path().join("pictures"));
    let picture = here.path().join("pictures").join(&names[1]);
    let old = fs::read(&picture).unwrap();
    fs::copy(fixtures().join("images/rgb.png"), &picture).unwrap();
    assert_snapshot!("batch_other_picture", again(&[]));
    fs::write(&picture, old).unwrap();
    fs::write(&out, "precious").unwrap();
    assert_snapshot!("batch_foreign", again(&[]));
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    fs::write(&out, [&whole[..], &whole[..]].concat()).unwrap();
    assert_snapshot!("batch_too_many", again(&[]));
    assert_eq!(again(&["--restart"]).code, 0);
    assert!(fs::read(&out).unwrap() == whole);

    // While somebody writes to it, nobody else does.
    let file = fs::File::open(&out).unwrap();
    file.lock().unwrap();
    assert_snapshot!("batch_locked", again(&[]));
}

#[test]
fn lines_may_be_added_at_the_end() {
    let here = tempfile::tempdir().unwrap();
    let (input, out) = (here.path().join("in.jsonl"), here.path().join("out.jsonl"));
    let rows: Vec<String> =
        (0..6).map(|n| format!("{{\"question\": \"Number {n}?\"}}\n")).collect();
    fs::write(&input, rows[..3].concat()).unwrap();
    assert_eq!(batch(here.path(), &["in.jsonl", "-o", "out.jsonl"]).code, 0);
    let begun = fs::read(&out).unwrap();
    fs::write(&input, rows.concat()).unwrap();
    let ran = batch(here.path(), &["in.jsonl", "-o", "out.jsonl", "--json"]);
    let json = ran.json();
    assert_eq!((&json["done_before"], &json["answers"]), (&json!(3), &json!(6)), "{ran}");
    assert!(fs::read(&out).unwrap().starts_with(&begun));
    assert_eq!(batch(here.path(), &["in.jsonl", "-o", "whole.jsonl"]).code, 0);
    assert!(fs::read(&out).unwrap() == fs::read(here.path().join("whole.jsonl")).unwrap());
}

#[test]
fn folders_inside_are_taken_on_request() {
    let here = pictures(1);
    fs::create_dir(here.path().join("pictures/below")).unwrap();
    fs::copy(fixtures().join("images/rgb.png"), here.path().join("pictures/below/B.PNG")).unwrap();
    let flags = ["pictures", "-q", QUESTION, "-o", "-"];
    assert_eq!(batch(here.path(), &flags).stdout.lines().count(), 1);
    let both = batch(here.path(), &[&flags[..], &["--recursive"]].concat());
    let last: Value = serde_json::from_str(both.stdout.lines().nth(1).unwrap()).unwrap();
    assert_eq!(last["id"], "below/B.PNG");
}

#[test]
fn captions_lie_beside_their_pictures() {
    let here = pictures(3);
    let folder = here.path().join("pictures");
    let flags = ["pictures", "--captions", "-o", "out.jsonl"];
    let ran = batch(here.path(), &flags);
    assert_eq!(ran.code, 0, "{ran}");
    let captions = || {
        let out = lines(&here.path().join("out.jsonl"));
        for line in &out {
            let picture = folder.join(line["id"].as_str().unwrap());
            let caption = fs::read_to_string(picture.with_extension("txt")).unwrap();
            assert_eq!(caption, format!("{}\n", line["text"].as_str().unwrap().trim()));
            assert_eq!(line["question"], "Describe this image in detail.");
        }
    };
    captions();
    // A caption that a crash swallowed comes back from the answers.
    fs::remove_file(folder.join("01.txt")).unwrap();
    assert_eq!(batch(here.path(), &flags).code, 0);
    captions();
    // One that was edited stays, and nothing is thrown away for a run that cannot be.
    fs::write(folder.join("01.txt"), "mine").unwrap();
    assert_eq!(batch(here.path(), &flags).code, 0);
    let whole = fs::read(here.path().join("out.jsonl")).unwrap();
    let restarted = batch(here.path(), &[&flags[..], &["--restart"]].concat());
    assert_snapshot!("batch_caption_exists", restarted);
    assert_eq!(fs::read(folder.join("01.txt")).unwrap(), b"mine");
    assert!(fs::read(here.path().join("out.jsonl")).unwrap() == whole);
    assert_eq!(batch(here.path(), &[&flags[..], &["--restart", "--force"]].concat()).code, 0);
    captions();
    fs::copy(folder.join("00.gif"), folder.join("00.png")).unwrap();
    assert_snapshot!("batch_caption_twice", batch(here.path(), &flags));
}

/// Each line is bad in its own way; those between are answered.
#[test]
fn bad_lines_become_error_lines() {
    let here = pictures(1);
    let name = lines_of_folder(&here.path().join("pictures")).remove(0);
    fs::write(here.path().join("secret.png"), "secret").unwrap();
    fs::create_dir(here.path().join("data")).unwrap();
    fs::copy(here.path().join("pictures").join(name), here.path().join("data/a.gif")).unwrap();
    fs::write(here.path().join("data/text.png"), "no picture").unwrap();
    let mut input = Vec::new();
    for line in [
        &br#"{"question": "Hello"}"#[..],
        b"{",
        b"\xff\xfe",
        br#"{"question": "a", "images": ["../secret.png"]}"#,
        br#"{"question": "a", "images": ["absent.png"]}"#,
        br#"{"question": "a", "images": ["text.png"], "id": "text"}"#,
        br#"{"question": "<image> <image>", "images": ["a.gif"]}"#,
        br#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
        br#"{"question": "What?", "images": "a.gif"}"#,
        br#"{"question": null}"#,
    ] {
        input.extend(line);
        input.push(b'\n');
    }
    let long = json!({"question": "word ".repeat(3000)}).to_string();
    input.extend(long.as_bytes());
    fs::write(here.path().join("data/in.jsonl"), input).unwrap();
    let ran = batch(here.path(), &["data/in.jsonl", "-o", "out.jsonl"]);
    assert_snapshot!("batch_bad_lines", ran);
    let out = lines(&here.path().join("out.jsonl"));
    assert_eq!(out.len(), 11);
    let errors: Vec<String> = out.iter().map(|line| line["error"].to_string()).collect();
    assert_snapshot!("batch_error_lines", errors.join("\n"));
    same_answer(&out[0], &ask(here.path(), &["-q", "Hello"]));
    same_answer(&out[8], &ask(here.path(), &["data/a.gif", "-q", "What?"]));

    let flags = ["data/in.jsonl", "-o", "stopped.jsonl", "--on-error", "stop"];
    assert_snapshot!("batch_stop", batch(here.path(), &flags));
    assert_eq!(lines(&here.path().join("stopped.jsonl")).len(), 1);
}

/// A line of a gigabyte, without room for it: the file is sparse, and the memory is not.
#[test]
#[cfg(target_os = "linux")]
fn a_line_of_a_gigabyte_is_refused_in_little_memory() {
    let here = tempfile::tempdir().unwrap();
    let file = fs::File::create(here.path().join("in.jsonl")).unwrap();
    file.set_len(1 << 30).unwrap();
    let model = model();
    let line = format!(
        "ulimit -d 600000; exec {} batch in.jsonl -o out.jsonl --model {model} --device cpu",
        env!("CARGO_BIN_EXE_janus"),
    );
    let mut command = Command::new("sh");
    let command = command.args(["-c", &line]).current_dir(here.path()).env("BURN_DEVICE", "none");
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("in.jsonl:1: the line has more than 1048576 bytes"), "{error}");
}

#[test]
fn bad_requests_are_refused_before_the_model_is_read() {
    let here = pictures(1);
    fs::create_dir(here.path().join("empty")).unwrap();
    fs::write(here.path().join("none.jsonl"), "\n\n").unwrap();
    fs::write(here.path().join("in.jsonl"), "{\"question\": \"a\"}\n").unwrap();
    let refused = |words: &[&str]| {
        run(here.path(), &[&["batch", "--model", "nowhere", "-o", "out.jsonl"], words].concat())
    };
    assert_snapshot!("batch_absent", refused(&["absent"]));
    assert_snapshot!("batch_no_question", refused(&["pictures"]));
    assert_snapshot!("batch_empty_folder", refused(&["empty", "--captions"]));
    assert_snapshot!("batch_empty_file", refused(&["none.jsonl"]));
    assert_snapshot!("batch_file_question", refused(&["in.jsonl", "-q", "a"]));
    assert_snapshot!("batch_root_absent", refused(&["in.jsonl", "--data-root", "absent"]));
    assert_snapshot!("batch_no_model", refused(&["in.jsonl"]));
    assert_snapshot!("batch_size_0", refused(&["in.jsonl", "--batch-size", "0"]));
    assert!(!here.path().join("out.jsonl").exists());
    let model = model();
    let mut words = vec!["batch", "in.jsonl", "--model", &model, "-o", "in.jsonl"];
    assert_snapshot!("batch_same_file", run(here.path(), &words));
    *words.last_mut().unwrap() = "absent/out.jsonl";
    assert_snapshot!("batch_no_folder", run(here.path(), &words));
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_says_how_to_go_on() {
    let here = pictures(21);
    let flags = ["pictures", "-q", QUESTION, "-o", "out.jsonl", "--batch-size", "1"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_janus"));
    command.args(words(&flags)).current_dir(here.path()).env("BURN_DEVICE", "none");
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    while fs::read(here.path().join("out.jsonl")).unwrap_or_default().is_empty() {
        std::thread::yield_now();
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    // A fast machine may have finished before the signal came.
    if output.status.code() == Some(75) {
        assert!(error.contains("of 21: ") && error.ends_with("goes on from here\n"), "{error}");
        assert!(lines(&here.path().join("out.jsonl")).len() < 21);
    } else {
        assert_eq!(output.status.code(), Some(0), "{error}");
    }
    assert_eq!(batch(here.path(), &flags).code, 0);
    assert_eq!(lines(&here.path().join("out.jsonl")).len(), 21);
}
