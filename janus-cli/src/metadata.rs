//! What a PNG file says about how it was drawn.
//!
//! Three text chunks before the pixels, UTF-8 and uncompressed (iTXt): `Software`, `Description`
//! (the prompt, which picture viewers show) and `janus`, one JSON object with everything that is
//! needed to draw the picture again.
//!
//! Reading believes nothing: only the start of a file is looked at, nothing is decompressed, and
//! every field is checked.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use janus_infer::{Guidance, InferError, Sampling};
use janus_model::ops::Products;
use janus_model::processor::RgbImage8;
use png::{BitDepth, ColorType, Decoder, DecodingError, Encoder, EncodingError, Limits};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Version of the fields below; a newer one is not understood. Adapters and pictures to draw
/// from came with 2, and files without them are still of version 1: older programs read those.
const VERSION: u32 = 2;
/// Keyword of the chunk.
const KEYWORD: &str = "janus";
/// Bytes of a file that are looked at: text comes before the pixels.
const START: u64 = 1 << 20;
/// Bytes that the chunks of a file may take in memory.
const MEMORY: usize = 4 << 20;

/// Everything that decides a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub version: u32,
    pub prompt: String,
    pub seed: u64,
    pub index: u64,
    pub cfg: f32,
    /// With pictures to draw from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cfg_image: Option<f32>,
    /// Pictures that it was drawn from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Source>,
    pub temperature: f32,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    /// Name of the model's folder, for people.
    pub model: String,
    /// What tells models apart.
    pub model_fingerprint: String,
    /// What was on the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<Adapter>,
    /// As after `--device`.
    pub device: String,
    /// Number format of the weights.
    pub dtype: String,
    /// What factors of products were rounded to, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub products: Option<Products>,
    /// Hash of the codes: whether it is the same picture, without its pixels.
    pub codes_sha256: String,
}

/// An adapter that was on the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Name of its folder, for people.
    pub name: String,
    /// What tells adapters apart.
    pub fingerprint: String,
}

/// A picture that was drawn from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name of its file, for people.
    pub name: String,
    /// Hash of what it shows.
    pub sha256: String,
}

impl Record {
    /// The oldest version that has fields for all that there is to say.
    pub fn version_with(adapters: &[Adapter], sources: &[Source]) -> u32 {
        if adapters.is_empty() && sources.is_empty() { 1 } else { VERSION }
    }

    /// How codes are chosen.
    ///
    /// # Errors
    /// Values that make no sense.
    pub fn sampling(&self) -> Result<Sampling, InferError> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
        };
        sampling.validate().map(|()| sampling)
    }

    /// How strongly the prompt is followed.
    ///
    /// # Errors
    /// A weight that makes no sense, or that pictures lack.
    pub fn guidance(&self) -> Result<Guidance, InferError> {
        let guidance = Guidance { weight: self.cfg, pictures: self.cfg_image };
        if self.cfg_image.is_some() == self.images.is_empty() {
            let problem = "pictures and cfg_image go together".into();
            return Err(InferError::Request { field: "images", problem });
        }
        guidance.validate().map(|()| guidance)
    }
}

