//! Without `--model`. Where the program was built matters in use, so it must not matter here: a model
//! beside a copy of the program comes before it.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use insta::assert_snapshot;

use crate::{Ran, fixtures, janus, run};

/// The program with a model where packages would put it.
struct Installed {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Installed {
    fn with(place: &str) -> Self {
        // On the disk of the program, which can be there twice without being copied.
        let built = Path::new(env!("CARGO_BIN_EXE_janus"));
        let folder = tempfile::tempdir_in(built.parent().unwrap()).unwrap();
        let program = folder.path().join("bin").join(built.file_name().unwrap());
        fs::create_dir(folder.path().join("bin")).unwrap();
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(|_| ())).unwrap();
        let model = folder.path().join(place);
        fs::create_dir_all(&model).unwrap();
        for entry in fs::read_dir(fixtures().join("tiny-pro/hf")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
        }
        Self { folder, program }
    }

    fn run(&self, words: &[&str]) -> Ran {
        let plain = janus(self.folder.path());
        let mut command = Command::new(&self.program);
        command.current_dir(self.folder.path());
        for (name, value) in plain.get_envs() {
            match value.filter(|_| name != "JANUS_MODEL") {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(words).args(["--device", "cpu"]);
        Ran::new(command)
    }
}

const ASK: [&str; 6] = ["ask", "-q", "hello", "--max-new-tokens", "4", "--json"];

#[test]
fn the_model_that_comes_along_is_used() {
    for place in ["bin/janus-tiny", "share/janus/janus-tiny"] {
        let installed = Installed::with(place);
        let ran = installed.run(&ASK);
        assert_eq!(ran.code, 0, "{ran}");
        assert_snapshot!("default_model_note", ran.stderr);
        // As if it had been named, in every respect but the note.
        let named = installed.run(&[&ASK[..], &["--model", place]].concat());
        assert_eq!(named.stderr, "");
        let told = |ran: &Ran| {
            let mut told = ran.json();
            told.as_object_mut().unwrap().remove("seed");
            told
        };
        assert_eq!(told(&ran), told(&named));
    }
}

#[test]
fn it_is_said_once_and_pictures_know_it() {
    let installed = Installed::with("bin/janus-tiny");
    let draw = ["generate", "a red circle", "--seed", "7", "--output", "a.png"];
    let ran = installed.run(&draw);
    assert_eq!((ran.code, ran.stderr.matches("janus-tiny").count()), (0, 1), "{ran}");
    let ran = installed.run(&["generate", "--reproduce", "a.png", "--output", "b.png"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "b.png\nidentical\n"), "{ran}");
    let picture = fs::read(installed.folder.path().join("a.png")).unwrap();
    assert!(String::from_utf8_lossy(&picture).contains("janus-tiny"));
    let ran = installed.run(&["bench", "--prefill", "8", "--codes", "2", "--json"]);
    assert_eq!(ran.code, 0, "{ran}");
}

#[test]
fn what_is_named_comes_first() {
    let installed = Installed::with("bin/janus-tiny");
    let ran = installed.run(&[&ASK[..], &["--model", "nowhere"]].concat());
    assert_eq!(ran.code, 66, "{ran}");
    let mut command = janus(&fixtures());
    command.args(ASK).args(["--device", "cpu"]).env("JANUS_MODEL", "tiny-pro/hf");
    let ran = Ran::new(command);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
}

#[test]
fn no_model_is_a_request_without_sense() {
    // The environment of these tests has an empty JANUS_MODEL.
    let folder = tempfile::tempdir().unwrap();
    assert_snapshot!("default_model_off", run(folder.path(), &["ask", "-q", "hello"]));
    let ran = run(folder.path(), &ASK);
    assert_eq!((ran.code, &ran.error()["code"]), (2, &2.into()));
    // Where no model is needed, none is missed.
    let ran = run(folder.path(), &["doctor", "--json"]);
    assert!(ran.json()["model"].is_null(), "{ran}");
}
