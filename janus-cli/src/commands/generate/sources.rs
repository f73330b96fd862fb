//! Pictures that a drawing starts from.

use std::path::PathBuf;

use janus_model::Parts;
use janus_model::processor::RgbImage8;
use sha2::{Digest, Sha256};

use crate::args::GenerateArgs;
use crate::choice::folder_name;
use crate::metadata::Source;
use crate::pictures;
use crate::report::Failure;

/// What `--image` names, decoded.
#[derive(Default)]
pub struct Sources {
    pub paths: Vec<PathBuf>,
    pub pictures: Vec<RgbImage8>,
}

impl Sources {
    /// Reads the pictures.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn read(args: &GenerateArgs) -> Result<Self, Failure> {
        let read = |path: &PathBuf| pictures::read(path, &args.reading);
        let pictures = args.images.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { paths: args.images.clone(), pictures })
    }

    /// The halves of the model that are needed.
    pub fn parts(&self) -> Parts {
        if self.pictures.is_empty() { Parts::Generation } else { Parts::All }
    }

    /// What a record says of them: a name for people, and a hash of what they show, upright or not.
    pub fn record(&self) -> Vec<Source> {
        let source = |(path, picture): (&PathBuf, &RgbImage8)| {
            let mut hash = Sha256::new();
            hash.update(format!("{} {}\n", picture.width(), picture.height()));
            hash.update(picture.pixels());
            Source { name: folder_name(path), sha256: format!("{:x}", hash.finalize()) }
        };
        self.paths.iter().zip(&self.pictures).map(source).collect()
    }
}
