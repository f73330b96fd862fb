//! README shows what commands print; here they are run, and must print it.

use std::path::Path;
use std::process::Command;

use crate::fixtures;

/// One `$ …` line and what follows it.
struct Example {
    command: String,
    shown: Vec<String>,
}

/// All examples in blocks marked `console`.
fn examples(text: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            line => match (line.strip_prefix("$ "), found.last_mut()) {
                (Some(command), _) => {
                    found.push(Example { command: command.to_owned(), shown: Vec::new() });
                }
                (None, Some(example)) => example.shown.push(line.to_owned()),
                (None, None) => panic!("a block begins with output: {line}"),
            },
        }
    }
    found
}

/// Whether a line is as shown; `…` stands for anything.
fn line_fits(shown: &str, line: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether lines are as shown; a line of `…` alone stands for any number of them.
fn fits(shown: &[String], lines: &[&str]) -> bool {
    match shown.split_first() {
        None => lines.is_empty(),
        Some((gap, rest)) if gap == "…" => (0..=lines.len()).any(|at| fits(rest, &lines[at..])),
        Some((first, rest)) => lines
            .split_first()
            .is_some_and(|(line, lines)| line_fits(first, line) && fits(rest, lines)),
    }
}

/// A folder as the README speaks of it: a model, a picture, a folder of pictures, prompts.
fn stage(folder: &Path) {
    let model = folder.join("model");
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(fixtures().join("tiny-pro/original")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    crate::ask::picture("tiny-pro", folder);
    std::fs::rename(folder.join("picture.png"), folder.join("photo.png")).unwrap();
    std::fs::create_dir(folder.join("photos")).unwrap();
    std::fs::copy(folder.join("photo.png"), folder.join("photos/one.png")).unwrap();
    std::fs::copy(folder.join("photo.png"), folder.join("photos/two.png")).unwrap();
    std::fs::write(folder.join("prompts.txt"), "a red cube\na blue sphere\n").unwrap();
    let asked = "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>What is it?\"},\
                 {\"role\":\"assistant\",\"content\":\"A cube.\"}],\"images\":[\"photo.png\"]}\n";
    std::fs::write(folder.join("questions.jsonl"), asked).unwrap();
}

#[test]
fn every_example_prints_what_the_readme_shows() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let examples = examples(&std::fs::read_to_string(readme).unwrap());
    assert!(examples.len() >= 14, "only {}", examples.len());
    let here = tempfile::tempdir().unwrap();
    stage(here.path());
    let janus = Path::new(env!("CARGO_BIN_EXE_janus")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(janus.to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let path = path.unwrap();
    let mut wrong = String::new();
    for Example { command, shown } in examples {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("({command}) 2>&1")]).current_dir(here.path());
        shell.env("PATH", &path).env("BURN_DEVICE", "none");
        // Nothing of the one who runs the tests: caches, tokens, settings.
        shell.env("HOME", here.path()).env("HF_HOME", here.path().join("hub"));
        for name in ["HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "XDG_CACHE_HOME"] {
            shell.env_remove(name);
        }
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name.to_string_lossy().starts_with("JANUS_")) {
            shell.env_remove(name);
        }
        shell.env("JANUS_DEVICE", "cpu");
        let output = shell.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = printed.lines().map(str::trim_end).collect();
        if !fits(&shown, &lines) {
            wrong += &format!("$ {command}\n{}\n", lines.join("\n"));
        }
    }
    assert!(wrong.is_empty(), "README.md shows something else for\n\n{wrong}");
}

#[test]
fn ellipses_stand_for_anything_but_the_rest_must_fit() {
    let shown = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert!(fits(&shown(&["a … c", "…", "z"]), &["a bb c", "1", "2", "z"]));
    assert!(fits(&shown(&["a", "…"]), &["a"]));
    assert!(!fits(&shown(&["a", "…"]), &["b"]));
    assert!(!fits(&shown(&["a … c"]), &["a bb d"]));
    assert!(!fits(&shown(&["a"]), &["a", "b"]));
    assert!(!fits(&shown(&["…b"]), &["bc"]));
}