/// SHA-256 of codes as little-endian 32-bit numbers, in hexadecimal digits.
pub fn codes_hash(codes: &[i32]) -> String {
    let mut hash = Sha256::new();
    codes.iter().for_each(|code| hash.update(code.to_le_bytes()));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a file does not say how it was drawn.
#[derive(Debug)]
pub enum Unreadable {
    /// The operating system's answer.
    Io(io::Error),
    /// Not a file.
    NotAFile,
    /// No PNG, or a damaged one.
    NotPng(String),
    /// A PNG without our chunk.
    Nothing,
    /// Our chunk, written by another version.
    Version(u64),
    /// Our chunk, damaged.
    Damaged(String),
}

/// Writes a picture, and with it how it was drawn.
///
/// # Errors
/// What the encoder refuses; nothing that [`RgbImage8`] can hold.
pub fn write_png(
    bytes: &mut Vec<u8>,
    image: &RgbImage8,
    record: Option<&Record>,
) -> Result<(), EncodingError> {
    let mut encoder = Encoder::new(bytes, image.width() as u32, image.height() as u32);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    if let Some(record) = record {
        let software = concat!("janus ", env!("CARGO_PKG_VERSION"));
        encoder.add_itxt_chunk("Software".into(), software.into())?;
        // A chunk's text ends at no byte in particular, but readers of other formats stop at 0.
        encoder.add_itxt_chunk("Description".into(), record.prompt.replace('\0', " "))?;
        let json = serde_json::to_string(record).map_err(io::Error::from)?;
        encoder.add_itxt_chunk(KEYWORD.into(), json)?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.pixels())?;
    writer.finish()
}

/// Reads what a file says.
///
/// # Errors
/// [`Unreadable`].
pub fn read(path: &Path) -> Result<Record, Unreadable> {
    // Asked first: a pipe would block.
    if !std::fs::metadata(path).map_err(Unreadable::Io)?.is_file() {
        return Err(Unreadable::NotAFile);
    }
    let mut start = Vec::new();
    let file = File::open(path).map_err(Unreadable::Io)?;
    file.take(START).read_to_end(&mut start).map_err(Unreadable::Io)?;
    parse(&start)
}

/// Reads what the start of a file says.
fn parse(start: &[u8]) -> Result<Record, Unreadable> {
    let text = find(start).map_err(|error| Unreadable::NotPng(error.to_string()))?;
    let text = text.ok_or(Unreadable::Nothing)?;
    let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
    // Before the fields: those of another version may be others.
    let value: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if (1..=u64::from(VERSION)).contains(&version) => {}
        Some(version) => return Err(Unreadable::Version(version)),
        None => return Err(Unreadable::Damaged("it has no version".into())),
    }
    let record: Record = serde_json::from_value(value).map_err(damaged)?;
    let nonsense = |error: InferError| Unreadable::Damaged(error.to_string());
    record.sampling().map_err(nonsense)?;
    record.guidance().map_err(nonsense)?;
    Ok(record)
}

/// The text of our chunk, if there is one before the pixels.
fn find(start: &[u8]) -> Result<Option<String>, DecodingError> {
    let limits = Limits { bytes: MEMORY };
    let mut decoder = Decoder::new_with_limits(Cursor::new(start), limits);
    // The only chunk that would be decompressed on the way.
    decoder.set_ignore_iccp_chunk(true);
    let reader = decoder.read_info()?;
    let chunks = &reader.info().utf8_text;
    let ours = chunks.iter().find(|chunk| chunk.keyword == KEYWORD && !chunk.compressed);
    ours.map(|chunk| chunk.get_text()).transpose()
}

#[cfg(test)]
mod tests {
    use janus_infer::sampling::uniform;
    use janus_model::processor::{ImageLimits, Orientation, decode_image};

    use super::*;

    fn record() -> Record {
        Record {
            version: VERSION,
            adapters: vec![Adapter { name: "tuned".into(), fingerprint: "cd".repeat(32) }],
            prompt: "ein Schiff – 船, \"quoted\"\n\u{1f6a2}".into(),
            seed: u64::MAX,
            index: 3,
            cfg: 0.1,
            cfg_image: Some(2.5),
            images: vec![Source { name: "day.jpg".into(), sha256: "ef".repeat(32) }],
            temperature: 1.0,
            top_k: Some(100),
            top_p: None,
            repetition_penalty: None,
            model: "Janus-Pro-1B".into(),
            model_fingerprint: "ab".repeat(32),
            device: "cpu".into(),
            dtype: "bf16".into(),
            products: Some(Products::Bf16),
            codes_sha256: codes_hash(&[1, 2, 3]),
        }
    }

    fn png(record: Option<&Record>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let image = RgbImage8::filled(8, 4, [1, 2, 3]);
        write_png(&mut bytes, &image, record).expect("a picture");
        bytes
    }

