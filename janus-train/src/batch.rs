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
//!
//! [`Batch::check`] is the door: what passes it cannot make the step panic or look outside a table.

use janus_model::JanusConfig;

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

/// What makes a batch unusable: a bug of whoever made it, or data of another model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// A list is not as long as the others say.
    #[error("batch: {what} has {found} entries, {expected} were expected")]
    Length {
        /// The list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// What it should be.
        expected: usize,
    },
    /// A number lies outside what the model has.
    #[error("batch: {what} {value} is outside 0..{limit}")]
    Range {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: i32,
        /// The first one that is too large.
        limit: usize,
    },
    /// Two things want the same place.
    #[error("batch: place {place} holds two embeddings")]
    Twice {
        /// The place.
        place: i32,
    },
    /// There is nothing to learn from.
    #[error("batch: no token is supervised")]
    Unsupervised,
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

    /// Tokens that are no padding.
    pub fn filled(&self) -> usize {
        self.documents.iter().filter(|document| **document >= 0).count()
    }

    /// Pictures to be understood, by the numbers they take.
    pub fn pictures(&self, config: &JanusConfig) -> usize {
        self.pixels.len() / (3 * config.vision.image_size.pow(2))
    }

    /// Whether the lists agree with each other and every number with the model.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self, config: &JanusConfig) -> Result<(), BatchError> {
        let places = self.rows * self.tokens;
        length("ids", self.ids.len(), places)?;
        length("positions", self.positions.len(), places)?;
        length("documents", self.documents.len(), places)?;
        let (pictures, per_picture) = (self.pictures(config), config.vision.num_tokens());
        length("pixels", self.pixels.len(), pictures * 3 * config.vision.image_size.pow(2))?;
        length("image_places", self.image_places.len(), pictures * per_picture)?;
        length("code_places", self.code_places.len(), self.codes.len())?;
        range("id", &self.ids, config.language.vocab_size)?;
        range("position", &self.positions, config.language.max_position_embeddings)?;
        range("code", &self.codes, config.gen_vision.num_embeddings)?;
        self.check_places(places)?;
        let [words, codes] = [&self.text_targets, &self.code_targets];
        for (targets, limit) in
            [(words, config.language.vocab_size), (codes, config.gen_vision.num_embeddings)]
        {
            let (at, ids): (Vec<i32>, Vec<i32>) = targets.iter().map(|t| (t.place, t.id)).unzip();
            range("place of a target", &at, places)?;
            range("target", &ids, limit)?;
        }
        match self.supervised() {
            0 => Err(BatchError::Unsupervised),
            _ => Ok(()),
        }
    }

    /// Every embedding that is no text token has a place of its own.
    fn check_places(&self, places: usize) -> Result<(), BatchError> {
        range("place of a picture", &self.image_places, places)?;
        range("place of a code", &self.code_places, places)?;
        let mut taken = vec![false; places];
        for &place in self.image_places.iter().chain(&self.code_places) {
            if std::mem::replace(&mut taken[place as usize], true) {
                return Err(BatchError::Twice { place });
            }
        }
        Ok(())
    }
}

fn length(what: &'static str, found: usize, expected: usize) -> Result<(), BatchError> {
    if found == expected {
        return Ok(());
    }
    Err(BatchError::Length { what, found, expected })
}

fn range(what: &'static str, values: &[i32], limit: usize) -> Result<(), BatchError> {
    let outside = |value: &&i32| !usize::try_from(**value).is_ok_and(|value| value < limit);
    match values.iter().find(outside) {
        Some(&value) => Err(BatchError::Range { what, value, limit }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two words; a drawing of two codes, the first of which is read; nothing to look at.
    fn good() -> Batch {
        let target = |place, id| Target { place, id };
        Batch {
            rows: 1,
            tokens: 4,
            ids: vec![7, 8, 9, 0],
            positions: vec![0, 1, 2, 3],
            documents: vec![0; 4],
            codes: vec![5],
            code_places: vec![3],
            text_targets: vec![target(0, 8)],
            code_targets: vec![target(2, 5), target(3, 6)],
            ..Batch::default()
        }
    }

    fn broken(change: impl FnOnce(&mut Batch)) -> String {
        let mut batch = good();
        change(&mut batch);
        batch
            .check(&JanusConfig::pro_1b())
            .map_or_else(|error| error.to_string(), |()| "fine".into())
    }

    #[test]
    fn what_agrees_passes() {
        assert_eq!(broken(|_| ()), "fine");
        assert_eq!(good().supervised(), 3);
    }

    #[test]
    fn what_does_not_is_named() {
        assert_eq!(broken(|b| b.ids.truncate(3)), "batch: ids has 3 entries, 4 were expected");
        assert_eq!(
            broken(|b| b.documents.push(0)),
            "batch: documents has 5 entries, 4 were expected"
        );
        assert_eq!(broken(|b| b.ids[1] = 102_400), "batch: id 102400 is outside 0..102400");
        assert_eq!(broken(|b| b.ids[1] = -100), "batch: id -100 is outside 0..102400");
        assert_eq!(broken(|b| b.codes[0] = 16_384), "batch: code 16384 is outside 0..16384");
        assert_eq!(
            broken(|b| b.positions[0] = 16_384),
            "batch: position 16384 is outside 0..16384"
        );
        assert_eq!(broken(|b| b.code_places[0] = 4), "batch: place of a code 4 is outside 0..4");
        assert_eq!(
            broken(|b| {
                b.codes.push(1);
                b.code_places.push(3);
            }),
            "batch: place 3 holds two embeddings"
        );
        assert_eq!(
            broken(|b| b.text_targets[0].place = 4),
            "batch: place of a target 4 is outside 0..4"
        );
        assert_eq!(broken(|b| b.code_targets[0].id = -1), "batch: target -1 is outside 0..16384");
        let part = 3 * 384 * 384;
        assert_eq!(
            broken(|b| b.pixels = vec![0.0; part + 1]),
            format!("batch: pixels has {} entries, {part} were expected", part + 1)
        );
        assert_eq!(
            broken(|b| b.pixels = vec![0.0; part]),
            "batch: image_places has 0 entries, 576 were expected"
        );
        assert_eq!(
            broken(|b| {
                b.text_targets.clear();
                b.code_targets.clear();
            }),
            "batch: no token is supervised"
        );
    }
}
