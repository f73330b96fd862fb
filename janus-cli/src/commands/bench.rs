//! `janus bench`: how long each stage takes here, on the weights that will be used.

use std::time::Instant;

use burn::tensor::{DType, Tensor, TensorData};
use janus_infer::chat::{Prompt, TextRequest, Writing};
use janus_infer::generate::{Drawing, ImageRequest, pixels};
use janus_infer::{Guidance, InferError, flop, memory};
use janus_model::ops::Products;
use janus_model::ops::ceiling::Ceiling;
use janus_model::{Family, Janus, Parts};
use serde_json::{Value, json};

use crate::args::BenchArgs;
use crate::choice::naming;
use crate::model::Loaded;
use crate::progress::Stage as Line;
use crate::report::{self, Failure, Verdict};
use crate::units::{size, weights_name};
use crate::{machine, process};

/// Tokens that are drawn from: as long as a sentence with its role tokens.
const PROMPT: usize = 24;

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<Verdict, Failure> {
    let guidance = Guidance::words(args.cfg);
    guidance.validate()?;
    let start = Instant::now();
    let loaded = Loaded::open(&args.model, Parts::All)?;
    let load = start.elapsed().as_secs_f64();
    let janus = loaded.engine.janus();
    let on_cpu = Family::of(&janus.device()) == Family::Cpu;
    let bench = Bench { janus, args, guidance, ceiling: on_cpu.then(ceiling) };
    bench.warm_up()?;
    let mut runs = Vec::new();
    for turn in 1..=args.repeat {
        runs.push(bench.round(turn)?);
    }
    let mut stages = medians(&runs);
    let loading = Work::default();
    stages.insert(0, Stage { name: "load", runs: vec![load], work: loading, each: 1, peak: None });
    if args.json {
        let told = bench.json(&loaded.device, &stages);
        report::print_json(&naming(&loaded.adapters, told))?;
    } else {
        report::print(&bench.text(&loaded, &stages))?;
    }
    Ok(Verdict::Yes)
}

/// What is timed.
struct Bench<'a> {
    janus: &'a Janus,
    args: &'a BenchArgs,
    guidance: Guidance,
    /// What the processor can do at most, if it does the work.
    ceiling: Option<Ceiling>,
}

/// What a stage takes, each time.
#[derive(Clone, Copy, Default)]
struct Work {
    /// Bytes of weights that are read, where reading them is most of it.
    bytes: Option<u64>,
    /// Multiplications and additions of products, where these are.
    flop: Option<f64>,
}

impl Work {
    fn reading(bytes: u64) -> Self {
        Self { bytes: Some(bytes), flop: None }
    }

    fn multiplying(flop: f64) -> Self {
        Self { bytes: None, flop: Some(flop) }
    }
}

/// One stage, and how long it took in each round.
struct Stage {
    name: &'static str,
    /// Seconds.
    runs: Vec<f64>,
    work: Work,
    /// Tokens or pictures that one run stands for.
    each: usize,
    /// The most that was resident while it ran, in bytes.
    peak: Option<u64>,
}

impl Stage {
    fn seconds(&self) -> f64 {
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        }
    }
}

/// Rounds turned into stages.
fn medians(rounds: &[Vec<Stage>]) -> Vec<Stage> {
    let names = rounds.first().map_or(&[][..], |round| &round[..]);
    let collect = |(i, first): (usize, &Stage)| Stage {
        name: first.name,
        runs: rounds.iter().map(|round| round[i].runs[0]).collect(),
        work: first.work,
        each: first.each,
        peak: rounds.iter().filter_map(|round| round[i].peak).max(),
    };
    names.iter().enumerate().map(collect).collect()
}

