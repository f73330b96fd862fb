//! T5 and R1: whatever happens to a checkpoint, it is passed over with the reason, never loaded.

use std::fs;
use std::path::Path;

use janus_model::ErrorKind;
use janus_train::run::{Run, RunError};

use crate::run_common::{KEEP, folder, names, resume, run_of, save};

const FILES: [&str; 5] =
    ["MANIFEST.json", "model/config.json", "model/model.safetensors", "moments.bpk", "state.json"];

/// Damages step 20 of a run, and gives the reason why step 10 is used.
fn why_not(how: &str, damage: impl FnOnce(&Path)) -> String {
    let dir = run_of(&[10, 20]);
    damage(&folder(dir.path(), 20));
    let found = resume(dir.path()).unwrap().unwrap();
    assert_eq!((found.state.step, found.manifest.step), (10, 10), "{how}");
    assert_eq!(found.path, folder(dir.path(), 10));
    let [passed] = found.passed_over.as_slice() else { panic!("{how}: {found:?}") };
    assert_eq!(passed.path, folder(dir.path(), 20));
    assert!(names(dir.path()).contains(&"latest -> step-000010".to_owned()), "{how}");
    passed.to_string()
}

fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    how(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn sha256(path: &Path) -> String {
    use std::fmt::Write;
    let digest = sha2(&fs::read(path).unwrap());
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn sha2(bytes: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).to_vec()
}

#[test]
fn an_untouched_run_goes_on_from_its_newest() {
    let dir = run_of(&[10, 20]);
    let found = resume(dir.path()).unwrap().unwrap();
    assert_eq!((found.state.step, found.passed_over.len(), found.notes.len()), (20, 0, 0));
    assert_eq!(found.state.cursors, serde_json::json!({"photos": 1020}));
    assert_eq!(fs::read(found.moments()).unwrap(), vec![20 ^ 0x55; 9000]);
    assert_eq!(names(dir.path()), ["latest -> step-000020", "step-000010", "step-000020"]);
}

#[test]
fn every_flipped_bit_is_seen() {
    for file in FILES {
        let length = fs::metadata(folder(run_of(&[10]).path(), 10).join(file)).unwrap().len();
        for at in [0, length as usize / 2, length as usize - 1] {
            let mut hashes = (String::new(), String::new());
            let why = why_not(file, |folder| {
                let path = folder.join(file);
                hashes.1 = sha256(&path);
                change(&path, |bytes| bytes[at] ^= 1 << (at % 8));
                hashes.0 = sha256(&path);
            });
            assert!(why.starts_with(&format!("step-000020: {file}")), "{why}");
            if file != "MANIFEST.json" {
                let (found, expected) = hashes;
                assert!(why.ends_with(&format!("SHA-256 {found}, not {expected}")), "{why}");
            }
        }
    }
}

#[test]
fn every_file_cut_emptied_or_gone_is_seen() {
    for file in FILES {
        let cut = why_not(file, |folder| {
            change(&folder.join(file), |bytes| bytes.truncate(bytes.len() - 1))
        });
        let empty = why_not(file, |folder| change(&folder.join(file), Vec::clear));
        let gone = why_not(file, |folder| fs::remove_file(folder.join(file)).unwrap());
        assert_eq!(gone, format!("step-000020: {file} is missing"));
        match file {
            "MANIFEST.json" => assert_eq!(empty, format!("step-000020: {file}: empty")),
            _ => {
                assert!(cut.starts_with(&format!("step-000020: {file} has ")), "{cut}");
                assert!(empty.starts_with(&format!("step-000020: {file} has 0 bytes, not ")));
            }
        }
    }
}

#[test]
fn files_of_two_steps_are_never_mixed() {
    for file in FILES {
        let why = why_not(file, |step_20| {
            let step_10 = step_20.with_file_name("step-000010");
            fs::copy(step_10.join(file), step_20.join(file)).unwrap();
        });
        match file {
            "MANIFEST.json" => assert_eq!(why, "step-000020: MANIFEST.json belongs to step 10"),
            _ => assert!(why.contains(&format!("{file} has the SHA-256 ")), "{why}"),
        }
    }
}

/// A reader of model folders would prefer it to what the manifest lists.
#[test]
fn a_stray_file_is_seen() {
    let name = "model/model.safetensors.index.json";
    let why = why_not(name, |folder| fs::write(folder.join(name), "{}").unwrap());
    assert_eq!(why, format!("step-000020: {name} is not in MANIFEST.json"));
}

#[test]
fn a_folder_in_place_of_a_file_is_seen() {
    let why = why_not("folder", |step| {
        fs::remove_file(step.join("state.json")).unwrap();
        fs::create_dir(step.join("state.json")).unwrap();
    });
    assert!(why.starts_with("step-000020: state.json has "), "{why}");
}

#[test]
fn where_none_is_whole_nothing_starts_from_nothing() {
    let dir = run_of(&[10, 20]);
    fs::remove_file(folder(dir.path(), 10).join("moments.bpk")).unwrap();
    change(&folder(dir.path(), 20).join("state.json"), |bytes| bytes[0] ^= 1);
    let error = resume(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadData);
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with(": no checkpoint here is whole"), "{text}");
    assert!(lines[1].starts_with("  step-000020: state.json has the SHA-256 "), "{text}");
    assert_eq!(lines[2], "  step-000010: moments.bpk is missing");
    assert!(error.hint().is_some());
}

