use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rexpect::session::spawn_command;
use serde_json::Value;

use crate::generate::{PROMPT, codes, generate};
use crate::generate_files::picture;
use crate::{Ran, fixtures};

/// The command as a process that can be watched and interrupted.
fn start(folder: &Path, words: &[&str]) -> Child {
    let mut command = plain(folder);
    command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn plain(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_janus"));
    command.current_dir(folder).env("BURN_DEVICE", "none").env("NO_COLOR", "1");
    for variable in ["TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID", "TMUX", "JANUS_DEVICE"] {
        command.env_remove(variable);
    }
    command.args(["generate", "--device", "cpu", "--seed", "4"]);
    command.arg("--model").arg(fixtures().join("tiny-odd/hf"));
    command
}

/// Presses Ctrl-C once a file is there.
fn interrupt_at(path: &Path, mut child: Child) -> Ran {
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended without {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().expect("ended by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn an_interrupt_keeps_what_is_finished_and_says_how_to_draw_the_rest() {
    let here = tempfile::tempdir().unwrap();
    let words = [PROMPT, "-n", "200", "--at-once", "2", "--grid", "all.png", "-o", "a.png"];
    let child = start(here.path(), &[&words[..], &["--json"]].concat());
    let ran = interrupt_at(&here.path().join("a-1.png"), child);
    assert_eq!(ran.code, 75, "{ran}");
    let json = ran.json();
    assert_eq!(json["complete"], false);
    let images = json["images"].as_array().unwrap();
    let count = images.len();
    assert!((1..200).contains(&count), "{count}");
    let told = format!(
        "note: stopped after {count} of 200 pictures; the same command with --seed 4 \
         --first {count} --num-images {} draws the rest\n",
        200 - count
    );
    assert!(ran.stderr.ends_with(&told), "{ran}");

    // Whole files, the sheet, and nothing else.
    for image in images {
        picture(&here.path().join(image["path"].as_str().unwrap()));
    }
    picture(&here.path().join("all.png"));
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), count + 1);

    // The same codes as without an interrupt, before it and after it.
    let whole = count.min(3) + 1;
    let draw = |words: &[&str]| -> Value {
        let ran =
            generate(here.path(), "tiny-odd/hf", &[&["--seed", "4", "--json"], words].concat());
        assert_eq!(ran.code, 0, "{ran}");
        ran.json()
    };
    let undisturbed = draw(&["-n", &whole.to_string(), "-o", "b.png"]);
    for index in 0..whole.min(count) {
        assert_eq!(codes(&json, index), codes(&undisturbed, index), "picture {index}");
    }
    let first = count.to_string();
    let next = draw(&["--first", &first, "--grid", "all.png", "-o", "a.png"]);
    assert_eq!(next["images"][0]["path"], format!("a-{}.png", count + 1));
    assert_eq!(next["images"][0]["index"], count);
}

#[test]
fn an_interrupted_file_of_prompts_goes_on_with_what_is_missing() {
    let here = tempfile::tempdir().unwrap();
    let prompts: String = (0..200).map(|number| format!("cat number {number}\n")).collect();
    std::fs::write(here.path().join("p.txt"), prompts).unwrap();
    std::fs::create_dir(here.path().join("all")).unwrap();
    let words = ["--prompts", "p.txt", "--at-once", "1", "-o", "all"];
    let ran = interrupt_at(&here.path().join("all/0002.png"), start(here.path(), &words));
    assert_eq!(ran.code, 75, "{ran}");
    let count = ran.stdout.lines().count();
    assert_eq!(std::fs::read_dir(here.path().join("all")).unwrap().count(), count);
    let told = format!(
        "note: stopped after {count} of 200 pictures; the same command with --seed 4 \
         --skip-existing draws the rest\n"
    );
    assert!(ran.stderr.ends_with(&told), "{ran}");
}

#[test]
fn an_interrupted_preview_shows_the_upper_part() {
    let here = tempfile::tempdir().unwrap();
    let words = [PROMPT, "-o", "a.png", "--preview", "now.png", "--preview-every", "1"];
    let ran = interrupt_at(&here.path().join("now.png"), start(here.path(), &words));
    // Or it was finished before the signal came.
    if ran.code == 130 {
        assert!(ran.stderr.ends_with("note: stopped after 0 of 1 picture\n"), "{ran}");
        let image = picture(&here.path().join("now.png"));
        let grey = |row: usize| image.pixels()[3 * 96 * row..3 * 96 * (row + 1)] == [127; 3 * 96];
        assert!(!grey(0) && grey(95));
        assert!(!here.path().join("a.png").exists());
    } else {
        assert_eq!(ran.code, 0, "{ran}");
    }
}

/// What a terminal of this kind gets.
fn terminal(variables: &[(&str, &str)], words: &[&str]) -> String {
    let here = tempfile::tempdir().unwrap();
    let mut command = plain(here.path());
    command.env("TERM", "xterm-256color").envs(variables.iter().copied());
    command.args([PROMPT, "-o", "a.png"]).args(words);
    let mut session = spawn_command(command, Some(120_000)).unwrap();
    let text = session.exp_eof().unwrap();
    assert!(text.contains("a.png"), "{text}");
    text
}

#[test]
fn terminals_that_can_show_pictures_do() {
    const KITTY: &str = "\x1b_Ga=T,f=100,c=40,r=20";
    let preview = ["--preview", "now.png", "--preview-every", "5"];
    let text = terminal(&[("TERM", "xterm-kitty")], &preview);
    // After rows 5 and 10 of 12, and at the end; the later ones in place of the first.
    assert_eq!(text.matches(KITTY).count(), 3);
    assert_eq!(text.matches("\x1b_Ga=d,d=C,q=2\x1b\\").count(), 2);

    let text = terminal(&[("TERM_PROGRAM", "WezTerm")], &[]);
    assert_eq!(text.matches("\x1b]1337;File=inline=1;").count(), 1);

    let shown =
        |text: &str| text.contains(KITTY) || text.contains("1337") || text.contains("\x1b[38;2;");
    assert!(!shown(&terminal(&[], &[])), "a terminal that nobody knows");
    assert!(!shown(&terminal(&[("TERM", "xterm-kitty")], &["--show", "never"])));
    assert!(!shown(&terminal(&[("TERM", "xterm-kitty"), ("TMUX", "x")], &[])));
    let blocks = terminal(&[], &["--show", "always"]);
    assert_eq!(blocks.matches("\x1b[38;2;").count(), 40 * 20);
}

#[test]
fn pictures_are_shown_to_terminals_only() {
    let here = tempfile::tempdir().unwrap();
    let words = [PROMPT, "-o", "a.png", "--show", "always"];
    let output = start(here.path(), &words).wait_with_output().unwrap();
    assert_eq!(output.stdout, b"a.png\n");
    assert_eq!(output.stderr, b"note: seed 4\n");
}
