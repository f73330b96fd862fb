//! Asking a hub: what a model consists of, and the bytes of one file.
//!
//! | request | answer |
//! |---|---|
//! | `{endpoint}/api/models/{repo}/revision/{revision}?blobs=true` | commit; names, sizes, hashes |
//! | `{endpoint}/{repo}/resolve/{commit}/{name}` | the bytes, usually after a redirect to a CDN |
//!
//! Redirects are followed here, not by the HTTP library: the token goes to the endpoint and to no
//! other host, and an encrypted connection never continues in the clear.

use std::collections::HashSet;
use std::io::Read;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{Response, StatusCode, Uri, header};
use ureq::{Agent, Body, Error};

use super::Stop;
use super::address::{address, host, is_this_machine, join, printable, quoted, same_origin};
use super::names::{Repo, is_hex, is_inside};
use crate::interrupt;
use crate::progress;
use crate::report::{self, Exit, Failure};

const MAX_REDIRECTS: usize = 10;
/// A listing of a thousand files takes 200 kB.
const MAX_LISTING: u64 = 16 << 20;
const CONNECT: Duration = Duration::from_secs(20);
/// Without a byte for so long, a connection counts as cut.
const SILENCE: Duration = Duration::from_secs(60);
const LISTING_TIME: Duration = Duration::from_secs(120);
/// Servers that ask for more patience are not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    pub name: String,
    pub bytes: u64,
    /// SHA-256 (64 digits) of large files, git's SHA-1 (40 digits) of the others.
    pub hash: String,
}

/// What a model consists of.
#[derive(Debug)]
pub struct Listing {
    pub commit: String,
    pub files: Vec<RemoteFile>,
}

impl Listing {
    /// A file by its name.
    pub fn file(&self, name: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// Why an answer is not there.
#[derive(Debug)]
pub enum Trouble {
    /// It would not be there the next time either.
    Final(Failure),
    /// Worth another try, perhaps after a wait that the server names.
    Passing(String, Option<Duration>),
    /// The server has nothing from this offset on.
    NoSuchRange,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Final(failure)
    }
}

/// How often, and after what pause, something is tried again.
#[derive(Debug)]
pub struct Patience {
    retries: u32,
    failed: u32,
}

impl Patience {
    /// For so many retries in a row.
    pub fn new(retries: u32) -> Self {
        Self { retries, failed: 0 }
    }

