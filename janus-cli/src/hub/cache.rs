//! The cache folder that Hugging Face programs share.
//!
//! ```text
//! hub/.locks/models--org--name/<hash>.lock      held while a blob is being written
//! hub/models--org--name/blobs/<hash>            SHA-256 of large files, git's SHA-1 of small ones
//!                      /refs/main               the commit a branch pointed to when last asked
//!                      /snapshots/<commit>/…    links to ../../blobs/<hash>
//! ```

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::names::{Repo, is_hex};

/// A file's places while it is fetched and afterwards.
#[derive(Clone, Debug)]
pub struct Place {
    /// When complete and verified.
    pub whole: PathBuf,
    /// Until then.
    pub partial: PathBuf,
    /// Held while it is written.
    pub lock: PathBuf,
}

/// A cache.
#[derive(Clone, Debug)]
pub struct Cache {
    /// The folder that holds `models--…`.
    pub root: PathBuf,
}

impl Cache {
    /// The one that the environment names, else the usual one in the home folder.
    pub fn usual() -> Option<Self> {
        let get = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        root(get, std::env::home_dir()).map(|root| Self { root })
    }

    fn model(&self, repo: &Repo) -> PathBuf {
        self.root.join(repo.folder())
    }

    /// The folder of a model that is here: a revision's snapshot, or the only one there is.
    pub fn find(&self, repo: &Repo, revision: Option<&str>) -> Option<PathBuf> {
        let model = self.model(repo);
        let snapshots = model.join("snapshots");
        let commit = match revision {
            Some(commit) if is_hex(commit, 40) => Some(commit.to_owned()),
            name => read_commit(&model.join("refs").join(name.unwrap_or("main"))),
        };
        let folder = match (commit, revision) {
            (Some(commit), _) => snapshots.join(commit),
            (None, None) if is_unfinished(&model.join("blobs")) => return None,
            (None, None) => only_folder(&snapshots)?,
            (None, Some(_)) => return None,
        };
        folder.is_dir().then_some(folder)
    }

    /// Where a blob of this hash belongs.
    pub fn place(&self, repo: &Repo, hash: &str) -> Place {
        let blobs = self.model(repo).join("blobs");
        Place {
            whole: blobs.join(hash),
            partial: blobs.join(format!("{hash}.incomplete")),
            lock: self.root.join(".locks").join(repo.folder()).join(format!("{hash}.lock")),
        }
    }

    /// The folder of a commit.
    pub fn snapshot(&self, repo: &Repo, commit: &str) -> PathBuf {
        self.model(repo).join("snapshots").join(commit)
    }

    /// Gives a blob its name in a snapshot.
    ///
    /// # Errors
    /// Neither a link nor a copy can be made.
    pub fn link(&self, repo: &Repo, commit: &str, name: &str, hash: &str) -> io::Result<()> {
        let pointer = self.snapshot(repo, commit).join(name);
        let blob = self.place(repo, hash).whole;
        if same(&pointer, &blob) {
            return Ok(());
        }
        fs::create_dir_all(self.snapshot(repo, commit))?;
        let target = Path::new("../../blobs").join(hash);
        put_link(&blob, &pointer, |to| symlink(&target, to))
    }

    /// Remembers which commit a branch or tag is. Last, so that a name never leads to half a model.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn remember(&self, repo: &Repo, revision: &str, commit: &str) -> io::Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.model(repo).join("refs").join(revision);
        if read_commit(&path).as_deref() == Some(commit) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let unfinished = path.with_extension(format!("tmp-{}", std::process::id()));
        fs::write(&unfinished, commit)?;
        fs::rename(&unfinished, &path)
    }
}

/// Where the cache lies, by the rules of huggingface_hub.
fn root(get: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let path = |name: &str| get(name).map(|value| expand(PathBuf::from(value), home.as_deref()));
    path("HF_HUB_CACHE")
        .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(hf_home(&get, home.as_deref())?.join("hub")))
}

/// Where Hugging Face programs keep what is theirs: caches and the token.
fn hf_home(get: &impl Fn(&str) -> Option<OsString>, home: Option<&Path>) -> Option<PathBuf> {
    let path = |name: &str| get(name).map(|value| expand(PathBuf::from(value), home));
    path("HF_HOME")
        .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
        .or_else(|| Some(home?.join(".cache").join("huggingface")))
}

