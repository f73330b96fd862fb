//! The language model: a LLaMA decoder that takes embeddings and gives final hidden states.
//!
//! `h += Wo·Attn(RMS(h)); h += Wd·(silu(Wg·n) ⊙ Wu·n), n = RMS(h)`, final RMSNorm. Grouped
//! key/value heads are supported, biases are not (Janus has none). There is one forward for
//! training, prefill and decoding: the cache is optional.
//!
//! Precision: RMSNorm, rotation and softmax in f32, RMSNorm's weight multiplied after rounding
//! back, as transformers does it.
//!
//! Original: `LlamaModel` of transformers; paper: <https://arxiv.org/abs/2302.13971>.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::config::{ConfigError, in_range, positive};
use crate::kv_cache::{KvCache, LayerCache};
use crate::linear::{Linear, LinearConfig, together};
use crate::ops;
use crate::rope::{Positions, Rope, RopeSlice};

/// Sizes of the decoder, in the words of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Rows of the text tables.
    pub vocab_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Inner width of the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    /// Positions the rotation is defined for. Janus-Pro was trained on 4096 of its 16384.
    pub max_position_embeddings: usize,
    /// Base of the rotation.
    pub rope_theta: f64,
    /// ε of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Whether the text head is the embedding table. False in every published model.
    pub tie_word_embeddings: bool,
}

/// Decoder with its text head.
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// Body.
    pub model: LlamaModel,
    /// `[V, D]`; absent where only pictures are drawn.
    pub lm_head: Option<Linear>,
}

/// Embedding, blocks, final norm.
#[derive(Module, Debug)]
pub struct LlamaModel {
    /// `[V, D]`.
    pub embed_tokens: Embedding,
    /// Decoder blocks.
    pub layers: Vec<DecoderLayer>,
    /// Final norm; both heads read its output.
    pub norm: RmsNorm,
}

/// One block.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Before attention.
    pub input_layernorm: RmsNorm,
    /// Causal self-attention.
    pub self_attn: SelfAttention,
    /// Before the MLP.
    pub post_attention_layernorm: RmsNorm,
    /// SwiGLU.
    pub mlp: Mlp,
}

/// Projections of attention; head `h` owns rows `h·d..(h+1)·d`.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// `[H·d, D]`.
    pub q_proj: Linear,
    /// `[H_kv·d, D]`.
    pub k_proj: Linear,
    /// `[H_kv·d, D]`.
    pub v_proj: Linear,
    /// `[D, H·d]`.
    pub o_proj: Linear,
    heads: usize,
    kv_heads: usize,
}

/// `down(silu(gate(x)) ⊙ up(x))`.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[F, D]`.
    pub gate_proj: Linear,
    /// `[F, D]`.
    pub up_proj: Linear,
    /// `[D, F]`.
    pub down_proj: Linear,
}

/// `x / rms(x) · w`. Burn's own divides in the input's dtype; here statistics are f32.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[D]`.
    pub weight: Param<Tensor<1>>,
    epsilon: f64,
}

/// Which earlier tokens each token may look at.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one per pass, on the stack
pub enum Mask {
    /// All earlier ones: no padding anywhere.
    Causal,
    /// All earlier ones that are real: `[B, total]`, true where a token is real, over the
    /// cached and the new tokens.
    Padded(Tensor<2, Bool>),
    /// All earlier ones of its own document: `[B, total]`, the number of the document that each
    /// of the cached and the new tokens belongs to. Several documents may share a row; padding
    /// is one more document, which nobody asks about.
    Documents(Tensor<2, Int>),
}

/// What all blocks of one pass share, worked out once: rotation factors and mask.
#[derive(Clone, Debug)]
pub struct Pass {
    rope: RopeSlice,
    view: View,
}

