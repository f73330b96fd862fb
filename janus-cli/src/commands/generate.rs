//! `janus generate`: pictures of a prompt, each written as soon as it is finished.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use janus_infer::{DrawOptions, Guidance, Picture};
use janus_model::Parts;
use janus_model::processor::ProcessorError;
use serde_json::{Value, json};

use crate::args::GenerateArgs;
use crate::model::Loaded;
use crate::pictures;
use crate::progress::Steps;
use crate::report::{self, Exit, Failure, Verdict};

/// Runs the command.
pub fn run(args: &GenerateArgs) -> Result<Verdict, Failure> {
    let sampling = args.sampling.with(args.temperature)?;
    let guidance = Guidance { weight: args.cfg };
    guidance.validate()?;
    let paths = paths(&args.output, usize::from(args.num_images))?;
    refuse_existing(&paths, args.force)?;
    let seed = args.sampling.seed();
    if args.temperature > 0.0 {
        report::note(&format!("seed {seed}"));
    }
    let loaded = Loaded::open(&args.model, Parts::Generation)?;
    let prompts = [args.prompt.clone()];
    let at_once = usize::from(args.at_once);
    let mut images = Vec::new();
    // A few at a time, so that what is finished is on disk whatever happens later.
    for (turn, paths) in paths.chunks(at_once).enumerate() {
        let first = turn * at_once;
        let options = DrawOptions {
            guidance,
            sampling,
            seed,
            first: first as u64,
            count: paths.len(),
            at_once,
        };
        let mut steps = Steps::new(first, paths.len(), usize::from(args.num_images));
        let gallery = loaded.engine.generate(&prompts, &options, |progress| {
            steps.show(progress.step.done, progress.step.total);
            ControlFlow::Continue(())
        });
        steps.finish();
        for (path, picture) in paths.iter().zip(gallery?.pictures) {
            let png = picture.image.to_png().map_err(ProcessorError::from)?;
            pictures::write(path, &png)?;
            images.push(describe(path, &picture));
            if !args.json {
                report::print(&format!("{}\n", path.display()))?;
            }
        }
    }
    if args.json {
        report::print_json(&json!({
            "images": images, "prompt": args.prompt, "cfg": args.cfg,
            "temperature": args.temperature, "seed": seed, "device": loaded.device,
        }))?;
    }
    Ok(Verdict::Yes)
}

fn describe(path: &Path, picture: &Picture) -> Value {
    let sampler = picture.sampler;
    json!({"path": path, "codes": picture.codes, "seed": sampler.seed, "index": sampler.stream})
}

/// `cube.png`, or `cube-1.png`, `cube-2.png`, …
fn paths(output: &Path, count: usize) -> Result<Vec<PathBuf>, Failure> {
    let is_png = output.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
    let (Some(stem), true) = (output.file_stem(), is_png) else {
        let message = format!("{}: the name of the picture must end in .png", output.display());
        return Err(Failure::new(Exit::Usage, message).hint("for example --output picture.png"));
    };
    if count == 1 {
        return Ok(vec![output.to_owned()]);
    }
    let numbered = |i| {
        let mut name = stem.to_owned();
        name.push(format!("-{i}.png"));
        output.with_file_name(name)
    };
    Ok((1..=count).map(numbered).collect())
}

/// Before the model is loaded: an hour of drawing must not end with "file exists".
fn refuse_existing(paths: &[PathBuf], force: bool) -> Result<(), Failure> {
    let folder = paths.first().and_then(|path| path.parent());
    if let Some(folder) = folder.filter(|f| !f.as_os_str().is_empty() && !f.is_dir()) {
        let message = format!("{}: no such folder", folder.display());
        return Err(Failure::new(Exit::CannotCreate, message));
    }
    match paths.iter().find(|path| path.is_dir() || (path.exists() && !force)) {
        None => Ok(()),
        Some(path) if path.is_dir() => {
            let message = format!("{} is a folder", path.display());
            Err(Failure::new(Exit::CannotCreate, message))
        }
        Some(path) => {
            let message = format!("{} exists", path.display());
            Err(Failure::new(Exit::CannotCreate, message)
                .hint("--force replaces it; or choose another --output"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_pictures_are_numbered() {
        let names = |output: &str, count| paths(Path::new(output), count).ok();
        assert_eq!(names("a/b.png", 1), Some(vec!["a/b.png".into()]));
        assert_eq!(names("a/b.PNG", 2), Some(vec!["a/b-1.png".into(), "a/b-2.png".into()]));
        assert_eq!((names("a/b.jpg", 1), names("a/b", 1), names(".png", 1)), (None, None, None));
    }
}
