//! T6: folders that cannot be written to, that go away, that others use; quotas; clocks.
//!
//! These tests often run as root, whom permissions do not stop: files stand where folders should
//! be, and the other way round.
#![cfg(unix)]

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use janus_model::ErrorKind;
use janus_train::metrics::{Metrics, Row};
use janus_train::run::{Role, Run, RunError};

use crate::run_common::{KEEP, fill, folder, names, resume, run_of, save, save_with};

/// Whether an error is the system's, about a path that the user will know.
fn of_the_system(error: &RunError, path: &str) {
    assert!(matches!(error, RunError::Io { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains(path), "{error}");
}

/// Where nobody, not even root, may make anything: opening a run says so, and nothing is left.
#[test]
fn a_read_only_folder_is_an_error() {
    if cfg!(target_os = "linux") {
        of_the_system(&Run::open(Path::new("/proc/run"), KEEP).unwrap_err(), "/proc/run/ckpt");
    }
    let dir = run_of(&[10]);
    let set = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    fs::remove_file(dir.path().join("LOCK")).unwrap();
    set(0o555);
    let opened = Run::open(dir.path(), KEEP);
    let mighty = fs::write(dir.path().join("probe"), "").is_ok();
    set(0o755);
    match &opened {
        Err(error) => of_the_system(error, "LOCK"),
        Ok(_) => assert!(mighty, "only root may write here"),
    }
    drop(opened);
    assert_eq!(resume(dir.path()).unwrap().unwrap().state.step, 10);
}

/// Something else stands where a part of the run should be.
#[test]
fn a_place_that_is_taken_is_an_error() {
    let file = |path: &Path| fs::write(path, "x").unwrap();
    let dir = tempfile::tempdir().unwrap();
    file(&dir.path().join("ckpt"));
    of_the_system(&Run::open(dir.path(), KEEP).unwrap_err(), "ckpt: cannot create");

    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("LOCK")).unwrap();
    of_the_system(&Run::open(dir.path(), KEEP).unwrap_err(), "LOCK: cannot create");

    let dir = run_of(&[10]);
    fs::create_dir(dir.path().join("metrics.jsonl")).unwrap();
    let error = Metrics::open(&dir.path().join("metrics.jsonl"), 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("metrics.jsonl"), "{error}");
}

/// The name of the next checkpoint is taken by a file, which counts as a damaged checkpoint; that
/// of the link by a folder, which is nothing of ours: what was saved stays, whole and found.
#[test]
fn a_name_that_is_taken_costs_nothing() {
    let dir = run_of(&[10]);
    fs::write(folder(dir.path(), 20), "a file").unwrap();
    assert_eq!(resume(dir.path()).unwrap().unwrap().state.step, 10);
    save(&mut Run::open(dir.path(), KEEP).unwrap(), 20).unwrap();
    assert_eq!(resume(dir.path()).unwrap().unwrap().state.step, 20);

    let dir = run_of(&[10]);
    let latest = dir.path().join("ckpt/latest");
    fs::remove_file(&latest).unwrap();
    fs::create_dir_all(latest.join("something")).unwrap();
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    of_the_system(&save(&mut run, 20).unwrap_err(), "latest: cannot write");
    drop(run);
    fs::remove_dir_all(&latest).unwrap();
    // It was whole before its link failed.
    assert_eq!(resume(dir.path()).unwrap().unwrap().state.step, 20);
    assert!(latest.join("MANIFEST.json").is_file());
}

/// Gone while it is used: before a save, and in the middle of one. Nothing is made anew in its place.
#[test]
fn a_folder_that_is_removed_while_running_is_an_error() {
    let dir = run_of(&[10]);
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    let mut metrics = Metrics::open(&run.metrics_path(), 10).unwrap();
    let error = save_with(&mut run, 20, None, |staging| {
        fs::remove_dir_all(dir.path()).unwrap();
        staging.bytes(Role::Moments, "moments.bpk", &[20; 9000])
    });
    of_the_system(&error.unwrap_err(), "ckpt/step-000020");
    of_the_system(&save(&mut run, 30).unwrap_err(), "ckpt");
    // The open file takes lines that nobody will see; what counts is that nothing breaks.
    let _ = metrics.log(&Row { step: 30, ..Row::default() });
    assert!(!dir.path().exists());
}

/// What a file system with quotas answers is a full disk, too.
#[test]
fn a_quota_is_a_full_disk() {
    let path = PathBuf::from("runs/x/ckpt/step-000020/moments.bpk");
    for kind in [io::ErrorKind::QuotaExceeded, io::ErrorKind::StorageFull] {
        let error = RunError::Io { path: path.clone(), action: "write", source: kind.into() };
        assert!(error.is_full() && error.kind() == ErrorKind::Io, "{error}");
        assert!(error.hint().unwrap().starts_with("make room"), "{error}");
    }
    // As Linux numbers it.
    #[cfg(target_os = "linux")]
    assert_eq!(io::Error::from_raw_os_error(122).kind(), io::ErrorKind::QuotaExceeded);
}

/// Order is by steps: files that claim to be of next century, or of 1970, change nothing.
#[test]
fn a_clock_that_jumps_changes_nothing() {
    let dir = run_of(&[10, 20, 30]);
    let century = Duration::from_secs(100 * 365 * 86_400);
    let when = [
        (10, SystemTime::now() + century),
        (20, SystemTime::UNIX_EPOCH),
        (30, SystemTime::UNIX_EPOCH + Duration::from_secs(1)),
    ];
    for (step, when) in when {
        let folder = folder(dir.path(), step);
        for entry in fs::read_dir(&folder).unwrap() {
            set_time(&entry.unwrap().path(), when);
        }
        set_time(&folder, when);
    }
    set_time(&dir.path().join("LOCK"), SystemTime::now() + century);
    assert_eq!(resume(dir.path()).unwrap().unwrap().state.step, 30);
    let saved = save(&mut Run::open(dir.path(), KEEP).unwrap(), 40).unwrap();
    assert_eq!(saved.removed, [10], "the oldest by its step, not by its files");
    let expected = ["latest -> step-000040", "step-000020", "step-000030", "step-000040"];
    assert_eq!(names(dir.path()), expected);
}

fn set_time(path: &Path, when: SystemTime) {
    let times = FileTimes::new().set_modified(when).set_accessed(when);
    File::open(path).unwrap().set_times(times).unwrap();
}

/// Tries to train where somebody trains.
#[test]
#[ignore = "the process that the other test starts"]
fn child() {
    let Ok(dir) = std::env::var("JANUS_TEST_RUN") else { return };
    let first: u32 = std::env::var("JANUS_TEST_PID").unwrap().parse().unwrap();
    let error = Run::open(Path::new(&dir), KEEP).unwrap_err();
    assert!(matches!(error, RunError::Locked { pid: Some(pid), .. } if pid == first), "{error}");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.hint().unwrap().contains("another folder"));
}

/// Another process finds the folder taken, and harms nothing: not the lock, not what is being
/// written.
#[test]
fn a_second_trainer_is_refused_and_harms_nothing() {
    let dir = run_of(&[10]);
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    let saved = save_with(&mut run, 20, None, |staging| {
        fill(20, staging)?;
        let before = names(dir.path());
        assert!(before.iter().any(|name| name.contains(".tmp-")), "{before:?}");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "run_hostile::child", "--ignored", "--test-threads=1"]);
        command.env("JANUS_TEST_RUN", dir.path()).stdin(Stdio::null());
        command.env("JANUS_TEST_PID", std::process::id().to_string());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        assert_eq!(names(dir.path()), before);
        Ok(())
    });
    assert!(!saved.unwrap().already);
    drop(run);
    assert_eq!(resume(dir.path()).unwrap().unwrap().state.step, 20);
}
