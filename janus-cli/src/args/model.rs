//! Flags that several commands share: which model, how tokens are chosen, what is believed.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use janus_infer::{InferError, Sampling};
use janus_model::checkpoint::Limits;
use janus_model::ops::Products;
use janus_model::processor::{ImageLimits, Orientation};

use crate::device::DeviceChoice;
use crate::report::{Exit, Failure};
use crate::units::{self, WeightType};

/// Which model, on what.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// Model folder, or the name of a model in the Hugging Face cache (see `janus pull`) [default:
    /// janus-tiny, which comes with janus].
    ///
    /// Also a folder in which `janus train` works: its newest checkpoint; or an adapter: on the
    /// model that it was made for. Where JANUS_MODEL is set and empty, there is no default.
    #[arg(short, long, value_name = "DIR|NAME", env = "JANUS_MODEL", hide_env_values = true,
        value_parser = maybe_empty())]
    pub model: Option<PathBuf>,
    /// Adapter to put on the model: a folder as PEFT writes it (LoRA), or a run that trains one.
    /// Several add up.
    #[arg(long, value_name = "DIR")]
    pub lora: Vec<PathBuf>,
    /// auto, cpu, cuda[:N], vulkan[:N], metal[:N], webgpu[:N] or ndarray.
    #[arg(
        long,
        value_name = "DEVICE",
        default_value = "auto",
        env = "JANUS_DEVICE",
        hide_env_values = true
    )]
    pub device: DeviceChoice,
    /// Number format of the weights: f32, bf16, f16, int8 or int4 [default: what suits the device].
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<WeightType>,
    /// Threads of the processor [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// With --dtype bf16: round what weights are multiplied with in every step, too, as PyTorch does
    /// in bf16; many pictures at a time take two fifths less time (AVX-512 BF16).
    #[arg(long)]
    pub rounded_steps: bool,
    /// What a picture that is drawn again was drawn with, whatever is the default.
    #[arg(skip)]
    pub recorded: Option<Products>,
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl ModelArgs {
    /// Threads that were asked for.
    pub fn threads(&self) -> Option<usize> {
        self.threads.map(usize::from)
    }

    /// What factors are rounded to, for weights in this format.
    ///
    /// # Errors
    /// Rounded steps of weights that are not asked for in bf16.
    pub fn products(&self, dtype: Option<WeightType>) -> Result<Products, Failure> {
        let usual = dtype.map_or(Products::F32, WeightType::products);
        match (self.recorded, self.rounded_steps) {
            (Some(recorded), _) => Ok(recorded),
            (None, false) => Ok(usual),
            (None, true) if self.dtype == Some(WeightType::Bf16) => Ok(Products::Bf16Steps),
            (None, true) => {
                let message = "--rounded-steps is for weights in bf16";
                Err(Failure::new(Exit::Usage, message).hint("add --dtype bf16"))
            }
        }
    }
}

/// A path, or nothing at all.
pub(super) fn maybe_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// How tokens are chosen, except for the temperature, whose default differs.
#[derive(Debug, Args)]
pub struct SamplingArgs {
    /// Choose among the K likeliest only.
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Choose among the fewest that together reach this probability.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Above 1, makes what was chosen before less likely.
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,
    /// Start of the random numbers [default: a new one each time].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

impl SamplingArgs {
    /// The library's settings, checked.
    ///
    /// # Errors
    /// Values out of range.
    pub fn with(&self, temperature: f32) -> Result<Sampling, InferError> {
        let sampling = Sampling {
            temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
        };
        sampling.validate().map(|()| sampling)
    }

    /// The seed given, or one that nobody has seen before.
    pub fn seed(&self) -> u64 {
        use std::hash::{BuildHasher, RandomState};
        // Short enough to type again.
        self.seed.unwrap_or_else(|| RandomState::new().hash_one(0u8) >> 32)
    }
}

/// Heading of the flags below.
const PICTURE_LIMITS: &str = "Limits on what picture files may claim";

/// How pictures are read.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Take pictures as stored, without turning them upright by their EXIF orientation.
    #[arg(long)]
    pub raw_orientation: bool,
    #[command(flatten)]
    pub limits: ImageLimitArgs,
}

