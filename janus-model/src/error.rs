//! What can go wrong, grouped so that a caller can turn it into advice and an exit code.

use std::path::PathBuf;

/// Broad class of an error. `janus-cli` maps each class to one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request contradicts itself or the model (exit 2).
    Usage,
    /// A file or picture is damaged or not what it claims to be (exit 65).
    BadData,
    /// A file that is needed is not there (exit 66).
    Missing,
    /// A model configuration is incomplete or impossible (exit 78).
    Config,
    /// The operating system refused to read or write (exit 74).
    Io,
    /// A bug here (exit 70).
    Internal,
}

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `config.json` cannot be used.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Weights cannot be read or do not fit the configuration.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// An adapter cannot be used.
    #[error(transparent)]
    Adapter(#[from] crate::adapters::AdapterError),
    /// Tokenizer, prompt or picture cannot be used.
    #[error(transparent)]
    Processor(#[from] crate::processor::ProcessorError),
    /// A part of the model was asked for that was not loaded.
    #[error("{what} needs {part}, which was not loaded")]
    PartNotLoaded {
        /// The operation.
        what: &'static str,
        /// The part, named as in the checkpoint.
        part: &'static str,
    },
    /// The number of picture features does not match the places kept for them.
    #[error("the prompt keeps {slots} places for image tokens, but the pictures give {features}")]
    SlotCount {
        /// Places in the prompt.
        slots: usize,
        /// Image tokens to put there.
        features: usize,
    },
    /// The device cannot compute in the wanted number format.
    #[error("{device} cannot use {dtype}")]
    Dtype {
        /// The device, in words.
        device: String,
        /// The number format.
        dtype: String,
    },
    /// The text tables exceed what the device binds, and there is no processor to keep them.
    #[error("the text tables take {bytes} bytes each, but the device binds at most {limit}")]
    TablesTooLarge {
        /// Bytes of one table.
        bytes: u64,
        /// Bytes of the largest tensor.
        limit: u64,
    },
    /// A path is not a folder with a model in it.
    #[error("{path}: no model here ({why})", path = path.display())]
    NoModel {
        /// The path as given.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
}

impl Error {
    /// What the user can do about it, if anything is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(e) => e.hint(),
            Self::Checkpoint(e) => e.hint(),
            Self::Adapter(e) => e.hint(),
            Self::Processor(e) => e.hint(),
            Self::PartNotLoaded { .. } => Some("load the model with both halves".into()),
            Self::SlotCount { .. } => None,
            Self::Dtype { .. } => Some("choose another --dtype or --device".into()),
            Self::TablesTooLarge { .. } => {
                Some("build with the feature `cpu`, or choose --dtype f16 or another device".into())
            }
            Self::NoModel { .. } => {
                Some("give the folder that holds config.json and the weights".into())
            }
        }
    }

    /// The class that decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(e) => e.kind(),
            Self::Checkpoint(e) => e.kind(),
            Self::Adapter(e) => e.kind(),
            Self::Processor(e) => e.kind(),
            Self::PartNotLoaded { .. }
            | Self::SlotCount { .. }
            | Self::Dtype { .. }
            | Self::TablesTooLarge { .. } => ErrorKind::Usage,
            Self::NoModel { .. } => ErrorKind::Missing,
        }
    }
}

/// Words that quote a file, made safe to print: cut, and with control characters escaped.
pub(crate) fn printable(text: &str, max_chars: usize) -> String {
    let mut safe = String::new();
    for character in text.chars().take(max_chars) {
        if character.is_control() {
            safe.extend(character.escape_unicode());
        } else {
            safe.push(character);
        }
    }
    if text.chars().nth(max_chars).is_some() {
        safe.push('…');
    }
    safe
}
