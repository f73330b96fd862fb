//! The whole model: parts named as in the checkpoint, and what each can be asked for.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::config::JanusConfig;
use crate::error::Error;
use crate::gen_head::GenHead;
use crate::kv_cache::KvCache;
use crate::llama::{LanguageModel, Mask};
use crate::ops::{Products, on_workers, with_products};
use crate::precision::Precision;
use crate::projector::Projector;
use crate::rope::{Positions, Rope};
use crate::siglip::VisionTower;
use crate::vq::VqModel;

/// Which halves of the model are kept in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parts {
    /// Everything.
    #[default]
    All,
    /// Pictures and text to text: no image tokenizer, no image head.
    Understanding,
    /// Text to pictures: no understanding encoder, no text head.
    Generation,
}

/// Janus. Absent parts were not asked for; see [`Parts`].
#[derive(Module, Debug)]
pub struct Janus {
    /// SigLIP.
    pub vision_model: Option<VisionTower>,
    /// SigLIP features to the language model.
    pub aligner: Option<Projector>,
    /// Image tokenizer.
    pub gen_vision_model: Option<VqModel>,
    /// Image-code embeddings to the language model.
    pub gen_aligner: Option<Projector>,
    /// Final hidden state to image-code logits.
    pub gen_head: Option<GenHead>,
    /// Image-code embeddings. Began as a copy of the codebook, but was trained: not the same.
    pub gen_embed: Option<Embedding>,
    /// LLaMA decoder.
    pub language_model: LanguageModel,
    #[module(skip)]
    config: JanusConfig,
    #[module(skip)]
    precision: Precision,
}

impl JanusConfig {
    /// A model with random weights, in f32 until first use or loading.
    ///
    /// # Panics
    /// On sizes that [`JanusConfig::validate`] refuses.
    pub fn init(&self, parts: Parts, precision: Precision, device: &Device) -> Janus {
        let understanding = parts != Parts::Generation;
        let generation = parts != Parts::Understanding;
        let codes = EmbeddingConfig::new(self.gen_vision.num_embeddings, self.gen_vision.embed_dim)
            .with_initializer(Initializer::Normal { mean: 0.0, std: 0.02 });
        Janus {
            vision_model: understanding.then(|| self.vision.init(device)),
            aligner: understanding.then(|| self.aligner.init(device)),
            gen_vision_model: generation.then(|| self.gen_vision.init(device)),
            gen_aligner: generation.then(|| self.gen_aligner.init(device)),
            gen_head: generation.then(|| self.gen_head.init(device)),
            gen_embed: generation.then(|| codes.init(device)),
            language_model: self.language.init(understanding, device),
            config: self.clone(),
            precision,
        }
    }
}

impl Janus {
    /// Sizes.
    pub fn config(&self) -> &JanusConfig {
        &self.config
    }

