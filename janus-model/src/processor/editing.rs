//! The prompt of a picture that is drawn from other pictures.
//!
//! ```text
//! bos <|User|>: ‹boi IMG×576 eoi boi CODE×576 eoi› prompt <|Assistant|>: boi
//! ```
//! Each picture is there twice, once as the vision tower sees it and once as the codes it would be
//! drawn with; the prompt follows without a blank. There is no system text.
//!
//! This is the layout of Janus-4o (<https://github.com/FreedomIntelligence/ShareGPT-4o-Image>),
//! which has all pictures before the prompt; here they may also stand inside it.

use super::error::PromptError;
use super::prompt::{ChatStyle, Part, Rendered};
use super::tokenizer::{ASSISTANT, JanusTokenizer, USER};

/// Where one picture stands in an [`EditPrompt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index of the picture in the list that goes with the prompt.
    pub picture: usize,
    /// Place of the first vector of the vision tower; the others follow.
    pub features: usize,
    /// Place of the first code; the others follow.
    pub codes: usize,
}

/// Ids of a prompt with pictures, and where these stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditPrompt {
    /// Ends in begin-of-image. Where pictures stand there is padding: it is what the model reads
    /// of a picture that is left out.
    pub ids: Vec<u32>,
    /// Pictures in order of their places.
    pub slots: Vec<Slot>,
}

impl EditPrompt {
    /// Writes and encodes a prompt, for pictures of `image_tokens` vectors and `codes` codes.
    /// White space around its texts does not count.
    ///
    /// # Errors
    /// [`PromptError::Tokenizer`].
    pub fn new(
        system: &str,
        content: &[Part],
        (style, tokenizer): (ChatStyle, &JanusTokenizer),
        (image_tokens, codes): (usize, usize),
    ) -> Result<Self, PromptError> {
        let mut rendered = render(system, content, style, tokenizer);
        rendered.control(tokenizer.begin_of_image_text());
        let special = tokenizer.special();
        let mut ids = vec![special.bos];
        let mut slots = Vec::new();
        let mut pictures = rendered.images.iter();
        for id in tokenizer.encode_mixed(&rendered.text, &rendered.trusted)? {
            if id != special.image_placeholder {
                ids.push(id);
                continue;
            }
            let mut room = |count| {
                ids.push(special.begin_of_image);
                let start = ids.len();
                ids.extend(std::iter::repeat_n(special.pad, count));
                ids.push(special.end_of_image);
                start
            };
            let (features, codes) = (room(image_tokens), room(codes));
            slots.extend(pictures.next().map(|&picture| Slot { picture, features, codes }));
        }
        Ok(Self { ids, slots })
    }
}

fn render(
    system: &str,
    content: &[Part],
    style: ChatStyle,
    tokenizer: &JanusTokenizer,
) -> Rendered {
    let mut out = Rendered::default();
    let role = |out: &mut Rendered, token, word| match style {
        ChatStyle::Pro => out.control(token),
        ChatStyle::Janus1_3b => out.plain(word),
    };
    if !system.is_empty() {
        out.plain(system);
        out.plain("\n\n");
    }
    role(&mut out, USER, "User");
    out.plain(": ");
    for part in content {
        match part {
            Part::Text(text) => out.plain(text.trim()),
            Part::Image(picture) => {
                out.control(tokenizer.image_text());
                out.images.push(*picture);
            }
        }
    }
    out.plain("\n\n");
    role(&mut out, ASSISTANT, "Assistant");
    out.plain(":");
    out
}
