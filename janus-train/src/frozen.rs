//! The image tokenizer while the language model trains: it is frozen in all stages, and turns
//! target pictures into the codes that are learnt.

use burn::module::Module;
use burn::tensor::{DType, Tensor, TensorData};
use janus_model::checkpoint::{CheckpointError, Fingerprint};
use janus_model::ops::{Products, with_products};
use janus_model::processor::PixelValues;
use janus_model::vq::VqModel;
use janus_model::{Error, Janus};

use crate::data::Encode;

/// Encoder, projection and codebook: what the codes of a picture depend on.
const READ: [&str; 3] =
    ["gen_vision_model.encoder.", "gen_vision_model.quant_conv.", "gen_vision_model.quantize."];

/// The image tokenizer of a model, without gradients.
#[derive(Debug)]
pub struct FrozenTokenizer {
    model: VqModel,
    dtype: DType,
    fingerprint: [u8; 32],
}

impl FrozenTokenizer {
    /// Shares the weights of the model.
    ///
    /// # Errors
    /// The model was loaded without its image tokenizer, or weights cannot be read.
    pub fn of(janus: &Janus) -> Result<Self, Error> {
        let (what, part) = ("turning a picture into codes", "gen_vision_model");
        let model = janus.gen_vision_model.as_ref().ok_or(Error::PartNotLoaded { what, part })?;
        Ok(Self {
            model: model.valid(),
            dtype: janus.precision().image_tokenizer,
            fingerprint: fingerprint(janus)?,
        })
    }
}

fn fingerprint(janus: &Janus) -> Result<[u8; 32], CheckpointError> {
    let read = |name: &str| READ.iter().any(|part| name.starts_with(part));
    let mut tensors = janus.tensors();
    tensors.retain(|tensor| read(&tensor.name));
    Ok(Fingerprint::of(janus.config(), &tensors)?.to_bytes())
}

impl Encode for FrozenTokenizer {
    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    fn encode(&mut self, pictures: &[PixelValues]) -> Result<Vec<Vec<i32>>, String> {
        let Some(first) = pictures.first() else { return Ok(Vec::new()) };
        let side = first.side;
        if pictures.iter().any(|picture| picture.side != side) {
            return Err("pictures of different sizes".to_owned());
        }
        let numbers: Vec<f32> =
            pictures.iter().flat_map(|picture| &picture.data).copied().collect();
        let data = TensorData::new(numbers, [pictures.len(), 3, side, side]);
        let device = self.model.devices().into_iter().next().ok_or("no weights")?;
        let pixels = Tensor::<4>::from_data(data, (&device, DType::F32)).cast(self.dtype);
        // Whatever the training that asks for them computes with, codes stay what they are.
        let codes = with_products(Products::F32, || self.model.encode(pixels)); // [N, codes]
        let [_, each] = codes.dims();
        let codes = codes.into_data().convert::<i32>();
        let codes: Vec<i32> = codes.try_into_vec().map_err(|error| format!("{error:?}"))?;
        Ok(codes.chunks_exact(each).map(<[i32]>::to_vec).collect())
    }
}
