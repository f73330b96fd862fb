//! A run of files small enough to be damaged in every way.

use std::fs;
use std::path::{Path, PathBuf};

use janus_model::JanusConfig;
use janus_train::config::TrainConfig;
use janus_train::run::{
    Allow, Found, Identity, Keep, Role, Run, RunError, Saved, Staging, State, Ticket,
};
use janus_train::spikes::Guard;

pub const KEEP: Keep = Keep { last: 3, best: 0, every: 0 };
/// Steps of the stage.
pub const STEPS: u64 = 40;

pub fn stage(stage: u8) -> TrainConfig {
    TrainConfig::recipe(&format!("janus-pro-1b-stage{stage}")).unwrap()
}

pub fn identity() -> Identity {
    Identity::new(&JanusConfig::pro_1b(), &stage(1), "content")
}

pub fn state(step: u64) -> State {
    let cursors = serde_json::json!({"photos": 1000 + step});
    State { step, cursors, ..State::new(7, Guard::new(stage(1).guard)) }
}

/// Three files beside the state, of other content for each step.
pub fn fill(step: u64, staging: &mut Staging) -> Result<(), RunError> {
    staging.folder(Role::Model, "model", |folder| {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("config.json"), format!("{{\"of\": {step:06}}}")).unwrap();
        fs::write(folder.join("model.safetensors"), vec![step as u8; 5000]).unwrap();
        Ok(())
    })?;
    staging.bytes(Role::Moments, "moments.bpk", &vec![step as u8 ^ 0x55; 9000])
}

pub fn save_with(
    run: &mut Run,
    step: u64,
    loss: Option<f64>,
    fill: impl FnOnce(&mut Staging) -> Result<(), RunError>,
) -> Result<Saved, RunError> {
    let (identity, state) = (identity(), state(step));
    let ticket = Ticket { identity: &identity, state: &state, steps: STEPS, loss };
    run.save(&ticket, |_, staging| fill(staging))
}

pub fn save(run: &mut Run, step: u64) -> Result<Saved, RunError> {
    save_with(run, step, None, |staging| fill(step, staging))
}

/// A run with checkpoints of these steps, closed.
pub fn run_of(steps: &[u64]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::open(dir.path(), KEEP).unwrap();
    for step in steps {
        save(&mut run, *step).unwrap();
    }
    dir
}

pub fn resume(dir: &Path) -> Result<Option<Found>, RunError> {
    Run::open(dir, KEEP)?.resume(&identity(), Allow::default())
}

pub fn folder(dir: &Path, step: u64) -> PathBuf {
    dir.join(format!("ckpt/step-{step:06}"))
}

/// Names below `ckpt/`, in order; `latest` with where it leads.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("ckpt")).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            // A file with the name where there are no links.
            let text = || fs::read_to_string(entry.path()).map(PathBuf::from);
            match fs::read_link(entry.path()).or_else(|_| text()) {
                Ok(target) => format!("{name} -> {}", target.display()),
                Err(_) => name,
            }
        })
        .collect();
    names.sort();
    names
}
