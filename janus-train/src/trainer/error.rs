//! Why a run cannot begin, or ended early.

use std::io;
use std::path::PathBuf;

use janus_model::ErrorKind;
use janus_model::config::ConfigError;
use janus_model::processor::ProcessorError;

use crate::config::RecipeError;
use crate::data::DataError;
use crate::lora::LoraError;
use crate::run::RunError;
use crate::stage::StageError;
use crate::start::StartError;
use crate::strategy::TrainError;

/// Why a run cannot begin, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The recipe.
    #[error(transparent)]
    Config(#[from] RecipeError),
    /// What trains.
    #[error("train: {0}")]
    Stage(#[from] StageError),
    /// Adapters.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model to start from.
    #[error(transparent)]
    Model(#[from] janus_model::Error),
    /// The run folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Training itself.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// What it starts from.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Rows longer than the model can read.
    #[error("batch.tokens is {tokens}, but the model reads at most {longest}")]
    Context {
        /// As asked for.
        tokens: usize,
        /// What the model has.
        longest: usize,
    },
    /// The recipe cannot be kept.
    #[error("{path}: cannot write: {source}", path = path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl From<ConfigError> for JobError {
    fn from(error: ConfigError) -> Self {
        Self::Model(error.into())
    }
}

impl From<ProcessorError> for JobError {
    fn from(error: ProcessorError) -> Self {
        Self::Model(error.into())
    }
}

impl JobError {
    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(error) => error.kind(),
            Self::Stage(_) | Self::Lora(_) | Self::Context { .. } => ErrorKind::Config,
            Self::Data(error) => error.kind(),
            Self::Model(error) => error.kind(),
            Self::Run(error) => error.kind(),
            Self::Train(error) => error.kind(),
            Self::Start(error) => error.kind(),
            Self::Recipe { .. } => ErrorKind::Io,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Stage(error) => Some(error.hint().to_owned()),
            Self::Data(error) => error.hint(),
            Self::Run(error) => error.hint(),
            Self::Train(error) => error.hint(),
            Self::Start(StartError::Nothing) => Some(
                "give --start DIR, a model folder or the run before, or [init] in the recipe"
                    .into(),
            ),
            Self::Start(error) => error.hint(),
            Self::Model(_) | Self::Lora(_) | Self::Context { .. } | Self::Recipe { .. } => None,
        }
    }
}
