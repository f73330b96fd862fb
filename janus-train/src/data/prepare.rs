//! One sample made ready: tokens written, pictures decoded and resized.
//!
//! Stateless, so that any thread may do it: the same source, epoch and number give the same result.

use std::sync::Arc;

use janus_model::processor::{
    ImageError, ImageLimits, Orientation, PixelValues, RgbImage8, decode_image,
};

use super::codes::{Cache, Framing, Key};
use super::error::{Bad, Place, Why};
use super::sample::{Picture, Sample};
use super::source::Source;
use super::tokens::{Chance, Document, Drawn, Tokens};

/// How samples are made ready.
#[derive(Clone, Debug)]
pub struct Prepare {
    /// Text to ids.
    pub tokens: Tokens,
    /// What a picture may cost.
    pub limits: ImageLimits,
    /// Whether EXIF is followed.
    pub orientation: Orientation,
    /// Codes of pictures that were met before.
    pub cache: Option<Arc<Cache>>,
}

/// A sample that is ready but for the codes of pictures that were never met.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Where it stands.
    pub place: Place,
    /// Its tokens.
    pub document: Document,
    /// Pixels of the pictures that are read, as [`Document::seen`] has them.
    pub pixels: Vec<Vec<f32>>,
    /// Codes of the pictures that stand as codes, as [`Document::drawn`] has them.
    pub codes: Vec<Codes>,
}

/// The codes of a picture.
#[derive(Clone, Debug)]
pub enum Codes {
    /// Out of the cache, or computed.
    Known(Vec<i32>),
    /// To be computed.
    Wanted {
        /// Where to keep them, if they are kept.
        key: Option<Key>,
        /// What to compute them from.
        pixels: PixelValues,
    },
}

/// A document, the pixels of its pictures that are read, and the codes of those that are drawn.
type Ready = (Document, Vec<Vec<f32>>, Vec<Codes>);

impl Prepare {
    /// Limits as at inference, no cache.
    pub fn new(tokens: Tokens) -> Self {
        let (limits, orientation) = (ImageLimits::default(), Orientation::default());
        Self { tokens, limits, orientation, cache: None }
    }

    /// Sample `index` of a source, as it is in an epoch.
    ///
    /// # Errors
    /// [`Bad`]: where it stands and why it cannot be used.
    pub fn sample(&self, source: &Source, epoch: u64, index: u64) -> Result<Prepared, Bad> {
        let chance = Chance::of(&self.tokens.objective, source.seed(), epoch, index);
        self.of(source.place(index), source.sample(index), chance)
    }

    /// A sample that was read.
    ///
    /// # Errors
    /// As [`Prepare::sample`].
    pub fn of(
        &self,
        place: Place,
        sample: Result<Sample, Why>,
        chance: Chance,
    ) -> Result<Prepared, Bad> {
        match sample.and_then(|sample| self.ready(&sample, chance)) {
            Ok((document, pixels, codes)) => Ok(Prepared { place, document, pixels, codes }),
            Err(why) => Err(Bad { place, why }),
        }
    }

    /// The tokens of a sample, whatever its pictures are.
    ///
    /// # Errors
    /// [`Why`] it cannot be used.
    pub fn document(&self, source: &Source, index: u64) -> Result<Document, Why> {
        self.tokens.document(&source.sample(index)?, Chance::default())
    }

    fn ready(&self, sample: &Sample, chance: Chance) -> Result<Ready, Why> {
        // Tokens first: a sample that is too long costs no decoding.
        let document = self.tokens.document(sample, chance)?;
        let seen = document.seen.iter().map(|seen| self.seen(&sample.pictures[seen.picture]));
        let pixels = seen.collect::<Result<_, _>>()?;
        let edits = sample.edits();
        let drawn = |drawn: &Drawn| self.drawn(&sample.pictures[drawn.picture], edits);
        let drawn = document.drawn.iter().map(drawn);
        let codes = drawn.collect::<Result<_, _>>()?;
        Ok((document, pixels, codes))
    }

    /// Pixels for the vision tower.
    fn seen(&self, picture: &Picture) -> Result<Vec<f32>, Why> {
        let image = self.decode(picture, &picture.bytes(&self.limits)?)?;
        Ok(self.tokens.processor.image.understanding_pixels(&image).data)
    }

    /// Codes, or pixels for the image tokenizer: all of the picture in editing, where what is read
    /// and what is drawn lie upon each other, else its middle.
    fn drawn(&self, picture: &Picture, edits: bool) -> Result<Codes, Why> {
        let bytes = picture.bytes(&self.limits)?;
        let rules = &self.tokens.processor.image;
        let upright = self.orientation == Orientation::Upright;
        let framing = if edits { Framing::Whole } else { Framing::Middle };
        let key = |cache: &Cache| cache.key(&bytes, rules.image_size, upright, framing);
        let key = self.cache.as_ref().map(|cache| (cache, key(cache)));
        if let Some(codes) = key.and_then(|(cache, key)| cache.get(&key)) {
            return Ok(Codes::Known(codes));
        }
        let image = self.decode(picture, &bytes)?;
        let pixels = match framing {
            Framing::Whole => rules.editing_pixels(&image),
            Framing::Middle => rules.generation_pixels(&image),
        };
        Ok(Codes::Wanted { key: key.map(|(_, key)| key), pixels })
    }

    fn decode(&self, picture: &Picture, bytes: &[u8]) -> Result<RgbImage8, Why> {
        decoded(picture, bytes, &self.limits, self.orientation)
    }
}

/// A picture out of its bytes; an error names its file.
fn decoded(
    picture: &Picture,
    bytes: &[u8],
    limits: &ImageLimits,
    orientation: Orientation,
) -> Result<RgbImage8, Why> {
    decode_image(bytes, limits, orientation).map_err(|error| match picture {
        Picture::File(path) => {
            Why::Picture(ImageError::File { path: path.clone(), source: Box::new(error) })
        }
        Picture::Bytes(_) => Why::Picture(error),
    })
}

/// Reads and decodes a picture.
///
/// # Errors
/// [`Why`] it cannot be used.
pub fn decode(
    picture: &Picture,
    limits: &ImageLimits,
    orientation: Orientation,
) -> Result<RgbImage8, Why> {
    decoded(picture, &picture.bytes(limits)?, limits, orientation)
}
