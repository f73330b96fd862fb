//! `janus pull`: brings a model here, or says whether it is here.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use janus_model::JanusConfig;
use serde_json::json;

use crate::args::PullArgs;
use crate::folder::Folder;
use crate::hub::cache::{Place, token_file};
use crate::hub::client::Listing;
use crate::hub::download::{Source, fetch, has_size, is_intact};
use crate::hub::names::{is_hex, needed};
use crate::hub::{Cache, Client, RemoteFile, Repo, Stop, is_offline, is_on, setting};
use crate::interrupt;
use crate::machine;
use crate::progress::{Stage, Transfer};
use crate::report::{self, Exit, Failure, Verdict};
use crate::units::{plural, size};

/// Tokens have less than 100 bytes.
const MAX_TOKEN: u64 = 4096;

/// Runs the command.
pub fn run(args: &PullArgs) -> Result<Verdict, Failure> {
    let home = Home::choose(args)?;
    interrupt::listen();
    let result = match args.offline || is_offline() {
        true => offline(args, &home),
        false => online(args, &home),
    };
    match result {
        Ok(()) => Ok(Verdict::Yes),
        Err(Stop::Failed(failure)) => Err(failure),
        Err(Stop::Interrupted) => {
            report::note("stopped; the same command goes on from what has arrived");
            Ok(Verdict::Stopped)
        }
    }
}

/// Where the files go.
enum Home {
    Cache(Cache),
    Plain(PathBuf),
}

impl Home {
    fn choose(args: &PullArgs) -> Result<Self, Failure> {
        if let Some(folder) = &args.to {
            return Ok(Self::Plain(folder.clone()));
        }
        let cache = args.cache.clone().map(|root| Cache { root }).or_else(Cache::usual);
        cache.map(Self::Cache).ok_or_else(|| {
            Failure::new(Exit::Usage, "there is no home folder for a cache")
                .hint("name a place with --cache or --to")
        })
    }

    fn root(&self) -> &Path {
        match self {
            Self::Cache(cache) => &cache.root,
            Self::Plain(folder) => folder,
        }
    }

    fn folder(&self, repo: &Repo, commit: &str) -> PathBuf {
        match self {
            Self::Cache(cache) => cache.snapshot(repo, commit),
            Self::Plain(folder) => folder.clone(),
        }
    }

    fn place(&self, repo: &Repo, file: &RemoteFile) -> Place {
        match self {
            Self::Cache(cache) => cache.place(repo, &file.hash),
            // The hash in the name keeps parts of two versions apart.
            Self::Plain(folder) => Place {
                whole: folder.join(&file.name),
                partial: folder.join(format!(".{}.{}.incomplete", file.name, &file.hash[..12])),
                lock: folder.join(".janus-pull.lock"),
            },
        }
    }

    /// Whether a file is here. In a cache, name and size are believed unless asked otherwise.
    fn has(&self, repo: &Repo, file: &RemoteFile, verify: bool) -> Result<bool, Stop> {
        let whole = self.place(repo, file).whole;
        let believed = matches!(self, Self::Cache(_)) && !verify;
        if believed || !has_size(&whole, file.bytes) {
            return Ok(has_size(&whole, file.bytes));
        }
        let stage = Stage::new(&format!("checking {}", file.name));
        let intact = is_intact(&whole, file);
        stage.finish();
        intact
    }

    /// Gives a fetched file its name.
    fn keep(&self, repo: &Repo, commit: &str, file: &RemoteFile) -> Result<(), Failure> {
        let Self::Cache(cache) = self else { return Ok(()) };
        cache
            .link(repo, commit, &file.name, &file.hash)
            .map_err(|error| Failure::io(&cache.snapshot(repo, commit), "write", &error))
    }

    /// All is here.
    fn finish(&self, repo: &Repo, revision: &str, commit: &str) -> Result<(), Failure> {
        match self {
            Self::Cache(cache) => cache
                .remember(repo, revision, commit)
                .map_err(|error| Failure::io(&cache.root, "write", &error)),
            Self::Plain(folder) => {
                // Whoever still waits for it finds everything in place.
                let _ = fs::remove_file(folder.join(".janus-pull.lock"));
                Ok(())
            }
        }
    }
}

