//! From the files that people have to samples.
//!
//! | format | files | read by |
//! |---|---|---|
//! | `messages` (native) | JSONL, or a JSON list | [`messages`] |
//! | `llava` | JSONL, or a JSON list | [`llava`] |
//! | `sharegpt4o` | JSONL, or a JSON list | [`sharegpt4o`] |
//! | `text` | JSONL with `text`, or lines of a `.txt` | [`text`] |
//! | `sidecar` | a folder of `a.png` + `a.txt` | [`sidecar`] |
//! | `classes` | a folder per class | [`classes`] |
//! | `webdataset` | `.tar` shards | [`webdataset`] |
//! | `parquet` | a file, or a folder of them | [`parquet`] |
//!
//! Every format is a [`Reader`]: it knows how many samples it has once it is open, and gives any
//! of them by its number. A sample that is broken is an answer like any other; only a source that
//! is useless as a whole fails to open.

pub mod classes;
mod detect;
mod files;
pub mod llava;
pub mod messages;
pub mod parquet;
mod parquet_pages;
pub mod records;
mod rows;
pub mod sharegpt4o;
pub mod sidecar;
mod tar_index;
pub mod text;
pub mod webdataset;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::detect::detect;
pub use self::files::Root;
use super::error::{DataError, Place, Why};
use super::sample::{Kind, Sample};

/// What files hold. Written in recipes in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `{"messages": [{"role", "content"}], "images": []}`.
    Messages,
    /// `{"image", "conversations": [{"from", "value"}]}`.
    Llava,
    /// `{"input_prompt", "output_image"}`, with `input_image` for editing.
    ShareGpt4o,
    /// Documents without roles.
    Text,
    /// Pictures with a text file beside each.
    Sidecar,
    /// Pictures in one folder per class.
    Classes,
    /// Tar shards.
    WebDataset,
    /// Parquet tables.
    Parquet,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Messages,
        Self::Llava,
        Self::ShareGpt4o,
        Self::Text,
        Self::Sidecar,
        Self::Classes,
        Self::WebDataset,
        Self::Parquet,
    ];

    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Llava => "llava",
            Self::ShareGpt4o => "sharegpt4o",
            Self::Text => "text",
            Self::Sidecar => "sidecar",
            Self::Classes => "classes",
            Self::WebDataset => "webdataset",
            Self::Parquet => "parquet",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What [`open`] needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// A file, a folder, or shards as `x-{000..099}.tar`.
    pub path: PathBuf,
    /// Told from the files where it is not given.
    #[serde(default)]
    pub format: Option<Format>,
    /// Needed where a picture and its text could be either drawn or described, which then are
    /// drawn; and a promise for conversations, which otherwise are sorted by what they hold.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// Pictures named by paths must lie below; else below the file's own folder.
    #[serde(default)]
    pub root: Option<PathBuf>,
    /// Names of classes: JSON object, or lines of folder and name.
    #[serde(default)]
    pub names: Option<PathBuf>,
    /// Column, or member of an archive, with the picture.
    #[serde(default)]
    pub image_column: Option<String>,
    /// Column, or member of an archive, with the text.
    #[serde(default)]
    pub text_column: Option<String>,
    /// What is asked about a picture that has a text but no question.
    #[serde(default)]
    pub question: Option<String>,
}

/// The question for pictures with captions, as in the paper's pretraining data.
const QUESTION: &str = "Describe the image in detail.";

impl Spec {
    /// Only a path: everything else is told from the files.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: None,
            kind: None,
            root: None,
            names: None,
            image_column: None,
            text_column: None,
            question: None,
        }
    }

    fn question(&self) -> &str {
        self.question.as_deref().unwrap_or(QUESTION)
    }

    /// What becomes of pictures with texts.
    fn caption_kind(&self) -> Kind {
        self.kind.unwrap_or(Kind::Draw)
    }
}

/// Samples by number.
pub trait Reader: fmt::Debug + Send + Sync {
    /// Samples in each part that is best read in one go; one part where it does not matter.
    fn chunks(&self) -> Vec<u64>;

    /// One sample.
    ///
    /// # Errors
    /// [`Why`] it cannot be used.
    fn sample(&self, index: u64) -> Result<Sample, Why>;

    /// Where it stands.
    fn place(&self, index: u64) -> Place;

    /// Changes when the files do, as far as opening them shows.
    fn fingerprint(&self) -> [u8; 32];

    /// Of all samples; `None` where only a look at each tells.
    fn kind(&self) -> Option<Kind>;
}

/// Opens a source.
///
/// # Errors
/// [`DataError`] where nothing can come of it: missing, empty, not of its format.
pub fn open(spec: &Spec) -> Result<Box<dyn Reader>, DataError> {
    let format = match spec.format {
        Some(format) => format,
        None => detect(&spec.path)?,
    };
    Ok(match format {
        Format::Messages | Format::Llava | Format::ShareGpt4o | Format::Text => {
            Box::new(rows::Rows::open(format, spec)?)
        }
        Format::Sidecar => Box::new(sidecar::Sidecar::open(spec)?),
        Format::Classes => Box::new(classes::Classes::open(spec)?),
        Format::WebDataset => Box::new(webdataset::WebDataset::open(spec)?),
        Format::Parquet => Box::new(parquet::Parquet::open(spec)?),
    })
}

/// Whether a name ends as those of pictures do.
fn has_picture_name(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    is_picture_ending(ending)
}

fn is_picture_ending(ending: &str) -> bool {
    ["png", "jpg", "jpeg", "webp", "gif", "bmp"]
        .iter()
        .any(|known| ending.eq_ignore_ascii_case(known))
}
