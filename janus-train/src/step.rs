//! One micro-batch through the model: from plain numbers to the two sums of [`crate::objective`].
//!
//! ```text
//! ids ─ embed_tokens ──────────┐
//! pixels ─ SigLIP ─ aligner ───┼─ select ─ [B,T,D] ─ decoder, no cache ─ [B,T,D]
//! codes ─ gen_embed ─ aligner ─┘                        supervised places only │
//!                                     words ◄─ lm_head ─ [n,D] ◄───────────────┤
//!                                     codes ◄─ gen_head ─ [m,D] ◄──────────────┘
//! ```
//!
//! [`crate::accumulate`] makes gradients of a whole optimizer step from this.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};
use janus_model::Janus;
use janus_model::llama::{Mask, Pass};
use janus_model::load::canonical_name;
use janus_model::parameters::{Parameter, computed};
use janus_model::rope::Positions;
use sha2::{Digest, Sha256};

use crate::batch::{Batch, BatchError, Target};
use crate::learner::Window;
use crate::objective::Sum;

/// What backward needs of the forward pass, and what is worked out again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// Everything is kept: fastest.
    #[default]
    Kept,
    /// The input of each block is kept, the inside of one block at a time is worked out again:
    /// about a third more arithmetic, a fraction of the memory. See [`crate::recompute`].
    Recomputed,
}

/// A model in training. Its gradients and its optimizer state belong to parameters by their
/// names: ids are derived from them, where Burn would draw them at random in every process.
#[derive(Module, Debug)]
pub struct Trainee {
    /// The model; which parameters train is theirs to know, see [`crate::stage`].
    pub janus: Janus,
    #[module(skip)]
    activations: Activations,
    #[module(skip)]
    word_weight: f64,
    #[module(skip)]
    window: Window,
}

/// Why a micro-batch cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The batch contradicts itself or the model.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The model lacks a part that the batch needs.
    #[error(transparent)]
    Model(#[from] janus_model::Error),
}

/// Both sums of a micro-batch; absent where nothing of the kind is supervised.
#[derive(Clone, Debug)]
pub struct Losses {
    /// Words.
    pub text: Option<Sum>,
    /// Image codes.
    pub codes: Option<Sum>,
}

impl Losses {
    /// Both as one, without weights.
    ///
    /// # Panics
    /// When nothing is supervised, which [`Batch::check`] refuses.
    pub fn joined(&self) -> Sum {
        match (self.text.clone(), self.codes.clone()) {
            (Some(text), Some(codes)) => text.join(codes),
            (one, other) => one.or(other).expect("a batch supervises at least one token"),
        }
    }
}

impl Trainee {
    /// Takes a model whose parameters know whether they train.
    pub fn new(janus: Janus, activations: Activations) -> Self {
        let janus = named(janus, "");
        Self { janus: janus.train(), activations, word_weight: 1.0, window: Window::default() }
    }

    /// The same, where a word counts so much as so many image codes.
    pub fn with_word_weight(self, word_weight: f64) -> Self {
        Self { word_weight, ..self }
    }

    /// What is minimised over the micro-batches of a step that supervises `total` tokens: the mean
    /// of `losses`, in which a word may count more than an image code, `[1]`.
    pub(crate) fn objective(&self, mut losses: Losses, total: usize) -> Tensor<1> {
        losses.text = losses.text.map(|text| text.weighed(self.word_weight));
        losses.joined().mean_over(total)
    }

    /// The model, out of training.
    pub fn into_janus(self) -> Janus {
        self.janus.valid()
    }

    /// How the learner's optimizer can be seen.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// How memory is spent.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// Both sums of a micro-batch, with the graph that led to them where parameters train.
    ///
    /// # Errors
    /// As [`Batch::check`], and when the model lacks a part.
    pub fn losses(&self, batch: &Batch) -> Result<Losses, StepError> {
        batch.check(self.janus.config())?;
        let pass = pass(&self.janus, batch);
        let x = embed(&self.janus, batch, see(&self.janus, batch)?)?;
        let model = &self.janus.language_model.model;
        let x = model.layers.iter().fold(x, |x, layer| layer.forward(x, &pass, None));
        losses(&self.janus, model.norm.forward(x), batch)
    }
}

/// Rotation and mask of a micro-batch.
pub(crate) fn pass(janus: &Janus, batch: &Batch) -> Pass {
    let (shape, device) = ([batch.rows, batch.tokens], janus.device());
    let positions = Positions::Each(ints(&batch.positions, shape, &device));
    let documents = Mask::Documents(ints(&batch.documents, shape, &device));
    let last = batch.positions.iter().max().copied().unwrap_or(0);
    let rope = janus.rope(last as usize + 1);
    let dims = [batch.rows, batch.tokens, batch.tokens];
    janus.language_model.model.pass(dims, &rope, &positions, &documents)
}

/// `[B, T, D]`: words, with pictures and codes in their places; `seen` is what the encoder made of
/// the pictures.
pub(crate) fn embed(
    janus: &Janus,
    batch: &Batch,
    seen: Option<Tensor<3>>,
) -> Result<Tensor<3>, StepError> {
    let device = janus.device();
    let x = janus.embed_text(ints(&batch.ids, [batch.rows, batch.tokens], &device));
    let [rows, tokens, width] = x.dims();
    let mut sources = vec![x.reshape([rows * tokens, width])];
    if let Some(seen) = seen {
        let aligner = janus.aligner.as_ref().ok_or(lacks("aligner"))?;
        let features = aligner.forward(seen); // [N, tokens, D]
        sources.push(features.reshape([batch.image_places.len(), width]));
    }
    if !batch.codes.is_empty() {
        let codes = janus.embed_codes(ints(&batch.codes, [1, batch.codes.len()], &device))?;
        sources.push(codes.reshape([batch.codes.len(), width]));
    }
    let order = order(batch);
    let order = ints(&order, [order.len()], &device);
    Ok(Tensor::cat(sources, 0).select(0, order).reshape([rows, tokens, width]))
}

