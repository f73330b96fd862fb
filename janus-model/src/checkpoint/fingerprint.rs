//! A short name for a model: the same for the same weights, however they are stored.
//!
//! SHA-256 over the sizes of the configuration and then, in the order of canonical names, each
//! tensor's name, element type, shape and a sample of its bytes: start, middle and end, or all of a
//! small one. Names are canonical and split matrices are joined first, so DeepSeek's and Hugging
//! Face's naming, `.bin` and safetensors, one file and shards agree. Another number format is
//! another model: it draws other pictures.
//!
//! The sample makes this cheap, and no proof: it tells models apart that were not made to be
//! confused. Training changes every matrix; a changed value between the samples goes unseen.

use std::fmt;

use burn::tensor::DType;
use sha2::{Digest, Sha256};

use super::error::CheckpointError;
use super::lazy::{LazyTensor, draw};
use super::mapped::glance;
use crate::config::JanusConfig;

/// Bytes of each of the three samples of a tensor.
const SAMPLE: usize = 4096;

/// What identifies a model; printed as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of canonical tensors, in any order, and the sizes that go with them.
    ///
    /// # Errors
    /// A tensor that cannot be read.
    pub fn of(config: &JanusConfig, tensors: &[LazyTensor]) -> Result<Self, CheckpointError> {
        let mut hash = Sha256::new();
        hash.update(sizes(config));
        let mut sorted: Vec<&LazyTensor> = tensors.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        for tensor in sorted {
            let (dtype, shape) = (type_name(tensor.dtype), tensor.shape.to_vec());
            // A name cannot end early: what follows it is found from the end of the line.
            hash.update(format!("{} {dtype} {shape:?}\n", tensor.name));
            glance(|| -> Result<(), CheckpointError> {
                samples(&draw(tensor)?).iter().for_each(|part| hash.update(part));
                Ok(())
            })?;
        }
        Ok(Self(hash.finalize().into()))
    }
}

impl Fingerprint {
    /// The 32 bytes of the hash.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Start, middle and end; all of it where these would nearly meet.
fn samples(bytes: &[u8]) -> Vec<&[u8]> {
    if bytes.len() <= 3 * SAMPLE {
        return vec![bytes];
    }
    let middle = (bytes.len() - SAMPLE) / 2;
    let last = bytes.len() - SAMPLE;
    vec![&bytes[..SAMPLE], &bytes[middle..middle + SAMPLE], &bytes[last..]]
}

/// Our own words: the digits must outlive a change of Burn's.
fn type_name(dtype: DType) -> String {
    match dtype {
        DType::F32 => "f32".into(),
        DType::F16 => "f16".into(),
        DType::BF16 => "bf16".into(),
        other => format!("{other:?}"),
    }
}

/// What shapes alone do not say. Whether the text head is tied is left out: files tell.
fn sizes(config: &JanusConfig) -> String {
    let (vision, vq, llm) = (&config.vision, &config.gen_vision, &config.language);
    format!(
        "vision {} {} {} {:?}\ndrawing {} {} {:?} {}\nlanguage {} {} {} {} {:?} {:?}\n",
        vision.image_size,
        vision.patch_size,
        vision.num_attention_heads,
        vision.layer_norm_eps,
        vq.image_size,
        vq.base_channels,
        vq.channel_multiplier,
        vq.num_res_blocks,
        llm.num_attention_heads,
        llm.num_key_value_heads,
        llm.head_dim,
        llm.max_position_embeddings,
        llm.rope_theta,
        llm.rms_norm_eps,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use burn::tensor::Bytes;

    use super::*;
    use crate::checkpoint::{Checkpoint, Limits, cast, lazy::renamed};

    fn fixture(path: &str) -> (JanusConfig, Vec<LazyTensor>) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(path);
        let checkpoint = Checkpoint::open(path, &Limits::default()).unwrap();
        let config = JanusConfig::from_dir(&checkpoint.dir).unwrap().0;
        (config, checkpoint.canonical().unwrap().tensors)
    }

    fn of(path: &str) -> String {
        let (config, tensors) = fixture(path);
        Fingerprint::of(&config, &tensors).unwrap().to_string()
    }

    #[test]
    fn one_model_has_one_fingerprint_in_every_format() {
        let pro = of("tiny-pro/original");
        assert_eq!(pro.len(), 64);
        assert_eq!(of("tiny-pro/hf"), pro);
        assert_eq!(of("tiny-pro/original/pytorch_model.bin"), pro);
        // Shards of safetensors and shards of .bin.
        let odd = of("tiny-odd/hf");
        assert_eq!(of("tiny-odd/original-bin"), odd);
        assert_ne!(odd, pro);
    }

    /// Tensors at odd addresses are not copied to be looked at.
    #[test]
    fn the_place_in_the_file_does_not_matter() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-pro/hf");
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(source.join("config.json"), folder.path().join("config.json")).unwrap();
        let bytes = std::fs::read(source.join("model.safetensors")).unwrap();
        let (length, rest) = bytes.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap());
        // One more space behind the header moves all data by one byte.
        let (header, data) = rest.split_at(length as usize);
        let moved = [&(length + 1).to_le_bytes()[..], header, b" ", data].concat();
        std::fs::write(folder.path().join("model.safetensors"), moved).unwrap();

