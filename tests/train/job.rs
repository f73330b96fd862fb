//! Whole runs of a tiny Janus: from a recipe and files to checkpoints that other commands load.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Once;

use burn::tensor::Device;
use janus_model::{ErrorKind, Janus, LoadOptions};
use janus_train::config::{Source, TrainConfig};
use janus_train::strategy::{End, Event};
use janus_train::trainer::{Job, JobError, Options};
use sha2::{Digest, Sha256};

use crate::data_common::{save, write};

/// Burn asks for its default device when it reads a record, whatever is done with it.
fn burn_has_a_default_device() {
    static DEFAULT: Once = Once::new();
    // SAFETY: nothing in this process reads the variable but Burn, through the same lock.
    DEFAULT.call_once(|| unsafe { std::env::set_var("BURN_DEVICE", "flex") });
}

fn start() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-pro/original")
}

/// Conversations about pictures, captions to draw from, and text, in one file.
pub fn data(folder: &Path, each: usize) -> PathBuf {
    let mut lines = String::new();
    for number in 0..each {
        let picture = save(folder, number);
        let (colour, other) = (["red", "blue", "green"][number % 3], ["dog", "cat"][number % 2]);
        lines += &format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"<image>What is it?\"}},\
             {{\"role\":\"assistant\",\"content\":\"A {colour} {other}.\"}}],\
             \"images\":[\"{picture}\"]}}\n\
             {{\"messages\":[{{\"role\":\"user\",\"content\":\"A {colour} {other}. It sits.\"}},\
             {{\"role\":\"assistant\",\"content\":\"<image>\"}}],\"images\":[\"{picture}\"]}}\n\
             {{\"messages\":[{{\"role\":\"user\",\"content\":\"Say {colour}.\"}},\
             {{\"role\":\"assistant\",\"content\":\"{colour} {other}\"}}],\"images\":[]}}\n"
        );
    }
    write(folder, "train.jsonl", lines)
}

/// Stage 3 with sizes for a test.
pub fn recipe(data: &Path, more: &[&str]) -> TrainConfig {
    let mut config = TrainConfig::recipe("janus-pro-1b-stage3").unwrap();
    config.start = Some(start());
    config.data = vec![Source::of(data)];
    let small = [
        "model=any",
        "steps=6",
        "schedule.rate=1e-3",
        "batch.size=4",
        "batch.rows=2",
        "batch.tokens=512",
        "mix={understand=2,text=1,draw=1}",
        "save.every=2",
        "save.keep=0",
        "save.best=0",
        "save.keep_every=0",
        "guard.sigma=1000",
        "compute.workers=0",
    ];
    let all: Vec<String> = small.iter().chain(more).map(|text| (*text).to_owned()).collect();
    config.with(&all).unwrap()
}

/// What a watcher was told.
#[derive(Default)]
struct Told {
    losses: Vec<f64>,
    left_out: Vec<String>,
    resumed: Option<u64>,
    saved: usize,
}

/// Trains until `stop` steps are done in this process.
fn go(
    config: TrainConfig,
    output: &Path,
    stop: usize,
) -> (Result<End, JobError>, Rc<RefCell<Told>>) {
    burn_has_a_default_device();
    let told = Rc::new(RefCell::new(Told::default()));
    let seen = Rc::clone(&told);
    let watcher = Box::new(move |event: Event| {
        let mut told = seen.borrow_mut();
        match event {
            Event::Step(row) => told.losses.push(row.loss.unwrap_or(f64::NAN)),
            Event::LeftOut(names) => told.left_out.extend_from_slice(names),
            Event::Resumed(found) => told.resumed = Some(found.state.step),
            Event::Saved(_) => told.saved += 1,
            _ => {}
        }
        if told.losses.len() >= stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let job = Job::open(config, Options::new(Device::flex()));
    (job.and_then(|job| job.run(output, watcher, None, None)), told)
}

/// Hashes of all files of the last checkpoint.
fn last(output: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![output.join("ckpt/latest")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(output.join("ckpt/latest")).unwrap();
            let hash = format!("{:x}", Sha256::digest(fs::read(&path).unwrap()));
            found.insert(name.display().to_string(), hash);
        }
    }
    found
}

#[test]
fn a_run_learns_and_leaves_a_model_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = data(dir.path(), 4);
    let config = recipe(&data, &["steps=12", "save.every=4"]);
    let output = dir.path().join("run");
    let (end, told) = go(config, &output, 100);
    assert_eq!(end.unwrap(), End::Finished);
    let told = told.borrow();
    assert_eq!((told.losses.len(), told.saved, told.resumed), (12, 3, None));
    let (first, last) = (told.losses[0], told.losses[11]);
    assert!(last < 0.9 * first, "{:?}", told.losses);
    let lines = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 12);
    let model = output.join("ckpt/latest/model");
    let (_, report) = Janus::load(&model, &Device::flex(), &LoadOptions::default()).unwrap();
    assert!(report.tensors > 100);
    let recipe = TrainConfig::read(&output.join("recipe.toml")).unwrap();
    assert_eq!(recipe.steps, 12);
}

