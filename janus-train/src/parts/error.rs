//! Why a part cannot be trained.

use std::path::PathBuf;

use janus_model::ErrorKind;
use janus_model::config::ConfigError;

use crate::config::RecipeError;
use crate::data::DataError;
use crate::run::RunError;
use crate::start::StartError;
use crate::strategy::TrainError;
use crate::tokenizer::LpipsError;

/// Why a part cannot be trained, or its training ended early.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// The recipe.
    #[error(transparent)]
    Config(#[from] RecipeError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model whose part it is.
    #[error(transparent)]
    Model(#[from] janus_model::Error),
    /// Weights to start from.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The networks of the perceptual term.
    #[error(transparent)]
    Lpips(#[from] LpipsError),
    /// The run folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Training itself.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A recipe of a whole model.
    #[error("the recipe has no `part`: it trains a whole model")]
    NoPart,
    /// The recipe cannot be kept.
    #[error("{path}: cannot write: {source}", path = path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl From<ConfigError> for PartError {
    fn from(error: ConfigError) -> Self {
        Self::Model(error.into())
    }
}

impl PartError {
    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(error) => error.kind(),
            Self::Data(error) => error.kind(),
            Self::Model(error) => error.kind(),
            Self::Start(error) => error.kind(),
            Self::Lpips(error) => error.kind(),
            Self::Run(error) => error.kind(),
            Self::Train(error) => error.kind(),
            Self::NoPart => ErrorKind::Usage,
            Self::Recipe { .. } => ErrorKind::Io,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Start(error) => error.hint(),
            Self::Lpips(error) => error.hint(),
            Self::Run(error) => error.hint(),
            Self::Train(error) => error.hint(),
            Self::NoPart | Self::Recipe { .. } => None,
        }
    }
}
