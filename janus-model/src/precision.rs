//! Which number format is used where. A pure function of device and wish.
//!
//! Norms, softmax, rotation and losses are computed in f32 by the modules themselves, the
//! tokenizer's distances too. What is decided here is the rest.

#[cfg(any(feature = "ndarray", feature = "gpu"))]
use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device};

use crate::error::Error;
use crate::ops::Products;
use crate::packed::{Bits, Kept};

/// The families of devices that differ in what they compute well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// CPU through Flex: low precision as storage, sums in f32; see [`Products`].
    Cpu,
    /// CPU through ndarray: f32 only.
    NdArray,
    /// NVIDIA: bf16 throughout.
    Cuda,
    /// Apple: bf16 throughout.
    Metal,
    /// Vulkan, DX12 and WebGPU: f16 where the card has it.
    Portable,
}

impl Family {
    /// The family a device belongs to.
    pub fn of(device: &Device) -> Self {
        match device.clone().inner().as_dispatch() {
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)]
            DispatchDevice::NdArray(_) => Self::NdArray,
            #[cfg(feature = "gpu")]
            DispatchDevice::Cube(device) => match device.runtime() {
                burn_cubecl::cubecl::RuntimeId::Cuda => Self::Cuda,
                burn_cubecl::cubecl::RuntimeId::Metal => Self::Metal,
                _ => Self::Portable,
            },
            _ => Self::Cpu,
        }
    }
}

/// Formats of one loaded model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// Matrices of the transformers and the embedding tables, as kept in memory.
    pub weights: DType,
    /// Activations, biases and the understanding encoder's convolution.
    pub compute: DType,
    /// Convolutions of the image tokenizer, whose activations overflow f16.
    pub image_tokenizer: DType,
    /// What factors are rounded to on the CPU where there are many (prompts, pictures that are
    /// looked at, pictures that are drawn), and in steps if that is wanted.
    /// [`LoadOptions`](crate::LoadOptions) asks for it.
    pub products: Products,
    /// What the matrices of the decoder and of both heads are rounded to on the CPU, if they are;
    /// the heads stay at 8 bits. [`LoadOptions`](crate::LoadOptions) asks for it.
    pub packed: Option<Bits>,
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheFormat {
    /// As numbers of this format.
    Float(DType),
    /// In 8 bits, 32 numbers with one scale in bf16; on the CPU.
    Packed,
}

impl CacheFormat {
    /// Bytes of one token's numbers of so many heads.
    pub fn bytes(self, heads: u64, width: u64) -> u64 {
        match self {
            Self::Float(dtype) => heads * width * dtype.size() as u64,
            Self::Packed => Kept::bytes(heads, width),
        }
    }
}

impl Precision {
    /// Everything in f32.
    pub const F32: Self = Self {
        weights: DType::F32,
        compute: DType::F32,
        image_tokenizer: DType::F32,
        products: Products::F32,
        packed: None,
    };

    /// The formats for a checkpoint stored in `file` (f32, f16 or bf16).
    ///
    /// `wish` is what the user asked for; `None` takes what suits the family best. `supports`
    /// says whether the device computes in a format.
    ///
    /// # Errors
    /// [`Error::Dtype`] when the family or the device lacks the wanted format.
    pub fn choose(
        family: Family,
        file: DType,
        wish: Option<DType>,
        supports: impl Fn(DType) -> bool,
    ) -> Result<Self, Error> {
        let same = |dtype| Self { weights: dtype, compute: dtype, ..Self::F32 };
        match (family, wish) {
            (_, Some(DType::F32)) | (Family::NdArray, None) => Ok(Self::F32),
            (Family::Cpu, wish) => Ok(Self { weights: wish.unwrap_or(file), ..Self::F32 }),
            (Family::Cuda | Family::Metal, None | Some(DType::BF16)) if supports(DType::BF16) => {
                Ok(Self { image_tokenizer: DType::BF16, ..same(DType::BF16) })
            }
            (Family::Cuda | Family::Metal | Family::Portable, Some(DType::F16) | None)
                if supports(DType::F16) =>
            {
                Ok(same(DType::F16))
            }
            (_, None) => Ok(Self::F32),
            (family, Some(dtype)) => {
                Err(Error::Dtype { device: format!("{family:?}"), dtype: format!("{dtype:?}") })
            }
        }
    }

