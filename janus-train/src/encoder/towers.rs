//! The two towers: pictures and captions to rows of the same width and of unit length.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::module::attention;
use burn::tensor::{Device, Int, Tensor};
use janus_model::linear::{Linear, LinearConfig};
use janus_model::siglip::{LayerNorm, VisionBlock, VisionConfig, VisionMlp, VisionTower};

use super::config::{EncoderConfig, Pooling, TextConfig};
use crate::weights::{Law, siglip};

/// Both towers, and what the loss learns about them.
#[derive(Module, Debug)]
pub struct Towers {
    /// What is kept.
    pub vision_model: VisionTower,
    /// What is thrown away.
    pub heads: Heads,
}

/// What only pre-training needs.
#[derive(Module, Debug)]
pub struct Heads {
    /// Tokens of a picture to one row; without one, their mean.
    pub pool: Option<Pool>,
    /// Captions.
    pub text: TextTower,
    /// t, `[1]`.
    pub temperature: Param<Tensor<1>>,
    /// b, `[1]`.
    pub bias: Param<Tensor<1>>,
}

/// One learnt question that looks at all tokens: the pooling of SigLIP, which Janus drops.
#[derive(Module, Debug)]
pub struct Pool {
    /// The question, `[1, 1, W]`.
    pub latent: Param<Tensor<3>>,
    /// Of the question.
    pub q: Linear,
    /// Of the tokens, keys before values.
    pub kv: Linear,
    /// Of the answer.
    pub proj: Linear,
    /// Before the MLP.
    pub norm: LayerNorm,
    /// Added to its input.
    pub mlp: VisionMlp,
    heads: usize,
}

/// A transformer over all tokens of a caption, of which the last is the answer.
#[derive(Module, Debug)]
pub struct TextTower {
    /// Rows of the vocabulary.
    pub embed: Embedding,
    /// `[1, L, W]`.
    pub positions: Param<Tensor<3>>,
    /// As those of the vision tower.
    pub blocks: Vec<VisionBlock>,
    /// After the last block.
    pub norm: LayerNorm,
    /// To the width of the vision tower.
    pub head: Linear,
}

impl EncoderConfig {
    /// Towers whose weights are not made yet.
    pub(super) fn towers(
        &self,
        vision: &VisionConfig,
        vocabulary: usize,
        device: &Device,
    ) -> Towers {
        let one = || Param::from_tensor(Tensor::zeros([1], device));
        Towers {
            vision_model: vision.init(device),
            heads: Heads {
                pool: (self.pooling == Pooling::Attention).then(|| Pool::new(vision, device)),
                text: self.text.init(vocabulary, vision.hidden_size, device),
                temperature: one(),
                bias: one(),
            },
        }
    }
}

/// How towers begin: as SigLIP's.
pub fn law(name: &str, shape: &[usize]) -> Law {
    match name {
        "heads.temperature" => Law::Constant(std::f32::consts::LN_10),
        "heads.bias" => Law::Constant(-10.0),
        name => siglip(name, shape),
    }
}

impl TextConfig {
    /// The blocks in the words of the vision tower, which are the same.
    fn blocks(&self) -> VisionConfig {
        VisionConfig {
            image_size: 1,
            patch_size: 1,
            hidden_size: self.width,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            intermediate_size: 4 * self.width,
            layer_norm_eps: 1e-6,
        }
    }

    fn init(&self, vocabulary: usize, width: usize, device: &Device) -> TextTower {
        let blocks = self.blocks();
        TextTower {
            embed: EmbeddingConfig::new(vocabulary, self.width).init(device),
            positions: Param::from_tensor(Tensor::zeros([1, self.length, self.width], device)),
            blocks: blocks.blocks(device),
            norm: blocks.norm(device),
            head: LinearConfig::new(self.width, width).init(device),
        }
    }
}

impl Pool {
    fn new(vision: &VisionConfig, device: &Device) -> Self {
        let width = vision.hidden_size;
        Self {
            latent: Param::from_tensor(Tensor::zeros([1, 1, width], device)),
            q: LinearConfig::new(width, width).init(device),
            kv: LinearConfig::new(width, 2 * width).init(device),
            proj: LinearConfig::new(width, width).init(device),
            norm: vision.norm(device),
            mlp: vision.mlp(device),
            heads: vision.num_attention_heads,
        }
    }

    /// `[N, tokens, W]` to `[N, W]`.
    pub fn forward(&self, tokens: Tensor<3>) -> Tensor<2> {
        let [n, places, width] = tokens.dims();
        let (heads, each) = (self.heads, width / self.heads);
        let q = self.q.forward(self.latent.val()).reshape([1, 1, heads, each]).swap_dims(1, 2);
        let kv = self.kv.forward(tokens).reshape([n, places, 2, heads, each]);
        let [k, v] = [0, 1].map(|which| {
            let part = kv.clone().slice_dim(2, which..which + 1);
            part.squeeze_dim::<4>(2).swap_dims(1, 2) // [N, H, tokens, d]
        });
        let q = q.repeat_dim(0, n); // [N, H, 1, d]
        let y = attention(q, k, v, None, None, Default::default());
        let y = self.proj.forward(y.swap_dims(1, 2).reshape([n, 1, width]));
        let y = y.clone() + self.mlp.forward(self.norm.forward(y));
        y.squeeze_dim(1)
    }
}

impl Towers {
    /// Pictures as rows of unit length.
    ///
    /// # Shapes
    /// - `pixels`: `[N, 3, S, S]` in [-1, 1]
    /// - output: `[N, W]`
    pub fn pictures(&self, pixels: Tensor<4>) -> Tensor<2> {
        let tokens = self.vision_model.forward(pixels); // [N, tokens, W]
        unit(match &self.heads.pool {
            Some(pool) => pool.forward(tokens),
            None => tokens.mean_dim(1).squeeze_dim(1),
        })
    }

    /// Captions as rows of unit length.
    ///
    /// # Shapes
    /// - `ids`: `[N, L]`, each row as long as the tower is
    /// - output: `[N, W]`
    pub fn captions(&self, ids: Tensor<2, Int>) -> Tensor<2> {
        let text = &self.heads.text;
        let last = ids.dims()[1] - 1;
        let x = text.embed.forward(ids) + text.positions.val();
        let x = text.blocks.iter().fold(x, |x, block| block.forward(x));
        let x = text.norm.forward(x).slice_dim(1, last..last + 1); // [N, 1, W]
        unit(text.head.forward(x).squeeze_dim(1))
    }
}

/// Rows divided by their length.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).clamp_min(1e-24).sqrt();
    x / length
}