fn online(args: &PullArgs, home: &Home) -> Result<(), Stop> {
    let repo = &args.model;
    let client = Client::new(&args.endpoint, token(args)?, args.retries)?;
    let stage = Stage::new(&format!("asking for {repo}"));
    let listing = client.list(repo, &args.revision);
    stage.finish();
    let listing = listing?;
    let files = choose(repo, &listing)?;
    let absent = absent(home, repo, &files, args.verify)?;
    let total: u64 = absent.iter().map(|file| file.bytes).sum();
    check_space(home, repo, &absent)?;
    announce(repo, &listing.commit, &files, &absent);
    let source = Source { client: &client, repo, commit: &listing.commit };
    let progress = Transfer::new(total);
    let fetched = fetch_all(&source, home, &files, &absent, &progress);
    progress.hide();
    fetched?;
    home.finish(repo, &args.revision, &listing.commit)?;
    let folder = home.folder(repo, &listing.commit);
    check(&folder, args)?;
    let fetched: Vec<&str> = absent.iter().map(|file| file.name.as_str()).collect();
    let found = Found { folder, commit: Some(listing.commit.clone()), files: &files };
    Ok(found.show(args, &fetched, progress.received())?)
}

/// The needed files, small ones first.
fn choose<'a>(repo: &Repo, listing: &'a Listing) -> Result<Vec<&'a RemoteFile>, Failure> {
    let names: Vec<&str> = listing.files.iter().map(|file| file.name.as_str()).collect();
    let wanted = needed(repo, &names)?;
    let mut files: Vec<&RemoteFile> = wanted.iter().filter_map(|name| listing.file(name)).collect();
    files.sort_by(|a, b| a.bytes.cmp(&b.bytes).then_with(|| a.name.cmp(&b.name)));
    Ok(files)
}

/// The files that have to come.
fn absent<'a>(
    home: &Home,
    repo: &Repo,
    files: &[&'a RemoteFile],
    verify: bool,
) -> Result<Vec<&'a RemoteFile>, Stop> {
    let mut absent = Vec::new();
    for file in files {
        if home.has(repo, file, verify)? {
            continue;
        }
        let whole = home.place(repo, file).whole;
        if matches!(home, Home::Cache(_)) && has_size(&whole, file.bytes) {
            report::note(&format!("{}: damaged here; it is fetched again", file.name));
            fs::remove_file(&whole).map_err(|error| Failure::io(&whole, "remove", &error))?;
        }
        absent.push(*file);
    }
    Ok(absent)
}

/// A file that cannot fit should not cost an hour first.
fn check_space(home: &Home, repo: &Repo, absent: &[&RemoteFile]) -> Result<(), Failure> {
    let here = |file: &RemoteFile| {
        fs::metadata(home.place(repo, file).partial).map_or(0, |found| found.len())
    };
    let missing = absent.iter().map(|file| file.bytes.saturating_sub(here(file)));
    let missing = missing.fold(0u64, u64::saturating_add);
    match machine::free_space(home.root()) {
        Some(free) if free < missing => {
            let (path, missing, free) = (home.root().display(), size(missing), size(free));
            let message = format!("{path}: {missing} are to come, and {free} are free");
            Err(Failure::new(Exit::Io, message)
                .hint("make room, or choose another place with --cache or --to"))
        }
        _ => Ok(()),
    }
}

fn announce(repo: &Repo, commit: &str, files: &[&RemoteFile], absent: &[&RemoteFile]) {
    let sum = |files: &[&RemoteFile]| size(files.iter().map(|file| file.bytes).sum());
    let (all, commit) = (plural(files.len(), "file"), &commit[..7]);
    let what = format!("{repo} at {commit}: {all}, {}", sum(files));
    match absent.len() {
        0 => report::note(&format!("{what}; all of it is here")),
        count if count == files.len() => report::note(&what),
        count => {
            report::note(&format!("{what}; {} to come, {}", plural(count, "file"), sum(absent)))
        }
    }
    if absent.iter().any(|file| file.name.ends_with(".bin")) {
        report::note(
            "the weights are .bin files; janus reads them without running anything inside, and \
             `janus convert` makes safetensors of them",
        );
    }
}

fn fetch_all(
    source: &Source<'_>,
    home: &Home,
    files: &[&RemoteFile],
    absent: &[&RemoteFile],
    progress: &Transfer,
) -> Result<(), Stop> {
    let (repo, folder) = (source.repo, home.folder(source.repo, source.commit));
    for (at, file) in files.iter().enumerate() {
        if absent.contains(file) {
            progress.file(&file.name, at + 1, files.len());
            fetch(source, file, &home.place(repo, file), progress)?;
        }
        home.keep(repo, source.commit, file)?;
        if file.name == "config.json" {
            // Before gigabytes of something else arrive.
            progress.hide();
            JanusConfig::from_dir(&folder).map_err(Failure::from)?;
        }
    }
    Ok(())
}

