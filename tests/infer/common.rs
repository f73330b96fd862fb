//! A tiny model whose weights are the same in every run, and the committed fixtures.

use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use janus_infer::sampling::uniform;
use janus_model::config::JanusConfig;
use janus_model::gen_head::GenHeadConfig;
use janus_model::llama::LlamaConfig;
use janus_model::projector::ProjectorConfig;
use janus_model::siglip::VisionConfig;
use janus_model::vq::VqConfig;
use janus_model::{Janus, Parts, Precision};
use safetensors::SafeTensors;

/// 16 codes of 40 kinds per picture, 4 vision tokens, grouped key/value heads.
pub fn config() -> JanusConfig {
    let width = 32;
    JanusConfig {
        vision: VisionConfig {
            image_size: 8,
            patch_size: 4,
            hidden_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 24,
            layer_norm_eps: 1e-6,
        },
        aligner: ProjectorConfig { input_dim: 16, output_dim: width, depth: 2 },
        gen_vision: VqConfig {
            image_size: 8,
            num_embeddings: 40,
            embed_dim: 4,
            base_channels: 32,
            channel_multiplier: vec![1, 1],
            num_res_blocks: 1,
            latent_channels: 32,
        },
        gen_aligner: ProjectorConfig { input_dim: 4, output_dim: width, depth: 2 },
        gen_head: GenHeadConfig { hidden_size: width, embed_dim: width, codes: 40 },
        language: LlamaConfig {
            vocab_size: 60,
            hidden_size: width,
            intermediate_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            max_position_embeddings: 64,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
        },
    }
}

pub fn tiny() -> Janus {
    let config = config();
    config.validate().expect("possible sizes");
    let janus = config.init(Parts::All, Precision::F32, &Device::flex());
    janus.map(&mut Fill { parameters: 0 })
}

/// Burn's own initialisers draw from a generator that all tests of the process share.
struct Fill {
    parameters: u64,
}

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.parameters += 1;
        let stream = self.parameters;
        param.map(|old| {
            let dims = old.dims();
            let inputs: usize = dims[1..].iter().product();
            // Wide enough that logits differ clearly; biases and norms stay near their values.
            let scale = if D == 1 { 0.3 } else { 4.0 / (inputs as f64).sqrt() };
            let count: usize = dims.iter().product();
            let value = |i| ((uniform(1, stream, i) - 0.5) * scale) as f32;
            let values: Vec<f32> = (0..count as u64).map(value).collect();
            let noise = Tensor::from_data(TensorData::new(values, dims), &old.device());
            if D == 1 { old + noise } else { noise }
        })
    }
}

pub fn ids(rows: &[Vec<i32>]) -> Tensor<2, Int> {
    let data = TensorData::new(rows.concat(), [rows.len(), rows[0].len()]);
    Tensor::from_data(data, &Device::flex())
}

pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

pub fn argmax(logits: &[f32]) -> i32 {
    let first_max = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).fold(0, first_max) as i32
}

pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(path)
}

/// `expected.safetensors` of one fixture model.
pub struct Expected(Vec<u8>);

impl Expected {
    pub fn of(model: &str) -> Self {
        Self::file(model, "expected.safetensors")
    }

    /// Another file of the same kind beside it.
    pub fn file(model: &str, name: &str) -> Self {
        let path = fixture(model).join(name);
        Self(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    fn tensor<T>(&self, key: &str, read: impl Fn(&[u8]) -> Vec<T>) -> (Vec<usize>, Vec<T>) {
        let file = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let view = file.tensor(key).unwrap_or_else(|e| panic!("{key}: {e}"));
        (view.shape().to_vec(), read(view.data()))
    }

    pub fn floats(&self, key: &str) -> (Vec<usize>, Vec<f32>) {
        let read = |b: &[u8]| b.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        self.tensor(key, read)
    }

    pub fn bytes(&self, key: &str) -> (Vec<usize>, Vec<u8>) {
        self.tensor(key, <[u8]>::to_vec)
    }

    /// Whole numbers, cut into rows of the last axis.
    pub fn ids(&self, key: &str) -> Vec<Vec<i32>> {
        let read = |b: &[u8]| b.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        let (shape, values) = self.tensor(key, read);
        let row = |row: &[i64]| row.iter().map(|id| *id as i32).collect();
        values.chunks_exact(shape[shape.len() - 1]).map(row).collect()
    }
}
