//! `chat` in a terminal, as people use it.

use std::path::Path;
use std::process::Command;

use rexpect::session::{PtySession, spawn_command};

use crate::chat::{ask, settings};
use crate::fixtures;

const TIMEOUT: Option<u64> = Some(60_000);
const PROMPT: &str = "> ";

/// A chat in a terminal of its own.
struct Chat {
    session: PtySession,
}

impl Chat {
    fn new(state: &Path, words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_janus"));
        command.arg("chat").args(settings(words)).current_dir(fixtures());
        command.env("BURN_DEVICE", "none").env("NO_COLOR", "1").env("TERM", "xterm");
        command.env("XDG_STATE_HOME", state).env_remove("JANUS_MODEL");
        let mut chat = Self { session: spawn_command(command, TIMEOUT).unwrap() };
        chat.expect("note: /help lists commands, Ctrl-D quits");
        chat.expect(PROMPT);
        chat
    }

    /// Waits for a text and returns what came before it.
    fn expect(&mut self, text: &str) -> String {
        // What is read comes byte by byte, and lines end as on terminals.
        let text: String = text.replace('\n', "\r\n").bytes().map(char::from).collect();
        self.session.exp_string(&text).unwrap()
    }

    fn say(&mut self, line: &str) {
        self.session.send(line).unwrap();
        self.session.send("\r").unwrap();
        self.session.flush().unwrap();
    }

    fn control(&mut self, key: char) {
        self.session.send_control(key).unwrap();
    }

    /// Waits for the end; the exit code.
    fn end(mut self) -> i32 {
        self.session.exp_eof().unwrap();
        // `Exited(Pid(1), 0)`; the type has no public name.
        let status = format!("{:?}", self.session.process().wait().unwrap());
        let code = status.strip_prefix("Exited").and_then(|rest| rest.rsplit(", ").next());
        code.and_then(|code| code.trim_end_matches(')').parse().ok()).expect(&status)
    }
}

/// An answer as terminals get it: without control characters.
fn text(words: &[&str]) -> String {
    let text = ask(words)["text"].as_str().unwrap().to_owned();
    text.replace(|c: char| c.is_control() && !matches!(c, '\n' | '\t'), "\u{fffd}")
}

#[test]
fn answers_are_those_of_ask_and_ctrl_d_ends() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::new(state.path(), &[]);
    let answer = text(&["-q", "Hello"]);
    chat.say("Hello");
    chat.expect(&answer);
    chat.expect(PROMPT);
    chat.say("/undo");
    chat.expect("note: taken back: Hello");
    chat.expect(PROMPT);
    // As a terminal pastes a file that was dragged into it.
    let path = fixtures().join("images/rgb.png");
    chat.say(&format!("'{}' ", path.display()));
    chat.expect("note: 1 picture for the next question");
    chat.expect(PROMPT);
    chat.say("What is it?");
    chat.expect(&text(&["images/rgb.png", "-q", "What is it?"]));
    chat.expect(PROMPT);
    chat.control('d');
    assert_eq!(chat.end(), 0);
}

#[test]
fn history_is_kept_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let state = tempfile::tempdir().unwrap();
    let answer = text(&["-q", "Hello"]);
    let mut chat = Chat::new(state.path(), &[]);
    chat.say("Hello");
    chat.expect(&answer);
    chat.expect(PROMPT);
    chat.control('d');
    assert_eq!(chat.end(), 0);
    let file = state.path().join("janus/history");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(&file).unwrap().contains("Hello"));

    let mut chat = Chat::new(state.path(), &[]);
    chat.say("\x1b[A");
    chat.expect(&answer);
    chat.expect(PROMPT);
    chat.say("/quit");
    assert_eq!(chat.end(), 0);

    let before = std::fs::read(&file).unwrap();
    let mut chat = Chat::new(state.path(), &["--no-history"]);
    chat.say("Secret");
    chat.expect(PROMPT);
    chat.control('d');
    assert_eq!(chat.end(), 0);
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn a_history_that_cannot_be_written_is_no_obstacle() {
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("janus"), "a file, not a folder").unwrap();
    let mut chat = Chat::new(state.path(), &[]);
    chat.say("Hello");
    chat.expect(&text(&["-q", "Hello"]));
    chat.expect(PROMPT);
    chat.control('d');
    assert_eq!(chat.end(), 0);
}

#[test]
fn ctrl_c_stops_an_answer_and_not_the_chat() {
    let state = tempfile::tempdir().unwrap();
    let pictures = ["images/grey.png", "images/palette.png", "--max-new-tokens", "1900"];
    let answer = text(&[&pictures[..], &["-q", "Hello"]].concat());
    assert!(answer.len() > 2000, "{} bytes are soon written", answer.len());
    let mut chat = Chat::new(state.path(), &pictures);
    chat.say("Hello");
    let first: String = answer.chars().take(3).collect();
    chat.expect(&first);
    chat.control('c');
    // Neither note nor prompt is waited for: at a Ctrl-C a terminal throws away what is on its
    // way.
    chat.say("/undo");
    let heard = chat.expect("note: taken back: <image><image>Hello");
    // How much of it was written by then is up to the machine; all of it must not be.
    assert!(heard.len() < answer.len() * 9 / 10, "{} of {}", heard.len(), answer.len());
    chat.expect(PROMPT);
    chat.control('d');
    assert_eq!(chat.end(), 0);
}

#[test]
fn ctrl_c_clears_the_line_and_quits_when_repeated() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::new(state.path(), &[]);
    chat.session.send("half a question").unwrap();
    chat.control('c');
    chat.expect("note: Ctrl-C once more, or Ctrl-D, quits");
    chat.expect(PROMPT);
    chat.say("Hello");
    chat.expect(&text(&["-q", "Hello"]));
    chat.expect(PROMPT);
    chat.control('c');
    chat.expect(PROMPT);
    chat.control('c');
    assert_eq!(chat.end(), 130);
}

#[test]
fn a_full_context_is_explained() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::new(state.path(), &["--max-new-tokens", "3000"]);
    chat.say(&"word ".repeat(480));
    chat.expect("note: cut off: the context is full; /clear begins anew");
    chat.expect(PROMPT);
    chat.say("Hello");
    chat.expect("hint: /clear begins anew");
    chat.expect(PROMPT);
    chat.say("/clear");
    chat.expect(PROMPT);
    chat.control('d');
    assert_eq!(chat.end(), 0);
}

#[test]
fn lines_are_joined_at_a_second_prompt() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = Chat::new(state.path(), &[]);
    chat.say("one\\");
    chat.expect(". ");
    chat.say("two");
    chat.expect(&text(&["-q", "one\ntwo"]));
    chat.expect(PROMPT);
    chat.control('d');
    assert_eq!(chat.end(), 0);
}
