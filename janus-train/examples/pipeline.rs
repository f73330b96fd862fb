//! How fast pictures become training samples: decoded, resized, encoded.
//!
//! ```sh
//! cargo run --release -p janus-train --example pipeline -- --model DIR --photos FOLDER [--encode N]
//! ```
//! FOLDER holds pictures with a text beside each (`tests/reference/photo_folder.py`). Each line of
//! JSON is one way: to be understood or to be drawn, on 0, 1 and 2 threads; then N pictures (8)
//! through the image tokenizer of the model, and again out of the cache of codes.
#![allow(clippy::print_stdout)] // a program for developers

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use janus_model::processor::{PixelValues, Processor};
use janus_model::{Janus, JanusConfig, LoadOptions, Parts};
use janus_train::data::{
    Cache, Encode, Kind, Loader, Objective, OnBad, Options, Packing, Prepare, Shuffle, Source,
    Spec, Tokens,
};
use janus_train::frozen::FrozenTokenizer;
use serde_json::json;

type Failure = Box<dyn std::error::Error>;

/// Zeros in place of codes, so that only the rest is timed.
struct Nothing(usize);

impl Encode for Nothing {
    fn fingerprint(&self) -> [u8; 32] {
        [0; 32]
    }

    fn encode(&mut self, pictures: &[PixelValues]) -> Result<Vec<Vec<i32>>, String> {
        Ok(vec![vec![0; self.0]; pictures.len()])
    }
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).map(PathBuf::from)
    };
    let usage = "usage: pipeline --model DIR --photos FOLDER [--encode N]";
    let (model, photos) = (value("--model").ok_or(usage)?, value("--photos").ok_or(usage)?);
    let encode = value("--encode").and_then(|n| n.to_str()?.parse().ok()).unwrap_or(8);
    let (config, _) = JanusConfig::from_dir(&model)?;
    let processor = Arc::new(Processor::for_model(&model, &config)?);
    let tokens =
        Tokens { processor, codes: config.image_codes(), objective: Objective::exact(4096) };
    for (kind, name) in [(Kind::Understand, "understand"), (Kind::Draw, "draw")] {
        for workers in [0, 1, 2] {
            let mut loader = loader(&photos, kind, workers, Prepare::new(tokens.clone()))?;
            let pictures = pictures(&photos, kind)?;
            // Files come from memory the second time, as they do in a second epoch.
            let mut seconds = f64::INFINITY;
            for _ in 0..2 {
                let start = Instant::now();
                for _ in 0..pictures {
                    loader.next(&mut Nothing(tokens.codes))?;
                }
                seconds = seconds.min(start.elapsed().as_secs_f64());
            }
            let rate = pictures as f64 / seconds;
            println!(
                "{}",
                json!({"what": "decoded and resized", "kind": name, "threads": workers,
                       "pictures": pictures, "per_second": rate})
            );
        }
    }
    encoded(&model, &photos, tokens, encode)
}

fn pictures(photos: &Path, kind: Kind) -> Result<u64, Failure> {
    let spec = Spec { kind: Some(kind), ..Spec::of(photos) };
    let sources = Source::open(&spec, (0, 1.0), Shuffle::Off)?;
    Ok(sources.iter().map(Source::len).sum())
}

/// One picture a step.
fn loader(photos: &Path, kind: Kind, workers: usize, prepare: Prepare) -> Result<Loader, Failure> {
    let spec = Spec { kind: Some(kind), ..Spec::of(photos) };
    let sources = Source::open(&spec, (0, 1.0), Shuffle::Seed(1))?;
    let mut ratio = [0; 3];
    ratio[kind as usize] = 1;
    let (on_bad, packing) = (OnBad::default(), Packing::Isolated);
    let options = Options { ratio, batch: 1, rows: 1, packing, on_bad, workers, ahead: 16 };
    Ok(Loader::new(sources, prepare, options)?)
}

/// Through the image tokenizer, and out of the cache.
fn encoded(model: &Path, photos: &Path, tokens: Tokens, count: u64) -> Result<(), Failure> {
    let load = LoadOptions { parts: Parts::Generation, ..LoadOptions::default() };
    let (janus, _) = Janus::load(model, &Device::flex(), &load)?;
    let mut tokenizer = FrozenTokenizer::of(&janus)?;
    let folder = tempfile::tempdir()?;
    let count = count.min(pictures(photos, Kind::Draw)?);
    for what in ["encoded", "codes from the cache"] {
        let cache = Cache::open(folder.path(), tokenizer.fingerprint(), tokens.codes)?;
        let mut prepare = Prepare::new(tokens.clone());
        prepare.cache = Some(Arc::new(cache));
        let mut loader = loader(photos, Kind::Draw, 0, prepare)?;
        let start = Instant::now();
        for _ in 0..count {
            loader.next(&mut tokenizer)?;
        }
        let rate = count as f64 / start.elapsed().as_secs_f64();
        println!(
            "{}",
            json!({"what": what, "kind": "draw", "pictures": count, "per_second": rate})
        );
    }
    Ok(())
}