    /// Something arrived: the next failure is a first one.
    pub fn renew(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// It was the last one, the server wants too long a wait, or somebody interrupts.
    pub fn wait(&mut self, why: &str, asked: Option<Duration>) -> Result<(), Stop> {
        let usual = Duration::from_millis(500) * 2u32.saturating_pow(self.failed.min(6));
        let pause = asked.unwrap_or(usual);
        if self.failed >= self.retries || pause > LONGEST_WAIT {
            let hint = match asked {
                Some(wait) => format!("the server asks to wait {} s", wait.as_secs()),
                None => "check the network, and HTTPS_PROXY where there is a proxy; the same \
                         command goes on from what has arrived"
                    .to_owned(),
            };
            return Err(Failure::new(Exit::Network, why).hint(hint).into());
        }
        self.failed += 1;
        let (seconds, tries) = (pause.as_secs_f32(), self.retries);
        progress::clear_line();
        report::note(&format!("{why}; trying again in {seconds} s ({} of {tries})", self.failed));
        let end = Instant::now() + pause;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if interrupt::raised() {
                return Err(Stop::Interrupted);
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        Ok(())
    }
}

/// A hub, and who we are there.
pub struct Client {
    agent: Agent,
    endpoint: Uri,
    token: Option<String>,
    retries: u32,
}

impl Client {
    /// For an endpoint such as `https://huggingface.co`.
    ///
    /// # Errors
    /// The endpoint is no web address.
    pub fn new(endpoint: &str, token: Option<String>, retries: u32) -> Result<Self, Failure> {
        let bad = || {
            let shown = printable(endpoint);
            Failure::new(Exit::Usage, format!("{shown:?} is no endpoint"))
                .hint("it is set by --endpoint or HF_ENDPOINT, for example https://huggingface.co")
        };
        let endpoint = address(endpoint.trim().trim_end_matches('/')).ok_or_else(bad)?;
        let clear = endpoint.scheme_str() == Some("http");
        if token.is_some() && clear && !is_this_machine(&endpoint) {
            report::note("the token is not sent: the endpoint's http:// is not encrypted");
        }
        let token = token.filter(|_| !clear || is_this_machine(&endpoint));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("janus/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        Ok(Self { agent: config.build().into(), endpoint, token, retries })
    }

    /// How patient this client is.
    pub fn patience(&self) -> Patience {
        Patience::new(self.retries)
    }

    /// Asks what a model consists of.
    ///
    /// # Errors
    /// It is not there or not for us; the answer makes no sense.
    pub fn list(&self, repo: &Repo, revision: &str) -> Result<Listing, Stop> {
        let revision = quoted(revision, false);
        let url = format!("{}/api/models/{repo}/revision/{revision}?blobs=true", self.base());
        let mut patience = self.patience();
        loop {
            let answer = self.get(&url, repo, 0).and_then(read_listing);
            let (why, wait) = match answer {
                Ok(text) => return Ok(parse(&text, repo)?),
                Err(Trouble::Final(failure)) => return Err(failure.into()),
                Err(Trouble::Passing(why, wait)) => (why, wait),
                Err(Trouble::NoSuchRange) => ("the server makes no sense".to_owned(), None),
            };
            patience.wait(&why, wait)?;
        }
    }

    /// The bytes of a file from an offset on. A server may ignore the offset: look at the status.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn open(
        &self,
        repo: &Repo,
        commit: &str,
        name: &str,
        from: u64,
    ) -> Result<Response<Body>, Trouble> {
        let name = quoted(name, true);
        self.get(&format!("{}/{repo}/resolve/{commit}/{name}", self.base()), repo, from)
    }

    fn base(&self) -> String {
        self.endpoint.to_string().trim_end_matches('/').to_owned()
    }

    fn get(&self, url: &str, repo: &Repo, from: u64) -> Result<Response<Body>, Trouble> {
        let mut url = address(url).ok_or_else(|| nonsense("the address", url))?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&url);
            if let Some(token) = self.token.as_ref().filter(|_| same_origin(&url, &self.endpoint)) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let answer = request.call().map_err(|error| unreachable(&url, &error))?;
            match answer.status().as_u16() {
                200 | 206 => return Ok(answer),
                301 | 302 | 303 | 307 | 308 => url = self.redirect(&url, &answer)?,
                416 if from > 0 => return Err(Trouble::NoSuchRange),
                _ => return Err(self.refused(repo, &url, &answer)),
            }
        }
        let host = host(&url);
        Err(Failure::new(Exit::Network, format!("{host} redirects in circles")).into())
    }

    fn redirect(&self, url: &Uri, answer: &Response<Body>) -> Result<Uri, Trouble> {
        let location = text_header(answer, "location").unwrap_or_default();
        let next = join(url, &location).ok_or_else(|| nonsense("the redirect", &location))?;
        let https = |uri: &Uri| uri.scheme_str() == Some("https");
        if https(&self.endpoint) && !https(&next) {
            let message = format!("{} redirects to {} without encryption", host(url), host(&next));
            return Err(Failure::new(Exit::Network, message).into());
        }
        Ok(next)
    }

    /// What a status other than success means.
    fn refused(&self, repo: &Repo, url: &Uri, answer: &Response<Body>) -> Trouble {
        let (status, host) = (answer.status(), host(url));
        let code = text_header(answer, "x-error-code").unwrap_or_default();
        let with_token = match self.token {
            Some(_) => "the token may lack the right, or be out of date",
            None => {
                "a private or gated model needs a token: HF_TOKEN, --token-file or `hf auth login`"
            }
        };
        let (message, hint) = match (status, code.as_str()) {
            (_, "RevisionNotFound") => (
                format!("{repo} has no such revision"),
                "without --revision, the branch main is taken".to_owned(),
            ),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, "GatedRepo") => (
                format!("{repo} is gated: {host} wants its terms to be accepted first ({status})"),
                format!("accept them on the model's page; {with_token}"),
            ),
            (StatusCode::UNAUTHORIZED, _) => (
                format!("{host} has no {repo}, or does not show it to everybody ({status})"),
                format!("check the name; {with_token}"),
            ),
            (StatusCode::FORBIDDEN, _) => {
                (format!("{host} refuses access to {repo} ({status})"), with_token.to_owned())
            }
            (StatusCode::NOT_FOUND, _) => (
                format!("{host} does not know {repo}, or a part of it ({status})"),
                "check the name: upper and lower case matter".to_owned(),
            ),
            _ => {
                let why = format!("{host} answers {status}");
                let passing = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
                return match passing {
                    true => Trouble::Passing(why, retry_after(answer)),
                    false => Failure::new(Exit::Network, why).into(),
                };
            }
        };
        Failure::new(Exit::Network, message).hint(hint).into()
    }
}