/// T1: stopped anywhere and gone on with, a run ends with the bytes of one that was not.
#[test]
fn a_stopped_run_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let data = data(dir.path(), 3);
    for (name, more) in [
        ("stage3", &["batch.rows=4"][..]),
        ("bf16", &["compute.dtype=bf16", "batch.rows=4"]),
        ("recomputed", &["compute.recompute=true", "compute.workers=2"]),
        ("stage1", &["train.6.1=freeze", "train.1.1=freeze"]),
    ] {
        let whole = dir.path().join(format!("{name}-whole"));
        assert_eq!(go(recipe(&data, more), &whole, 100).0.unwrap(), End::Finished, "{name}");
        let parts = dir.path().join(format!("{name}-parts"));
        for stop in [1, 3] {
            assert_eq!(go(recipe(&data, more), &parts, stop).0.unwrap(), End::Stopped, "{name}");
        }
        let (end, told) = go(recipe(&data, more), &parts, 100);
        assert_eq!((end.unwrap(), told.borrow().resumed), (End::Finished, Some(4)), "{name}");
        assert_eq!(last(&parts), last(&whole), "{name}");
        // Finished is finished.
        let (end, told) = go(recipe(&data, more), &parts, 100);
        assert_eq!((end.unwrap(), told.borrow().losses.len()), (End::Finished, 0));
    }
}

#[test]
fn what_cannot_work_fails_before_weights_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = data(dir.path(), 2);
    let open = |more: &[&str]| {
        let config = recipe(&data, more);
        match Job::open(config, Options::new(Device::flex())) {
            Err(error) => (error.kind(), error.to_string()),
            Ok(_) => panic!("{more:?} should not work"),
        }
    };
    let (kind, text) = open(&["batch.tokens=16384"]);
    assert_eq!(kind, ErrorKind::Config);
    assert!(text.contains("the model reads at most"), "{text}");
    let (kind, text) = open(&["batch.size=64"]);
    assert_eq!(kind, ErrorKind::Usage, "{text}");
    let (_, text) = open(&["train.0.0=visoin_model.**"]);
    assert!(text.contains("no rule covers"), "{text}");
    let (kind, _) = open(&["start=/nowhere"]);
    assert_eq!(kind, ErrorKind::Missing);
}

/// D6: other data under the same name.
#[test]
fn changed_data_are_refused_unless_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let file = data(dir.path(), 3);
    let output = dir.path().join("run");
    assert_eq!(go(recipe(&file, &[]), &output, 2).0.unwrap(), End::Stopped);
    let mut text = fs::read_to_string(&file).unwrap();
    text = text.replace("Say red.", "Say it.");
    fs::write(&file, text).unwrap();
    let error = go(recipe(&file, &[]), &output, 100).0.unwrap_err();
    assert!(error.to_string().contains("data"), "{error}");
    let options = Options { data_change: true, ..Options::new(Device::flex()) };
    let watcher = Box::new(|_: Event| ControlFlow::Continue(()));
    let end = Job::open(recipe(&file, &[]), options).unwrap().run(&output, watcher, None, None);
    assert_eq!(end.unwrap(), End::Finished);
}
