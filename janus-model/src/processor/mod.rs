//! From conversation and pictures to model input, and from pixels to pictures.
//!
//! Everything here is plain data, without tensors:
//! ```text
//! bytes ─ decode ─► RgbImage8 ─ image + resize ─► PixelValues ─┐
//! Conversation ─ prompt ─► text ─ tokenizer ─► ids ────────────┴─► ModelInput
//! f32 pixels ─ output ─► RgbImage8 ─► PNG
//! ```
//! The files that fix the rules ship with a checkpoint; [`Processor::from_dir`] reads them.

pub mod decode;
pub mod editing;
pub mod error;
mod files;
pub mod image;
mod image_config;
pub mod output;
pub mod prompt;
pub mod resize;
pub mod tokenizer;
mod tokenizer_check;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::JanusConfig;

pub use self::decode::{ImageLimits, Orientation, decode_image, load_image};
pub use self::editing::{EditPrompt, Slot};
pub use self::error::{
    ErrorKind, FileError, ImageConfigError, ImageError, ImageLimit, ProcessorError, PromptError,
    TokenizerError,
};
pub use self::image::{ImageProcessorConfig, PixelValues, RgbImage8, SizeRule};
pub use self::prompt::{
    ChatStyle, Conversation, DEFAULT_SYSTEM_PROMPT, GenerationPrompt, IMAGE_PLACE, Message,
    ModelInput, Part, Role,
};
pub use self::tokenizer::{JanusTokenizer, SpecialIds};

pub use self::files::read_file;
use self::files::read_optional;
use self::tokenizer::MAX_JSON_BYTES;

/// `max_position_embeddings` of both Janus-Pro sizes.
const DEFAULT_CONTEXT: usize = 16_384;
/// Tokens that both Janus-Pro sizes saw at once in training; longer prompts work, and degrade.
pub const TRAINED_CONTEXT: usize = 4_096;
/// Pixels per token and side of the published vision tower.
const DEFAULT_PATCH: usize = 16;
/// Far above any tower; keeps a broken file from making prompts of a million tokens per picture.
const MAX_IMAGE_TOKENS: u64 = 1 << 16;

/// All that a checkpoint folder says about turning conversations and pictures into numbers.
#[derive(Debug)]
pub struct Processor {
    /// Text to ids and back.
    pub tokenizer: JanusTokenizer,
    /// Pictures to pixels.
    pub image: ImageProcessorConfig,
    /// Vectors of the vision tower per picture; 576. Where no file says it, those of the published
    /// tower's patches of 16 pixels, or the model's own by [`Processor::for_model`].
    pub num_image_tokens: usize,
    /// How roles are written.
    pub style: ChatStyle,
    /// Longest prompt, in tokens.
    pub context_length: usize,
}

impl Processor {
    /// Reads the tokenizer and the image rules from a checkpoint folder in the original or the
    /// Hugging Face layout.
    ///
    /// The style is [`ChatStyle::Pro`] where the tokenizer knows the role tokens. Janus-1.3B's
    /// does too, although its prompts do not use them: set [`Processor::style`] for that model.
    ///
    /// # Errors
    /// [`ProcessorError`] naming the file and the field.
    pub fn from_dir(dir: &Path) -> Result<Self, ProcessorError> {
        Ok(Self::read(dir)?.0)
    }

    /// The processor, and where it has its two numbers about pictures from.
    fn read(dir: &Path) -> Result<(Self, Sources), ProcessorError> {
        let tokenizer = JanusTokenizer::from_dir(dir)?;
        let processor = read_json(&dir.join("processor_config.json"))?;
        let (image, image_file) = image_config(dir, &processor)?;
        let stated = image_tokens(dir, &processor)?;
        let implied = (image.image_size / DEFAULT_PATCH).pow(2);
        let (num_image_tokens, tokens_file) = match stated {
            Some((count, path)) => (count, Some(path)),
            None => (implied, None),
        };
        if processor.get("add_special_token") == Some(&Value::Bool(true)) {
            let path = dir.join("processor_config.json");
            let problem = "add_special_token is true: this placeholder form was never trained";
            return Err(ProcessorError::Config { path, problem: problem.to_owned() });
        }
        let special = tokenizer.special();
        let has_roles = special.user.is_some() && special.assistant.is_some();
        let style = if has_roles { ChatStyle::Pro } else { ChatStyle::Janus1_3b };
        let context_length = tokenizer.max_length().unwrap_or(DEFAULT_CONTEXT);
        let processor = Self { tokenizer, image, num_image_tokens, style, context_length };
        Ok((processor, Sources { image: image_file, tokens: tokens_file }))
    }