    /// Number formats.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.language_model.model.norm.weight.device()
    }

    /// Rotation tables for the first `positions` positions; make them once per conversation.
    pub fn rope(&self, positions: usize) -> Rope {
        self.config.language.rope(positions, &self.device())
    }

    /// An empty cache for `batch` rows of up to `capacity` tokens.
    pub fn cache(&self, batch: usize, capacity: usize) -> KvCache {
        let format = self.precision.cache();
        KvCache::new(&self.config.language, batch, capacity, format, &self.device())
    }

    /// Features of pictures, in the language model's width.
    ///
    /// # Shapes
    /// - `pixels`: `[N, 3, S, S]`, normalised to [-1, 1]
    /// - output: `[N, tokens, D]`, raster order
    ///
    /// # Errors
    /// [`Error::PartNotLoaded`] without the understanding half.
    pub fn encode_image(&self, pixels: Tensor<4>) -> Result<Tensor<3>, Error> {
        let what = "understanding a picture";
        let tower = loaded(&self.vision_model, what, "vision_model")?;
        let aligner = loaded(&self.aligner, what, "aligner")?;
        let pixels = pixels.cast(self.precision.compute);
        Ok(self.rounded(|| aligner.forward(tower.forward(pixels))))
    }

    /// Embeddings of text tokens.
    ///
    /// # Shapes
    /// - `ids`: `[B, T]`, each below the vocabulary size
    /// - output: `[B, T, D]`
    pub fn embed_text(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let table = &self.language_model.model.embed_tokens;
        let (device, home) = (ids.device(), table.weight.device());
        if home == device {
            return table.forward(ids).cast(self.precision.compute);
        }
        // See [`crate::tables`]: rows cross over, the table stays.
        let rows = table.forward(ids.to_device(&home)).cast(self.precision.compute);
        rows.to_device(&device)
    }

    /// Embeddings of a prompt with pictures: text rows, with the image rows put in their places.
    ///
    /// # Shapes
    /// - `ids`: `[B, T]`
    /// - `slots`: row by row, true where an image token belongs
    /// - `features`: `[N, tokens, D]`, in the order the places are met
    /// - output: `[B, T, D]`
    ///
    /// # Errors
    /// [`Error::SlotCount`] when places and features differ in number.
    pub fn embed_prompt(
        &self,
        ids: Tensor<2, Int>,
        slots: &[Vec<bool>],
        features: Tensor<3>,
    ) -> Result<Tensor<3>, Error> {
        let [batch, tokens] = ids.dims();
        let [images, per_image, width] = features.dims();
        let wanted = slots.iter().flatten().filter(|slot| **slot).count();
        if wanted != images * per_image {
            return Err(Error::SlotCount { slots: wanted, features: images * per_image });
        }
        let device = ids.device();
        let text = self.embed_text(ids).reshape([batch * tokens, width]);
        let rows = Tensor::cat(vec![text, features.reshape([images * per_image, width])], 0);
        let order = splice_order(slots, batch * tokens);
        let order = Tensor::<1, Int>::from_data(TensorData::from(order.as_slice()), &device);
        Ok(rows.select(0, order).reshape([batch, tokens, width]))
    }

    /// Embeddings of image codes.
    ///
    /// # Shapes
    /// - `codes`: `[B, T]`
    /// - output: `[B, T, D]`
    ///
    /// # Errors
    /// [`Error::PartNotLoaded`] without the generation half.
    pub fn embed_codes(&self, codes: Tensor<2, Int>) -> Result<Tensor<3>, Error> {
        let what = "embedding image codes";
        let table = loaded(&self.gen_embed, what, "gen_embed")?;
        let aligner = loaded(&self.gen_aligner, what, "gen_aligner")?;
        let compute = self.precision.compute;
        Ok(self.stepping(|| aligner.forward(table.forward(codes).cast(compute))))
    }

    /// Final hidden states of embeddings, `[B, T, D]` to the same shape.
    /// See [`crate::llama::LlamaModel::forward`].
    pub fn hidden(
        &self,
        x: Tensor<3>,
        rope: &Rope,
        positions: &Positions,
        mask: &Mask,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let model = &self.language_model.model;
        if x.dims()[1] == 1 {
            return self.stepping(|| model.forward(x, rope, positions, mask, cache));
        }
        self.rounded(|| model.forward(x, rope, positions, mask, cache))
    }

    /// Logits over the vocabulary, in f32, where the text head is: see [`crate::tables`].
    ///
    /// # Shapes
    /// - `hidden`: `[B, T, D]`
    /// - output: `[B, T, V]`
    ///
    /// # Errors
    /// [`Error::PartNotLoaded`] without the understanding half.
    pub fn text_logits(&self, hidden: Tensor<3>) -> Result<Tensor<3>, Error> {
        let head = loaded(&self.language_model.lm_head, "writing text", "lm_head")?;
        let home = head.weight.device();
        if home == hidden.device() {
            return Ok(self.stepping(|| head.forward(hidden)).cast(DType::F32));
        }
        // See [`crate::tables`]. The processor computes in f32.
        Ok(head.forward(hidden.to_device(&home).cast(DType::F32)))
    }

    /// Cross-entropy of the words that hidden states should have given, summed, in nats and f32,
    /// without the logits of more than a few rows in memory; see [`ops::cross_entropy`].
    ///
    /// # Shapes
    /// - `hidden`: `[rows, D]`
    /// - `targets`: `[rows]`
    /// - output: `[1]`
    ///
    /// # Errors
    /// [`Error::PartNotLoaded`] without the text head.
    pub fn text_loss(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
    ) -> Result<Tensor<1>, Error> {
        let head = loaded(&self.language_model.lm_head, "learning text", "lm_head")?;
        let home = head.weight.device();
        let hidden = match home == hidden.device() {
            true => hidden,
            // As in [`Janus::text_logits`].
            false => hidden.to_device(&home).cast(DType::F32),
        };
        Ok(head.cross_entropy(hidden, targets.to_device(&home)))
    }

    /// Logits over the image codes, in f32.
    ///
    /// # Shapes
    /// - `hidden`: `[B, D]`
    /// - output: `[B, C]`
    ///
    /// # Errors
    /// [`Error::PartNotLoaded`] without the generation half.
    pub fn image_logits(&self, hidden: Tensor<2>) -> Result<Tensor<2>, Error> {
        let head = loaded(&self.gen_head, "drawing", "gen_head")?;
        Ok(self.stepping(|| head.forward(hidden)).cast(DType::F32))
    }

    /// Codes of pictures; see [`VqModel::encode`].
    ///
    /// # Errors
    /// [`Error::PartNotLoaded`] without the generation half.
    pub fn encode_codes(&self, pixels: Tensor<4>) -> Result<Tensor<2, Int>, Error> {
        let vq = loaded(&self.gen_vision_model, "encoding a picture", "gen_vision_model")?;
        let pixels = pixels.cast(self.precision.image_tokenizer);
        Ok(self.working(|| vq.encode(pixels)))
    }

    /// Pictures of codes, in f32; see [`VqModel::decode`].
    ///
    /// # Errors
    /// [`Error::PartNotLoaded`] without the generation half.
    pub fn decode_codes(&self, codes: Tensor<2, Int>) -> Result<Tensor<4>, Error> {
        let vq = loaded(&self.gen_vision_model, "decoding a picture", "gen_vision_model")?;
        Ok(self.rounded(|| vq.decode(codes)).cast(DType::F32))
    }

    /// Does `work` where it is done fastest.
    fn working<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_workers(&self.device(), work)
    }

    /// The same with products rounded if that is this model's way; else as whoever calls it wants
    /// them.
    fn rounded<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.working(|| match self.precision.products {
            Products::F32 => work(),
            products => with_products(products, work),
        })
    }

    /// Does `work` of a step, exactly unless steps are to be rounded. Either way for any number of
    /// sequences: how many are decoded together must not show in any of them.
    fn stepping<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self.precision.products {
            Products::Bf16Steps => self.rounded(work),
            Products::F32 | Products::Bf16 => self.working(work),
        }
    }
}

fn loaded<'a, T>(
    part: &'a Option<T>,
    what: &'static str,
    name: &'static str,
) -> Result<&'a T, Error> {
    part.as_ref().ok_or(Error::PartNotLoaded { what, part: name })
}

/// Row numbers into `text ++ features`: text stays, slots count through the features.
fn splice_order(slots: &[Vec<bool>], text_rows: usize) -> Vec<i32> {
    let mut feature = text_rows as i32;
    let place = |(row, slot): (usize, &bool)| {
        if !*slot {
            return row as i32;
        }
        feature += 1;
        feature - 1
    };
    slots.iter().flatten().enumerate().map(place).collect()
}