/// Whether what is here is a model that can be used; only headers are read.
fn check(folder: &Path, args: &PullArgs) -> Result<(), Failure> {
    let opened = Folder::open(folder, &args.limits.limits())?;
    if let Some(mismatch) = opened.mismatch {
        return Err(Failure::new(Exit::Config, mismatch.to_string())
            .hint("the files arrived as published, but they are no model that janus knows"));
    }
    Ok(())
}

// --- without a network -------------------------------------------------------------------------

fn offline(args: &PullArgs, home: &Home) -> Result<(), Stop> {
    let repo = &args.model;
    let folder = match home {
        Home::Plain(folder) => folder.is_dir().then(|| folder.clone()),
        Home::Cache(cache) => cache.find(repo, Some(&args.revision)),
    };
    let folder = folder.ok_or_else(|| {
        let message = format!("{repo} is not in {}", home.root().display());
        Failure::new(Exit::Missing, message).hint(format!("`janus pull {repo}` downloads it"))
    })?;
    check(&folder, args)?;
    if args.verify {
        verify_blobs(&folder)?;
    }
    let commit = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let commit = commit.filter(|_| matches!(home, Home::Cache(_)));
    Ok(Found { folder, commit, files: &[] }.show(args, &[], 0)?)
}

/// Compares blobs with their names.
fn verify_blobs(folder: &Path) -> Result<(), Stop> {
    let list = fs::read_dir(folder).map_err(|error| Failure::io(folder, "list", &error))?;
    let mut paths: Vec<PathBuf> = list.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut unknown = 0;
    for path in paths {
        let real = fs::canonicalize(&path).map_err(|error| Failure::io(&path, "read", &error))?;
        let hash = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_hex(&hash, 64) && !is_hex(&hash, 40) {
            unknown += 1;
            continue;
        }
        let bytes = fs::metadata(&real).map_or(0, |found| found.len());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stage = Stage::new(&format!("checking {name}"));
        let intact = is_intact(&real, &RemoteFile { name, bytes, hash });
        stage.finish();
        if !intact? {
            let message = format!("{}: damaged: its bytes do not match its hash", path.display());
            let hint = "`janus pull --verify` without --offline fetches it again";
            return Err(Failure::new(Exit::BadData, message).hint(hint).into());
        }
    }
    if unknown > 0 {
        let files = plural(unknown, "file");
        report::note(&format!("{files} could not be verified: no hash is known without the hub"));
    }
    Ok(())
}

// --- what was found ----------------------------------------------------------------------------

struct Found<'a> {
    folder: PathBuf,
    commit: Option<String>,
    files: &'a [&'a RemoteFile],
}

impl Found<'_> {
    fn show(&self, args: &PullArgs, fetched: &[&str], received: u64) -> Result<(), Failure> {
        if !args.json {
            return report::print(&format!("{}\n", self.folder.display()));
        }
        let files: Vec<_> = self
            .files
            .iter()
            .map(|file| {
                let new = fetched.contains(&file.name.as_str());
                json!({"name": file.name, "bytes": file.bytes, "hash": file.hash, "fetched": new})
            })
            .collect();
        report::print_json(&json!({
            "folder": self.folder, "model": args.model.to_string(), "commit": self.commit,
            "files": files, "received_bytes": received,
        }))
    }
}

/// The access token, if there is one. It is never printed.
fn token(args: &PullArgs) -> Result<Option<String>, Failure> {
    let text = match (&args.token_file, setting("HF_TOKEN")) {
        (Some(path), _) => {
            Some(read_token(path).map_err(|error| Failure::io(path, "read", &error))?)
        }
        (None, Some(token)) => Some(token),
        (None, None) if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") => None,
        // Nobody has to be logged in.
        (None, None) => token_file().and_then(|path| read_token(&path).ok()),
    };
    let Some(token) = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Some(token));
    }
    Err(Failure::new(Exit::BadData, "the access token holds characters that no token has")
        .hint("a token is one word, such as hf_…; check HF_TOKEN or the file it comes from"))
}

fn read_token(path: &Path) -> std::io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("not a file"));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(MAX_TOKEN).read_to_string(&mut text)?;
    Ok(text)
}
