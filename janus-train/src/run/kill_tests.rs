//! T3 in small: a process that saves is killed wherever it can be, and another one goes on.
//!
//! This binary starts itself as the process ([`child`]). What it trains is a handful of numbers,
//! each made from the one before and the step, so that a step done twice or left out shows in all
//! that follow.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::manifest::names_below;
use super::samples::{identity, state};
use super::{Allow, Keep, Role, Run, Ticket};
use crate::metrics::{Metrics, Row};

const KEEP: Keep = Keep { last: 2, best: 1, every: 0 };
const EVERY: u64 = 2;
const STEPS: u64 = 20;
/// state, two files of the model, moments.
const FILES: u64 = 4;

/// One step of training: new numbers from the old ones.
fn trained(numbers: &[u64], step: u64) -> Vec<u64> {
    let mix = |number: &u64| (number ^ step).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
    numbers.iter().map(mix).collect()
}

fn bytes(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn numbers(path: &Path) -> Vec<u64> {
    let bytes = std::fs::read(path).unwrap();
    bytes.chunks(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())).collect()
}

/// Trains to the end, from wherever the folder stands.
fn train(dir: &Path) {
    let mut run = Run::open(dir, KEEP).unwrap();
    let (mut state, mut weights) = (state(), vec![1, 2, 3, 4]);
    if let Some(found) = run.resume(&identity(), Allow::default()).unwrap() {
        weights = numbers(&found.model().join("weights"));
        assert_eq!(numbers(&found.model().join("more")), weights[..2]);
        assert_eq!(numbers(&found.moments()), weights[2..]);
        assert_eq!(found.state.cursors, serde_json::json!({"place": found.state.step}));
        state = found.state;
    }
    let mut metrics = Metrics::open(&run.metrics_path(), state.step).unwrap();
    while state.step < STEPS {
        weights = trained(&weights, state.step);
        state.step += 1;
        state.rate = 1.0 / state.step as f64;
        state.cursors = serde_json::json!({"place": state.step});
        let _ = state.guard.judge(state.step, state.rate, 1.0);
        let row = Row { step: state.step, loss: Some(state.rate), ..Row::default() };
        metrics.log(&row).unwrap();
        if state.step.is_multiple_of(EVERY) {
            save(&mut run, &state, &weights);
        }
    }
}

fn save(run: &mut Run, state: &super::State, weights: &[u64]) {
    let loss = Some((state.step as f64 - 5.0).abs());
    let ticket = Ticket { identity: &identity(), state, steps: STEPS, loss };
    let saved = run.save(&ticket, |_, staging| {
        staging.folder(Role::Model, "model", |folder| {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("weights"), bytes(weights)).unwrap();
            std::fs::write(folder.join("more"), bytes(&weights[..2])).unwrap();
            Ok(())
        })?;
        staging.bytes(Role::Moments, "moments.bpk", &bytes(&weights[2..]))
    });
    saved.unwrap();
}

#[test]
#[ignore = "the process that the other tests start"]
fn child() {
    if let Ok(dir) = std::env::var("JANUS_TEST_RUN") {
        train(Path::new(&dir));
    }
}

fn command(dir: &Path, failpoint: Option<&str>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "run::kill_tests::child", "--ignored", "--test-threads=1"]);
    command.env("JANUS_TEST_RUN", dir).env_remove("JANUS_FAILPOINT");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.envs(failpoint.map(|point| ("JANUS_FAILPOINT", point)));
    command
}

fn ends(dir: &Path, failpoint: Option<&str>) -> ExitStatus {
    command(dir, failpoint).status().unwrap()
}

/// Every file of a run with what it holds; links count as what they lead to.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |name: String| {
        let bytes = std::fs::read(dir.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, bytes)
    };
    names_below(dir).into_iter().filter(|name| name != "LOCK").map(read).collect()
}

fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>, how: &str) {
    let names = |map: &BTreeMap<String, Vec<u8>>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{how}");
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{how}: {name} differs");
    }
}

fn uninterrupted() -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path());
    let content = content(dir.path());
    // 20 and 18 are the newest; 4 and 6 are equally good, and the newer stays.
    for step in ["step-000006", "step-000018", "step-000020", "latest"] {
        assert!(content.contains_key(&format!("ckpt/{step}/MANIFEST.json")), "{step}");
    }
    assert_eq!(content.keys().filter(|name| name.ends_with("MANIFEST.json")).count(), 4);
    content
}

/// What the folder of a killed run holds before anybody repairs it.
fn assert_usable(dir: &Path, how: &str) {
    if !dir.join("ckpt").exists() {
        // It had not even begun.
        return;
    }
    let steps = super::steps(dir).unwrap();
    for step in &steps {
        let folder = dir.join("ckpt").join(super::step_name(*step));
        assert!(super::manifest::glance(&folder).is_some(), "{how}: {step} is not whole");
    }
    if let Ok(latest) = std::fs::read_link(dir.join("ckpt/latest")) {
        assert!(dir.join("ckpt").join(latest).is_dir(), "{how}: latest names nothing");
    }
}

#[test]
fn killed_at_every_point_a_run_goes_on_to_the_same_bytes() {
    let expected = uninterrupted();
    let third = |nth: u64| 2 * FILES + nth;
    let mut points: Vec<_> = (1..=FILES).map(|nth| format!("file:{}", third(nth))).collect();
    // In the first save, where there is nothing to fall back to, and in the third.
    for name in ["file", "manifest", "rename", "renamed", "latest", "prune"] {
        points.extend(["1", "3"].map(|nth| format!("{name}:{nth}")));
    }
    points.extend(["removing:1", "removing:2"].map(str::to_owned));
    for point in points {
        let dir = tempfile::tempdir().unwrap();
        let status = ends(dir.path(), Some(&point));
        assert_eq!(status.signal(), Some(6), "{point}: {status}");
        assert_usable(dir.path(), &point);
        let status = ends(dir.path(), None);
        assert!(status.success(), "{point}: {status}");
        assert_same(&content(dir.path()), &expected, &point);
    }
}

/// SIGKILL at moments nobody chose; the seed is in the message.
#[test]
fn killed_twenty_times_a_run_ends_with_the_same_bytes() {
    let expected = uninterrupted();
    let dir = tempfile::tempdir().unwrap();
    let mut seed: u64 = 20_251_117;
    let mut killed = 0;
    for attempt in 0..400 {
        seed = trained(&[seed], attempt)[0];
        let mut process = command(dir.path(), None).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(2_000 + seed % 60_000));
        if killed < 20 {
            // It may have come to its end by itself.
            let _ = process.kill();
        }
        let status = process.wait().unwrap();
        assert_usable(dir.path(), &format!("kill {killed}"));
        match status.signal() {
            Some(9) => killed += 1,
            None if status.success() && killed < 20 => {
                // Once more from the start, so that all kills hit something.
                assert_same(&content(dir.path()), &expected, &format!("after {killed} kills"));
                std::fs::remove_dir_all(dir.path()).unwrap();
            }
            None if status.success() => break,
            _ => panic!("after {killed} kills: {status}"),
        }
    }
    assert_eq!(killed, 20);
    assert_same(&content(dir.path()), &expected, "after 20 kills");
}