/// How much of what a picture file claims about itself is believed.
#[derive(Debug, Default, Args)]
pub struct ImageLimitArgs {
    /// Bytes of a picture file.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_IMAGE_SIZE", hide_env_values = true, hide_short_help = true,
        help_heading = PICTURE_LIMITS)]
    max_image_size: Option<u64>,
    /// Width times height of a picture.
    #[arg(
        long,
        value_name = "N",
        env = "JANUS_MAX_IMAGE_PIXELS",
        hide_env_values = true,
        hide_short_help = true,
        help_heading = PICTURE_LIMITS
    )]
    max_image_pixels: Option<u64>,
    /// Width or height of a picture.
    #[arg(
        long,
        value_name = "N",
        env = "JANUS_MAX_IMAGE_SIDE",
        hide_env_values = true,
        hide_short_help = true,
        help_heading = PICTURE_LIMITS
    )]
    max_image_side: Option<u64>,
    /// Long side over short side of a picture.
    #[arg(
        long,
        value_name = "N",
        env = "JANUS_MAX_IMAGE_RATIO",
        hide_env_values = true,
        hide_short_help = true,
        help_heading = PICTURE_LIMITS
    )]
    max_image_ratio: Option<u64>,
    /// Bytes a picture may take while it is decoded.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_IMAGE_MEMORY", hide_env_values = true, hide_short_help = true,
        help_heading = PICTURE_LIMITS)]
    max_image_memory: Option<u64>,
}

impl ImageLimitArgs {
    /// The library's limits, with what was given replaced.
    pub fn limits(&self) -> ImageLimits {
        let base = ImageLimits::default();
        ImageLimits {
            max_bytes: self.max_image_size.unwrap_or(base.max_bytes),
            max_pixels: self.max_image_pixels.unwrap_or(base.max_pixels),
            max_side: self.max_image_side.unwrap_or(base.max_side),
            max_ratio: self.max_image_ratio.unwrap_or(base.max_ratio),
            max_decoder_bytes: self.max_image_memory.unwrap_or(base.max_decoder_bytes),
        }
    }

    /// What is in force, by flag.
    pub fn table(&self) -> [(&'static str, u64); 5] {
        let limits = self.limits();
        [
            ("max-image-size", limits.max_bytes),
            ("max-image-pixels", limits.max_pixels),
            ("max-image-side", limits.max_side),
            ("max-image-ratio", limits.max_ratio),
            ("max-image-memory", limits.max_decoder_bytes),
        ]
    }
}

impl ImageArgs {
    /// The library's limits, with what was given replaced.
    pub fn limits(&self) -> ImageLimits {
        self.limits.limits()
    }

    /// Upright, unless asked otherwise.
    pub fn orientation(&self) -> Orientation {
        if self.raw_orientation { Orientation::Raw } else { Orientation::Upright }
    }
}

/// Heading of the flags below.
const LIMITS: &str = "Limits on what weight files may claim";

/// How much of what a weight file claims about itself is believed.
#[derive(Clone, Debug, Default, Args)]
pub struct LimitArgs {
    /// Bytes of a safetensors header.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_HEADER_SIZE", hide_env_values = true, hide_short_help = true,
        help_heading = LIMITS)]
    max_header_size: Option<u64>,
    /// Tensors of one model.
    #[arg(
        long,
        value_name = "N",
        env = "JANUS_MAX_TENSORS",
        hide_env_values = true,
        hide_short_help = true,
        help_heading = LIMITS
    )]
    max_tensors: Option<usize>,
    /// Bytes of a tensor name.
    #[arg(
        long,
        value_name = "N",
        env = "JANUS_MAX_NAME_BYTES",
        hide_env_values = true,
        hide_short_help = true,
        help_heading = LIMITS
    )]
    max_name_bytes: Option<usize>,
    /// Bytes of a shard index.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_INDEX_SIZE", hide_env_values = true, hide_short_help = true,
        help_heading = LIMITS)]
    max_index_size: Option<u64>,
    /// Bytes of the pickle inside a .bin file.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "JANUS_MAX_PICKLE_SIZE", hide_env_values = true, hide_short_help = true,
        help_heading = LIMITS)]
    max_pickle_size: Option<u64>,
}

impl LimitArgs {
    /// The library's limits, with what was given replaced.
    pub fn limits(&self) -> Limits {
        let base = Limits::default();
        Limits {
            header_bytes: self.max_header_size.unwrap_or(base.header_bytes),
            tensors: self.max_tensors.unwrap_or(base.tensors),
            name_bytes: self.max_name_bytes.unwrap_or(base.name_bytes),
            json_bytes: self.max_index_size.unwrap_or(base.json_bytes),
            pickle_bytes: self.max_pickle_size.unwrap_or(base.pickle_bytes),
            ..base
        }
    }

    /// What is in force, by flag.
    pub fn table(&self) -> [(&'static str, u64); 5] {
        let limits = self.limits();
        [
            ("max-header-size", limits.header_bytes),
            ("max-tensors", limits.tensors as u64),
            ("max-name-bytes", limits.name_bytes as u64),
            ("max-index-size", limits.json_bytes),
            ("max-pickle-size", limits.pickle_bytes),
        ]
    }
}
