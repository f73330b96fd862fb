//! R2, R4, T6, T10, D6: what does not belong together is refused, with both values.

use std::fs;
use std::path::Path;

use janus_model::{ErrorKind, JanusConfig};
use janus_train::config::TrainConfig;
use janus_train::run::{Allow, Identity, Run, RunError, start_of};

use crate::run_common::{KEEP, STEPS, folder, identity, resume, run_of, save, stage};

fn refused(dir: &Path, wanted: &Identity) -> RunError {
    Run::open(dir, KEEP).unwrap().resume(wanted, Allow::default()).unwrap_err()
}

fn with(stage: &TrainConfig, overrides: &[&str]) -> Identity {
    let overrides: Vec<_> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Identity::new(&JanusConfig::pro_1b(), &stage.with(&overrides).unwrap(), "content")
}

#[test]
fn another_model_is_refused() {
    let dir = run_of(&[10]);
    let error = refused(dir.path(), &Identity::new(&JanusConfig::pro_7b(), &stage(1), "content"));
    assert_eq!(error.kind(), ErrorKind::Usage);
    let text = error.to_string();
    assert!(
        text.contains("its model is 24 layers of width 2048, 102400 words, 16384 codes"),
        "{text}"
    );
    assert!(text.contains("but this run has 30 layers of width 4096, 102400 words"), "{text}");

    // The words may be the same where the model is not.
    let mut other = JanusConfig::pro_1b();
    other.language.rope_theta = 500_000.0;
    let text = refused(dir.path(), &Identity::new(&other, &stage(1), "content")).to_string();
    assert_eq!(text.matches("24 layers of width 2048").count(), 2);
    assert_eq!(text.matches("SHA-256").count(), 2);
}

#[test]
fn another_optimizer_is_refused() {
    let dir = run_of(&[10]);
    let text = refused(dir.path(), &with(&stage(1), &["optimizer.beta2=0.999"])).to_string();
    assert!(text.contains("its optimizer is adamw beta1=0.9 beta2=0.95"), "{text}");
    assert!(text.contains("but this run has adamw beta1=0.9 beta2=0.999"), "{text}");
    // Another rate is another plan, not another optimizer.
    let rate = with(&stage(1), &["schedule.rate=1e-5", "optimizer.clip=2", "save.every=7"]);
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    assert!(run.resume(&rate, Allow::default()).unwrap().is_some());
}

/// D6.
#[test]
fn other_data_is_refused_unless_it_is_meant() {
    let dir = run_of(&[10]);
    let changed = Identity::new(&JanusConfig::pro_1b(), &stage(1), "other content");
    let remixed = with(&stage(1), &["mix.text=1"]);
    for wanted in [changed, remixed] {
        let error = refused(dir.path(), &wanted);
        assert!(matches!(error, RunError::Refused { what: "data", .. }), "{error}");
        assert!(error.to_string().contains(&wanted.data_sha256), "{error}");
        assert!(error.hint().unwrap().contains("--allow-data-change"));
        let mut run = Run::open(dir.path(), KEEP).unwrap();
        let found = run.resume(&wanted, Allow { data_change: true }).unwrap().unwrap();
        assert_eq!(found.notes.len(), 1);
    }
}

#[test]
fn another_stage_needs_a_folder_of_its_own() {
    let dir = run_of(&[10]);
    let text = refused(dir.path(), &with(&stage(2), &[])).to_string();
    assert!(text.ends_with("its stage is 1, but this run has 2"), "{text}");
}

