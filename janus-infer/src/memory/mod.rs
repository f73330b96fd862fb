//! How much memory a request will need, from sizes alone: nothing is loaded or allocated.
//!
//! Weights and caches are exact. Activations are the few largest tensors that live at the same
//! time, on the CPU as measured (docs/benchmarks.md); graphics cards exceed them by the buffers
//! that their kernels ask for.
//!
//! What is resident on the CPU is the sum of what the process owns and of the pages of the mapped
//! weight file that it reads. The second kind can be dropped by the system at any time, at the
//! price of reading it again: too little memory there is slow, not fatal.

mod elements;

use burn::tensor::DType;
use janus_model::config::JanusConfig;
use janus_model::{Family, Parts, Precision};

pub use elements::{Elements, elements};

use elements::size;

use crate::guidance::Guidance;

/// Where a model is kept, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Kind of device.
    pub family: Family,
    /// Number formats in memory.
    pub precision: Precision,
    /// Number format of the weight files.
    pub file: DType,
    /// Whether the text tables stay with the processor: see `janus_model::tables`.
    pub tables_on_host: bool,
}

impl Place {
    /// Whether values of this format are used where they lie in the file.
    fn is_mapped(&self, dtype: DType) -> bool {
        self.family == Family::Cpu && dtype == self.file
    }
}

/// What is done with the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Which halves are loaded.
    pub parts: Parts,
    /// Rows of the language model's batch; two or three times the pictures under guidance.
    pub rows: usize,
    /// Tokens of the longest prompt.
    pub prompt: usize,
    /// Tokens the cache has room for.
    pub tokens: usize,
    /// Pictures that go through an image network at once.
    pub pictures: usize,
}

impl Workload {
    /// `pictures` drawn together, decoded one by one as [`crate::Engine::generate`] does.
    pub fn drawing(
        config: &JanusConfig,
        prompt: usize,
        pictures: usize,
        guidance: Guidance,
    ) -> Self {
        // What is drawn from pictures needs both halves of the model.
        let edits = guidance.pictures.is_some();
        Self {
            parts: if edits { Parts::All } else { Parts::Generation },
            rows: guidance.rows(pictures),
            prompt,
            tokens: prompt + config.image_codes() - 1,
            pictures: 1,
        }
    }

    /// Tokens of a prompt of `words` tokens that starts from `sources` pictures: each has two ends
    /// twice.
    pub fn editing_prompt(config: &JanusConfig, words: usize, sources: usize) -> usize {
        words + sources * (config.vision.num_tokens() + config.image_codes() + 4)
    }

    /// One question with `pictures` pictures and `words` other tokens, and an answer of up to
    /// `answer` tokens.
    pub fn asking(config: &JanusConfig, pictures: usize, words: usize, answer: usize) -> Self {
        // Each picture has a token before and one after it.
        let prompt = words + pictures * (config.vision.num_tokens() + 2);
        let limit = config.language.max_position_embeddings;
        Self {
            parts: Parts::Understanding,
            rows: 1,
            prompt,
            tokens: prompt.saturating_add(answer).saturating_sub(1).min(limit),
            pictures: pictures.min(crate::chat::PICTURES_AT_ONCE),
        }
    }
}

/// One part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// In a word: `pictures`, `prefill`, `steps` or `pixels`.
    pub name: &'static str,
    /// Whether the cache is there meanwhile.
    pub cached: bool,
    /// Bytes of its activations.
    pub activations: u64,
}