        let checkpoint = Checkpoint::open(folder.path(), &Limits::default()).unwrap();
        let config = JanusConfig::from_dir(&checkpoint.dir).unwrap().0;
        let tensors = checkpoint.canonical().unwrap().tensors;
        assert_eq!(Fingerprint::of(&config, &tensors).unwrap().to_string(), of("tiny-pro/hf"));
        let table = tensors.iter().find(|tensor| tensor.name == "gen_embed.weight").unwrap();
        let address = |bytes: &[u8]| bytes.as_ptr().addr();
        assert!(address(&draw(table).unwrap()).is_multiple_of(2), "copied to be computed with");
        let twice = glance(|| [draw(table).unwrap(), draw(table).unwrap()]);
        assert_eq!(address(&twice[0]), address(&twice[1]), "not copied to be looked at");
    }

    #[test]
    fn the_order_of_tensors_does_not_matter_and_everything_else_does() {
        let (config, tensors) = fixture("tiny-pro/original");
        let of = |config: &JanusConfig, tensors: &[LazyTensor]| {
            Fingerprint::of(config, tensors).unwrap()
        };
        let whole = of(&config, &tensors);
        let mut reversed = tensors.clone();
        reversed.reverse();
        assert_eq!(of(&config, &reversed), whole);

        assert_ne!(of(&config, &tensors[1..]), whole);
        let mut other = tensors.clone();
        other[0] = renamed(other[0].clone(), "another");
        assert_ne!(of(&config, &other), whole);
        other[0] = cast(tensors[0].clone(), DType::F32);
        assert_ne!(of(&config, &other), whole);
        let mut other = config.clone();
        other.language.rope_theta += 1.0;
        assert_ne!(of(&other, &tensors), whole);
    }

    #[test]
    fn samples_see_both_ends_and_the_middle() {
        let tensor = |change: Option<usize>| {
            let mut bytes = vec![0u8; 10 * SAMPLE];
            if let Some(at) = change {
                bytes[at] = 1;
            }
            let length = bytes.len();
            LazyTensor::deferred(
                "x".into(),
                DType::F32,
                vec![length / 4],
                None,
                length,
                move || Ok(Bytes::from_bytes_vec(bytes.clone())),
            )
        };
        let config = JanusConfig::pro_1b();
        let of = |change| Fingerprint::of(&config, &[tensor(change)]).unwrap();
        let plain = of(None);
        for at in [0, SAMPLE - 1, 5 * SAMPLE, 9 * SAMPLE, 10 * SAMPLE - 1] {
            assert_ne!(of(Some(at)), plain, "byte {at}");
        }
        assert_eq!(of(Some(2 * SAMPLE)), plain, "not sampled");
        assert_eq!(samples(&[7; 3 * SAMPLE]), [[7; 3 * SAMPLE]], "small tensors are read whole");
    }
}
