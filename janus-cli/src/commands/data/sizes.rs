//! `janus data sizes`: a model folder without weights.

use std::collections::BTreeMap;
use std::fmt::Write;

use burn::tensor::DType;
use janus_model::JanusConfig;
use janus_model::processor::{JanusTokenizer, ProcessorError};
use janus_train::sizes::Sizes;
use serde_json::{Value, json};

use crate::args::{DataSizesArgs, Names};
use crate::companions::Companions;
use crate::device;
use crate::report::{self, Failure, Verdict};
use crate::target::{Staging, Target};
use crate::units::count;

/// Runs the command.
pub fn run(args: &DataSizesArgs) -> Result<Verdict, Failure> {
    let target = Target::empty(&args.output)?;
    let sizes = Sizes::read(&args.sizes)?;
    let tokenizer = JanusTokenizer::from_dir(&args.words).map_err(ProcessorError::from)?;
    let config = sizes
        .config(tokenizer.size())
        .map_err(|error| Failure::from(error).at(&args.sizes.display().to_string()))?;
    let mut companions = Companions::new(&args.words, tokenizer, &config)?;
    companions.advice.guidance_scale = sizes.guidance_scale;
    let staging = Staging::create(&target)?;
    // Masters are f32, and so is what a run starts from.
    companions.write(&staging, &config, Names::Hf, DType::F32)?;
    staging.publish(&target)?;
    match args.json {
        true => report::print_json(&as_json(args, &config))?,
        false => report::print(&as_text(args, &config))?,
    }
    Ok(Verdict::Yes)
}

/// How many weights each part will have.
fn weights(config: &JanusConfig) -> BTreeMap<String, usize> {
    let mut parts = BTreeMap::new();
    for (name, shape) in config.expected_tensors(&device::idle()) {
        let part = name.split('.').next().unwrap_or_default().to_owned();
        *parts.entry(part).or_default() += shape.iter().product::<usize>();
    }
    parts
}

fn as_json(args: &DataSizesArgs, config: &JanusConfig) -> Value {
    let parts = weights(config);
    json!({
        "path": args.output, "image_size": config.vision.image_size,
        "image_tokens": config.image_tokens(), "image_codes": config.image_codes(),
        "tokens": config.language.vocab_size, "weights": parts.values().sum::<usize>(),
        "parts": parts,
    })
}

fn as_text(args: &DataSizesArgs, config: &JanusConfig) -> String {
    let parts = weights(config);
    let mut text = format!(
        "{}: pictures of {side}×{side}, read as {} tokens and drawn as {} codes\n",
        args.output.display(),
        config.image_tokens(),
        config.image_codes(),
        side = config.vision.image_size,
    );
    for (part, weights) in &parts {
        let _ = writeln!(text, "  {part:<18}{:>14}", count(*weights));
    }
    let _ = writeln!(text, "  {:<18}{:>14} weights", "together", count(parts.values().sum()));
    text
}
