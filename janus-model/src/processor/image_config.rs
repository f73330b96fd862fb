//! The image rules a checkpoint ships: `preprocessor_config.json`.
//!
//! Two dialects exist: the original `VLMImageProcessor` (`image_size` is a number, sizes are
//! truncated) and Hugging Face's `JanusImageProcessor` (`size` is an object or a number, sizes are
//! rounded). Newer `transformers` nests the same object in `processor_config.json`.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::config::shown;

/// How the short side's length is made whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SizeRule {
    /// `floor(S * length / long)`: what Janus was trained with.
    #[default]
    Original,
    /// `round(length * (S / long))`, ties to even: about 43 % of pictures differ by one pixel.
    HuggingFace,
}

/// How a picture becomes the vision tower's input. The default is what both Janus-Pro sizes publish.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessorConfig {
    /// Side of the square input, in pixels.
    pub image_size: usize,
    /// Smallest length of the short side after the resize, in pixels.
    pub min_size: usize,
    /// Colour of the padding, 0..=255.
    pub background_color: [u8; 3],
    /// Bytes are multiplied by this first; 1/255.
    pub rescale_factor: f64,
    /// Whether mean and deviation are applied.
    pub do_normalize: bool,
    /// Subtracted per channel, after the rescale.
    pub image_mean: [f64; 3],
    /// Divided by per channel.
    pub image_std: [f64; 3],
    /// Truncate or round.
    pub size_rule: SizeRule,
}

impl Default for ImageProcessorConfig {
    fn default() -> Self {
        Self {
            image_size: 384,
            min_size: 14,
            background_color: [127; 3],
            rescale_factor: 0.00392156862745098,
            do_normalize: true,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
            size_rule: SizeRule::Original,
        }
    }
}

/// A field of an image-processor file that cannot be used.
#[derive(Debug, Error, PartialEq)]
pub enum ImageConfigError {
    /// Not JSON, or not an object.
    #[error("not a JSON object: {reason}")]
    Json {
        /// The parser's words, with line and column.
        reason: String,
    },
    /// A field with a value outside its range or of another type.
    #[error("{field}: {found} is not {expected}")]
    Field {
        /// Path of the field.
        field: String,
        /// What stands there, cut to a few characters.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
}

/// Sides above this are no vision tower but an attempt to make us allocate.
const MAX_SIDE: u64 = 4096;

impl ImageProcessorConfig {
    /// Reads either dialect. Fields that do not matter here are ignored, absent ones keep the
    /// published values, an absent `background_color` follows the mean as in the reference.
    ///
    /// # Errors
    /// [`ImageConfigError`] naming the field: sides outside 1..=4096, `min_size` above the side,
    /// height and width that differ, numbers that are not finite, a deviation or scale of 0.
    pub fn from_json(json: &[u8]) -> Result<Self, ImageConfigError> {
        let value: Value = serde_json::from_slice(json)
            .map_err(|e| ImageConfigError::Json { reason: e.to_string() })?;
        Self::from_value(&value)
    }

    /// [`ImageProcessorConfig::from_json`] for JSON that is already parsed.
    ///
    /// # Errors
    /// As there.
    pub fn from_value(value: &Value) -> Result<Self, ImageConfigError> {
        let Value::Object(fields) = value else {
            return Err(ImageConfigError::Json { reason: format!("found {}", shown(value)) });
        };
        let mut config = Self::default();
        let kind = fields.get("image_processor_type").and_then(Value::as_str).unwrap_or_default();
        if kind.starts_with("JanusImageProcessor") {
            config.size_rule = SizeRule::HuggingFace;
        }
        if let Some(size) = image_size(fields)? {
            config.image_size = size;
        }
        if let Some(value) = present(fields, "min_size") {
            config.min_size = side("min_size", value)?;
        }
        if config.min_size > config.image_size {
            let found = Value::from(config.min_size);
            return Err(bad("min_size", &found, "at most the image size"));
        }
        if let Some(value) = present(fields, "do_normalize") {
            config.do_normalize =
                value.as_bool().ok_or_else(|| bad("do_normalize", value, "true or false"))?;
        }
        if let Some(value) = present(fields, "rescale_factor") {
            config.rescale_factor = nonzero("rescale_factor", value)?;
        }
        config.read_channels(fields)?;
        Ok(config)
    }

