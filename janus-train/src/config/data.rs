//! Where samples come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::{Format, Kind, Spec};

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
    /// Only a path: everything else is told from the files.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        let Spec { path, format, kind, root, names, image_column, text_column, question } =
            Spec::of(path);
        Self { path, kind, format, weight: 1.0, root, names, image_column, text_column, question }
    }

    /// What its files need to be opened.
    pub fn spec(&self) -> Spec {
        let Self { path, kind, format, root, names, image_column, text_column, question, .. } =
            self.clone();
        Spec { path, format, kind, root, names, image_column, text_column, question }
    }

    /// The same source, wherever it lies.
    pub(crate) fn nowhere(&self) -> Self {
        Self { path: PathBuf::new(), root: None, names: None, ..self.clone() }
    }

    /// Its paths.
    pub(crate) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [Some(&mut self.path), self.root.as_mut(), self.names.as_mut()].into_iter().flatten()
    }
}

fn one() -> f64 {
    1.0
}
