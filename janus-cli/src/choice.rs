//! What `--model` and `--lora` mean: one model folder, and the adapters that go on it.
//!
//! | typed | base | adapters |
//! |---|---|---|
//! | a model folder, or the name of one in the cache | itself | – |
//! | a run of training | `ckpt/latest/model` | – |
//! | a run that trains an adapter | the one that `ckpt/latest/adapter` names | that one |
//! | an adapter folder | the one that it names | itself |
//!
//! Adapters of `--lora` come after these; a run stands for the newest one that it trains. Nothing is
//! ever downloaded here.

use std::fs;
use std::path::{Component, Path, PathBuf};

use janus_model::adapters::{AdapterConfig, is_adapter_folder};
use janus_model::checkpoint::Limits;
use janus_model::processor::read_file;
use serde_json::{Value, json};

use crate::args::ModelArgs;
use crate::default_model;
use crate::hub::{Cache, Repo};
use crate::report::{Exit, Failure};

/// An adapter of a model with an adapter, and so on: nobody means more.
const DEEPEST: usize = 4;

/// A model, found but not opened.
#[derive(Debug)]
pub struct Choice {
    /// The model folder.
    pub base: PathBuf,
    /// Adapter folders, in the order in which they are put on it.
    pub adapters: Vec<PathBuf>,
    /// What the model is called, for people.
    pub name: String,
}

impl Choice {
    /// What flags name, or else the model that comes with the program.
    ///
    /// # Errors
    /// As [`Choice::find`]; none is named, and none is there.
    pub fn of(args: &ModelArgs) -> Result<Self, Failure> {
        let limits = args.limits.limits();
        let typed = default_model::or(args.model.as_deref())?;
        let mut choice = Self::find(&typed, &limits)?;
        choice.add(&args.lora, &limits)?;
        Ok(choice)
    }

    /// Puts what `--lora` names on it: adapter folders, and runs that train one.
    ///
    /// # Errors
    /// A folder that is no adapter.
    pub fn add(&mut self, typed: &[PathBuf], limits: &Limits) -> Result<(), Failure> {
        for dir in typed {
            let kept = checkpoint(dir)?.map(|checkpoint| checkpoint.join("adapter"));
            let dir = kept.filter(|dir| dir.is_dir()).unwrap_or_else(|| dir.clone());
            // Before the model: a wrong path should not cost a minute.
            AdapterConfig::of(&dir, limits)?;
            self.adapters.push(dir);
        }
        Ok(())
    }

    /// What was typed in place of a model.
    ///
    /// # Errors
    /// The name of a model that is not in the cache; a run without a checkpoint; an adapter whose
    /// base is not there.
    pub fn find(typed: &Path, limits: &Limits) -> Result<Self, Failure> {
        find(typed, limits, DEEPEST)
    }
}

/// JSON of a command that also says what was on the model, where there was something.
pub fn naming(adapters: &[PathBuf], mut value: Value) -> Value {
    if !adapters.is_empty() {
        value["adapters"] = json!(adapters);
    }
    value
}

fn find(typed: &Path, limits: &Limits, deepest: usize) -> Result<Choice, Failure> {
    let found = lookup(typed)?;
    if let Some(checkpoint) = checkpoint(&found)? {
        let model = checkpoint.join("model");
        if model.is_dir() {
            return Ok(Choice { base: model, adapters: Vec::new(), name: run_name(&checkpoint) });
        }
        return on_base(checkpoint.join("adapter"), limits, deepest);
    }
    if is_adapter_folder(&found) && !found.join("config.json").exists() {
        return on_base(found, limits, deepest);
    }
    // In the cache it lies under a name that says nothing.
    let name = match found == typed {
        true => folder_name(&found),
        false => typed.to_string_lossy().into_owned(),
    };
    Ok(Choice { base: found, adapters: Vec::new(), name })
}

/// The name of a folder, also of `.`, which has none of its own.
pub fn folder_name(dir: &Path) -> String {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The folder itself if it is there, else the model of that name in the cache.
fn lookup(typed: &Path) -> Result<PathBuf, Failure> {
    let repo = typed.to_str().and_then(|text| text.parse::<Repo>().ok());
    // A link that leads nowhere is a broken folder, not a name.
    let (Some(repo), Err(_)) = (repo, fs::symlink_metadata(typed)) else {
        return Ok(typed.to_owned());
    };
    let cache = Cache::usual();
    if let Some(folder) = cache.as_ref().and_then(|cache| cache.find(&repo, None)) {
        return Ok(folder);
    }
    let place = cache.map_or_else(String::new, |cache| format!(" {}", cache.root.display()));
    let message = format!(
        "{}: there is no such folder here, and no such model in the cache{place}",
        typed.display()
    );
    Err(Failure::new(Exit::Missing, message).hint(repo.advice()))
}

/// The newest checkpoint of a run, or the checkpoint that was typed; `None` for other folders.
fn checkpoint(found: &Path) -> Result<Option<PathBuf>, Failure> {
    let has_either = |dir: &Path| dir.join("model").is_dir() || dir.join("adapter").is_dir();
    if found.join("MANIFEST.json").is_file() && has_either(found) {
        return Ok(Some(found.to_owned()));
    }
    let kept = found.join("ckpt");
    if !kept.is_dir() || found.join("config.json").exists() {
        return Ok(None);
    }
    latest(&kept).filter(|dir| has_either(dir)).map(Some).ok_or_else(|| {
        let message = format!("{}: this run has no checkpoint yet", found.display());
        Failure::new(Exit::Missing, message).hint("the first one is written while it trains")
    })
}

/// Where `latest` leads: a link, or a file with a name in it where there are no links.
fn latest(kept: &Path) -> Option<PathBuf> {
    let latest = kept.join("latest");
    if latest.is_dir() {
        return fs::canonicalize(&latest).ok();
    }
    let name = String::from_utf8(read_file(&latest, 256).ok()?).ok()?;
    let mut parts = Path::new(name.trim()).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => Some(kept.join(name)),
        _ => None,
    }
}