#[test]
fn an_empty_run_has_nothing_to_go_on_from() {
    let dir = tempfile::tempdir().unwrap();
    assert!(resume(dir.path()).unwrap().is_none());
}

/// The damaged one stays for whoever wants to see it, until a newer one was read back.
#[test]
fn a_damaged_checkpoint_is_written_again_and_does_not_count() {
    let dir = run_of(&[10, 20, 30]);
    change(&folder(dir.path(), 20).join("moments.bpk"), |bytes| bytes[7] ^= 1);
    change(&folder(dir.path(), 30).join("moments.bpk"), |bytes| bytes[7] ^= 1);
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    let found = run.resume(&crate::run_common::identity(), Default::default()).unwrap().unwrap();
    assert_eq!((found.state.step, found.passed_over.len()), (10, 2));
    assert_eq!(names(dir.path()).len(), 4, "nothing was removed");
    let saved = save(&mut run, 20).unwrap();
    assert!(!saved.already);
    assert_eq!(saved.removed, [30]);
    assert_eq!(names(dir.path()), ["latest -> step-000020", "step-000010", "step-000020"]);
    drop(run);
    assert_eq!(resume(dir.path()).unwrap().unwrap().state.step, 20);
}

/// Without a look at what is there first: the first save of a process finds it out.
#[test]
fn a_damaged_checkpoint_of_the_same_step_is_replaced() {
    let dir = run_of(&[10, 20]);
    change(&folder(dir.path(), 20).join("state.json"), |bytes| bytes[9] ^= 4);
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    assert!(!save(&mut run, 20).unwrap().already);
    let again = save(&mut run, 20).unwrap();
    assert!(again.already && again.removed.is_empty(), "a whole one is left as it is");
    drop(run);
    assert_eq!(resume(dir.path()).unwrap().unwrap().state.step, 20);
}

#[test]
fn a_newer_format_is_refused_not_passed_over() {
    let dir = run_of(&[10, 20]);
    // As a later release would write it: with a true hash.
    change(&folder(dir.path(), 20).join("MANIFEST.json"), |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let (_, rest) = text.rsplit_once("\"sha256\": \"").unwrap();
        let old = &rest[..64];
        let zeroed = text.replace("\"format\": 1", "\"format\": 2").replace(old, &"0".repeat(64));
        let hash: String =
            sha2(zeroed.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let (before, after) = zeroed.rsplit_once(&"0".repeat(64)).unwrap();
        *bytes = format!("{before}{hash}{after}").into_bytes();
    });
    let error = resume(dir.path()).unwrap_err();
    assert!(matches!(error, RunError::Newer { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().ends_with("format 2, but this release reads up to 1"), "{error}");
    assert_eq!(error.hint().unwrap(), "update janus");
}
