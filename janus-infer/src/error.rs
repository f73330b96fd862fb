//! What can go wrong between a request and its answer.

use janus_model::ErrorKind;
use janus_model::processor::ProcessorError;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// The model, its files or one of its parts.
    #[error(transparent)]
    Model(#[from] janus_model::Error),
    /// A sampling value lies outside its range.
    #[error("{field} is {value}, but must be {range}")]
    Sampling {
        /// Field of [`crate::Sampling`].
        field: &'static str,
        /// The value as given.
        value: String,
        /// What is allowed, in words.
        range: &'static str,
    },
    /// Another part of a request cannot be used.
    #[error("{field}: {problem}")]
    Request {
        /// Field of the request.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The prompt and what must follow it do not fit into the model's context.
    #[error(
        "the prompt takes {prompt} tokens and {more} more must fit after it, but the limit is {limit}"
    )]
    TooLong {
        /// Tokens of the longest prompt.
        prompt: usize,
        /// Tokens that must have room after it.
        more: usize,
        /// Tokens of context.
        limit: usize,
    },
    /// The model's scores cannot be chosen from.
    #[error("step {step}: {problem}")]
    Logits {
        /// Which choice of the sequence, from 0.
        step: u64,
        /// What is wrong with them.
        problem: String,
    },
    /// The device failed to give its results back.
    #[error("reading from the device failed: {reason}")]
    Device {
        /// The backend's words.
        reason: String,
    },
}

impl From<ProcessorError> for InferError {
    fn from(error: ProcessorError) -> Self {
        Self::Model(error.into())
    }
}

impl InferError {
    /// What the user can do about it, if anything is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model(e) => e.hint(),
            Self::TooLong { .. } => Some("shorten the prompt, or use fewer pictures".into()),
            Self::Logits { .. } => {
                Some("the weights may be damaged, or overflow this --dtype: try f32".into())
            }
            Self::Device { .. } => {
                Some("the device may be out of memory: ask for less at once".into())
            }
            Self::Sampling { .. } | Self::Request { .. } => None,
        }
    }

    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Model(e) => e.kind(),
            Self::Sampling { .. } | Self::Request { .. } | Self::TooLong { .. } => ErrorKind::Usage,
            Self::Logits { .. } => ErrorKind::BadData,
            Self::Device { .. } => ErrorKind::Io,
        }
    }

    /// A part of a request that cannot be used.
    pub(crate) fn request(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Request { field, problem: problem.into() }
    }
}
