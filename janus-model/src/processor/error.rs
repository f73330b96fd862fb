//! What can go wrong between a checkpoint folder, a conversation and a picture.
//!
//! One enum per part, joined in [`ProcessorError`]. `kind` says whose fault it is, `hint` what to do
//! next. Messages never contain more than a few characters of a file's contents, escaped.

use std::path::PathBuf;

use thiserror::Error;

pub use super::files::FileError;
pub use super::image_config::ImageConfigError;

pub use crate::error::ErrorKind;

/// Everything that can go wrong between a checkpoint folder, a conversation and a picture.
#[derive(Debug, Error)]
pub enum ProcessorError {
    /// The tokenizer's files.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A picture.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A conversation.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// A file that could not be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// The image rules.
    #[error("{path}")]
    ImageConfig {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        source: ImageConfigError,
    },
    /// Another file of the folder.
    #[error("{path}: {problem}")]
    Config {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl ProcessorError {
    /// Whose fault it is, for exit codes and HTTP statuses.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Tokenizer(source) => source.kind(),
            Self::Image(source) => source.kind(),
            Self::Prompt(source) => source.kind(),
            Self::Read(source) => source.kind(),
            Self::ImageConfig { .. } | Self::Config { .. } => ErrorKind::Config,
        }
    }

    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tokenizer(source) => source.hint(),
            Self::Image(source) => source.hint(),
            Self::Prompt(source) => source.hint(),
            Self::Read(FileError::Missing { .. }) => {
                Some("take all files of the model's folder, not the weights alone".to_owned())
            }
            Self::ImageConfig { .. } | Self::Config { .. } => {
                Some("compare the file with the one published with the model".to_owned())
            }
            Self::Read(_) => None,
        }
    }
}

/// A limit that a picture's header can exceed; a field of [`super::ImageLimits`] each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageLimit {
    /// Width or height.
    Side,
    /// Width times height.
    Pixels,
    /// Long side over short side.
    Ratio,
    /// Bytes of the decoder.
    Memory,
}

/// What can be wrong with a picture. Messages of the variants without a path are safe to send to a
/// remote client.
#[derive(Debug, Error)]
pub enum ImageError {
    /// Zero bytes.
    #[error("not an image: the file is empty")]
    Empty,
    /// The first bytes belong to no image format.
    #[error("not an image (found {found})")]
    NotAnImage {
        /// What the bytes look like.
        found: String,
    },
    /// An image format whose decoder is deliberately absent.
    #[error("{format} pictures are not supported")]
    UnsupportedFormat {
        /// Name of the format.
        format: &'static str,
    },
    /// More bytes than the limit, before anything is decoded.
    #[error("the image file has {bytes} bytes, the limit is {limit}")]
    TooManyBytes {
        /// Size of the file.
        bytes: u64,
        /// [`super::decode::ImageLimits::max_bytes`].
        limit: u64,
    },
    /// A side of 0.
    #[error("the image is {width}x{height}: it has no pixels")]
    NoPixels {
        /// Width from the header.
        width: u64,
        /// Height from the header.
        height: u64,
    },
    /// The header announces more than a limit allows.
    #[error("the image is {width}x{height}: {limit}")]
    TooLarge {
        /// Width from the header.
        width: u64,
        /// Height from the header.
        height: u64,
        /// The limit in words, with its number.
        limit: String,
        /// Which of them.
        which: ImageLimit,
    },
    /// The file ends before its pixels do.
    #[error("the {format} file is truncated")]
    Truncated {
        /// Name of the format.
        format: &'static str,
    },
    /// The decoder refused the contents.
    #[error("the {format} file is damaged: {reason}")]
    Decode {
        /// Name of the format.
        format: &'static str,
        /// The decoder's words, cut and without control characters.
        reason: String,
    },
    /// The PNG encoder failed.
    #[error("cannot write the PNG: {reason}")]
    Encode {
        /// The encoder's words.
        reason: String,
    },
    /// A buffer whose length does not fit its stated size.
    #[error("{found} values are no {width}x{height} RGB picture")]
    PixelCount {
        /// Length of the buffer.
        found: usize,
        /// Stated width.
        width: usize,
        /// Stated height.
        height: usize,
    },
    /// The file could not be read at all.
    #[error(transparent)]
    Read(#[from] FileError),
    /// Another error of this enum, with the file it is about.
    #[error("{path}")]
    File {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<ImageError>,
    },
}

impl ImageError {
    /// Whose fault it is, for exit codes and HTTP statuses.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read(source) => source.kind(),
            Self::Encode { .. } | Self::PixelCount { .. } => ErrorKind::Internal,
            Self::File { source, .. } => source.kind(),
            _ => ErrorKind::BadData,
        }
    }

    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotAnImage { .. } | Self::UnsupportedFormat { .. } => {
                Some("convert it to PNG, JPEG, WebP, GIF or BMP".to_owned())
            }
            Self::TooManyBytes { .. }
            | Self::TooLarge { .. }
            | Self::Read(FileError::TooLarge { .. }) => {
                Some("make it smaller first: the model sees at most 384x384 pixels".to_owned())
            }
            Self::Empty | Self::Truncated { .. } => {
                Some("the download may be incomplete".to_owned())
            }
            Self::Decode { .. } => {
                Some("get it once more, or open it in another program and save it again".to_owned())
            }
            Self::Read(FileError::NotAFile { .. }) => {
                Some("give the file of a picture: PNG, JPEG, WebP, GIF or BMP".to_owned())
            }
            Self::File { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// What can be wrong with a tokenizer, or with text given to it.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// Another error of this enum, with the file it is about.
    #[error("{path}")]
    File {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<TokenizerError>,
    },
    /// A companion file that is not JSON.
    #[error("not JSON: {reason}")]
    Json {
        /// The parser's words.
        reason: String,
    },
    /// A field of `tokenizer.json` that cannot be used.
    #[error("{field}: {problem}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// The `tokenizers` crate gives a token another id than the file states.
    #[error("token \"{token}\" has id {stated} in the file, but would get {found:?}")]
    ShiftedId {
        /// The token, escaped.
        token: String,
        /// The file's id.
        stated: u32,
        /// The id it would get.
        found: Option<u32>,
    },
    /// A token that Janus needs is absent.
    #[error("the tokenizer lacks the token {token}")]
    MissingToken {
        /// Its string.
        token: String,
    },
    /// A needed token is in the vocabulary but text is never turned into it.
    #[error("the token {token} is not registered: text would be split into several ids")]
    SplitToken {
        /// Its string.
        token: String,
    },
    /// More ids than the model has embedding rows.
    #[error("the tokenizer has {tokens} tokens, the model only {rows} embedding rows")]
    Vocabulary {
        /// Ids of the tokenizer.
        tokens: usize,
        /// `vocab_size` of the model.
        rows: usize,
    },
    /// Text from outside would have produced a special token.
    #[error("the text contains special tokens: {found} instead of {expected}")]
    ControlToken {
        /// How many there are.
        found: usize,
        /// How many the template has.
        expected: usize,
    },
    /// The `tokenizers` crate refused.
    #[error("{action} failed: {reason}")]
    Tokenizers {
        /// Loading, encoding or decoding.
        action: &'static str,
        /// The crate's words.
        reason: String,
    },
    /// The `tokenizers` crate panicked.
    #[error("{action} failed: the tokenizer gave up on its own file")]
    Panic {
        /// Loading, encoding or decoding.
        action: &'static str,
    },
}

