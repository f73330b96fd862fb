//! Names: of models, of their files, of revisions. Those a server chooses become paths here, so
//! they are held against strict rules first.

use std::fmt;
use std::str::FromStr;

use crate::report::{Exit, Failure};

/// Names that save typing.
const SHORT: [(&str, &str, &str); 2] = [
    ("janus-pro-1b", "deepseek-ai", "Janus-Pro-1B"),
    ("janus-pro-7b", "deepseek-ai", "Janus-Pro-7B"),
];

/// Files that janus, or `transformers`, reads beside the weights; all are small.
const COMPANIONS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Weights, best first: the stem and the ending of a single file.
const WEIGHTS: [(&str, &str); 2] = [("model", "safetensors"), ("pytorch_model", "bin")];

/// A model on a hub: `deepseek-ai/Janus-Pro-1B`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo {
    org: String,
    name: String,
}

impl Repo {
    /// What to do about a model that is not here.
    pub fn advice(&self) -> String {
        let known = SHORT.iter().find(|(.., name)| self.name.eq_ignore_ascii_case(name));
        match known {
            Some((short, org, _)) if self.org == *org => {
                format!("`janus pull {short}` downloads it")
            }
            Some((short, ..)) => {
                format!(
                    "give the folder of a model; `janus pull {short}` downloads the published one"
                )
            }
            None => format!(
                "give the folder of a model; if this is its name on the Hugging Face hub, \
                 `janus pull {self}` downloads it"
            ),
        }
    }

    /// Its folder in the cache.
    pub fn folder(&self) -> String {
        format!("models--{}--{}", self.org, self.name)
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)
    }
}

impl FromStr for Repo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let short = SHORT.iter().find(|(short, ..)| text.eq_ignore_ascii_case(short));
        let (org, name) = match short {
            Some((_, org, name)) => (*org, *name),
            None => text.split_once('/').unwrap_or(("", text)),
        };
        if is_repo_part(org) && is_repo_part(name) {
            return Ok(Self { org: org.to_owned(), name: name.to_owned() });
        }
        Err("expected a name such as deepseek-ai/Janus-Pro-1B, or janus-pro-1b or janus-pro-7b"
            .to_owned())
    }
}

/// The hub's own rule: letters, digits, `-`, `_` and `.`, with marks neither outside nor doubled.
fn is_repo_part(part: &str) -> bool {
    let mark = |c: char| matches!(c, '-' | '.');
    (1..=96).contains(&part.len())
        && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || mark(c))
        && !part.starts_with(mark)
        && !part.ends_with(mark)
        && !part.contains("--")
        && !part.contains("..")
        && !part.ends_with(".git")
}

/// A branch, tag or commit.
pub fn revision(text: &str) -> Result<String, String> {
    if text.len() <= 200 && is_inside(text) {
        return Ok(text.to_owned());
    }
    Err("expected a branch, a tag or a commit, such as main".to_owned())
}

/// Whether a relative path stays below the folder it is put into, on every system.
pub fn is_inside(path: &str) -> bool {
    let bad = |c: char| c.is_control() || c == '\\';
    let drive = path.as_bytes().get(1) == Some(&b':');
    let step = |part: &str| !part.is_empty() && part != "." && part != "..";
    !path.contains(bad) && !drive && path.split('/').all(step)
}