impl LlamaConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let at = |name: &str| format!("language_config.{name}");
        in_range(&at("vocab_size"), self.vocab_size, 1, 1 << 22)?;
        in_range(&at("hidden_size"), self.hidden_size, 1, 1 << 16)?;
        in_range(&at("intermediate_size"), self.intermediate_size, 1, 1 << 20)?;
        in_range(&at("num_hidden_layers"), self.num_hidden_layers, 1, 1024)?;
        in_range(&at("num_attention_heads"), self.num_attention_heads, 1, 1024)?;
        in_range(
            &at("num_key_value_heads"),
            self.num_key_value_heads,
            1,
            self.num_attention_heads,
        )?;
        in_range(&at("head_dim"), self.head_dim, 2, 4096)?;
        in_range(&at("max_position_embeddings"), self.max_position_embeddings, 1, 1 << 20)?;
        positive(&at("rope_theta"), self.rope_theta, 1e12)?;
        positive(&at("rms_norm_eps"), self.rms_norm_eps, 1.0)?;
        if !self.head_dim.is_multiple_of(2) {
            return Err(ConfigError::field(at("head_dim"), format!("{} is odd", self.head_dim)));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let (kv, heads) = (self.num_key_value_heads, self.num_attention_heads);
            return Err(ConfigError::field(
                at("num_key_value_heads"),
                format!("{kv} does not divide num_attention_heads {heads}"),
            ));
        }
        let implied = self.num_attention_heads * self.head_dim;
        if implied > 1 << 20 {
            return Err(ConfigError::field(
                at("head_dim"),
                format!("heads × head_dim is {implied}"),
            ));
        }
        Ok(())
    }

    /// Random weights. `text_head` keeps the text head.
    pub fn init(&self, text_head: bool, device: &Device) -> LanguageModel {
        let embedding = EmbeddingConfig::new(self.vocab_size, self.hidden_size)
            .with_initializer(Initializer::Normal { mean: 0.0, std: 0.02 });
        LanguageModel {
            model: LlamaModel {
                embed_tokens: embedding.init(device),
                layers: (0..self.num_hidden_layers).map(|_| self.init_layer(device)).collect(),
                norm: self.init_norm(device),
            },
            lm_head: text_head
                .then(|| LinearConfig::no_bias(self.hidden_size, self.vocab_size).init(device)),
        }
    }

    fn init_layer(&self, device: &Device) -> DecoderLayer {
        let width = self.hidden_size;
        let query = self.num_attention_heads * self.head_dim;
        let key = self.num_key_value_heads * self.head_dim;
        let linear = |input, output| LinearConfig::no_bias(input, output).init(device);
        DecoderLayer {
            input_layernorm: self.init_norm(device),
            self_attn: SelfAttention {
                q_proj: linear(width, query),
                k_proj: linear(width, key),
                v_proj: linear(width, key),
                o_proj: linear(query, width),
                heads: self.num_attention_heads,
                kv_heads: self.num_key_value_heads,
            },
            post_attention_layernorm: self.init_norm(device),
            mlp: Mlp {
                gate_proj: linear(width, self.intermediate_size),
                up_proj: linear(width, self.intermediate_size),
                down_proj: linear(self.intermediate_size, width),
            },
        }
    }

    fn init_norm(&self, device: &Device) -> RmsNorm {
        RmsNorm {
            weight: Initializer::Ones.init([self.hidden_size], device),
            epsilon: self.rms_norm_eps,
        }
    }

    /// Rotation tables for the first `positions` positions.
    pub fn rope(&self, positions: usize, device: &Device) -> Rope {
        Rope::new(self.rope_theta, self.head_dim, positions, device)
    }
}

impl LlamaModel {
    /// Runs all blocks and the final norm over embeddings.
    ///
    /// With a cache, `x` holds the tokens after those it already has, and is added to it.
    ///
    /// # Shapes
    /// - `x`: `[B, T, D]`
    /// - output: `[B, T, D]`
    ///
    /// # Panics
    /// When the cache or the rotation tables have no room for `T` more tokens.
    pub fn forward(
        &self,
        x: Tensor<3>,
        rope: &Rope,
        positions: &Positions,
        mask: &Mask,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        self.forward_each(x, rope, positions, mask, cache, |_| ())
    }