    /// As [`Processor::from_dir`], for the model in the same folder: what both say must agree, and
    /// Janus-1.3B is told from Janus-Pro.
    ///
    /// # Errors
    /// [`ProcessorError`] naming what disagrees.
    pub fn for_model(dir: &Path, config: &JanusConfig) -> Result<Self, ProcessorError> {
        let (mut processor, sources) = Self::read(dir)?;
        processor.tokenizer.check_vocabulary(config.language.vocab_size)?;
        let agree = |path: PathBuf, what: &str, ours: usize, model: usize| {
            if ours == model {
                return Ok(());
            }
            let problem = format!("{ours} {what}, but config.json has {model}");
            Err(ProcessorError::Config { path, problem })
        };
        let (side, tokens) = (config.vision.image_size, config.image_tokens());
        agree(sources.image, "pixels per side", processor.image.image_size, side)?;
        match sources.tokens {
            Some(path) => agree(path, "image tokens", processor.num_image_tokens, tokens)?,
            None => processor.num_image_tokens = tokens,
        }
        if is_janus_1_3b(config, processor.tokenizer.special().pad) {
            processor.style = ChatStyle::Janus1_3b;
        }
        let positions = config.language.max_position_embeddings;
        processor.context_length = processor.context_length.min(positions);
        Ok(processor)
    }

    /// Prepares a question: conversation, opened answer and pictures.
    ///
    /// # Errors
    /// As [`Processor::understand_batch`].
    pub fn understand(
        &self,
        conversation: &Conversation,
        images: &[RgbImage8],
    ) -> Result<ModelInput, ProcessorError> {
        self.understand_batch(&[(conversation, images)])
    }

    /// Prepares several questions as one left-padded batch; the pictures follow row by row.
    ///
    /// # Errors
    /// [`ProcessorError::Prompt`] for empty conversations, pictures that are missing or unused,
    /// prompts above [`Processor::context_length`].
    pub fn understand_batch(
        &self,
        requests: &[(&Conversation, &[RgbImage8])],
    ) -> Result<ModelInput, ProcessorError> {
        if requests.is_empty() {
            return Err(PromptError::Empty.into());
        }
        let mut rows = Vec::with_capacity(requests.len());
        let mut order = Vec::new();
        for (conversation, images) in requests {
            let (ids, placed) = self.question(conversation, images)?;
            rows.push(ids);
            order.extend(placed);
        }
        let mut input = ModelInput::left_padded(&rows, self.tokenizer.special());
        input.n_images = order.len();
        for image in order {
            let values = self.image.understanding_pixels(image);
            input.image_size = values.side;
            input.pixels.extend(values.data);
        }
        input.check_slots(self.num_image_tokens)?;
        Ok(input)
    }

    /// Ids of one question and its pictures in the order of their places.
    fn question<'a>(
        &self,
        conversation: &Conversation,
        images: &'a [RgbImage8],
    ) -> Result<(Vec<u32>, Vec<&'a RgbImage8>), PromptError> {
        if conversation.messages.is_empty() {
            return Err(PromptError::Empty);
        }
        let rendered =
            conversation.clone().awaiting_answer().render(self.style, &self.tokenizer)?;
        let given = images.len();
        let place =
            |&index: &usize| images.get(index).ok_or(PromptError::NoSuchImage { index, given });
        let placed = rendered.images.iter().map(place).collect::<Result<_, _>>()?;
        if let Some(index) = (0..given).find(|index| !rendered.images.contains(index)) {
            return Err(PromptError::UnusedImage { index, given });
        }
        let ids = rendered.ids(&self.tokenizer, self.num_image_tokens)?;
        self.check_length(ids.len())?;
        Ok((ids, placed))
    }

    /// Prepares the two prompts of a picture to be generated.
    ///
    /// # Errors
    /// [`ProcessorError::Prompt`] for a prompt above [`Processor::context_length`].
    pub fn generate(&self, prompt: &str) -> Result<GenerationPrompt, ProcessorError> {
        let prompt = GenerationPrompt::new(prompt, self.style, &self.tokenizer)?;
        self.check_length(prompt.conditional.len())?;
        Ok(prompt)
    }

    /// Prepares the prompt of a picture to be drawn from `pictures` others, of `codes` codes each.
    /// [`IMAGE_PLACE`] stands for a picture; where it stands nowhere, all come first.
    ///
    /// # Errors
    /// [`ProcessorError::Prompt`] for another number of places than pictures, and for a prompt
    /// above [`Processor::context_length`].
    pub fn edit(
        &self,
        prompt: &str,
        pictures: usize,
        codes: usize,
    ) -> Result<EditPrompt, ProcessorError> {
        let asked = Conversation::from_text(Some(""), &[(Role::User, prompt)], pictures)?;
        let content = asked.messages.into_iter().flat_map(|message| message.content);
        let content: Vec<Part> = content.collect();
        let how = (self.style, &self.tokenizer);
        let prompt = EditPrompt::new("", &content, how, (self.num_image_tokens, codes))?;
        self.check_length(prompt.ids.len())?;
        Ok(prompt)
    }

    fn check_length(&self, tokens: usize) -> Result<(), PromptError> {
        let limit = self.context_length;
        if tokens > limit { Err(PromptError::TooLong { tokens, limit }) } else { Ok(()) }
    }
}

