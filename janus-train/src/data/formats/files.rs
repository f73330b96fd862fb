//! Paths and folders of data: what may be read, in an order that is the same everywhere.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::super::error::{DataError, Why, shown};

/// Folders inside folders; deeper ones are links in a circle.
const DEEPEST: usize = 32;

/// The folder that pictures named by paths must lie in.
#[derive(Clone, Debug)]
pub struct Root {
    folder: PathBuf,
    stated: bool,
}

impl Root {
    /// The folder of the file that names the pictures, unless one is stated.
    pub fn of(file: &Path, stated: Option<&Path>) -> Self {
        let own = || file.parent().unwrap_or(Path::new("")).to_owned();
        Self { folder: stated.map_or_else(own, Path::to_owned), stated: stated.is_some() }
    }

    /// The file that a path means. `..` and absolute paths are followed only below a stated root.
    ///
    /// # Errors
    /// [`Why::Path`].
    pub fn resolve(&self, path: &str) -> Result<PathBuf, Why> {
        let no = |problem| Err(Why::Path { path: shown(path), problem });
        let scheme = path.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        if path.is_empty() || path.contains('\0') {
            return no("is no path");
        }
        if scheme.is_some_and(|s| ["http", "https", "data", "file", "s3"].contains(&s.as_str())) {
            return no("is no file: save the picture beside the data");
        }
        let given = Path::new(path);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if given.components().all(plain) {
            return Ok(self.folder.join(given));
        }
        if !self.stated {
            return no("leads out of the data's folder: allowed only below a stated data root");
        }
        // Through links and all: what counts is where the file really lies.
        let real = self.folder.canonicalize().and_then(|root| {
            let file = self.folder.join(given).canonicalize()?;
            Ok(file.starts_with(&root).then_some(file))
        });
        match real {
            Ok(Some(file)) => Ok(file),
            Ok(None) => no("leads out of the data root"),
            Err(_) => no("leads nowhere"),
        }
    }
}

/// All files below a folder for which `wanted` holds, sorted by path.
pub(super) fn files_below(
    folder: &Path,
    wanted: impl Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>, DataError> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        for path in entries(&folder)? {
            if path.is_dir() {
                if depth < DEEPEST {
                    open.push((path, depth + 1));
                }
            } else if wanted(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What lies in a folder, sorted, without hidden files.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io = |source| DataError::Io { path: folder.to_owned(), action: "list", source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// The files of a source in several: one, all with an ending in a folder, or a numbered range
/// written `name-{000..099}.tar`.
pub(super) fn parts(path: &Path, ending: &str) -> Result<Vec<Arc<Path>>, DataError> {
    let has_ending = |p: &Path| p.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
    let paths = if path.is_dir() {
        files_below(path, has_ending)?
    } else if let Some(range) = path.to_str().and_then(expand) {
        range
    } else {
        vec![path.to_owned()]
    };
    if paths.is_empty() {
        return Err(DataError::Empty { path: path.to_owned(), found: "no such files below" });
    }
    // Opening a pipe would wait for a writer.
    if let Some(odd) = paths.iter().find(|path| path.exists() && !path.is_file()) {
        let problem = "a pipe, socket or device, not a file".to_owned();
        return Err(DataError::File { path: odd.clone(), problem });
    }
    Ok(paths.into_iter().map(Arc::from).collect())
}

/// `a{08..11}b` → `a08b`, `a09b`, `a10b`, `a11b`.
fn expand(path: &str) -> Option<Vec<PathBuf>> {
    let (before, rest) = path.split_once('{')?;
    let (range, after) = rest.split_once('}')?;
    let (first, last) = range.split_once("..")?;
    let width = first.len();
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    // More than these are not meant.
    if last < first || last - first > 1_000_000 {
        return None;
    }
    Some((first..=last).map(|n| PathBuf::from(format!("{before}{n:0width$}{after}"))).collect())
}

/// Changes when a file of a list is added, removed, renamed or changes its length.
pub(super) fn listing_fingerprint<'a>(files: impl Iterator<Item = &'a Path>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for path in files {
        let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let name = path.to_string_lossy();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(length.to_le_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("img")).unwrap();
        fs::write(data.join("img/a.png"), b"").unwrap();
        fs::write(folder.path().join("secret.png"), b"").unwrap();
        let own = Root::of(&data.join("d.jsonl"), None);
        assert_eq!(own.resolve("img/a.png").unwrap(), data.join("img/a.png"));
        assert_eq!(own.resolve("./img/a.png").unwrap(), data.join("./img/a.png"));
        let inside = data.join("img/a.png");
        let inside = inside.to_str().unwrap();
        for path in ["../secret.png", "img/../../secret.png", "img/../img/a.png", inside] {
            let error = own.resolve(path).unwrap_err().to_string();
            assert!(error.contains("stated data root"), "{path}: {error}");
        }
        let stated = Root::of(Path::new("elsewhere/d.jsonl"), Some(&data));
        assert!(stated.resolve(inside).is_ok() && stated.resolve("img/../img/a.png").is_ok());
        let error = stated.resolve("../secret.png").unwrap_err().to_string();
        assert_eq!(error, "the path \"../secret.png\" leads out of the data root");
        for path in ["", "a\0b", "https://x/a.png", "data:image/png;base64,AA"] {
            assert!(stated.resolve(path).is_err(), "{path}");
        }
    }

    #[test]
    fn ranges_are_expanded() {
        let names = |path| expand(path).map(|all: Vec<PathBuf>| all.len());
        assert_eq!(expand("a-{08..10}.tar").unwrap()[2], Path::new("a-10.tar"));
        assert_eq!(expand("a-{08..10}.tar").unwrap()[0], Path::new("a-08.tar"));
        assert_eq!((names("a.tar"), names("a-{3..1}"), names("a-{x..y}")), (None, None, None));
    }
}
