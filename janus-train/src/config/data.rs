//! Where samples come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What samples teach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// To answer about pictures.
    Understanding,
    /// To write.
    Text,
    /// To draw.
    Generation,
}

impl Kind {
    /// All of them, in the order of the paper's ratios.
    pub const ALL: [Self; 3] = [Self::Understanding, Self::Text, Self::Generation];

    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Understanding => "understanding",
            Self::Text => "text",
            Self::Generation => "generation",
        }
    }
}

/// Share of each kind inside every step; only the ratio counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// Samples with pictures to be understood.
    pub understanding: f64,
    /// Samples of text alone.
    pub text: f64,
    /// Samples of pictures to be drawn.
    pub generation: f64,
}

impl Mix {
    /// The share of one kind.
    pub fn of(&self, kind: Kind) -> f64 {
        match kind {
            Kind::Understanding => self.understanding,
            Kind::Text => self.text,
            Kind::Generation => self.generation,
        }
    }
}

/// How files hold samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Seen from the files.
    #[default]
    Auto,
    /// JSONL of `messages` and `images`: the native format.
    Messages,
    /// LLaVA JSON or JSONL.
    Llava,
    /// ShareGPT-4o-Image rows.
    Sharegpt4o,
    /// Pictures with a text file of the same name beside each.
    Sidecar,
    /// Folders named after what their pictures show.
    Classes,
    /// WebDataset tar shards.
    Webdataset,
    /// Parquet with a picture and a text column.
    Parquet,
    /// Text alone, JSONL or plain.
    Text,
}

/// One place that samples come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What its samples teach.
    pub kind: Kind,
    /// How its files hold them.
    #[serde(default)]
    pub format: Format,
    /// File, folder or shard pattern.
    pub path: PathBuf,
    /// Share among the sources of its kind.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}