/// The files that an error about a number must name.
struct Sources {
    /// Of [`Processor::image`].
    image: PathBuf,
    /// Of [`Processor::num_image_tokens`], unless no file says it.
    tokens: Option<PathBuf>,
}

/// An optional JSON file; `null` where it is absent.
fn read_json(path: &Path) -> Result<Value, ProcessorError> {
    let Some(bytes) = read_optional(path, MAX_JSON_BYTES)? else {
        return Ok(Value::Null);
    };
    let problem = |e: serde_json::Error| format!("not JSON: {e}");
    serde_json::from_slice(&bytes)
        .map_err(|e| ProcessorError::Config { path: path.to_owned(), problem: problem(e) })
}

/// Janus-1.3B is the 1B network with the tokenizer that Janus-Pro only has at 7B. That tokenizer
/// knows the role tokens, but the prompts of 1.3B spell the roles out.
fn is_janus_1_3b(config: &JanusConfig, pad: u32) -> bool {
    const PAD_OF_7B: u32 = 100_015;
    config.language == JanusConfig::pro_1b().language && pad == PAD_OF_7B
}

/// `preprocessor_config.json`, or the part of `processor_config.json` that newer `transformers`
/// writes in its place; and which of the two it was.
fn image_config(
    dir: &Path,
    processor: &Value,
) -> Result<(ImageProcessorConfig, PathBuf), ProcessorError> {
    let path = dir.join("preprocessor_config.json");
    let nested = processor.get("image_processor").filter(|value| value.is_object());
    let (config, path) = match (read_optional(&path, MAX_JSON_BYTES)?, nested) {
        (Some(bytes), _) => (ImageProcessorConfig::from_json(&bytes), path),
        (None, Some(nested)) => {
            (ImageProcessorConfig::from_value(nested), dir.join("processor_config.json"))
        }
        // Neither exists: the error of the file that the published folders have.
        (None, None) => (ImageProcessorConfig::from_json(&read_file(&path, MAX_JSON_BYTES)?), path),
    };
    match config {
        Ok(config) => Ok((config, path)),
        Err(source) => Err(ProcessorError::ImageConfig { path, source }),
    }
}

/// From `processor_config.json`, else from the model's own `config.json`, with the file.
fn image_tokens(dir: &Path, processor: &Value) -> Result<Option<(usize, PathBuf)>, ProcessorError> {
    let read = |path: PathBuf, field: &str, value: &Value| match value
        .as_u64()
        .filter(|count| (1..=MAX_IMAGE_TOKENS).contains(count))
    {
        Some(count) => Ok(Some((count as usize, path))),
        None => {
            let problem = format!("{field} is not a whole number from 1 to {MAX_IMAGE_TOKENS}");
            Err(ProcessorError::Config { path, problem })
        }
    };
    if let Some(value) = processor.get("num_image_tokens").filter(|value| !value.is_null()) {
        return read(dir.join("processor_config.json"), "num_image_tokens", value);
    }
    let path = dir.join("config.json");
    let config = read_json(&path)?;
    match config.pointer("/vision_config/num_image_tokens").filter(|value| !value.is_null()) {
        Some(value) => read(path, "vision_config.num_image_tokens", value),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_small_network_with_the_large_tokenizer_is_janus_1_3b() {
        assert!(is_janus_1_3b(&JanusConfig::pro_1b(), 100_015));
        assert!(!is_janus_1_3b(&JanusConfig::pro_1b(), 100_002));
        assert!(!is_janus_1_3b(&JanusConfig::pro_7b(), 100_015));
    }
}