/// Reads a listing, with a bound on bytes and time.
fn read_listing(answer: Response<Body>) -> Result<Vec<u8>, Trouble> {
    let end = Instant::now() + LISTING_TIME;
    let mut body = answer.into_body().into_reader();
    let (mut text, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let read = body.read(&mut buffer);
        let count = read.map_err(|error| Trouble::Passing(cut(&error), None))?;
        if count == 0 {
            return Ok(text);
        }
        text.extend_from_slice(&buffer[..count]);
        if text.len() as u64 > MAX_LISTING || Instant::now() > end {
            let message = "the list of the model's files does not end";
            return Err(Failure::new(Exit::Network, message).hint(OTHER_ENDPOINT).into());
        }
    }
}

const NOT_TRUSTED: &str =
    "the server's certificate or encryption is not accepted; a proxy may be in between";
const OTHER_ENDPOINT: &str = "check --endpoint and HF_ENDPOINT: this server does not speak as the \
                              Hugging Face hub does";

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// Files without size or hash are left out: they cannot be verified.
fn parse(text: &[u8], repo: &Repo) -> Result<Listing, Failure> {
    let bad = |why: String| {
        let message = format!("the answer about {repo} makes no sense: {why}");
        Failure::new(Exit::Network, message).hint(OTHER_ENDPOINT)
    };
    let info: Info =
        serde_json::from_slice(text).map_err(|error| bad(printable(&error.to_string())))?;
    if !is_hex(&info.sha, 40) {
        return Err(bad(format!("{:?} is no commit", printable(&info.sha))));
    }
    let (mut files, mut names) = (Vec::new(), HashSet::new());
    for sibling in info.siblings {
        let name = sibling.rfilename;
        if !is_inside(&name) || !names.insert(name.clone()) {
            return Err(bad(format!("it lists a file called {:?}", printable(&name))));
        }
        let known = match (sibling.lfs, sibling.size, sibling.blob_id) {
            (Some(lfs), ..) => Some((lfs.size, lfs.sha256, 64)),
            (None, Some(size), Some(id)) => Some((size, id, 40)),
            _ => None,
        };
        if let Some((bytes, hash, digits)) = known {
            if !is_hex(&hash, digits) {
                return Err(bad(format!("{:?} is no hash", printable(&hash))));
            }
            files.push(RemoteFile { name, bytes, hash });
        }
    }
    if files.is_empty() && !names.is_empty() {
        return Err(bad("it states no sizes and hashes".to_owned()));
    }
    Ok(Listing { commit: info.sha, files })
}

fn text_header(answer: &Response<Body>, name: &str) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().ok()?.trim().to_owned())
}

/// Seconds only: the other form, a date, is not worth a calendar.
fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    Some(Duration::from_secs(text_header(answer, "retry-after")?.parse().ok()?))
}

fn nonsense(what: &str, url: &str) -> Trouble {
    let message = format!("{what} {:?} makes no sense", printable(url));
    Failure::new(Exit::Network, message).hint(OTHER_ENDPOINT).into()
}

/// A connection that ended too early.
pub fn cut(error: &std::io::Error) -> String {
    format!("the connection was cut ({error})")
}

fn unreachable(url: &Uri, error: &Error) -> Trouble {
    let host = host(url);
    let message = match error {
        Error::Io(error) => format!("cannot reach {host}: {error}"),
        error => format!("cannot reach {host}: {error}"),
    };
    let hint = match error {
        Error::HostNotFound => "check the network, and HTTPS_PROXY where there is a proxy",
        // Rustls reports bad certificates as invalid data.
        Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => NOT_TRUSTED,
        Error::Tls(_) | Error::Rustls(_) => NOT_TRUSTED,
        Error::BadUri(_) | Error::Http(_) | Error::InvalidProxyUrl => {
            "check --endpoint, HF_ENDPOINT and HTTPS_PROXY"
        }
        _ => return Trouble::Passing(message, None),
    };
    Failure::new(Exit::Network, message).hint(hint).into()
}
