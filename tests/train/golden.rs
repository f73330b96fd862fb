//! T8: a checkpoint of every released format, committed, and read by every release after it.
//!
//! `cargo test --test train -- golden::write --ignored` writes one of the present format where
//! there is none; what is there is never changed.

use std::fs;
use std::path::{Path, PathBuf};

use janus_train::optim::AdamW;
use janus_train::run::manifest::FORMAT;
use janus_train::run::moments::{self, learners};
use janus_train::run::state::Best;
use janus_train::run::{Allow, Found, Identity, Role, Run, RunError, State, Ticket};
use janus_train::spikes::Guard;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::fixtures;
use crate::reference::share;
use crate::run_common::{KEEP, identity, stage};
use crate::run_moments::{Toy, load_record, train};

const WIDTH: usize = 4;
const STEP: u64 = 5;

fn golden(format: u64) -> PathBuf {
    fixtures().join(format!("golden/run-format-{format}"))
}

/// A guard that has seen good steps and left one out.
fn state() -> State {
    let mut guard = Guard::new(stage(1).guard);
    for (step, loss) in [2.5, 2.25, f64::NAN, 2.0, 1.9375].into_iter().enumerate() {
        let _ = guard.judge(step as u64 + 1, loss, 1.5);
    }
    let best = Some(Best { step: 4, loss: 0.1 + 0.2 });
    let cursors = json!({"photos": {"epoch": 1, "position": 17}});
    State { step: STEP, rate: 1e-4 / 3.0, cursors, best, ..State::new(7, guard) }
}

fn bytes(weights: &[f32]) -> Vec<u8> {
    weights.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
#[ignore = "writes the golden checkpoint of a new format"]
fn write() {
    let dir = golden(FORMAT);
    assert!(!dir.exists(), "{} is there: a format never changes", dir.display());
    let (toy, optimizer) = train(Toy::new(WIDTH), AdamW::default().into(), 0..STEP as usize);
    let mut run = Run::open(&dir, KEEP).unwrap();
    let (identity, state) = (identity(), state());
    let ticket = Ticket { identity: &identity, state: &state, steps: 12, loss: Some(0.75) };
    run.save(&ticket, |_, staging| {
        staging.folder(Role::Model, "model", |folder| {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("weights"), bytes(&toy.weights().concat())).unwrap();
            Ok(())
        })?;
        let record = optimizer.to_record();
        staging.file(Role::Moments, "moments.bpk", |path| {
            moments::write(path, record, &learners(&toy))
        })
    })
    .unwrap();
    drop(run);
    // Made again by whoever opens the run.
    fs::remove_file(dir.join("LOCK")).unwrap();
    fs::remove_file(dir.join("ckpt/latest")).unwrap();
    let (end, _) = train(toy, optimizer, STEP as usize..12);
    fs::write(dir.join("end.json"), json!({"weights": end.weights()}).to_string() + "\n").unwrap();
}

/// A copy that may be written to, and what its manifest says it belongs to.
fn copy(format: u64) -> (tempfile::TempDir, Identity) {
    let dir = tempfile::tempdir().unwrap();
    let step = Path::new("ckpt/step-000005");
    fs::create_dir_all(dir.path().join(step).join("model")).unwrap();
    for file in ["MANIFEST.json", "state.json", "moments.bpk", "model/weights"] {
        fs::copy(golden(format).join(step).join(file), dir.path().join(step).join(file)).unwrap();
    }
    let manifest = fs::read(dir.path().join(step).join("MANIFEST.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["format"], format);
    (dir, serde_json::from_value(manifest["identity"].clone()).unwrap())
}

fn open(dir: &Path, identity: &Identity) -> Result<Option<Found>, RunError> {
    Run::open(dir, KEEP)?.resume(identity, Allow::default())
}

/// Every format up to ours: whole, with the same state, and training goes on to the same end.
#[test]
fn every_released_format_loads() {
    for format in 1..=FORMAT {
        let (dir, identity) = copy(format);
        let found = open(dir.path(), &identity).unwrap().unwrap();
        assert_eq!(found.state, state());
        assert_eq!((found.manifest.step, found.manifest.steps), (STEP, 12));
        assert_eq!(found.manifest.loss, Some(0.75));
        assert!(found.passed_over.is_empty());

        let weights = fs::read(found.model().join("weights")).unwrap();
        let weights: Vec<f32> =
            weights.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let toy = Toy::of(WIDTH, &weights);
        let record = moments::read(&found.moments(), &learners(&toy)).unwrap();
        let optimizer = load_record(AdamW::default().into(), record);
        let (end, _) = train(toy, optimizer, STEP as usize..12);
        let expected = fs::read(golden(format).join("end.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let expected: Vec<Vec<f32>> = serde_json::from_value(expected["weights"].clone()).unwrap();
        // Other processors may round sums otherwise.
        let far = share(&end.weights().concat(), &expected.concat());
        println!("measured format {format}: {far:.1e}");
        assert!(far < 1e-5, "format {format}: {far:.1e}");
    }
}

/// The digits of a hash, as the manifest has them.
fn digits(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The manifest with another number; `sealed` with a hash that fits, as a later release writes it.
fn renumber(dir: &Path, number: &str, sealed: bool) {
    let path = dir.join("ckpt/step-000005/MANIFEST.json");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.rsplit_once("\"sha256\": \"").unwrap();
    let (old, after) = rest.split_at(64);
    let whole = |hash: &str| {
        let before = before.replacen("\"format\": 1,", &format!("\"format\": {number},"), 1);
        format!("{before}\"sha256\": \"{hash}{after}")
    };
    let hash = if sealed { digits(whole(&"0".repeat(64)).as_bytes()) } else { old.to_owned() };
    fs::write(&path, whole(&hash)).unwrap();
}

/// By its number, never by an accident further on, and never bent to fit.
#[test]
fn another_format_is_refused_by_its_number() {
    for number in [FORMAT + 1, 99, u64::MAX] {
        let (dir, identity) = copy(FORMAT);
        renumber(dir.path(), &number.to_string(), true);
        let error = open(dir.path(), &identity).unwrap_err();
        let RunError::Newer { found, known, .. } = &error else { panic!("{error}") };
        assert_eq!((*found, *known), (number, FORMAT));
        assert_eq!(error.hint().as_deref(), Some("update janus"));
        // What a later release wrote is left for it.
        let file = dir.path().join("ckpt/step-000005/MANIFEST.json");
        assert!(fs::read_to_string(file).unwrap().contains(&format!("\"format\": {number},")));
    }
}

/// A number that was changed by accident is damage, as any other changed byte.
#[test]
fn a_number_that_the_hash_does_not_cover_is_damage() {
    for (number, sealed) in [("2", false), ("-1", true), ("\"1\"", true), ("1.5", true)] {
        let (dir, identity) = copy(FORMAT);
        renumber(dir.path(), number, sealed);
        let error = open(dir.path(), &identity).unwrap_err();
        assert!(matches!(error, RunError::NoneWhole { .. }), "{number}: {error}");
    }
}
