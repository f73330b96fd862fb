//! WebDataset: tar shards in which the members of a sample share their name up to the first dot.
//!
//! `000123.jpg` + `000123.txt` (or `.text`, `.caption`, or a field of `000123.json`). Opening
//! reads the headers of all shards; after that any sample is one seek away, so nothing needs a
//! shuffle buffer. An epoch goes through the shards one by one, in an order of its own, and
//! through each shard in a mixed order.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use janus_model::processor::ImageLimits;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::error::{At, DataError, Place, Why, shown};
use super::super::sample::{Kind, Picture, Sample};
use super::files::parts;
use super::tar_index::{Index, Member, index};
use super::{Reader, Spec, is_picture_ending};

/// Longest text of a sample.
const MAX_TEXT: u64 = 1 << 20;

/// Where a member's contents lie.
#[derive(Clone, Copy, Debug)]
struct Span {
    offset: u64,
    size: u64,
}

/// One sample of a shard.
#[derive(Debug)]
struct Entry {
    key: Arc<str>,
    picture: Option<Span>,
    text: Option<Span>,
    /// The text is a field of a JSON object.
    json: bool,
    problem: Option<String>,
}

#[derive(Debug)]
struct Shard {
    path: Arc<Path>,
    entries: Vec<Entry>,
    /// Samples of the shards before.
    before: u64,
}

/// Tar shards.
#[derive(Debug)]
pub struct WebDataset {
    shards: Vec<Shard>,
    kind: Kind,
    question: String,
    fingerprint: [u8; 32],
}

impl WebDataset {
    /// Reads the headers of all shards.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::Empty`]. A shard that is damaged gives the samples before
    /// the damage and one bad one.
    pub fn open(spec: &Spec) -> Result<Self, DataError> {
        let mut hash = Sha256::new();
        let (mut shards, mut before) = (Vec::new(), 0);
        for path in parts(&spec.path, "tar")? {
            let io = |source| DataError::Io { path: path.to_path_buf(), action: "read", source };
            let found = index(&path).map_err(io)?;
            hash.update(found.fingerprint);
            let entries = entries(found, spec);
            let count = entries.len() as u64;
            shards.push(Shard { path, entries, before });
            before += count;
        }
        if before == 0 {
            return Err(DataError::Empty { path: spec.path.clone(), found: "no members" });
        }
        let (kind, question) = (spec.caption_kind(), spec.question().to_owned());
        Ok(Self { shards, kind, question, fingerprint: hash.finalize().into() })
    }

    fn find(&self, index: u64) -> (&Shard, &Entry) {
        let shard = self.shards.partition_point(|shard| shard.before <= index) - 1;
        let shard = &self.shards[shard];
        (shard, &shard.entries[(index - shard.before) as usize])
    }

    fn caption(&self, shard: &Shard, entry: &Entry) -> Result<String, Why> {
        let Some(span) = entry.text else {
            return Err(Why::Record("no member with the text".to_owned()));
        };
        let bytes = shard.read(span, MAX_TEXT, "the text")?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Why::Record("the text is not UTF-8".to_owned()))?;
        if !entry.json {
            return Ok(text.trim_start_matches('\u{feff}').trim().to_owned());
        }
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| Why::Record(format!("the .json member is not JSON: {error}")))?;
        let named = ["caption", "text", "prompt"].iter().find_map(|name| value.get(name)?.as_str());
        named.map(|text| text.trim().to_owned()).ok_or_else(|| {
            Why::Record("the .json member has no caption, text or prompt".to_owned())
        })
    }
}

impl Shard {
    fn read(&self, span: Span, limit: u64, what: &str) -> Result<Vec<u8>, Why> {
        if span.size > limit {
            let size = span.size;
            return Err(Why::Record(format!("{what} has {size} bytes, the limit is {limit}")));
        }
        let mut bytes = vec![0; span.size as usize];
        // Opened anew: with thousands of shards not all files could stay open.
        let mut read = |file: &mut File| {
            file.seek(SeekFrom::Start(span.offset))?;
            file.read_exact(&mut bytes)
        };
        File::open(&self.path)
            .and_then(|mut file| read(&mut file))
            .map_err(|error| Why::Record(format!("{what} cannot be read any more: {error}")))?;
        Ok(bytes)
    }
}