impl TokenizerError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read(source) => source.kind(),
            Self::File { source, .. } => source.kind(),
            Self::Vocabulary { .. } => ErrorKind::Config,
            _ => ErrorKind::BadData,
        }
    }

    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read(FileError::Missing { .. }) => {
                Some("the folder must hold the tokenizer.json published with the model".to_owned())
            }
            Self::MissingToken { .. } | Self::SplitToken { .. } | Self::Vocabulary { .. } => {
                Some("the tokenizer belongs to another model: take all files from one".to_owned())
            }
            Self::ControlToken { .. } => {
                Some("remove special-token strings from the text".to_owned())
            }
            Self::File { source, .. } => source.hint(),
            Self::Json { .. }
            | Self::Field { .. }
            | Self::ShiftedId { .. }
            | Self::Tokenizers { .. } => {
                Some("fetch the file again: it is damaged or was edited".to_owned())
            }
            _ => None,
        }
    }
}

/// What can be wrong with a prompt.
#[derive(Debug, Error)]
pub enum PromptError {
    /// No conversation, or one without turns.
    #[error("the conversation has no messages")]
    Empty,
    /// A part refers to a picture that was not given.
    #[error("a message refers to image {index}, but {given} were given (counted from 0)")]
    NoSuchImage {
        /// The part's index.
        index: usize,
        /// Pictures given.
        given: usize,
    },
    /// Pictures were given that no part refers to.
    #[error("{given} images were given, but image {index} appears in no message (counted from 0)")]
    UnusedImage {
        /// The first unused one.
        index: usize,
        /// Pictures given.
        given: usize,
    },
    /// Text with `<image>` in it, and another number of pictures.
    #[error("places for pictures (<image>) in the text: {places}, pictures given: {images}")]
    Places {
        /// Occurrences of `<image>` in the user's turns.
        places: usize,
        /// Pictures given.
        images: usize,
    },
    /// Turns in an order that the template does not have.
    #[error(
        "turn {turn} must be the {expected}'s: user and assistant alternate, and the user is first and last"
    )]
    Order {
        /// The turn, from 1.
        turn: usize,
        /// Whose it should be.
        expected: &'static str,
    },
    /// A picture in an assistant turn.
    #[error("an assistant message contains an image: only user messages may")]
    ImageInAnswer,
    /// Places and pictures do not match.
    #[error("{slots} image places for {images} images of {image_tokens} tokens each")]
    SlotCount {
        /// Places in the ids.
        slots: usize,
        /// Pictures.
        images: usize,
        /// Vectors per picture.
        image_tokens: usize,
    },
    /// Too many tokens.
    #[error("the prompt has {tokens} tokens, the context holds {limit}")]
    TooLong {
        /// Length of the prompt.
        tokens: usize,
        /// The context length.
        limit: usize,
    },
    /// The text could not be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl PromptError {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::SlotCount { .. } => ErrorKind::Internal,
            Self::Tokenizer(source) => source.kind(),
            _ => ErrorKind::Usage,
        }
    }

    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooLong { .. } => {
                Some("shorten the conversation or send fewer images".to_owned())
            }
            Self::Places { .. } => Some(
                "write <image> once for each picture, or not at all: then pictures come first"
                    .to_owned(),
            ),
            Self::UnusedImage { .. } => Some("place every image in a user message".to_owned()),
            Self::Tokenizer(source) => source.hint(),
            _ => None,
        }
    }
}