/// Bytes, by what they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Weights in memory of their own, on the device, part by part.
    pub weights: Vec<(&'static str, u64)>,
    /// Weights used where they lie in the mapped file, part by part. Of the embedding table, rows
    /// are looked up; it is not counted.
    pub mapped: Vec<(&'static str, u64)>,
    /// Keys and values.
    pub cache: u64,
    /// What happens one after the other.
    pub phases: Vec<Phase>,
    /// Program, tokenizer, threads.
    pub program: u64,
}

impl Forecast {
    /// The worst moment, mapped weights included.
    pub fn total(&self) -> u64 {
        let sum = |parts: &[(&str, u64)]| parts.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let phase = |phase: &Phase| phase.activations + if phase.cached { self.cache } else { 0 };
        let worst = self.phases.iter().map(phase).max().unwrap_or(0);
        sum(&self.weights) + sum(&self.mapped) + self.program + worst
    }

    /// Activations of the hungriest phase.
    pub fn activations(&self) -> u64 {
        self.phases.iter().map(|phase| phase.activations).max().unwrap_or(0)
    }
}

/// Memory for a workload.
pub fn forecast(config: &JanusConfig, place: &Place, work: &Workload) -> Forecast {
    let (mut weights, mut mapped) = (Vec::new(), Vec::new());
    for (name, elements) in elements(config, work.parts) {
        let (own, file) = split(config, place, work.parts, name, elements);
        weights.extend((own > 0).then_some((name, own)));
        mapped.extend((file > 0).then_some((name, file)));
    }
    Forecast {
        weights,
        mapped,
        cache: cache_bytes(config, &place.precision, work.rows, work.tokens),
        phases: phases(config, place, work),
        program: if matches!(place.family, Family::Cpu | Family::NdArray) { PROGRAM } else { 0 },
    }
}

/// Resident without any model: code, tokenizer, thread stacks, what the allocator keeps. Measured
/// on Linux.
const PROGRAM: u64 = 80 << 20;

/// Bytes of one part in memory of their own, and in the mapped file.
fn split(
    config: &JanusConfig,
    place: &Place,
    parts: Parts,
    name: &str,
    mut elements: Elements,
) -> (u64, u64) {
    let precision = &place.precision;
    let llm = &config.language;
    let table = (llm.vocab_size * llm.hidden_size) as u64;
    if name == "language_model" {
        if place.tables_on_host {
            elements.matrices -= table;
            elements.heads -= if parts == Parts::Generation { 0 } else { table };
        } else if place.is_mapped(precision.weights) {
            elements.matrices -= table;
        }
    }
    let packed = elements.packed(precision);
    let plain = if packed.is_some() { 0 } else { elements.decoder + elements.heads };
    let classes = [
        (elements.matrices + plain, precision.weights),
        (elements.compute, precision.compute),
        (elements.f32, DType::F32),
        (elements.image_tokenizer, precision.image_tokenizer),
    ];
    let bytes = |mapped: bool| {
        let some = classes.iter().filter(|(_, dtype)| place.is_mapped(*dtype) == mapped);
        some.map(|(count, dtype)| count * size(*dtype)).sum()
    };
    (bytes(false) + packed.unwrap_or(0), bytes(true))
}

/// Keys and values of `rows` rows of `tokens` tokens: `2 · layers · H_kv · d` numbers per token.
pub fn cache_bytes(config: &JanusConfig, precision: &Precision, rows: usize, tokens: usize) -> u64 {
    let llm = &config.language;
    let heads = 2 * llm.num_hidden_layers as u64 * llm.num_key_value_heads as u64;
    precision.cache().bytes(heads, llm.head_dim as u64) * rows as u64 * tokens as u64
}

/// The largest tensor of the cache: keys or values of one layer.
pub fn largest_cache_tensor(config: &JanusConfig, precision: &Precision, work: &Workload) -> u64 {
    let tensors = 2 * config.language.num_hidden_layers as u64;
    cache_bytes(config, precision, work.rows, work.tokens) / tensors
}

/// How many of `wanted` pictures can be drawn together: within `memory` bytes where that is
/// known, and `tensor` bytes of a single tensor. At least 1, whether it fits or not.
pub fn pictures_at_once(
    config: &JanusConfig,
    place: &Place,
    (prompt, guidance): (usize, Guidance),
    wanted: usize,
    (memory, tensor): (Option<u64>, Option<u64>),
) -> usize {
    let fits = |pictures: &usize| {
        let work = Workload::drawing(config, prompt, *pictures, guidance);
        let largest = largest_cache_tensor(config, &place.precision, &work);
        memory.is_none_or(|memory| forecast(config, place, &work).total() <= memory)
            && tensor.is_none_or(|tensor| largest <= tensor)
    };
    (1..=wanted.max(1)).rev().find(fits).unwrap_or(1)
}

/// Activations of everything that happens in turn.
fn phases(config: &JanusConfig, place: &Place, work: &Workload) -> Vec<Phase> {
    let compute = size(place.precision.compute);
    let llm = &config.language;
    let count = |factors: &[usize]| factors.iter().map(|n| *n as u64).product::<u64>();
    // Residual stream, its norm, and the MLP's three; scores in f32 where attention keeps them.
    let prefill = count(&[work.rows, work.prompt, 4 * llm.hidden_size + 3 * llm.intermediate_size])
        * compute
        + 2 * count(&[work.rows, llm.num_attention_heads, work.prompt, work.prompt]) * 4;
    let choices = match work.parts {
        Parts::Generation => config.gen_head.codes,
        _ => llm.vocab_size,
    };
    let steps = 2 * count(&[work.rows, choices]) * 4;
    let phase = |name, cached, activations| Phase { name, cached, activations };
    let mut phases = Vec::new();
    if work.parts != Parts::Generation && work.pictures > 0 {
        phases.push(phase("pictures", false, seeing(config, place, work)));
    }
    phases.push(phase("prefill", true, prefill.max(steps)));
    phases.push(phase("steps", true, steps));
    if work.parts != Parts::Understanding {
        phases.push(phase("pixels", false, painting(config, place, work)));
    }
    phases
}

/// The vision tower: a block's inputs and products, and its scores in f32.
fn seeing(config: &JanusConfig, place: &Place, work: &Workload) -> u64 {
    let vit = &config.vision;
    let (pictures, tokens) = (work.pictures as u64, vit.num_tokens() as u64);
    let block = (4 * vit.hidden_size + 2 * vit.intermediate_size) as u64;
    let scores = vit.num_attention_heads as u64 * tokens;
    pictures * tokens * (block * size(place.precision.compute) + 2 * scores * 4)
}

/// The image decoder at full resolution: block input, normed in f32, convolved. On graphics cards
/// also the nine shifted copies that a convolution by matrix product may make.
fn painting(config: &JanusConfig, place: &Place, work: &Workload) -> u64 {
    let vq = &config.gen_vision;
    let plane = (work.pictures * vq.base_channels * vq.image_size * vq.image_size) as u64;
    let element = size(place.precision.image_tokenizer);
    match place.family {
        Family::Cpu | Family::NdArray => plane * 5 * element, // measured
        _ => plane * (4 + 12 * element),
    }
}

#[cfg(test)]
mod tests {
    use janus_model::ops::Products;
    use janus_model::packed::Bits;

    use super::*;

    /// The CPU with the published weights.
    fn cpu() -> Place {
        let precision = Precision { weights: DType::BF16, ..Precision::F32 };
        Place { family: Family::Cpu, precision, file: DType::BF16, tables_on_host: false }
    }

    #[test]
    fn a_token_of_cache_takes_what_the_specification_says() {
        let precision = Precision { compute: DType::BF16, ..Precision::F32 };
        assert_eq!(cache_bytes(&JanusConfig::pro_1b(), &precision, 1, 1), 196_608);
        assert_eq!(cache_bytes(&JanusConfig::pro_7b(), &precision, 1, 1), 491_520);
        let exact = Precision { weights: DType::BF16, ..Precision::F32 };
        assert_eq!(cache_bytes(&JanusConfig::pro_1b(), &exact, 1, 1), 393_216);
        let rounded = exact.with_products(Products::Bf16);
        assert_eq!(cache_bytes(&JanusConfig::pro_1b(), &rounded, 1, 1), 196_608);
        let packed = Precision { packed: Some(Bits::Four), ..rounded };
        assert_eq!(cache_bytes(&JanusConfig::pro_1b(), &packed, 1, 1), 104_448);
    }

    /// What `tests/reference/peak_memory.py` measured at 1B with a prompt of 24 tokens, less the
    /// 0.14 GB of convolutions that are read from the file once.
    #[test]
    fn the_forecast_is_what_was_measured() {
        let config = JanusConfig::pro_1b();
        for (pictures, measured) in [(1, 3.40e9), (16, 10.70e9)] {
            let work = Workload::drawing(&config, 24, pictures, Guidance::default());
            let total = forecast(&config, &cpu(), &work).total() as f64;
            assert!((total / measured - 1.0).abs() < 0.05, "{pictures}: {total}");
        }
    }

    #[test]
    fn what_fits_is_bounded_by_memory_and_by_the_largest_tensor() {
        let config = JanusConfig::pro_1b();
        let fit = |bounds| pictures_at_once(&config, &cpu(), (24, Guidance::default()), 16, bounds);
        assert_eq!(fit((None, None)), 16);
        assert_eq!(fit((Some(1), None)), 1, "one is tried in any case");
        let at = |pictures| Workload::drawing(&config, 24, pictures, Guidance::default());
        let exact = forecast(&config, &cpu(), &at(5)).total();
        assert_eq!([fit((Some(exact), None)), fit((Some(exact - 1), None))], [5, 4]);
        let largest = largest_cache_tensor(&config, &Precision::F32, &at(3));
        assert_eq!([fit((None, Some(largest))), fit((None, Some(largest - 1)))], [3, 2]);
    }

    #[test]
    fn editing_has_three_rows_of_long_prompts() {
        let config = JanusConfig::pro_1b();
        let prompt = Workload::editing_prompt(&config, 24, 1);
        assert_eq!(prompt, 24 + 576 + 576 + 4);
        let edit = Workload::drawing(&config, prompt, 2, Guidance::editing(5.0, 5.0));
        let draw = Workload::drawing(&config, 24, 2, Guidance::default());
        assert_eq!((edit.rows, edit.parts, draw.rows), (6, Parts::All, 4));
        let cache = |work: &Workload| forecast(&config, &cpu(), work).cache;
        assert_eq!(cache(&edit), 6 * 1755 * cache(&draw) / (4 * 599));
    }

    #[test]
    fn tables_with_the_processor_cost_the_card_nothing() {
        let config = JanusConfig::pro_7b();
        let card = Place { family: Family::Portable, precision: Precision::F32, ..cpu() };
        let weights = |place: &Place| {
            let work = Workload::asking(&config, 1, 40, 64);
            let parts = forecast(&config, place, &work).weights;
            parts.iter().map(|(_, bytes)| bytes).sum::<u64>()
        };
        let moved = Place { tables_on_host: true, ..card };
        assert_eq!(weights(&card) - weights(&moved), 2 * 102_400 * 4096 * 4);
    }

    #[test]
    fn halves_take_less_than_the_whole() {
        let config = JanusConfig::pro_1b();
        let work = |parts| Workload { parts, rows: 2, prompt: 30, tokens: 605, pictures: 1 };
        let total = |parts| forecast(&config, &cpu(), &work(parts)).total();
        assert!(total(Parts::Understanding) < total(Parts::All));
        assert!(total(Parts::Generation) < total(Parts::All));
    }
}
