//! A folder of pictures with a text file beside each: `a.png` and `a.txt` (or `a.caption`).

use std::path::PathBuf;
use std::sync::Arc;

use super::super::error::{At, DataError, Place, Why, read_small};
use super::super::sample::{Kind, Picture, Sample};
use super::files::{files_below, listing_fingerprint};
use super::{Reader, Spec, has_picture_name};

/// Longest caption.
const MAX_TEXT: u64 = 1 << 20;

/// Pictures with texts, sorted by path.
#[derive(Debug)]
pub struct Sidecar {
    pictures: Vec<PathBuf>,
    kind: Kind,
    question: String,
}

impl Sidecar {
    /// Lists the pictures below a folder. One without a text is a bad sample.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::Empty`].
    pub fn open(spec: &Spec) -> Result<Self, DataError> {
        let pictures = files_below(&spec.path, has_picture_name)?;
        if pictures.is_empty() {
            return Err(DataError::Empty { path: spec.path.clone(), found: "no pictures below" });
        }
        let (kind, question) = (spec.caption_kind(), spec.question().to_owned());
        Ok(Self { pictures, kind, question })
    }
}

impl Reader for Sidecar {
    fn chunks(&self) -> Vec<u64> {
        vec![self.pictures.len() as u64]
    }

    fn sample(&self, index: u64) -> Result<Sample, Why> {
        let picture = &self.pictures[index as usize];
        let beside = ["txt", "caption"].map(|ending| picture.with_extension(ending));
        let Some(text) = beside.iter().find(|path| path.is_file()) else {
            return Err(Why::Record("no .txt or .caption file beside it".to_owned()));
        };
        let bytes = read_small(text, MAX_TEXT)?;
        let Ok(caption) = String::from_utf8(bytes) else {
            return Err(Why::Record(format!("{}: not UTF-8", text.display())));
        };
        // Editors of other systems put a mark in front.
        let caption = caption.trim_start_matches('\u{feff}').trim();
        if caption.is_empty() {
            return Err(Why::Empty("the caption"));
        }
        let picture = Picture::File(picture.clone());
        Ok(Sample::captioned(self.kind, &self.question, caption, picture))
    }

    fn place(&self, index: u64) -> Place {
        let file = Arc::from(self.pictures[index as usize].as_path());
        Place { file, at: At::Whole }
    }

    fn fingerprint(&self) -> [u8; 32] {
        listing_fingerprint(self.pictures.iter().map(PathBuf::as_path))
    }

    fn kind(&self) -> Option<Kind> {
        Some(if self.kind == Kind::Draw { Kind::Draw } else { Kind::Understand })
    }
}