    fn read_channels(&mut self, fields: &Map<String, Value>) -> Result<(), ImageConfigError> {
        if let Some(value) = present(fields, "image_mean") {
            self.image_mean = channels("image_mean", value, finite)?;
            // int(x * 255) of the reference; `as` saturates what is out of range.
            self.background_color = self.image_mean.map(|mean| (mean * 255.0) as u8);
        }
        if let Some(value) = present(fields, "image_std") {
            self.image_std = channels("image_std", value, nonzero)?;
        }
        if let Some(value) = present(fields, "background_color") {
            self.background_color = channels("background_color", value, |field, value| {
                let byte = value.as_u64().and_then(|v| u8::try_from(v).ok());
                byte.ok_or_else(|| bad(field, value, "a whole number from 0 to 255"))
            })?;
        }
        Ok(())
    }
}

/// The field, unless it is absent or null.
fn present<'a>(fields: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

/// `image_size` of the original, `size` of Hugging Face; each a number or `{height, width}`.
fn image_size(fields: &Map<String, Value>) -> Result<Option<usize>, ImageConfigError> {
    let named = ["image_size", "size"].into_iter().find_map(|f| Some((f, present(fields, f)?)));
    let Some((field, value)) = named else {
        return Ok(None);
    };
    let Value::Object(sides) = value else {
        return side(field, value).map(Some);
    };
    let read = |name: &str| {
        let path = format!("{field}.{name}");
        side(&path, sides.get(name).unwrap_or(&Value::Null))
    };
    let (height, width) = (read("height")?, read("width")?);
    if height != width {
        return Err(bad(field, value, "a square"));
    }
    Ok(Some(height))
}

fn side(field: &str, value: &Value) -> Result<usize, ImageConfigError> {
    value
        .as_u64()
        .filter(|side| (1..=MAX_SIDE).contains(side))
        .map(|side| side as usize)
        .ok_or_else(|| bad(field, value, "a whole number from 1 to 4096"))
}

fn finite(field: &str, value: &Value) -> Result<f64, ImageConfigError> {
    // The f32 that the arithmetic uses must be finite too.
    let number = value.as_f64().filter(|number| (*number as f32).is_finite());
    number.ok_or_else(|| bad(field, value, "a finite number"))
}

fn nonzero(field: &str, value: &Value) -> Result<f64, ImageConfigError> {
    let number = finite(field, value)?;
    // A subnormal deviation is as useless as 0: the quotient is infinite.
    if (number as f32).is_normal() {
        Ok(number)
    } else {
        Err(bad(field, value, "above or below 0"))
    }
}

fn channels<T: Copy + Default>(
    field: &str,
    value: &Value,
    read: impl Fn(&str, &Value) -> Result<T, ImageConfigError>,
) -> Result<[T; 3], ImageConfigError> {
    let list = value.as_array().filter(|list| list.len() == 3);
    let list = list.ok_or_else(|| bad(field, value, "a list of three numbers"))?;
    let mut out = [T::default(); 3];
    for (index, (slot, value)) in out.iter_mut().zip(list).enumerate() {
        *slot = read(&format!("{field}[{index}]"), value)?;
    }
    Ok(out)
}

fn bad(field: &str, found: &Value, expected: &'static str) -> ImageConfigError {
    ImageConfigError::Field { field: field.to_owned(), found: shown(found), expected }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<ImageProcessorConfig, ImageConfigError> {
        ImageProcessorConfig::from_value(&value)
    }

    #[test]
    fn the_published_file_is_the_default() {
        let config = read(json!({
            "background_color": [127, 127, 127], "do_normalize": true,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "VLMImageProcessor", "processor_class": "VLChatProcessor",
            "image_size": 384, "min_size": 14, "rescale_factor": 0.00392156862745098,
        }));
        assert_eq!(config, Ok(ImageProcessorConfig::default()));
    }

    #[test]
    fn the_hugging_face_dialect() {
        let config = read(json!({
            "image_processor_type": "JanusImageProcessorFast", "do_convert_rgb": null,
            "size": {"height": 64, "width": 64}, "min_size": 4, "resample": 3,
            "image_mean": [0.25, 0.5, 1.0], "background_color": null,
        }))
        .expect("a valid file");
        assert_eq!((config.image_size, config.min_size), (64, 4));
        assert_eq!(config.size_rule, SizeRule::HuggingFace);
        assert_eq!(config.background_color, [63, 127, 255]);
    }

    #[test]
    fn a_wrong_field_is_named() {
        let cases = [
            (json!({"image_size": 0}), "image_size: 0 is not"),
            (json!({"image_size": 1_000_000}), "image_size: 1000000 is not"),
            (json!({"size": {"height": 384}}), "size.width: null is not"),
            (json!({"size": {"height": 384, "width": 200}}), "is not a square"),
            (json!({"image_size": 8, "min_size": 9}), "min_size: 9 is not at most"),
            (json!({"image_std": [0.5, 0.0, 0.5]}), "image_std[1]: 0.0 is not"),
            (json!({"image_std": [0.5, 1e-320, 0.5]}), "image_std[1]"),
            (json!({"image_mean": [0.5, 1e300, 0.5]}), "image_mean[1]"),
            (json!({"image_mean": [0.5]}), "image_mean: [0.5] is not a list of three"),
            (json!({"background_color": [0, 256, 0]}), "background_color[1]: 256"),
            (json!({"do_normalize": "yes"}), "do_normalize: \"yes\" is not"),
            (json!([]), "not a JSON object: found []"),
        ];
        for (value, expected) in cases {
            let error = read(value).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        }
    }

    #[test]
    fn python_nan_and_overflowing_numbers_are_refused() {
        for text in [r#"{"image_std": [NaN, 1, 1]}"#, r#"{"image_mean": [1e999, 1, 1]}"#, "", "{"] {
            let error = ImageProcessorConfig::from_json(text.as_bytes()).expect_err(text);
            assert!(matches!(error, ImageConfigError::Json { .. }), "{text}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_give_a_result(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ImageProcessorConfig::from_json(&bytes);
        }

        #[test]
        fn any_numbers_give_a_result(size in any::<i64>(), min in any::<i64>(), std in any::<f64>()) {
            let value = json!({"size": size, "min_size": min, "image_std": [std, 1.0, 1.0]});
            if let Ok(config) = ImageProcessorConfig::from_value(&value) {
                prop_assert!(config.min_size <= config.image_size);
                prop_assert!(config.image_std.iter().all(|s| s.is_finite() && *s != 0.0));
            }
        }
    }
}
