//! `generation_config.json`, as far as it matters here: what the makers of a model advise.

use std::path::Path;

use serde_json::Value;

use super::fields::{ConfigError, Fields, read_capped};

/// Far above any real one.
const MAX_BYTES: u64 = 1 << 20;

/// What the makers of a model advise for drawing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Weight of guidance, from 0 to 1000.
    pub guidance_scale: Option<f32>,
}

impl GenerationConfig {
    /// Reads it from a model folder; without the file nothing is advised.
    ///
    /// # Errors
    /// A file that cannot be read, is too large or not JSON; a weight that is no number in range.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("generation_config.json");
        match read_capped(&path, MAX_BYTES) {
            Ok(text) => Self::from_json(&text).map_err(|error| error.in_file(&path)),
            Err(ConfigError::Missing { .. }) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Parses its text.
    ///
    /// # Errors
    /// As [`GenerationConfig::from_dir`].
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let value: Value =
            serde_json::from_str(text).map_err(|source| ConfigError::Json { source })?;
        let guidance_scale = match Fields::root(&value)?.float("guidance_scale")? {
            Some(weight) if !(0.0..=1000.0).contains(&weight) => {
                let problem = format!("{weight} is not from 0 to 1000");
                return Err(ConfigError::field("guidance_scale", problem));
            }
            weight => weight.map(|weight| weight as f32),
        };
        Ok(Self { guidance_scale })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_number_in_range_or_not_there() {
        let read = |text: &str| GenerationConfig::from_json(text).map(|found| found.guidance_scale);
        assert_eq!(read(r#"{"guidance_scale": 2.5, "eos_token_id": 1}"#).ok(), Some(Some(2.5)));
        for absent in ["{}", r#"{"guidance_scale": null}"#] {
            assert_eq!(read(absent).ok(), Some(None), "{absent}");
        }
        for (bad, said) in [
            ("[]", "expected an object"),
            ("{", "not valid JSON"),
            (r#"{"guidance_scale": "5"}"#, "guidance_scale: "),
            (r#"{"guidance_scale": -1}"#, "guidance_scale: -1 is not from 0 to 1000"),
            (r#"{"guidance_scale": 1e9}"#, "guidance_scale: 1000000000 is not"),
        ] {
            let error = read(bad).map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|error| error.contains(said)), "{bad}: {error:?}");
        }
    }
}