/// Members that follow each other under one key are a sample.
fn entries(index: Index, spec: &Spec) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut known = BTreeSet::new();
    for member in index.members {
        let (key, ending) = split(&member.name);
        if entries.last().is_none_or(|entry| *entry.key != *key) {
            let key: Arc<str> = key.into();
            let mut entry = Entry { key, picture: None, text: None, json: false, problem: None };
            if !known.insert(Arc::clone(&entry.key)) {
                entry.problem = Some("the key appears twice in the shard".to_owned());
            }
            entries.push(entry);
        }
        if let Some(entry) = entries.last_mut() {
            add(entry, &member, &ending, spec);
        }
    }
    if let Some(damage) = index.damage {
        let problem = Some(format!("the shard is damaged and read up to here only: {damage}"));
        let key = "(end)".into();
        entries.push(Entry { key, picture: None, text: None, json: false, problem });
    }
    entries
}

/// Name up to the first dot of its last part, and the rest in lower case.
fn split(name: &str) -> (String, String) {
    let name = name.trim_start_matches("./");
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[last..].find('.') {
        Some(dot) => {
            let (key, ending) = name.split_at(last + dot);
            (key.to_owned(), ending[1..].to_ascii_lowercase())
        }
        None => (name.to_owned(), String::new()),
    }
}

fn add(entry: &mut Entry, member: &Member, ending: &str, spec: &Spec) {
    if let Some(problem) = member.problem {
        entry.problem = Some(format!("a member .{} {problem}", shown(ending)));
        return;
    }
    let is = |stated: &Option<String>, usual: bool| match stated {
        Some(stated) => ending.eq_ignore_ascii_case(stated),
        None => usual,
    };
    let span = Some(Span { offset: member.offset, size: member.size });
    let mut twice = false;
    if is(&spec.image_column, is_picture_ending(ending)) {
        twice = entry.picture.is_some();
        entry.picture = span;
    } else if is(&spec.text_column, ["txt", "text", "caption"].contains(&ending)) {
        // A text of its own goes before one inside JSON.
        twice = entry.text.is_some() && !entry.json;
        (entry.text, entry.json) = (span, ending == "json");
    } else if ending == "json" && spec.text_column.is_none() && entry.text.is_none() {
        (entry.text, entry.json) = (span, true);
    }
    if twice {
        entry.problem = Some("two members of the same kind under one key".to_owned());
    }
}

impl Reader for WebDataset {
    fn chunks(&self) -> Vec<u64> {
        self.shards.iter().map(|shard| shard.entries.len() as u64).collect()
    }

    fn sample(&self, index: u64) -> Result<Sample, Why> {
        let (shard, entry) = self.find(index);
        if let Some(problem) = &entry.problem {
            return Err(Why::Record(problem.clone()));
        }
        let text = self.caption(shard, entry)?;
        if text.is_empty() {
            return Err(Why::Empty("the text"));
        }
        if self.kind == Kind::Text {
            return Ok(Sample::plain(text));
        }
        let Some(span) = entry.picture else {
            return Err(Why::Record("no member with the picture".to_owned()));
        };
        let bytes = shard.read(span, ImageLimits::default().max_bytes, "the picture")?;
        let picture = Picture::Bytes(Bytes::from(bytes));
        Ok(Sample::captioned(self.kind, &self.question, &text, picture))
    }

    fn place(&self, index: u64) -> Place {
        let (shard, entry) = self.find(index);
        Place { file: Arc::clone(&shard.path), at: At::Member(Arc::clone(&entry.key)) }
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    fn kind(&self) -> Option<Kind> {
        Some(self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_the_first_dot_of_the_last_part() {
        let cut = |name| {
            let (key, ending) = split(name);
            format!("{key}|{ending}")
        };
        assert_eq!(cut("a/b.c/0001.JPG"), "a/b.c/0001|jpg");
        assert_eq!(cut("./0001.seg.png"), "0001|seg.png");
        assert_eq!(cut("0001"), "0001|");
    }
}