impl Bench<'_> {
    /// First calls fetch pages from the disk, ask for memory, compile kernels and wake threads.
    fn warm_up(&self) -> Result<(), Failure> {
        let line = Line::new("warming up");
        self.see()?;
        self.decode()?;
        let mut drawing = self.drawing()?;
        for _ in 0..2 {
            drawing.step()?;
        }
        let mut writing = self.writing(self.args.prefill as usize, 2)?;
        writing.step()?;
        writing.step()?;
        line.finish();
        Ok(())
    }

    /// Every stage once.
    fn round(&self, turn: u16) -> Result<Vec<Stage>, Failure> {
        let label = |what: &str| {
            // What an earlier stage left behind is gone by now.
            process::forget_peak();
            match self.args.repeat {
                1 => Line::new(what),
                all => Line::new(&format!("{what}, round {turn} of {all}")),
            }
        };
        let mut stages = Vec::new();
        let mut add = |name, each, work, seconds| {
            let peak = process::memory().map(|memory| memory.peak);
            stages.push(Stage { name, runs: vec![seconds], work, each, peak });
        };
        let config = self.janus.config();
        let line = label("a picture through the vision tower");
        let work = Work::multiplying(flop::vision(config));
        add("vision", 1, work, clock(|| self.see())?.0);
        line.finish();

        let line = label("reading and writing text");
        let tokens = self.args.text_tokens as usize;
        let mut writing = self.writing(self.args.prefill as usize, tokens + 1)?;
        let prefill = self.args.prefill as usize;
        let work = Work::multiplying(flop::language(config, 1, 0, prefill));
        add("prefill", prefill, work, clock(|| writing.step())?.0);
        let all = clock(|| (0..tokens).try_for_each(|_| writing.step().map(drop)))?.0;
        drop(writing);
        let work = Work::reading(self.weights(Parts::Understanding));
        add("text_token", 1, work, all / tokens as f64);
        line.finish();

        let line = label("drawing");
        let images = usize::from(self.args.num_images);
        let mut drawing = self.drawing()?;
        let total = drawing.progress().total;
        let codes = self.codes();
        let rows = self.guidance.rows(images);
        let work = flop::language(config, rows, 0, PROMPT) + flop::image_head(config, rows);
        let prefill = clock(|| drawing.step())?.0;
        add("image_prefill", images, Work::multiplying(work), prefill);
        let all = clock(|| (1..codes).try_for_each(|_| drawing.step().map(drop)))?.0;
        let step = all / (codes - 1) as f64;
        add("image_step", images, Work::reading(self.weights(Parts::Generation)), step);
        drop(drawing);
        line.finish();

        let line = label("a picture through the image tokenizer");
        let decode = clock(|| self.decode())?.0;
        add("vq_decode", 1, Work::multiplying(flop::image_decoder(config)), decode);
        let whole = prefill + step * (total - 1) as f64 + decode * images as f64;
        add("image", images, Work::default(), whole);
        line.finish();
        Ok(stages)
    }

    /// Codes that are drawn of each picture.
    fn codes(&self) -> usize {
        (self.args.codes as usize).min(self.janus.config().image_codes())
    }

    /// One picture, grey, to features that have arrived.
    fn see(&self) -> Result<(), InferError> {
        let side = self.janus.config().vision.image_size;
        let grey = TensorData::new(vec![0.1_f32; 3 * side * side], [1, 3, side, side]);
        let features = self.janus.encode_image(Tensor::from_data(grey, &self.janus.device()))?;
        // Devices work ahead; the last number waits for all of them.
        let last = features.flatten::<1>(0, 2).slice_dim(0, 0..1).into_data();
        debug_assert_eq!(last.num_elements(), 1);
        Ok(())
    }

    /// Codes of one picture to its pixels.
    fn decode(&self) -> Result<(), InferError> {
        let config = self.janus.config();
        let code = |i| (i * 7919 % config.gen_vision.num_embeddings) as i32;
        let picture: Vec<i32> = (0..config.image_codes()).map(code).collect();
        pixels(self.janus, &[picture], 1).map(drop)
    }

    fn writing(&self, prompt: usize, tokens: usize) -> Result<Writing<'_>, InferError> {
        let vocabulary = self.janus.config().language.vocab_size;
        let ids = (0..prompt).map(|i| (i * 7919 % vocabulary) as i32).collect();
        let prompt = Prompt::text(self.janus, &[ids], 0)?;
        let request = TextRequest { max_new_tokens: tokens, ..TextRequest::new(Vec::new()) };
        Writing::new(self.janus, prompt, request)
    }

    fn drawing(&self) -> Result<Drawing<'_>, InferError> {
        let prompt: Vec<i32> = (0..PROMPT as i32).map(|i| 2 + i % 40).collect();
        let mut request = ImageRequest::new(&prompt, 0, 0, 0..u64::from(self.args.num_images));
        request.guidance = self.guidance;
        Drawing::new(self.janus, &request)
    }

    /// Bytes of the matrices that every token passes: not the tables, of which it takes a row,
    /// nor the networks of pictures.
    fn weights(&self, parts: Parts) -> u64 {
        let config = self.janus.config();
        let precision = self.janus.precision();
        let table = (config.language.vocab_size * config.language.hidden_size) as u64;
        let bytes = |(name, mut elements): (&str, memory::Elements)| match name {
            "language_model" => {
                elements.matrices -= table;
                elements.bytes(&precision)
            }
            "gen_head" | "gen_aligner" => elements.bytes(&precision),
            _ => 0,
        };
        memory::elements(config, parts).into_iter().map(bytes).sum()
    }

    fn json(&self, device: &str, stages: &[Stage]) -> Value {
        let list: Vec<Value> = stages
            .iter()
            .map(|stage| {
                let seconds = stage.seconds();
                let Work { bytes, flop } = stage.work;
                json!({"name": stage.name, "seconds": seconds, "runs": stage.runs,
                       "items": stage.each, "peak_resident_bytes": stage.peak,
                       "weight_bytes": bytes, "flop": flop,
                       "bytes_per_second": bytes.map(|bytes| bytes as f64 / seconds),
                       "flop_per_second": flop.map(|flop| flop / seconds),
                       "of_ceiling": self.of_ceiling(stage)})
            })
            .collect();
        let peak = stages.iter().filter_map(|stage| stage.peak).max();
        json!({
            "device": device, "dtype": weights_name(&self.janus.precision()),
            "compute": name(self.janus.precision().compute),
            "products": self.janus.precision().products, "threads": machine::threads(self.args.model.threads()),
            "num_images": self.args.num_images, "cfg": self.args.cfg, "codes": self.codes(),
            "ceiling": self.ceiling.map(|ceiling| json!({
                "bytes_per_second": ceiling.read, "flop_per_second": ceiling.products(false),
                "rounded_flop_per_second": ceiling.narrow})),
            "stages": list, "peak_resident_bytes": peak,
            "private_bytes": process::memory().map(|memory| memory.private),
        })
    }

    fn text(&self, loaded: &Loaded, stages: &[Stage]) -> String {
        let precision = self.janus.precision();
        let mut text = format!(
            "{}, weights {}, arithmetic {}, {} threads\n\n",
            loaded.device,
            weights_name(&precision),
            match precision.products {
                Products::Bf16 => "bf16 into f32".to_owned(),
                Products::Bf16Steps => "bf16 into f32, steps too".to_owned(),
                Products::F32 => name(precision.compute),
            },
            machine::threads(self.args.model.threads())
        );
        for stage in stages {
            let (label, seconds) = (self.label(stage), time(stage.seconds()));
            let share = self.of_ceiling(stage).map_or(String::new(), percent);
            text += format!("{label:<34}{seconds:>10}{share:>7}  {}", rate(stage)).trim_end();
            text.push('\n');
        }
        if let Some(ceiling) = self.ceiling {
            text +=
                &format!("\nper cent are of what this machine does at most: {}\n", most(ceiling));
        }
        if let Some(peak) = stages.iter().filter_map(|stage| stage.peak).max() {
            text += &format!("\npeak memory {}, with file pages\n", size(peak));
        }
        text
    }

    /// What share of the processor's most a stage reaches: of reading, or of arithmetic as its
    /// products have it. With packed weights sums are of whole numbers, which are not measured.
    fn of_ceiling(&self, stage: &Stage) -> Option<f64> {
        let (ceiling, precision) = (self.ceiling?, self.janus.precision());
        let share = match stage.work {
            Work { bytes: Some(bytes), .. } => bytes as f64 / stage.seconds() / ceiling.read,
            Work { flop, .. } => {
                let most = ceiling.products(precision.products.rounded());
                let decoder = stage.name.ends_with("prefill");
                flop.filter(|_| precision.packed.is_none() || !decoder)? / stage.seconds() / most
            }
        };
        share.is_finite().then_some(share)
    }

    /// A stage in words.
    fn label(&self, stage: &Stage) -> String {
        let rows = self.guidance.rows(usize::from(self.args.num_images));
        let pictures =
            if stage.each == 1 { "a picture".into() } else { format!("{} pictures", stage.each) };
        match stage.name {
            "load" => "load".into(),
            "vision" => "vision tower, a picture".into(),
            "prefill" => format!("prefill, {} tokens", stage.each),
            "text_token" => "text token".into(),
            "image_prefill" => format!("image prefill, {rows} rows"),
            "image_step" => format!("image step, {rows} rows"),
            "vq_decode" => "image tokenizer, a picture".into(),
            _ => format!("{pictures}, whole"),
        }
    }
}

