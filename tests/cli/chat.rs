use insta::assert_snapshot;
use serde_json::Value;

use crate::{Ran, fixtures, janus, run};

const FIXED: [&str; 4] = ["--model", "tiny-pro/original", "--device", "cpu"];

/// The tiny model, and short answers unless the words say otherwise. All are greedy.
pub fn settings<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let short = ["--max-new-tokens", "12"];
    let short = if words.contains(&short[0]) { &[][..] } else { &short[..] };
    [&FIXED, short, words].concat()
}

/// A chat whose turns come from a pipe.
fn piped(words: &[&str], turns: &[u8]) -> Ran {
    let mut command = janus(&fixtures());
    command.arg("chat").args(settings(words)).write_stdin(turns);
    Ran::new(command)
}

fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What `ask` answers.
pub fn ask(words: &[&str]) -> Value {
    let words = settings(words);
    run(&fixtures(), &[&["ask", "--json"], &words[..]].concat()).json()
}

#[test]
fn the_first_answer_is_that_of_ask_and_later_ones_that_of_batch() {
    let picture = "images/rgb.png";
    let ran = piped(&[picture, "--json"], b"What is it?\nAnd now?\nhm\n");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    let chat = lines(&ran);
    let turns: Vec<_> = chat.iter().map(|line| line["turn"].as_u64().unwrap()).collect();
    assert_eq!(turns, [1, 2, 3]);
    let asked = ask(&[picture, "-q", "What is it?"]);
    for field in ["text", "token_ids", "finish", "prompt_tokens", "device"] {
        assert_eq!(chat[0][field], asked[field], "{field}");
    }
    // The whole conversation at once, read afresh.
    let said = |turn: usize| chat[turn]["text"].as_str().unwrap();
    let messages = serde_json::json!({"images": [picture], "messages": [
        {"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": said(0)},
        {"role": "user", "content": "And now?"}, {"role": "assistant", "content": said(1)},
        {"role": "user", "content": "hm"},
    ]});
    let here = tempfile::tempdir().unwrap();
    std::fs::create_dir(here.path().join("images")).unwrap();
    std::fs::copy(fixtures().join(picture), here.path().join(picture)).unwrap();
    let input = here.path().join("in.jsonl");
    std::fs::write(&input, messages.to_string()).unwrap();
    let words = ["batch", input.to_str().unwrap(), "-o", "-"];
    let fresh = run(&fixtures(), &[&words[..1], &settings(&words[1..])].concat()).json();
    assert_eq!(fresh["token_ids"], chat[2]["token_ids"]);
    assert_eq!(fresh["prompt_tokens"], chat[2]["prompt_tokens"]);
    // What an earlier turn has read is not read again.
    let number = |turn: usize, field: &str| chat[turn][field].as_u64().unwrap();
    assert_eq!(number(0, "cached_tokens"), 0);
    assert!(number(1, "cached_tokens") + 2 >= number(0, "prompt_tokens"));
    assert!(number(2, "cached_tokens") + 2 >= number(1, "prompt_tokens"));
}

#[test]
fn stdout_holds_answers_and_nothing_else() {
    let ran = piped(&[], b"\xef\xbb\xbfHello\r\n\n/images\nHello\n");
    let text = ask(&["-q", "Hello"])["text"].as_str().unwrap().to_owned();
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stdout.starts_with(&format!("{text}\n")), "{ran}");
    let cut = "note: cut off by --max-new-tokens\n";
    assert_eq!(ran.stderr, format!("{cut}no pictures\n{cut}"));
}