/// T10.
#[test]
fn stages_follow_each_other() {
    let dir = run_of(&[10, STEPS]);
    assert_eq!(start_of(2, dir.path()).unwrap(), folder(dir.path(), STEPS).join("model"));
    for (wrong, base) in [(1, 0), (3, 2)] {
        let error = start_of(wrong, dir.path()).unwrap_err();
        let expected =
            format!("stage {wrong} starts from the end of stage {base}, but this is stage 1");
        assert!(error.to_string().ends_with(&expected), "{error}");
        assert_eq!(error.kind(), ErrorKind::Usage);
        // What the hint names can be started from.
        let hint = error.hint().unwrap();
        let model = folder(dir.path(), STEPS).parent().unwrap().join("latest/model");
        assert!(hint.ends_with(&model.display().to_string()) && model.is_dir(), "{hint}");
    }
    let unfinished = run_of(&[10]);
    let text = start_of(2, unfinished.path()).unwrap_err().to_string();
    assert!(text.ends_with("but this is step 10 of 40"), "{text}");
    let empty = run_of(&[]);
    assert!(matches!(start_of(2, empty.path()), Err(RunError::Empty { .. })));
    // A model folder is taken as it is.
    assert_eq!(start_of(3, Path::new("models/x")).unwrap(), Path::new("models/x"));
}

/// The end is damaged: the run is not at its end any more.
#[test]
fn a_damaged_end_is_no_end() {
    let dir = run_of(&[10, STEPS]);
    fs::remove_file(folder(dir.path(), STEPS).join("state.json")).unwrap();
    assert!(start_of(2, dir.path()).unwrap_err().to_string().ends_with("step 10 of 40"));
}

/// R4, in one process; the kill tests have two.
#[test]
fn two_trainers_never_share_a_folder() {
    let dir = run_of(&[10]);
    let run = Run::open(dir.path(), KEEP).unwrap();
    let error = Run::open(dir.path(), KEEP).unwrap_err();
    if cfg!(unix) {
        let expected = format!("process {} is training here", std::process::id());
        assert!(error.to_string().ends_with(&expected), "{error}");
    }
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.hint().is_some());
    drop(run);
    Run::open(dir.path(), KEEP).unwrap();
}

/// A lock file with words of somebody else is still a lock file.
#[test]
fn a_lock_file_may_hold_anything() {
    let dir = run_of(&[10]);
    fs::write(dir.path().join("LOCK"), "\u{1F512} what is this\n".repeat(100)).unwrap();
    let run = Run::open(dir.path(), KEEP).unwrap();
    let text = fs::read_to_string(dir.path().join("LOCK")).unwrap();
    assert_eq!(text, format!("{}\n", std::process::id()));
    fs::write(dir.path().join("LOCK"), "no number").unwrap();
    let text = Run::open(dir.path(), KEEP).unwrap_err().to_string();
    assert!(text.ends_with("another process is training here"), "{text}");
    drop(run);
}

/// T6.
#[test]
fn a_folder_that_vanishes_is_an_error() {
    let dir = run_of(&[10]);
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    fs::remove_dir_all(dir.path().join("ckpt")).unwrap();
    let error = save(&mut run, 20).unwrap_err();
    assert!(matches!(error, RunError::Io { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("ckpt"), "{error}");
}

/// T6: a file stands where the folder should be.
#[test]
fn a_run_needs_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "x").unwrap();
    let error = Run::open(&path, KEEP).unwrap_err();
    assert!(error.to_string().contains("cannot create"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Io);
}

/// Everything fits but the room: nothing is begun.
#[test]
fn too_little_room_is_told_before_anything_is_written() {
    let dir = run_of(&[10]);
    let run = Run::open(dir.path(), KEEP).unwrap().with_free_space(|_| Some(1000));
    run.preflight(454).unwrap();
    let error = run.preflight(455).unwrap_err();
    assert!(matches!(error, RunError::Space { needed: 1001, free: 1000, .. }), "{error}");
    let mut run = run.with_free_space(|_| Some(14_000));
    let error = save(&mut run, 20).unwrap_err();
    assert!(error.is_full() && error.kind() == ErrorKind::Io, "{error}");
    assert!(error.hint().unwrap().starts_with("make room"));
    let mut run = run.with_free_space(|_| Some(20_000));
    save(&mut run, 20).unwrap();
    drop(run);
    assert_eq!(resume(dir.path()).unwrap().unwrap().state.step, 20);
    assert_eq!(identity().stage, 1);
}