/// Row numbers into `words ++ pictures ++ codes`, place by place.
fn order(batch: &Batch) -> Vec<i32> {
    let words = batch.ids.len() as i32;
    let mut order: Vec<i32> = (0..words).collect();
    let others = batch.image_places.iter().chain(&batch.code_places);
    for (row, &place) in (words..).zip(others) {
        order[place as usize] = row;
    }
    order
}

/// The pictures of a micro-batch, `[N, 3, S, S]`, where it has any.
pub(crate) fn pixels(janus: &Janus, batch: &Batch) -> Option<Tensor<4>> {
    if batch.pixels.is_empty() {
        return None;
    }
    let side = janus.config().vision.image_size;
    let shape = [batch.pictures(janus.config()), 3, side, side];
    let data = TensorData::new(batch.pixels.clone(), shape);
    let pixels = Tensor::<4>::from_data(data, &janus.device());
    Some(pixels.cast(janus.precision().compute))
}

/// What the encoder makes of the pictures, `[N, tokens, W]`. A frozen one leaves no graph and runs
/// on whatever the device does best.
pub(crate) fn see(janus: &Janus, batch: &Batch) -> Result<Option<Tensor<3>>, StepError> {
    let Some(pixels) = pixels(janus, batch) else { return Ok(None) };
    let tower = janus.vision_model.as_ref().ok_or(lacks("vision_model"))?;
    Ok(Some(match pixels.is_autodiff() && !trains(tower) {
        true => tower.valid().forward(pixels.inner()).autodiff(),
        false => tower.forward(pixels),
    }))
}

pub(crate) fn lacks(part: &'static str) -> janus_model::Error {
    janus_model::Error::PartNotLoaded { what: "understanding a picture", part }
}

/// Logits of the supervised places against what should have been said there.
///
/// # Shapes
/// - `hidden`: `[B, T, D]`, after the final norm
pub(crate) fn losses(janus: &Janus, hidden: Tensor<3>, batch: &Batch) -> Result<Losses, StepError> {
    let [rows, tokens, width] = hidden.dims();
    let (device, hidden) = (hidden.device(), hidden.reshape([rows * tokens, width]));
    let at = |targets: &[Target]| {
        let places: Vec<i32> = targets.iter().map(|target| target.place).collect();
        hidden.clone().select(0, ints(&places, [places.len()], &device)) // [n, D]
    };
    let ids = |targets: &[Target]| {
        let ids: Vec<i32> = targets.iter().map(|target| target.id).collect();
        ints(&ids, [ids.len()], &device)
    };
    let (mut text, mut codes) = (None, None);
    if !batch.text_targets.is_empty() {
        let targets = &batch.text_targets;
        let loss = janus.text_loss(at(targets), ids(targets))?.to_device(&device);
        text = Some(Sum { loss, tokens: targets.len() });
    }
    if !batch.code_targets.is_empty() {
        let targets = &batch.code_targets;
        codes = Some(Sum::of(janus.image_logits(at(targets))?, ids(targets))); // of [m, C]
    }
    Ok(Losses { text, codes })
}

fn ints<const D: usize>(values: &[i32], shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// Whether any parameter gets gradients.
pub(crate) fn trains<M: Module>(module: &M) -> bool {
    computed(module).iter().any(Parameter::learns)
}

/// Canonical name of a parameter by its path in a [`Janus`] or in a [`Trainee`].
pub fn parameter_name(path: &str) -> String {
    canonical_name(path.strip_prefix("janus.").unwrap_or(path))
}

/// The id of a parameter: the first eight bytes of its name's SHA-256.
pub fn parameter_id(name: &str) -> ParamId {
    let digest: [u8; 32] = Sha256::digest(name).into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    ParamId::from(u64::from_be_bytes(first))
}

/// Gives every parameter the id of its name, which is its path behind `prefix`.
pub(crate) fn named<M: Module>(module: M, prefix: &str) -> M {
    let path = prefix.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    module.map(&mut Naming { path })
}

struct Naming {
    path: Vec<String>,
}

impl ModuleMapper for Naming {
    fn enter_module(&mut self, name: &str, _kind: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _kind: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = parameter_id(&parameter_name(&self.path.join(".")));
        let (_, value, mapper) = param.consume();
        Param::from_mapped_value(id, value, mapper)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use janus_model::JanusConfig;

    use super::*;

    /// Saved optimizer states are found by these ids: they may never change or meet.
    #[test]
    fn ids_come_from_names_alone() {
        assert_eq!(parameter_id("aligner.layers.0.weight").val(), 0xaf4c_179b_e32f_6bea);
        assert_eq!(parameter_name("janus.aligner.layers.1.weight"), "aligner.layers.2.weight");
        let names = JanusConfig::pro_7b().expected_tensors(&Device::flex());
        let ids: HashSet<u64> = names.iter().map(|(name, _)| parameter_id(name).val()).collect();
        assert_eq!(ids.len(), names.len());
    }
}