#[test]
fn errors_do_not_end_the_chat() {
    let mut turns = b"Hello\n/nonsense\n/image nowhere.png\n/image README.md\n\xff\n".to_vec();
    turns.extend("word ".repeat(3000).as_bytes());
    turns.extend(b"\nIs <image> here?\n/settings top-p 2\n/settings x 1\n/undo 3\nHello\n");
    turns.extend(vec![b'a'; 2 << 20]);
    turns.extend(b"\n/undo\n/undo\n/undo\n/retry\n/save x.jsonl\n");
    let ran = piped(&[], &turns);
    assert_eq!(ran.code, 1);
    assert_snapshot!("chat_errors", ran.stderr);
    let json = piped(&["--json"], &turns);
    assert_eq!((json.code, lines(&json).len()), (1, 15), "{json}");
    let failed: Vec<_> = lines(&json).into_iter().filter(|l| !l["error"].is_null()).collect();
    assert_eq!(failed.len(), 13);
    let codes: Vec<_> = failed.iter().map(|line| line["error"]["code"].to_string()).collect();
    assert_eq!(codes, ["2", "66", "65", "65", "2", "2", "2", "2", "2", "65", "2", "2", "2"]);
}

#[test]
fn a_full_context_is_explained_and_can_be_cleared() {
    // So long that the answer has less room than it may have.
    let long = "word ".repeat(480);
    let turns = format!("{long}\nHello\n/undo\nHello\n/clear\nHello\n");
    let ran = piped(&["--max-new-tokens", "600", "--json"], turns.as_bytes());
    let answers = lines(&ran);
    assert_eq!(answers[0]["finish"], "context_full", "{ran}");
    assert_eq!(answers[1]["error"]["code"], 2);
    let hint = "/clear begins anew, /undo takes back the last turn and its pictures";
    assert_eq!(answers[1]["error"]["hint"], hint);
    let words = ["-q", "Hello", "--max-new-tokens", "600"];
    for fresh in &answers[2..] {
        assert_eq!(fresh["token_ids"], ask(&words)["token_ids"]);
    }
    assert_eq!(answers.len(), 4);
    let text = piped(&["--max-new-tokens", "600"], format!("{long}\n").as_bytes());
    assert_eq!(text.stderr, format!("note: cut off: the context is full; {hint}\n"));
}

#[test]
fn turns_are_taken_back_and_answered_again() {
    let turns = b"Hello\nMore\n/undo\nMore\n/retry\n/settings temperature 1\n/retry\n/retry\n";
    let answers = lines(&piped(&["--json", "--seed", "5"], turns));
    let ids = |number: usize| &answers[number]["token_ids"];
    assert_eq!((ids(1), ids(1)), (ids(2), ids(3)));
    assert_ne!(ids(4), ids(5), "a second answer has its own chance");
    let turns: Vec<_> = answers.iter().map(|line| line["turn"].as_u64().unwrap()).collect();
    assert_eq!(turns, [1, 2, 2, 2, 2, 2]);
    let again = lines(&piped(
        &["--json", "--seed", "5"],
        b"Hello\nMore\n/undo\nMore\n/retry\n/settings temperature 1\n/retry\n",
    ));
    assert_eq!(&again[4]["token_ids"], ids(4));
}

#[test]
fn pictures_stand_where_they_are_dropped() {
    // Two that this model tells apart.
    let (one, two) = ("images/grey.png", "images/palette.png");
    let expected = ask(&[one, two, "-q", "Is <image> older than <image>?"])["token_ids"].clone();
    let folder = fixtures();
    let ways = [
        format!("Is '{one}' older than \"{two}\"?\n"),
        format!("{one} {two}\nIs <image> older than <image>?\n"),
        format!("/image {one}\n'{two}'\nIs <image> older than <image>?\n"),
        format!("Is 'file://{}' older than <image>?\n", folder.join(one).display()),
    ];
    for way in &ways[..3] {
        let ran = piped(&["--json"], way.as_bytes());
        assert_eq!(lines(&ran)[0]["token_ids"], expected, "{way}{ran}");
    }
    // The second picture was never given.
    let ran = piped(&["--json"], ways[3].as_bytes());
    assert_eq!(lines(&ran)[0]["error"]["code"], 2, "{ran}");
    let first = ask(&[one, two, "-q", "Which?"])["token_ids"].clone();
    let ran = piped(&["--json", one], format!("{two}\nWhich?\n").as_bytes());
    assert_eq!(lines(&ran)[0]["token_ids"], first);
}

