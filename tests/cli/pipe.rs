use std::process::{Command, Stdio};

use crate::fixtures;

fn inspect() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_janus"));
    command.args(["inspect", "tiny-pro/hf", "--json"]).current_dir(fixtures());
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// `janus … | head -1`
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = inspect().stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stdout_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = inspect().stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(74));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("stdout: cannot write"), "{error}");
}
