use std::process::{Command, Stdio};

use crate::{fixtures, run};

fn commands() -> Vec<String> {
    let help = run(&fixtures(), &["--help"]).stdout;
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let first = |line: &str| line.split_whitespace().next().unwrap().to_owned();
    list.lines().map(first).filter(|name| name != "help").collect()
}

#[test]
fn every_shell_gets_a_script_that_knows_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = run(&fixtures(), &["completions", shell]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{shell}");
        for command in commands() {
            assert!(ran.stdout.contains(&command), "{shell} does not know {command}");
        }
    }
    assert_eq!(run(&fixtures(), &["completions", "tcsh"]).code, 2);
}

#[test]
fn the_bash_script_parses() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("janus.bash");
    std::fs::write(&script, run(&fixtures(), &["completions", "bash"]).stdout).unwrap();
    let mut bash = Command::new("bash");
    // A system without bash has no use for the script.
    let Ok(output) = bash.arg("-n").arg(&script).stdin(Stdio::null()).output() else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_command_has_a_page() {
    let page = run(&fixtures(), &["man"]).stdout;
    assert!(page.contains(".TH JANUS 1") && page.contains("Exit codes"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let ran = run(folder.path(), &["man", "pages/man1"]);
    assert_eq!(ran.code, 0, "{ran}");
    let commands = commands();
    assert_eq!(ran.stdout.lines().count(), commands.len() + 1, "{ran}");
    for command in commands {
        let path = folder.path().join(format!("pages/man1/janus-{command}.1"));
        let page = std::fs::read_to_string(path).unwrap();
        assert!(page.contains(&format!("\\fBjanus {command}\\fR")), "{page}");
    }
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert_eq!(run(folder.path(), &["man", "file/man1"]).code, 73);
}