    /// A PNG whose chunk says something else.
    fn saying(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 1, 1);
        encoder.add_itxt_chunk(KEYWORD.into(), text.into()).expect("a chunk");
        let mut writer = encoder.write_header().expect("a header");
        writer.write_image_data(&[0]).expect("a pixel");
        drop(writer);
        bytes
    }

    #[test]
    fn a_file_says_how_it_was_drawn() {
        let bytes = png(Some(&record()));
        assert_eq!(parse(&bytes).expect("a record"), record());
        let image = decode_image(&bytes, &ImageLimits::default(), Orientation::Upright);
        assert_eq!(image.expect("a picture"), RgbImage8::filled(8, 4, [1, 2, 3]));
        // In the clear, for programs that know nothing of us.
        let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(holds(&record().prompt) && holds("iTXtSoftware\0\0\0\0\0janus "));
        assert!(matches!(parse(&png(None)), Err(Unreadable::Nothing)));
    }

    #[test]
    fn chunks_that_make_no_sense_are_refused() {
        let with = |change: &str, to: &str| {
            let json = serde_json::to_string(&record()).expect("json");
            assert!(json.contains(change), "{json}");
            parse(&saying(&json.replace(change, to)))
        };
        assert!(with("\"seed\"", "\"seed\"").is_ok());
        assert!(matches!(with("\"version\":2", "\"version\":3"), Err(Unreadable::Version(3))));
        for (change, to) in [
            ("\"version\":2,", ""),
            ("\"name\":", "\"more\":1,\"name\":"),
            ("\"seed\":", "\"sed\":"),
            ("\"cfg\":0.1", "\"cfg\":-1"),
            ("\"cfg\":0.1", "\"cfg\":1e99"),
            ("\"cfg_image\":2.5,", ""),
            ("\"cfg_image\":2.5", "\"cfg_image\":-2.5"),
            ("\"temperature\":1.0", "\"temperature\":\"hot\""),
            ("\"top_k\":100", "\"top_k\":0"),
            ("\"index\":3", "\"index\":-3"),
            ("\"device\":", "\"more\":1,\"device\":"),
        ] {
            assert!(matches!(with(change, to), Err(Unreadable::Damaged(_))), "{change} {to}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(parse(&saying(&deep)), Err(Unreadable::Damaged(_))));
    }

    #[test]
    fn compressed_text_is_left_alone() {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 1, 1);
        encoder.add_ztxt_chunk(KEYWORD.into(), "{\"version\":1}".into()).expect("a chunk");
        let mut writer = encoder.write_header().expect("a header");
        let mut bomb = png::text_metadata::ITXtChunk::new(KEYWORD, "0".repeat(1 << 24));
        bomb.compressed = true;
        bomb.compress_text().expect("a bomb");
        writer.write_text_chunk(&bomb).expect("a chunk");
        writer.write_image_data(&[0]).expect("a pixel");
        drop(writer);
        assert!(bytes.len() < 100_000, "{}", bytes.len());
        assert!(matches!(parse(&bytes), Err(Unreadable::Nothing)));
    }

    /// Whatever the bytes: an answer, no panic, and never another record than was written unless
    /// the checksum was made to fit.
    #[test]
    fn damaged_files_never_lie() {
        let whole = png(Some(&record()));
        // Only the start of a file is looked at: pixels need not be there.
        assert!(parse(&whole[..whole.len() - 20]).is_ok());
        for end in 0..whole.len() {
            if let Ok(found) = parse(&whole[..end]) {
                assert_eq!(found, record());
            }
        }
        for round in 0..4000 {
            let number = |step, below: usize| (uniform(1, round, step) * below as f64) as usize;
            let mut bytes = whole.clone();
            for change in 0..=number(0, 4) as u64 {
                let at = number(3 * change + 1, bytes.len());
                match number(3 * change + 2, 3) {
                    0 => bytes[at] ^= 1 << number(3 * change + 3, 8),
                    1 => {
                        bytes.remove(at);
                    }
                    _ => bytes.insert(at, number(3 * change + 3, 256) as u8),
                }
            }
            if let Ok(found) = parse(&bytes) {
                assert_eq!(found, record(), "round {round}");
            }
            let noise: Vec<u8> = (0..200).map(|at| (uniform(2, round, at) * 256.0) as u8).collect();
            assert!(parse(&noise).is_err());
            assert!(parse(&[&whole[..8], &noise].concat()).is_err());
        }
    }
}