#[test]
fn a_turn_of_several_lines_is_one() {
    let expected = ask(&["-q", "one\ntwo"])["token_ids"].clone();
    for turns in
        ["one\\\ntwo\n", "\"\"\"one\ntwo\"\"\"\n", "\"\"\"\none\ntwo\n\"\"\"\n", "one\\\ntwo"]
    {
        let ran = piped(&["--json"], turns.as_bytes());
        assert_eq!(lines(&ran)[0]["token_ids"], expected, "{turns}");
        assert_eq!(lines(&ran).len(), 1, "{turns}");
    }
}

#[test]
fn the_system_prompt_can_be_replaced() {
    let expected = ask(&["-q", "Hello", "--system", "Be brief."])["token_ids"].clone();
    let ran = piped(&["--json"], b"More\n/system Be brief.\nHello\n");
    assert_eq!(lines(&ran)[1]["token_ids"], expected);
    let ran = piped(&["--json", "--system", "Be brief."], b"Hello\n");
    assert_eq!(lines(&ran)[0]["token_ids"], expected);
}

#[test]
fn a_conversation_is_saved_as_training_data() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("talk.jsonl");
    let save = format!("/save {}\n", path.display());
    let turns = format!("Hello\n{save}Is 'images/rgb.png' new?\n{save}");
    let ran = piped(&["--system", "Be brief."], turns.as_bytes());
    assert_eq!(ran.code, 0, "{ran}");
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let messages = saved["messages"].as_array().unwrap();
    let roles: Vec<_> = messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(messages[3]["content"], "Is <image> new?");
    assert_eq!(saved["images"][0], fixtures().join("images/rgb.png").to_str().unwrap());
    // Another conversation does not replace it.
    let ran = piped(&[], turns.as_bytes());
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("talk.jsonl exists\nhint: choose another name\n"), "{ran}");
}

#[test]
fn what_is_wrong_is_said_before_the_model_is_read() {
    let chat =
        |words: &[&str]| run(&fixtures(), &[&["chat", "--model", "nowhere"], words].concat());
    assert_snapshot!("chat_no_image", chat(&["absent.png"]));
    assert_snapshot!("chat_top_p", chat(&["--top-p", "1.5"]));
    assert_snapshot!("chat_no_model", chat(&["--device", "cpu"]));
}

#[test]
fn the_commands_are_listed() {
    assert_snapshot!(
        "chat_help",
        piped(&["--seed", "1"], b"/help\n/settings\n/system\n/quit\nHello\n")
    );
}

/// The tiny model with the context of the published ones: 16384, of which 4096 were trained.
#[test]
fn a_conversation_beyond_what_was_trained_is_noted_once() {
    let here = crate::copy_of("tiny-pro/original");
    let model = here.path().join("model");
    for (file, field, value) in [
        ("config.json", "/language_config/max_position_embeddings", 16384),
        ("tokenizer_config.json", "/model_max_length", 16384),
    ] {
        let path = model.join(file);
        let mut json: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        *json.pointer_mut(field).unwrap() = value.into();
        std::fs::write(path, json.to_string()).unwrap();
    }
    let long = "word ".repeat(600);
    let mut command = janus(here.path());
    command.args(["chat", "--model", "model", "--device", "cpu", "--max-new-tokens", "1"]);
    let ran = Ran::new({
        command.write_stdin(format!("{long}\n{long}\nHello\n"));
        command
    });
    assert_eq!(ran.code, 0, "{ran}");
    let cut = "note: cut off by --max-new-tokens";
    let notes: Vec<&str> = ran.stderr.lines().filter(|line| *line != cut).collect();
    assert_eq!(notes.len(), 1, "{ran}");
    assert!(notes[0].contains("tokens: the model was trained on 4096, so answers may"), "{ran}");
}

/// Whoever waits for words has no step to finish.
#[test]
#[cfg(unix)]
fn a_signal_ends_a_chat_that_waits() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    let mut command = Command::new(env!("CARGO_BIN_EXE_janus"));
    command.args(["chat", "--json"]).args(settings(&[])).current_dir(fixtures());
    command.env("BURN_DEVICE", "none").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"Hello\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("token_ids"), "{line}");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
}
