//! T4: the disk is full in the middle of a save.
//!
//! The system lets a child write files of a few kB only; this binary starts itself as that child.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Stdio};

use janus_model::ErrorKind;
use janus_train::metrics::{Metrics, Row};
use janus_train::run::moments::{self, learners};
use janus_train::run::{Role, Run};

use crate::run_common::{KEEP, fill, names, resume, run_of, save_with};
use crate::run_moments::{Toy, adamw, train};

/// Saves more than it may.
#[test]
#[ignore = "the process that the other test starts"]
fn child() {
    let Ok(dir) = std::env::var("JANUS_TEST_RUN") else { return };
    let mut run = Run::open(Path::new(&dir), KEEP).unwrap();
    let large = vec![7; 1 << 20];
    for (step, name) in [(20, "model.bin"), (30, "moments.bpk")] {
        let error = save_with(&mut run, step, None, |staging| {
            fill(step, staging)?;
            staging.bytes(Role::Other, name, &large)
        });
        let error = error.unwrap_err();
        assert!(error.is_full() && error.kind() == ErrorKind::Io, "{error:?}");
        let shown = format!("ckpt/step-0000{step}/{name}: cannot write: ");
        assert!(error.to_string().contains(&shown), "{error}");
        assert!(error.hint().unwrap().contains("the checkpoints that were whole still are"));
    }
    // Burn-pack tells what the system said in words only.
    let (toy, optimizer) = train(Toy::new(128), adamw(), 0..1);
    let path = Path::new(&dir).join("moments.bpk");
    let error = moments::write(&path, optimizer.to_record(), &learners(&toy)).unwrap_err();
    assert!(error.is_full() && error.kind() == ErrorKind::Io, "{error:?}");
    // A line of metrics that does not fit leaves whole lines.
    let path = run.metrics_path();
    let mut metrics = Metrics::open(&path, 0).unwrap();
    let row = Row { skipped: Some("x".repeat(900)), ..Row::default() };
    let error = (1..1000).find_map(|step| metrics.log(&Row { step, ..row.clone() }).err());
    assert_eq!(error.unwrap().kind(), ErrorKind::Io);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().count() > 5 && text.ends_with('\n'));
}

#[test]
fn a_full_disk_costs_nothing() {
    let dir = run_of(&[10]);
    let before = names(dir.path());
    let mut command = Command::new("sh");
    // 32 or 64 kB, as the shell counts; without the trap the system would kill the child.
    command.arg("-c").arg("trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"");
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "run_full::child", "--ignored", "--test-threads=1"]);
    command.env("JANUS_TEST_RUN", dir.path()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(names(dir.path()), before);
    let found = resume(dir.path()).unwrap().unwrap();
    assert_eq!((found.state.step, found.passed_over.len()), (10, 0));
}