/// Whether this is a commit's or an object's name: so many lower-case hexadecimal digits.
pub fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Of all files of a model, those that are needed: small ones, and weights in one format.
///
/// # Errors
/// There is no configuration, or no weights in a format that janus reads.
pub fn needed<'a>(repo: &Repo, all: &[&'a str]) -> Result<Vec<&'a str>, Failure> {
    let has = |name: &str| all.contains(&name);
    let weights = WEIGHTS.iter().find_map(|(stem, ending)| {
        if has(&format!("{stem}.{ending}")) {
            let single = |name: &str| name == format!("{stem}.{ending}");
            return Some(all.iter().copied().filter(|name| single(name)).collect::<Vec<_>>());
        }
        let index = format!("{stem}.{ending}.index.json");
        let part = |name: &str| name == index || is_shard(name, stem, ending);
        has(&index).then(|| all.iter().copied().filter(|name| part(name)).collect())
    });
    let (Some(weights), true) = (weights, has("config.json")) else {
        let what = if has("config.json") {
            "no weights in a format janus reads"
        } else {
            "no config.json"
        };
        let message = format!("{repo} is no model for janus: it has {what}");
        return Err(Failure::new(Exit::Missing, message)
            .hint("janus-pro-1b and janus-pro-7b name the published models"));
    };
    let mut needed: Vec<&str> =
        all.iter().copied().filter(|name| COMPANIONS.contains(name)).collect();
    needed.extend(weights);
    Ok(needed)
}

/// `model-00001-of-00003.safetensors`.
fn is_shard(name: &str, stem: &str, ending: &str) -> bool {
    let number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix(stem)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|rest| rest.strip_suffix(ending)?.strip_suffix('.'))
        .and_then(|rest| rest.split_once("-of-"))
        .is_some_and(|(at, of)| number(at) && number(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models() {
        let repo = |text: &str| text.parse::<Repo>().map(|repo| repo.to_string());
        assert_eq!(repo("Janus-Pro-1b"), Ok("deepseek-ai/Janus-Pro-1B".into()));
        assert_eq!(repo("a_b/c.d-e"), Ok("a_b/c.d-e".into()));
        let long = "a/".to_owned() + &"b".repeat(97);
        for bad in
            ["", "a", "/a", "a/", "a/b/c", "../a", "a/..", "a/-b", "a/b--c", "a b/c", "a/ü", &long]
        {
            assert!(repo(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn advice_names_what_can_be_pulled() {
        let advice = |text: &str| text.parse::<Repo>().map(|repo| repo.advice());
        let downloads = "`janus pull janus-pro-7b` downloads it";
        assert_eq!(advice("janus-pro-7b"), Ok(downloads.into()));
        let folder = advice("models/Janus-Pro-7B").unwrap_or_default();
        assert!(folder.ends_with("`janus pull janus-pro-7b` downloads the published one"));
        let other = advice("me/mine").unwrap_or_default();
        assert!(other.contains("`janus pull me/mine`"), "{other}");
    }

    #[test]
    fn paths_stay_inside() {
        for good in ["a", "a/b.json", "refs.d/x", "..a/b", "pr/1"] {
            assert!(is_inside(good), "{good}");
        }
        for bad in [
            "", "/a", "a/", "a//b", "..", "../a", "a/../b", "./a", "a\\b", "C:a", "c:/x", "a\nb",
            "\0",
        ] {
            assert!(!is_inside(bad), "{bad:?}");
        }
        assert!(is_hex("0af", 3) && !is_hex("0AF", 3) && !is_hex("0a", 3) && !is_hex("0ag", 3));
    }

    #[test]
    fn only_what_is_needed_is_taken() {
        let repo: Repo = "a/b".parse().expect("a name");
        let need = |all: &[&'static str]| needed(&repo, all).map_err(|_| ());
        let all = ["README.md", "config.json", "x/config.json", "pytorch_model.bin", "a.png"];
        assert_eq!(need(&all), Ok(vec!["config.json", "pytorch_model.bin"]));
        let all = ["config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json"];
        assert_eq!(need(&all), Ok(vec!["config.json", "tokenizer.json", "model.safetensors"]));
        let shards = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "model-1-of-2.safetensors",
            "consolidated.safetensors",
        ];
        assert_eq!(need(&shards), Ok(shards[..4].to_vec()));
        assert_eq!(need(&["config.json", "model-00001-of-00002.safetensors"]), Err(()));
        assert_eq!(need(&["model.safetensors"]), Err(()));
    }
}
