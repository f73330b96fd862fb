//! Names of pictures: what they are, and that nothing is lost by writing them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::args::FileArgs;
use crate::formats::{Encoding, Format};
use crate::report::{Exit, Failure};

/// Longest name that a line of JSONL may give a picture, with room for `-65535.png`.
const NAME: usize = 200;

/// A file that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub path: PathBuf,
    pub encoding: Encoding,
}

impl Target {
    /// A file whose name says its format, unless `wish` does.
    ///
    /// # Errors
    /// A name without a format, or with another one.
    pub fn named(path: PathBuf, wish: Option<Format>, files: &FileArgs) -> Result<Self, Failure> {
        let shown = path.display();
        let usage = |problem: String, hint: &str| {
            Err(Failure::new(Exit::Usage, format!("{shown}: {problem}")).hint(hint))
        };
        let format = match (Format::of(&path), wish) {
            (Some(named), Some(wish)) if named != wish => {
                let (named, wish) = (named.name(), wish.name());
                return usage(
                    format!("the name is that of a {named} file, and --format says {wish}"),
                    "leave one of them out",
                );
            }
            (Some(named), _) => named,
            (None, Some(wish)) if path.extension().is_none() && path.file_stem().is_some() => wish,
            (None, _) => {
                return usage(
                    "the name of the picture must end in .png, .jpg or .webp".into(),
                    "for example --output picture.png",
                );
            }
        };
        let quality = files.quality.unwrap_or(Encoding::QUALITY);
        Ok(Self { path, encoding: Encoding { format, quality } })
    }

    /// `cube-3.png` for `cube.png`.
    pub fn numbered(&self, number: u64) -> Self {
        let mut name = self.path.file_stem().unwrap_or_default().to_owned();
        name.push(format!("-{number}"));
        if let Some(extension) = self.path.extension() {
            name.push(".");
            name.push(extension);
        }
        Self { path: self.path.with_file_name(name), encoding: self.encoding }
    }
}

/// A name that a file of prompts gives a picture: in this folder, and nowhere else.
///
/// # Errors
/// In words, what is wrong with it.
pub fn plain_name(name: &str) -> Result<&str, String> {
    let odd = |c: char| c.is_control() || "/\\:*?\"<>|".contains(c);
    if name.is_empty() || name.len() > NAME || name.starts_with('.') || name.chars().any(odd) {
        return Err(format!("\"output\" must be a plain file name, not {name:?}"));
    }
    Ok(name)
}

/// Whether the folder for pictures of a file of prompts must be made first, which is asked for by
/// a slash in the end.
///
/// # Errors
/// It is not there, or a file.
pub fn must_make(folder: &Path) -> Result<bool, Failure> {
    let shown = folder.display();
    if folder.is_dir() {
        return Ok(false);
    }
    if folder.exists() {
        let message = format!("{shown} is a file; with --prompts, --output is a folder");
        return Err(Failure::new(Exit::CannotCreate, message));
    }
    if !folder.as_os_str().to_string_lossy().ends_with(std::path::is_separator) {
        let message = format!("{shown}: no such folder; with --prompts, --output is a folder");
        let hint = format!("--output {shown}/ makes it");
        return Err(Failure::new(Exit::CannotCreate, message).hint(hint));
    }
    Ok(true)
}

/// Makes it.
///
/// # Errors
/// The operating system's answer.
pub fn make(folder: &Path) -> Result<(), Failure> {
    fs::create_dir(folder).map_err(|error| {
        let message = format!("{}: cannot create: {error}", folder.display());
        Failure::new(Exit::CannotCreate, message)
    })
}

/// Before the model is loaded: an hour of drawing must not end with "file exists". `coming` is a
/// folder that will be there; each path says whether it may be replaced.
///
/// # Errors
/// Two files of one name; a folder that is not there; a file that is.
pub fn check<'a>(
    paths: impl Iterator<Item = (&'a Path, bool)> + Clone,
    coming: Option<&Path>,
) -> Result<(), Failure> {
    let mut seen = HashMap::new();
    for (path, _) in paths.clone() {
        if let Some(other) = seen.insert(key(path), path) {
            let (one, two) = (other.display(), path.display());
            let message = format!("{one} and {two} would be one file");
            let hint = "give each picture a name of its own; some systems take a for A";
            return Err(Failure::new(Exit::Usage, message).hint(hint));
        }
    }
    let mut folders: HashSet<&Path> = coming.into_iter().collect();
    for (path, replace) in paths {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| folders.insert(*folder) && !folder.is_dir()) {
            let message = format!("{}: no such folder", folder.display());
            return Err(Failure::new(Exit::CannotCreate, message));
        }
        if path.is_dir() {
            let message = format!("{} is a folder", path.display());
            return Err(Failure::new(Exit::CannotCreate, message));
        }
        if !replace && path.exists() {
            let message = format!("{} exists", path.display());
            return Err(Failure::new(Exit::CannotCreate, message)
                .hint("--force replaces it; or choose another --output"));
        }
    }
    Ok(())
}

/// The same for names that some file system takes for one.
fn key(path: &Path) -> OsString {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    let path: PathBuf = parts.collect();
    path.to_str().map_or_else(|| path.clone().into(), |text| text.to_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> FileArgs {
        FileArgs {
            output: PathBuf::new(),
            format: None,
            quality: None,
            no_metadata: false,
            grid: None,
            force: false,
            skip_existing: false,
        }
    }

    #[test]
    fn names_and_formats_agree() {
        let named = |name: &str, wish| {
            let target = Target::named(name.into(), wish, &files()).ok()?;
            Some(target.encoding.format)
        };
        assert_eq!(named("a/b.png", None), Some(Format::Png));
        assert_eq!(named("b.JPEG", Some(Format::Jpeg)), Some(Format::Jpeg));
        assert_eq!(named("b", Some(Format::Webp)), Some(Format::Webp));
        for (name, wish) in [
            ("b", None),
            (".png", None),
            ("b.tiff", None),
            ("b.tiff", Some(Format::Png)),
            ("b.png", Some(Format::Jpeg)),
            ("..", Some(Format::Png)),
        ] {
            assert_eq!(named(name, wish), None, "{name}");
        }
    }

    #[test]
    fn several_pictures_are_numbered() {
        let numbered = |name: &str, wish, number| {
            Target::named(name.into(), wish, &files()).ok().map(|t| t.numbered(number).path)
        };
        assert_eq!(numbered("a/b.PNG", None, 2), Some("a/b-2.PNG".into()));
        assert_eq!(numbered("b", Some(Format::Png), 1), Some("b-1".into()));
    }

    #[test]
    fn names_from_files_stay_in_their_folder() {
        for good in ["a.png", "ein Schiff.jpg", "船.webp", "a..b.png"] {
            assert_eq!(plain_name(good), Ok(good));
        }
        let long = "a".repeat(NAME + 1);
        for bad in ["", ".", "..", "../a.png", "/a.png", "a/b.png", "a\\b.png", "C:a.png", ".a.png"]
            .into_iter()
            .chain(["a\0.png", "a\n.png", &long])
        {
            assert!(plain_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_mean_one_file_are_found() {
        assert_eq!(key(Path::new("./a/./B.png")), key(Path::new("a/b.png")));
        assert_ne!(key(Path::new("a.png")), key(Path::new("b.png")));
    }
}
