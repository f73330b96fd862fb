//! Where samples come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What samples teach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// To answer about pictures.
    Understand,
    /// To write.
    Text,
    /// To draw.
    Draw,
}

impl Kind {
    /// All of them, in the order of the paper's ratios.
    pub const ALL: [Self; 3] = [Self::Understand, Self::Text, Self::Draw];

    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Understand => "understand",
            Self::Text => "text",
            Self::Draw => "draw",
        }
    }
}

/// Parts of each kind inside every step; only the ratio counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// Samples with pictures to be understood.
    pub understand: u32,
    /// Samples of text alone.
    pub text: u32,
    /// Samples of pictures to be drawn.
    pub draw: u32,
}

impl Mix {
    /// In the order of [`Kind::ALL`].
    pub fn ratio(&self) -> [u32; 3] {
        [self.understand, self.text, self.draw]
    }

    /// The part of one kind.
    pub fn of(&self, kind: Kind) -> u32 {
        self.ratio()[kind as usize]
    }
}

/// How files hold samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSONL of `messages` and `images`: the native format.
    Messages,
    /// LLaVA JSON or JSONL.
    Llava,
    /// ShareGPT-4o-Image rows.
    ShareGpt4o,
    /// Pictures with a text file of the same name beside each.
    Sidecar,
    /// Folders named after what their pictures show.
    Classes,
    /// WebDataset tar shards.
    WebDataset,
    /// Parquet with a picture and a text column.
    Parquet,
    /// Text alone, JSONL or plain.
    Text,
}

/// One place that samples come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// File, folder or shards as `x-{000..099}.tar`.
    pub path: PathBuf,
    /// What its samples teach, where the files do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// How its files hold them, where the files do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Share among the sources of its kind.
    #[serde(default = "one")]
    pub weight: f64,
    /// Pictures named by paths must lie below; else below the file's own folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Names of classes: JSON object, or lines of folder and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<PathBuf>,
    /// Column, or member of an archive, with the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_column: Option<String>,
    /// Column, or member of an archive, with the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_column: Option<String>,
    /// What is asked about a picture that has a text but no question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
}

impl Source {
    /// Its paths.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [Some(&mut self.path), self.root.as_mut(), self.names.as_mut()].into_iter().flatten()
    }
}

fn one() -> f64 {
    1.0
}
