//! One micro-batch: plain numbers, so that it can be made ahead on other threads.
//!
//! Places are flat: row `r`, column `c` of `[B, T]` is `r · T + c`. Everything that is no text
//! token names its places, so one layout holds understanding, text, drawing and editing samples,
//! packed into one row or not.
//!
//! ```text
//! understanding  bos … <|User|>: boi IMG×576 eoi question <|Assistant|>: ANSWER eos
//!                                    └ image_places                     └ text_targets
//! drawing        bos <|User|>: caption <|Assistant|>: boi c0 c1 … c575
//!                                                      └ c0 is predicted from boi: code_targets
//! ```

/// A micro-batch of `B` rows of `T` tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Rows.
    pub rows: usize,
    /// Tokens of each row, padding included.
    pub tokens: usize,
    /// `[B, T]` text ids; the padding token where a picture, a code or nothing stands.
    pub ids: Vec<i32>,
    /// `[B, T]` positions, from 0 in every document or in every row, as packing has it.
    pub positions: Vec<i32>,
    /// `[B, T]` number of the document within its row, from 0; -1 for padding. A token sees the
    /// earlier tokens of its own document. Without isolation a whole row is one document.
    pub documents: Vec<i32>,
    /// Pictures to be understood: `[N, 3, S, S]`, in [-1, 1].
    pub pixels: Vec<f32>,
    /// Places of their tokens, picture by picture in raster order.
    pub image_places: Vec<i32>,
    /// Codes that are read: all of each drawn picture, but not the last one where the picture
    /// ends its document.
    pub codes: Vec<i32>,
    /// Places of their embeddings.
    pub code_places: Vec<i32>,
    /// Words to be predicted, and the places whose hidden states predict them: one before.
    pub text_targets: Vec<Target>,
    /// Codes to be predicted; the first of a picture is predicted from begin-of-image.
    pub code_targets: Vec<Target>,
}

/// A supervised token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Flat place of the hidden state that predicts it.
    pub place: i32,
    /// What it should predict: an id of the vocabulary, or a code.
    pub id: i32,
}

impl Batch {
    /// Supervised words and codes.
    pub fn supervised(&self) -> usize {
        self.text_targets.len() + self.code_targets.len()
    }
}
