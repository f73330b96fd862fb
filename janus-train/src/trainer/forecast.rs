//! What a run will take, from sizes alone: nothing is loaded or computed.
//!
//! Weights, gradients and moments are exact. Activations are those that a backward pass needs, as
//! far as formulas know them; graphics cards exceed them by the buffers that kernels ask for.

use janus_model::linear::OUTPUTS_AT_ONCE;
use janus_model::{JanusConfig, Precision};
use serde::Serialize;

use crate::config::TrainConfig;
use crate::stage::Part;

/// What a run will take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// How much of each part trains, in the order of the checkpoint.
    pub parts: Vec<Part>,
    /// Optimizer steps.
    pub steps: u64,
    /// Samples of a step.
    pub samples: u64,
    /// Tokens of a step, padding left out, as the first samples of each source have them.
    pub tokens: u64,
    /// Bytes of memory, by what they are for.
    pub memory: Memory,
    /// Bytes of one checkpoint that are not shared with the others.
    pub checkpoint: u64,
    /// Bytes of weights that never move, kept once for all checkpoints.
    pub frozen: u64,
    /// Floating-point operations of a step.
    pub flops: f64,
}

/// Bytes of memory, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All weights.
    pub weights: u64,
    /// Gradients, and their sum where a step has several micro-batches.
    pub gradients: u64,
    /// What the optimizer remembers, master weights included.
    pub optimizer: u64,
    /// Weights before the update, which the learner holds until it is done.
    pub update: u64,
    /// What backward needs of the forward pass.
    pub activations: u64,
}

impl Memory {
    /// The worst moment: activations are gone when weights are updated.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations.max(self.update)
    }
}

/// Tokens of the samples of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tokens {
    /// All but padding.
    pub all: f64,
    /// Supervised words.
    pub words: f64,
    /// Supervised codes.
    pub codes: f64,
    /// Pictures that are read.
    pub pictures: f64,
}

impl Forecast {
    /// Of a recipe for a model of which `parts` train, with `tokens` a step.
    pub fn of(
        config: &TrainConfig,
        model: &JanusConfig,
        precision: Precision,
        parts: &[Part],
        tokens: Tokens,
    ) -> Self {
        let trained: u64 = parts.iter().map(|part| part.trained).sum();
        let frozen: u64 = parts.iter().map(|part| part.frozen).sum();
        let size = precision.weights.size() as u64;
        let master = if size < 4 { 4 } else { 0 };
        // One sum and one that is added to it.
        let several = config.batch.size > config.batch.rows;
        let memory = Memory {
            weights: (trained + frozen) * size,
            gradients: trained * size * if several { 2 } else { 1 },
            optimizer: trained * (8 + master),
            update: trained * size,
            activations: activations(config, model, precision, parts, tokens),
        };
        Self {
            parts: parts.to_vec(),
            steps: config.steps as u64,
            samples: config.batch.size as u64,
            tokens: tokens.all.round() as u64,
            memory,
            checkpoint: trained * (size + 8 + master),
            frozen: frozen * size,
            flops: flops(config, model, parts, tokens),
        }
    }
}

/// Whether a part trains.
fn trains(parts: &[Part], name: &str) -> bool {
    parts.iter().any(|part| part.name == name && part.trained > 0)
}

/// Bytes that are alive when backward begins.
fn activations(
    config: &TrainConfig,
    model: &JanusConfig,
    precision: Precision,
    parts: &[Part],
    tokens: Tokens,
) -> u64 {
    let (llm, size) = (&model.language, precision.compute.size() as f64);
    let samples = config.batch.size as f64;
    // A row holds one sample, or as many as fit.
    let each = tokens.all / samples;
    let length = if config.batch.pack { config.batch.tokens as f64 } else { each };
    let rows = (config.batch.rows as f64).min(samples);
    let share = rows * length / tokens.all.max(1.0);
    let (width, inner) = (llm.hidden_size as f64, llm.intermediate_size as f64);
    let heads = llm.num_attention_heads as f64;
    // Norms, rotation, projections and residuals; gate, up and their product; scores and softmax.
    let block = rows * length * ((16.0 * width + 5.0 * inner) * size + 3.0 * heads * length * 4.0);
    let input = rows * length * width * size;
    let layers = llm.num_hidden_layers as f64;
    let decoder = match config.compute.recompute {
        true => layers * input + block,
        false => layers * block,
    };
    let tower = &model.vision;
    let places = tower.num_tokens() as f64;
    let wide = (18.0 * tower.hidden_size as f64 + 4.0 * tower.intermediate_size as f64) * size;
    let seen = tokens.pictures
        * share
        * places
        * (wide + 3.0 * tower.num_attention_heads as f64 * places * 4.0);
    let kept = match (trains(parts, "vision_model"), config.compute.recompute) {
        (true, false) => tower.num_hidden_layers as f64,
        _ => 1.0,
    };
    // Logits of words are never there as a whole, but the gradients of their head are added up.
    let words = (tokens.words * share * llm.vocab_size as f64).min(OUTPUTS_AT_ONCE as f64);
    let logits = words + tokens.codes * share * model.gen_head.codes as f64;
    let head = match trains(parts, "language_model") {
        true => llm.vocab_size as f64 * width * size,
        false => 0.0,
    };
    (decoder + kept * seen + 3.0 * logits * 4.0 + head) as u64
}

/// Forward, backward to the inputs, backward to what trains; forward once more where it is worked
/// out again.
fn flops(config: &TrainConfig, model: &JanusConfig, parts: &[Part], tokens: Tokens) -> f64 {
    let numbers = |name: &str| {
        let of = |part: &&Part| part.name == name;
        parts.iter().find(of).map_or((0.0, 0.0), |part| (part.trained as f64, part.frozen as f64))
    };
    let again = if config.compute.recompute { 2.0 } else { 0.0 };
    let llm = &model.language;
    // The table is looked up, and the head sees supervised words only.
    let table = (llm.vocab_size * llm.hidden_size) as f64;
    let (trained, frozen) = numbers("language_model");
    let all = trained + frozen;
    let blocks = (all - 2.0 * table).max(0.0);
    let share = trained / all.max(1.0);
    let per_row = if config.batch.pack {
        config.batch.tokens as f64
    } else {
        tokens.all / config.batch.size as f64
    };
    let attention = (llm.num_hidden_layers * llm.hidden_size) as f64 * per_row * 2.0;
    let passes = 4.0 + again + 2.0 * share;
    let decoder = tokens.all * (passes * blocks + (6.0 + again) * attention);
    let head = tokens.words * (4.0 + 2.0 * share) * table;
    let (learning, still) = numbers("vision_model");
    let deep = if learning > 0.0 { 6.0 + again } else { 2.0 };
    let seen = tokens.pictures * model.vision.num_tokens() as f64 * deep * (learning + still);
    let (a, b) = numbers("gen_head");
    decoder + head + seen + tokens.codes * 6.0 * (a + b)
}
