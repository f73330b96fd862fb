//! Time and memory of one optimizer step, as JSON, for comparison with PyTorch:
//! `tests/reference/bench_train_torch.py` makes the same step of the same sizes.
//!
//!     cargo run --release -p janus-train --example step -- SIZE STAGE ROWS ACTIVATIONS STEPS
//!
//! SIZE small or 1b · STAGE 1 to 3 · ROWS pictures to draw in a step, one micro-batch each, and one
//! to be understood · ACTIVATIONS kept or recomputed. Weights are random, in f32.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // a tool for developers

use std::time::Instant;

use burn::optim::ModuleOptimizer;
use burn::tensor::Device;
use janus_model::{JanusConfig, Parts, Precision};
use janus_train::batch::{Batch, Target};
use janus_train::clip::clip;
use janus_train::optim::AdamW;
use janus_train::stage::Rules;
use janus_train::step::{Activations, Trainee};

/// Tokens of a caption, its begin-of-image included.
const CAPTION: usize = 24;
/// Words of a question around its picture, and of its answer.
const QUESTION: usize = 24;
const ANSWER: usize = 32;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [size, stage, rows, activations, steps] = words.as_slice() else {
        panic!("SIZE STAGE ROWS ACTIVATIONS STEPS")
    };
    let config = sizes(size);
    let device = Device::flex().autodiff();
    let janus = config.init(Parts::All, Precision::F32, &device);
    let rules = Rules::janus_pro(stage.parse().unwrap()).unwrap();
    let (janus, parts) = rules.apply(janus).unwrap();
    let activations = match activations.as_str() {
        "recomputed" => Activations::Recomputed,
        _ => Activations::Kept,
    };
    let batches = batches(&config, rows.parse().unwrap());
    let tokens: usize = batches.iter().map(Batch::filled).sum();
    let mut optimizer: ModuleOptimizer = AdamW::default().into();
    let mut trainee = Trainee::new(janus, activations);
    let mut seconds = Vec::new();
    let mut loss = 0.0;
    for _ in 0..steps.parse().unwrap() {
        let start = Instant::now();
        let (gradients, report) = trainee.gradients(&batches).unwrap();
        let (gradients, _) = clip(&trainee, gradients, 1.0).unwrap();
        trainee = trainee.update(&mut optimizer, 1e-4, gradients);
        loss = report.joined().mean().unwrap();
        seconds.push(start.elapsed().as_secs_f64());
    }
    // The first step draws random weights, too.
    let best = seconds.iter().skip(1).copied().fold(seconds[0], f64::min);
    let trained: u64 = parts.iter().map(|part| part.trained).sum();
    println!(
        "{{\"seconds\": {best:.4}, \"first\": {:.4}, \"tokens\": {tokens}, \"loss\": {loss:.5}, \
         \"trained\": {trained}, \"peak_rss\": {}}}",
        seconds[0],
        peak_rss()
    );
}

fn sizes(name: &str) -> JanusConfig {
    let mut config = JanusConfig::pro_1b();
    if name == "small" {
        let llm = &mut config.language;
        (llm.hidden_size, llm.intermediate_size, llm.num_hidden_layers) = (768, 2048, 8);
        (llm.num_attention_heads, llm.num_key_value_heads) = (12, 12);
        (llm.head_dim, llm.vocab_size) = (64, 16_384);
        let tower = &mut config.vision;
        (tower.hidden_size, tower.intermediate_size) = (512, 2048);
        (tower.num_hidden_layers, tower.num_attention_heads) = (6, 8);
        (config.aligner.input_dim, config.aligner.output_dim) = (512, 768);
        config.gen_aligner.output_dim = 768;
        (config.gen_head.hidden_size, config.gen_head.embed_dim) = (768, 768);
    }
    config
}

/// Pictures to draw, one a micro-batch, and one to be understood.
fn batches(config: &JanusConfig, rows: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = (0..rows).map(|row| drawing(config, row)).collect();
    batches.push(understanding(config));
    batches
}

/// Numbers below `limit` that PyTorch makes, too.
fn numbers(count: usize, limit: usize, offset: usize) -> impl Iterator<Item = i32> {
    (0..count).map(move |i| ((i * 7919 + offset * 104_729 + 13) % limit) as i32)
}

fn row(ids: Vec<i32>) -> Batch {
    let tokens = ids.len();
    let positions = (0..tokens as i32).collect();
    Batch { rows: 1, tokens, ids, positions, documents: vec![0; tokens], ..Batch::default() }
}

fn drawing(config: &JanusConfig, row_number: usize) -> Batch {
    let count = config.image_codes();
    let codes: Vec<i32> = numbers(count, config.gen_head.codes, row_number).collect();
    let mut ids: Vec<i32> = numbers(CAPTION, 10_000, row_number).collect();
    ids.resize(CAPTION + count - 1, 0);
    let first = CAPTION as i32 - 1;
    let target = |(place, id): (i32, &i32)| Target { place, id: *id };
    Batch {
        code_targets: (first..).zip(&codes).map(target).collect(),
        code_places: (CAPTION as i32..).take(count - 1).collect(),
        codes: codes[..count - 1].to_vec(),
        ..row(ids)
    }
}

fn understanding(config: &JanusConfig) -> Batch {
    let picture = config.vision.num_tokens();
    let mut ids: Vec<i32> = numbers(QUESTION, 10_000, 1).collect();
    ids.resize(QUESTION + picture, 0);
    ids.extend(numbers(ANSWER, 10_000, 2));
    let side = config.vision.image_size;
    let first = (QUESTION + picture) as i32;
    Batch {
        pixels: (0..3 * side * side).map(|i| ((i * 31) % 255) as f32 / 127.5 - 1.0).collect(),
        image_places: (QUESTION as i32..first).collect(),
        text_targets: (first - 1..)
            .zip(numbers(ANSWER, 10_000, 2))
            .map(|(place, id)| Target { place, id })
            .collect(),
        ..row(ids)
    }
}

/// Bytes, where the system tells them in a file.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