/// `x/step-000123` for `runs/x/ckpt/step-000123`.
fn run_name(checkpoint: &Path) -> String {
    let whole = fs::canonicalize(checkpoint).unwrap_or_else(|_| checkpoint.to_owned());
    match whole.parent().and_then(Path::parent) {
        Some(run) => format!("{}/{}", folder_name(run), folder_name(&whole)),
        None => folder_name(&whole),
    }
}

/// An adapter on the model that it was made for.
fn on_base(dir: PathBuf, limits: &Limits, deepest: usize) -> Result<Choice, Failure> {
    let shown = dir.display();
    let advice = format!("--model BASE --lora {shown} puts it on the model in the folder BASE");
    let failure = |exit, what: String| {
        Err(Failure::new(exit, format!("{shown}: {what}")).hint(advice.clone()))
    };
    let Some(base) = AdapterConfig::of(&dir, limits)?.base else {
        return failure(Exit::Usage, "this adapter does not say which model it is for".into());
    };
    if deepest == 0 {
        return failure(Exit::Usage, "its base is an adapter, too, and so on".into());
    }
    let typed = Path::new(&base);
    let beside = dir.join(typed);
    // As it was written: seen from where training was started; else from the adapter itself.
    let base_path = if !typed.exists() && beside.exists() { &beside } else { typed };
    let is_there = base_path.exists() || lookup(base_path).is_ok_and(|found| found.exists());
    if !is_there {
        return failure(Exit::Missing, format!("its base model, {base:?}, is not there"));
    }
    let mut choice = find(base_path, limits, deepest - 1)?;
    choice.adapters.push(dir);
    Ok(choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(typed: &Path) -> Result<Choice, String> {
        Choice::find(typed, &Limits::default()).map_err(|failure| {
            let (message, hint) = failure.parts();
            format!("{message}; {hint}")
        })
    }

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn adapter(dir: &Path, base: Option<&str>) {
        let config = serde_json::json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4,
            "base_model_name_or_path": base});
        write(dir.join("adapter_config.json"), &config.to_string());
    }

    #[test]
    fn folders_are_what_they_hold() {
        let root = tempfile::tempdir().expect("a folder");
        let (base, tuned) = (root.path().join("base"), root.path().join("tuned"));
        write(base.join("config.json"), "{}");
        let plain = choice(&base).expect("a model");
        assert_eq!((plain.base, plain.adapters, plain.name), (base.clone(), vec![], "base".into()));

        adapter(&tuned, base.to_str());
        let found = choice(&tuned).expect("an adapter");
        assert_eq!((found.base, found.adapters), (base.clone(), vec![tuned.clone()]));
        // Seen from the adapter, and on top of another one.
        let second = root.path().join("second");
        adapter(&second, Some("../tuned"));
        let found = choice(&second).expect("an adapter of an adapter");
        assert_eq!((found.adapters[0].file_name(), found.adapters.len()), (tuned.file_name(), 2));

        adapter(&tuned, Some("../second"));
        assert!(choice(&second).expect_err("a circle").contains("and so on"));
        adapter(&tuned, Some("/nowhere/at/all"));
        let gone = choice(&tuned).expect_err("no base");
        assert!(gone.contains("is not there") && gone.contains("--model BASE --lora"), "{gone}");
        adapter(&tuned, None);
        assert!(choice(&tuned).expect_err("no base").contains("does not say"));
    }

    #[test]
    fn runs_are_their_newest_checkpoint() {
        let root = tempfile::tempdir().expect("a folder");
        let run = root.path().join("x");
        fs::create_dir_all(run.join("ckpt")).expect("a folder");
        assert!(choice(&run).expect_err("nothing yet").contains("no checkpoint yet"));
        let step = run.join("ckpt/step-000005");
        write(step.join("MANIFEST.json"), "{}");
        write(step.join("model/config.json"), "{}");
        for bad in ["", "../../x", "step-000009"] {
            write(run.join("ckpt/latest"), bad);
            assert!(choice(&run).is_err(), "{bad}");
        }
        // As where there are no links.
        write(run.join("ckpt/latest"), "step-000005\n");
        for typed in [&run, &step] {
            let found = choice(typed).expect("a checkpoint");
            assert!(found.base.ends_with("step-000005/model"), "{found:?}");
            assert_eq!(found.name, "x/step-000005");
        }
        #[cfg(unix)]
        {
            fs::remove_file(run.join("ckpt/latest")).expect("removed");
            std::os::unix::fs::symlink("step-000005", run.join("ckpt/latest")).expect("a link");
            assert!(choice(&run).is_ok());
        }
        fs::rename(step.join("model"), root.path().join("base")).expect("renamed");
        adapter(&step.join("adapter"), root.path().join("base").to_str());
        let mut found = choice(&run).expect("an adapter");
        assert!(found.base.ends_with("base") && found.adapters[0].ends_with("adapter"));
        found.add(&[run, step.join("adapter")], &Limits::default()).expect("the same, twice more");
        assert!(found.adapters.iter().all(|dir| dir.ends_with("step-000005/adapter")));
        let none = found.add(&[root.path().join("base")], &Limits::default());
        assert!(none.is_err() && found.adapters.len() == 3);
    }
}