    /// The format of keys and values in the cache: where factors are rounded, these are, too, which
    /// halves the bytes of a step that are not weights, and halves them again beside packed weights.
    pub fn cache(&self) -> CacheFormat {
        match (self.packed, self.products) {
            (Some(_), _) => CacheFormat::Packed,
            (None, Products::F32) => CacheFormat::Float(self.compute),
            (None, Products::Bf16 | Products::Bf16Steps) => CacheFormat::Float(DType::BF16),
        }
    }

    /// With products rounded so, if weights are kept in bf16 or less: whoever keeps them in f32
    /// wants them exact.
    pub fn with_products(self, products: Products) -> Self {
        let narrow = self.weights == DType::BF16 || self.packed.is_some();
        Self { products: if narrow { products } else { Products::F32 }, ..self }
    }

    /// With matrices rounded to so many bits.
    ///
    /// # Errors
    /// [`Error::Dtype`] on any device but the CPU through Flex.
    pub fn with_packed(self, family: Family, packed: Option<Bits>) -> Result<Self, Error> {
        match packed {
            Some(bits) if family != Family::Cpu => {
                let (device, dtype) = (format!("{family:?}"), bits.name().into());
                Err(Error::Dtype { device, dtype })
            }
            packed => Ok(Self { packed, ..self }),
        }
    }

    /// The format a parameter is kept in, by its path in [`crate::janus::Janus`] and its rank.
    ///
    /// Matrices of linear layers and embedding tables keep `weights`; norms are f32 everywhere;
    /// the rest follows the arithmetic around it.
    pub(crate) fn of_parameter(&self, path: &str, rank: usize) -> DType {
        let leaf = path.rsplit('.').next().unwrap_or(path);
        let norm = matches!(leaf, "gamma" | "beta") || (rank == 1 && leaf == "weight");
        if norm || path.ends_with("quantize.embedding.weight") {
            DType::F32
        } else if path.starts_with("gen_vision_model.") {
            self.image_tokenizer
        } else if rank == 2 && leaf == "weight" {
            self.weights
        } else {
            self.compute
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_gets_what_it_computes_well() {
        let choose = |family, wish| Precision::choose(family, DType::BF16, wish, |_| true).ok();
        let weights = |p: Option<Precision>| p.map(|p| (p.weights, p.compute));
        let (f32, f16, bf16) = (DType::F32, DType::F16, DType::BF16);
        assert_eq!(weights(choose(Family::Cpu, None)), Some((bf16, f32)));
        assert_eq!(weights(choose(Family::NdArray, None)), Some((f32, f32)));
        assert_eq!(weights(choose(Family::Cuda, None)), Some((bf16, bf16)));
        assert_eq!(weights(choose(Family::Portable, None)), Some((f16, f16)));
        assert_eq!(weights(choose(Family::NdArray, Some(bf16))), None);
        let no_f16 = Precision::choose(Family::Portable, bf16, None, |d| d == f32);
        assert_eq!(weights(no_f16.ok()), Some((f32, f32)));
    }

    #[test]
    fn norms_stay_in_f32_and_matrices_in_the_format_of_the_file() {
        let p = Precision { weights: DType::BF16, ..Precision::F32 };
        let of = |path, rank| p.of_parameter(path, rank);
        assert_eq!(of("language_model.model.layers.0.mlp.up_proj.weight", 2), DType::BF16);
        assert_eq!(of("language_model.model.norm.weight", 1), DType::F32);
        assert_eq!(of("aligner.layers.0.bias", 1), DType::F32);
        assert_eq!(of("gen_vision_model.quantize.embedding.weight", 2), DType::F32);
        assert_eq!(of("gen_vision_model.decoder.conv_in.weight", 4), DType::F32);
    }
}