    /// As [`LlamaModel::forward`], showing the output of every block, `[B, T, D]`, to `see`.
    pub fn forward_each(
        &self,
        x: Tensor<3>,
        rope: &Rope,
        positions: &Positions,
        mask: &Mask,
        mut cache: Option<&mut KvCache>,
        mut see: impl FnMut(&Tensor<3>),
    ) -> Tensor<3> {
        let [batch, tokens, _] = x.dims();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let pass = self.pass([batch, tokens, past + tokens], rope, positions, mask);
        let mut x = x;
        for (index, layer) in self.layers.iter().enumerate() {
            let slot = cache.as_mut().map(|cache| cache.layer(index));
            x = layer.forward(x, &pass, slot);
            see(&x);
        }
        if let Some(cache) = cache {
            cache.advance(tokens);
        }
        self.norm.forward(x)
    }

    /// What the blocks share while `tokens` new tokens of `batch` rows join others, `total` in all.
    pub fn pass(
        &self,
        [batch, tokens, total]: [usize; 3],
        rope: &Rope,
        positions: &Positions,
        mask: &Mask,
    ) -> Pass {
        let heads = self.layers.first().map_or(1, |layer| layer.self_attn.heads);
        let view = View::new(mask, [batch, heads, tokens, total]);
        Pass { rope: rope.at(positions, tokens), view }
    }
}

impl DecoderLayer {
    /// One block, `[B, T, D]` to the same shape; `slot` is its cache and where to write.
    pub fn forward(
        &self,
        x: Tensor<3>,
        pass: &Pass,
        slot: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let attended = self.self_attn.forward(self.input_layernorm.forward(x.clone()), pass, slot);
        let x = self.self_attn.o_proj.forward_onto(attended, x);
        self.mlp.forward_onto(self.post_attention_layernorm.forward(x.clone()), x)
    }
}

impl SelfAttention {
    /// What every head gathers, `[B, T, H·d]`.
    fn forward(
        &self,
        x: Tensor<3>,
        Pass { rope, view }: &Pass,
        slot: Option<(&mut LayerCache, usize)>,
    ) -> Tensor<3> {
        let [batch, tokens, _] = x.dims();
        let heads = |y: Tensor<3>, heads: usize| {
            let width = y.dims()[2] / heads;
            y.reshape([batch, tokens, heads, width]) // [B, T, H, d]
        };
        let [q, k, v] = together([&self.q_proj, &self.k_proj, &self.v_proj], x);
        let (q, k, v) = (heads(q, self.heads), heads(k, self.kv_heads), heads(v, self.kv_heads));
        if let (None, Some(documents)) = (&slot, &view.documents) {
            let y = ops::attention_rows([q, k, v], Some(rope.factors()), Some(documents.clone()));
            return y.flatten::<3>(2, 3);
        }
        let [q, k, v] = [q, k, v].map(|x| x.swap_dims(1, 2)); // [B, H, T, d]
        let (q, k) = (rope.rotate(q), rope.rotate(k));
        let y = match slot {
            None => self.attend(q, k, v, view),
            Some((cache, start)) => {
                let total = start + tokens;
                if let Some(documents) = &view.documents {
                    cache.append(start, k.clone(), v.clone());
                    let parts = [q, k, v].map(|x| x.swap_dims(1, 2));
                    let y = ops::attention_rows(parts, None, Some(documents.clone()));
                    return y.flatten::<3>(2, 3);
                }
                cache.append(start, k, v);
                if view.hidden.is_none() {
                    cache.attend(q, total)
                } else {
                    let (k, v) = cache.held(total, &q); // [B, H_kv, total, d]
                    self.attend(q, k, v, view)
                }
            }
        }; // [B, H, T, d]
        y.swap_dims(1, 2).flatten::<3>(2, 3)
    }
}

