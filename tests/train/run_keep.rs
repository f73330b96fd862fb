//! T9: what stays, and that a failing save never costs a checkpoint.

use std::fs;

use janus_train::run::{Keep, Run, RunError};

use crate::run_common::{KEEP, fill, folder, names, resume, run_of, save, save_with};

fn steps(dir: &std::path::Path) -> Vec<u64> {
    janus_train::run::steps(dir).unwrap()
}

/// Ten saves, of which the fourth and the fifth fail.
fn after_failing(last: usize) -> Vec<u64> {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::open(dir.path(), Keep { last, ..KEEP }).unwrap();
    for step in 1..=10 {
        let before = steps(dir.path());
        match step {
            4 | 5 => {
                let failed = save_with(&mut run, step, None, |staging| {
                    fill(step, staging)?;
                    let source = std::io::ErrorKind::StorageFull.into();
                    Err(RunError::Io { path: "x".into(), action: "write", source })
                });
                assert!(failed.unwrap_err().is_full());
                assert_eq!(steps(dir.path()), before, "nothing went, nothing came");
            }
            _ => drop(save(&mut run, step).unwrap()),
        }
        assert!(!steps(dir.path()).is_empty());
    }
    assert!(names(dir.path()).iter().all(|name| !name.starts_with('.')), "no leftovers");
    steps(dir.path())
}

#[test]
fn the_newest_stay_and_a_failing_save_removes_nothing() {
    assert_eq!(after_failing(2), [9, 10]);
    assert_eq!(after_failing(3), [8, 9, 10]);
    assert_eq!(after_failing(0), [1, 2, 3, 6, 7, 8, 9, 10]);
}

#[test]
fn keeping_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = Run::open(dir.path(), Keep { last: 1, ..KEEP }).unwrap_err();
    assert_eq!(error.to_string(), "keeping 1 checkpoint would leave none to fall back to");
    assert_eq!(error.hint().unwrap(), "keep at least 2, or 0 for all");
}

#[test]
fn the_best_and_every_nth_stay_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::open(dir.path(), Keep { last: 2, best: 1, every: 40 }).unwrap();
    for (step, loss) in [(10, 3.0), (20, 1.0), (30, 2.0), (40, 2.5), (50, f64::NAN), (60, 1.5)] {
        save_with(&mut run, step, Some(loss), |staging| fill(step, staging)).unwrap();
    }
    assert_eq!(steps(dir.path()), [20, 40, 50, 60]);
    let saved = save_with(&mut run, 70, Some(0.5), |staging| fill(70, staging)).unwrap();
    assert_eq!(saved.removed, [20, 50]);
    assert_eq!(
        saved.bytes,
        5000 + 9000 + 14 + fs::metadata(folder(dir.path(), 70).join("state.json")).unwrap().len()
    );
    assert_eq!(
        names(dir.path()),
        ["latest -> step-000070", "step-000040", "step-000060", "step-000070"]
    );
}

/// A folder that somebody made is not ours to remove, nor does it count.
#[test]
fn other_folders_are_left_alone() {
    let dir = run_of(&[10]);
    for name in ["step-5", "step-000001x", "mine", "step-000003"] {
        fs::create_dir(dir.path().join("ckpt").join(name)).unwrap();
    }
    let mut run = Run::open(dir.path(), Keep { last: 2, ..KEEP }).unwrap();
    for step in [20, 30, 40] {
        save(&mut run, step).unwrap();
    }
    assert_eq!(steps(dir.path()), [3, 30, 40]);
    for name in ["step-5", "step-000001x", "mine", "step-000003"] {
        assert!(dir.path().join("ckpt").join(name).is_dir(), "{name}");
    }
    drop(run);
    assert_eq!(resume(dir.path()).unwrap().unwrap().state.step, 40);
}

/// R3: only the holder of the lock removes what a killed process left.
#[test]
fn leftovers_go_when_the_lock_is_ours() {
    let dir = run_of(&[10]);
    let left = dir.path().join("ckpt/.step-000020.tmp-99999");
    fs::create_dir_all(left.join("model")).unwrap();
    fs::write(left.join("model/half"), "x").unwrap();
    fs::write(dir.path().join("ckpt/.latest.tmp-99999"), "x").unwrap();
    fs::create_dir(dir.path().join(".frozen.tmp-99999")).unwrap();
    // Readers do not mind them.
    assert_eq!(steps(dir.path()), [10]);
    let run = Run::open(dir.path(), KEEP).unwrap();
    assert_eq!(names(dir.path()), ["latest -> step-000010", "step-000010"]);
    assert!(!dir.path().join(".frozen.tmp-99999").exists());

    fs::create_dir(&left).unwrap();
    assert!(Run::open(dir.path(), KEEP).is_err(), "locked");
    assert!(left.exists(), "somebody else may be writing it");
    drop(run);
    Run::open(dir.path(), KEEP).unwrap();
    assert!(!left.exists());
}