/// Rate in the unit that people compare.
fn rate(stage: &Stage) -> String {
    let seconds = stage.seconds();
    let per_second = stage.each as f64 / seconds;
    match (stage.name, stage.work.bytes) {
        (_, Some(bytes)) => {
            let bandwidth = size((bytes as f64 / seconds) as u64);
            format!("{:.1} steps/s, weights at {bandwidth}/s", 1.0 / seconds)
        }
        ("prefill", _) => format!("{per_second:.0} tokens/s{}", arithmetic(stage)),
        ("image", _) => format!("{:.0} pictures/h", per_second * 3600.0),
        _ => arithmetic(stage).trim_start_matches(", ").to_owned(),
    }
}

/// FLOP a second, behind something else.
fn arithmetic(stage: &Stage) -> String {
    let per_second = stage.work.flop.map(|flop| flop / stage.seconds());
    per_second.map_or(String::new(), |rate| format!(", {}", gflops(rate)))
}

fn gflops(rate: f64) -> String {
    format!("{:.0} GFLOP/s", rate / 1e9)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// What the processor does at most, in words.
fn most(ceiling: Ceiling) -> String {
    let (read, exact) = (ceiling.read, ceiling.products(false));
    let narrow =
        ceiling.narrow.map_or(String::new(), |rate| format!(", {} rounded to bf16", gflops(rate)));
    format!("reads {}/s, {}{narrow}", size(read as u64), gflops(exact))
}

/// Measures what the processor does at most, on all threads.
fn ceiling() -> Ceiling {
    let line = Line::new("measuring what this machine can do");
    let ceiling = Ceiling::measure();
    line.finish();
    ceiling
}

fn time(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

fn name(dtype: DType) -> String {
    dtype.name().to_owned()
}

/// How long something takes.
fn clock<T>(work: impl FnOnce() -> Result<T, InferError>) -> Result<(f64, T), InferError> {
    let start = Instant::now();
    let result = work()?;
    Ok((start.elapsed().as_secs_f64(), result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let stage = |runs: &[f64]| Stage {
            name: "x",
            runs: runs.to_vec(),
            work: Work::default(),
            each: 1,
            peak: None,
        };
        assert_eq!(stage(&[3.0]).seconds(), 3.0);
        assert_eq!(stage(&[9.0, 1.0, 3.0]).seconds(), 3.0);
        assert_eq!(stage(&[1.0, 2.0, 9.0, 4.0]).seconds(), 3.0);
    }
}
