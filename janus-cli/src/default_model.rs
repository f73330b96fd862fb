//! The model that is used where none is named: janus-tiny, which comes with the program.
//!
//! Looked for beside the program, in `../share/janus` as packages have it, and in the source that the
//! program was built from.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::report::{self, Exit, Failure};

const NAME: &str = "janus-tiny";

/// Looked for once, so that it is told once.
static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();

/// What was named, or else its folder; then says that it is used. An empty name is none, and wants
/// none to be chosen.
///
/// # Errors
/// It is not there.
pub fn or(named: Option<&Path>) -> Result<PathBuf, Failure> {
    match named {
        Some(named) if named.as_os_str().is_empty() => Err(missing("no model is named")),
        Some(named) => Ok(named.to_owned()),
        None => {
            let look = || {
                let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
                first(&places(program.as_deref(), Path::new(env!("CARGO_MANIFEST_DIR"))))
            };
            FOUND.get_or_init(|| look().inspect(|_| tell())).clone().ok_or_else(|| {
                missing(&format!("no model is named, and {NAME}, the default, is not here"))
            })
        }
    }
}

fn tell() {
    report::note(&format!(
        "using {NAME}, a small model of simple scenes; for Janus-Pro: janus pull janus-pro-1b, \
         then --model janus-pro-1b"
    ));
}

fn missing(what: &str) -> Failure {
    Failure::new(Exit::Usage, what).hint(
        "name one by --model or JANUS_MODEL: a folder, or janus-pro-1b after `janus pull \
         janus-pro-1b`; janus-tiny is looked for beside the program",
    )
}

/// Where it may lie, best first.
fn places(program: Option<&Path>, source: &Path) -> Vec<PathBuf> {
    let folder = program.and_then(Path::parent);
    let beside = folder.into_iter().flat_map(|folder| {
        [folder.join(NAME), folder.join("..").join("share").join("janus").join(NAME)]
    });
    beside.chain([source.join("..").join("weights").join(NAME)]).collect()
}

fn first(places: &[PathBuf]) -> Option<PathBuf> {
    places.iter().find(|place| place.join("config.json").is_file()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_one_is_taken() {
        let root = tempfile::tempdir().expect("a folder");
        let (program, source) = (root.path().join("bin/janus"), root.path().join("src/cli"));
        std::fs::create_dir_all(&source).expect("a folder");
        std::fs::create_dir_all(root.path().join("bin")).expect("a folder");
        let found = || first(&places(Some(&program), &source));
        assert_eq!(found(), None);
        for (number, place) in
            ["src/weights/janus-tiny", "share/janus/janus-tiny", "bin/janus-tiny"]
                .iter()
                .enumerate()
        {
            let place = root.path().join(place);
            std::fs::create_dir_all(&place).expect("a folder");
            // An empty folder is no model.
            let before = found();
            assert_eq!(before.is_some(), number > 0);
            std::fs::write(place.join("config.json"), "{}").expect("a file");
            let found = found().expect("a model");
            assert_eq!(found.canonicalize().ok(), place.canonicalize().ok());
        }
        assert_eq!(places(None, &source).len(), 1);
    }

    #[test]
    fn what_is_missing_is_said() {
        let failure = or(Some(Path::new(""))).expect_err("no name");
        assert_eq!(failure.code(), Exit::Usage as u8);
        let (message, hint) = failure.parts();
        assert!(message.contains("no model is named") && hint.contains("--model"), "{hint}");
        assert_eq!(or(Some(Path::new("x"))).expect("a name"), Path::new("x"));
    }
}