/// The file in which `hf auth login` leaves the token.
pub fn token_file() -> Option<PathBuf> {
    let get = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = std::env::home_dir();
    get("HF_TOKEN_PATH")
        .map(|path| expand(PathBuf::from(path), home.as_deref()))
        .or_else(|| Some(hf_home(&get, home.as_deref())?.join("token")))
}

fn expand(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

fn read_commit(path: &Path) -> Option<String> {
    // Only a regular file: a pipe would wait for ever. A commit is 40 bytes long.
    let small = fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() < 256);
    let text = small.then(|| fs::read_to_string(path).ok()).flatten()?;
    let commit = text.trim();
    is_hex(commit, 40).then(|| commit.to_owned())
}

/// Whether a download of this model was broken off.
fn is_unfinished(blobs: &Path) -> bool {
    let partial = |name: OsString| name.to_string_lossy().ends_with(".incomplete");
    fs::read_dir(blobs).is_ok_and(|list| list.flatten().any(|entry| partial(entry.file_name())))
}

fn only_folder(snapshots: &Path) -> Option<PathBuf> {
    let mut folders = fs::read_dir(snapshots).ok()?.flatten().map(|entry| entry.path());
    let first = folders.find(|path| path.is_dir())?;
    folders.all(|path| !path.is_dir()).then_some(first)
}

fn same(pointer: &Path, blob: &Path) -> bool {
    matches!((fs::canonicalize(pointer), fs::canonicalize(blob)), (Ok(a), Ok(b)) if a == b)
}

/// A link that appears whole; where links are impossible, another name for the same file; where
/// that is impossible too, a copy.
fn put_link(blob: &Path, pointer: &Path, link: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let name = pointer.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = pointer.with_file_name(format!(".{name}.tmp-{}", std::process::id()));
    let _ = fs::remove_file(&unfinished);
    link(&unfinished)
        .or_else(|_| fs::hard_link(blob, &unfinished))
        .or_else(|_| fs::copy(blob, &unfinished).map(|_| ()))
        .and_then(|()| fs::rename(&unfinished, pointer))
        .inspect_err(|_| {
            let _ = fs::remove_file(&unfinished);
        })
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_where() {
        let at = |set: &[(&str, &str)]| {
            let get = |name: &str| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            };
            root(get, Some("/home/me".into()))
        };
        let is = |path: &str| Some(PathBuf::from(path));
        assert_eq!(at(&[]), is("/home/me/.cache/huggingface/hub"));
        assert_eq!(at(&[("XDG_CACHE_HOME", "/x")]), is("/x/huggingface/hub"));
        assert_eq!(at(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")]), is("/home/me/hf/hub"));
        assert_eq!(at(&[("HUGGINGFACE_HUB_CACHE", "/old")]), is("/old"));
        assert_eq!(at(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]), is("/c"));
        assert_eq!(root(|_| None, None), None);
    }

    #[test]
    fn without_links_a_snapshot_holds_the_file_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let (blob, pointer) = (folder.path().join("blob"), folder.path().join("name"));
        fs::write(&blob, "bytes").expect("a file");
        fs::write(&pointer, "old").expect("a file");
        let impossible = |_: &Path| Err(io::ErrorKind::Unsupported.into());
        put_link(&blob, &pointer, impossible).expect("another way");
        assert!(!fs::symlink_metadata(&pointer).expect("it is there").is_symlink());
        assert_eq!(fs::read(&pointer).expect("readable"), b"bytes");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
    }

    #[test]
    fn a_model_is_found_by_branch_by_commit_or_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache { root: folder.path().to_owned() };
        let repo: Repo = "a/b".parse().expect("a name");
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        assert_eq!(cache.find(&repo, None), None);
        fs::create_dir_all(cache.snapshot(&repo, &one)).expect("a folder");
        assert_eq!(cache.find(&repo, None), Some(cache.snapshot(&repo, &one)));
        fs::create_dir_all(cache.snapshot(&repo, &two)).expect("a folder");
        assert_eq!(cache.find(&repo, None), None, "two, and no main");
        cache.remember(&repo, "main", &two).expect("writable");
        assert_eq!(cache.find(&repo, None), Some(cache.snapshot(&repo, &two)));
        assert_eq!(cache.find(&repo, Some(&one)), Some(cache.snapshot(&repo, &one)));
        assert_eq!(cache.find(&repo, Some("v2")), None);
        let main = cache.model(&repo).join("refs/main");
        fs::write(main, "../../../etc").expect("writable");
        assert_eq!(cache.find(&repo, Some("main")), None, "no commit");
    }
}