impl SelfAttention {
    /// `[B, H, T, d]` over `[B, H_kv, total, d]`.
    fn attend(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, view: &View) -> Tensor<4> {
        let group = self.heads / self.kv_heads;
        let whole = |heads: Tensor<4>| repeat_heads(heads, group);
        let (k, v) = (whole(k), whole(v));
        attention(q, k, v, view.hidden.clone(), None, view.options)
    }
}

impl Mlp {
    /// `[B, T, D]`, added to the same.
    fn forward_onto(&self, x: Tensor<3>, onto: Tensor<3>) -> Tensor<3> {
        let [gate, up] = together([&self.gate_proj, &self.up_proj], x);
        self.down_proj.forward_onto(ops::swiglu(gate, up), onto)
    }
}

impl RmsNorm {
    /// Normalises the last axis. `[B, T, D]` to the same shape and dtype.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        let rows = x.reshape([batch * tokens, width]);
        ops::rms_norm(rows, self.weight.val(), self.epsilon).reshape([batch, tokens, width])
    }
}

/// The mask in the form the attention operation takes.
#[derive(Clone, Debug)]
struct View {
    hidden: Option<Tensor<4, Bool>>, // [B, H, T, total], true = must not be looked at
    options: AttentionModuleOptions,
    documents: Option<Tensor<2, Int>>, // [B, T], where nothing else says what is hidden
}

impl View {
    fn new(mask: &Mask, [batch, heads, tokens, total]: [usize; 4]) -> Self {
        let shape = [batch, 1, tokens, total];
        let hidden = match mask {
            // One new token may look at everything: no mask at all, the fast path of decoding.
            Mask::Causal => {
                let options =
                    AttentionModuleOptions { is_causal: tokens > 1, ..Default::default() };
                return Self { hidden: None, options, documents: None };
            }
            Mask::Padded(real) => {
                let (key, query) = places(tokens, total, &real.device());
                // A pad looks at itself, or its softmax would have nothing to sum over.
                let others = wide(key.clone().equal(query.clone()), shape).bool_not();
                let pad = real.clone().bool_not().reshape([batch, 1, 1, total]).expand(shape);
                pad.bool_and(others).bool_or(wide(key.greater(query), shape))
            }
            Mask::Documents(numbers) if tokens == total => {
                let documents = Some(numbers.clone());
                return Self { hidden: None, options: Default::default(), documents };
            }
            Mask::Documents(numbers) => {
                let (key, query) = places(tokens, total, &numbers.device());
                let asked = numbers.clone().slice_dim(1, total - tokens..total);
                let asked = asked.reshape([batch, 1, tokens, 1]).expand(shape);
                let other = numbers.clone().reshape([batch, 1, 1, total]).expand(shape);
                other.not_equal(asked).bool_or(wide(key.greater(query), shape))
            }
        };
        let hidden = hidden.expand([batch, heads, tokens, total]);
        let options = AttentionModuleOptions::default();
        Self { hidden: Some(hidden), options, documents: None }
    }
}

/// Number of the key and of the query that meet at each place of `[T, total]`.
fn places(tokens: usize, total: usize, device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
    let count = |from: usize| Tensor::<1, Int>::arange(from as i64..total as i64, device);
    let key = count(0).reshape([1, total]).expand([tokens, total]);
    let query = count(total - tokens).reshape([tokens, 1]).expand([tokens, total]);
    (key, query)
}

/// The same for every row.
fn wide(mask: Tensor<2, Bool>, shape: [usize; 4]) -> Tensor<4, Bool> {
    let [tokens, total] = mask.dims();
    mask.reshape([1, 1, tokens, total]).expand(shape)
}

/// Repeats each key/value head for the query heads that share it.
fn repeat_heads(x: Tensor<4>, group: usize) -> Tensor<4> {
    if group == 1 {
        return x;
    }
    let [batch, heads, total, width] = x.dims();
    x.reshape([batch, heads, 1, total, width])
        .expand([batch, heads, group, total, width])
        .reshape([batch, heads * group, total, width])
}
