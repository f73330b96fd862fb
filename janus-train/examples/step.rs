//! Times optimizer steps of a model of any size on the CPU, and what memory they take; PyTorch does
//! the same with the same numbers (`tests/reference/bench_train_torch.py`):
//!
//! ```sh
//! cargo run --release -p janus-train --example step -- --model DIR --stage 1 --dump batch.safetensors
//! ```
//! `--samples U:T:D` rows to understand, of text, to draw (default 1:0:3); `--words N` of each question,
//! caption and answer (40); `--micro R` rows at once (all); `--steps N` timed ones after one that is
//! not (3); `--keep` keeps activations in place of working them out again; `--bf16` leaves the
//! weights as in the file. Prints one line of JSON.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program for developers

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device};
use janus_model::{Janus, JanusConfig, LoadOptions};
use janus_train::batch::{Batch, Target};
use janus_train::clip::clip;
use janus_train::optim::AdamW;
use janus_train::stage::Rules;
use janus_train::step::{Activations, Trainee};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

type Failure = Box<dyn std::error::Error>;

/// Too small to move what is measured.
const RATE: f64 = 1e-5;

struct Options {
    model: PathBuf,
    stage: usize,
    samples: [usize; 3],
    words: usize,
    micro: usize,
    steps: usize,
    activations: Activations,
    dtype: Option<DType>,
    dump: Option<PathBuf>,
}

fn options() -> Result<Options, Failure> {
    let args: Vec<String> = std::env::args().collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let number = |name: &str, usual: usize| -> Result<usize, Failure> {
        Ok(value(name).map_or(Ok(usual), |text| text.parse())?)
    };
    let samples = value("--samples").unwrap_or_else(|| "1:0:3".to_owned());
    let samples: Vec<usize> = samples.split(':').map(str::parse).collect::<Result<_, _>>()?;
    let samples: [usize; 3] = samples.try_into().map_err(|_| "--samples is U:T:D")?;
    let keep = if has("--keep") { Activations::Kept } else { Activations::Recomputed };
    Ok(Options {
        model: value("--model").ok_or("usage: step --model DIR [--stage 1|2|3] …")?.into(),
        stage: number("--stage", 1)?,
        samples,
        words: number("--words", 40)?,
        micro: number("--micro", samples.iter().sum())?,
        steps: number("--steps", 3)?,
        activations: keep,
        dtype: (!has("--bf16")).then_some(DType::F32),
        dump: value("--dump").map(PathBuf::from),
    })
}

fn main() -> Result<(), Failure> {
    let options = options()?;
    let load = LoadOptions { dtype: options.dtype, ..Default::default() };
    let start = Instant::now();
    let (janus, _) = Janus::load(&options.model, &Device::flex(), &load)?;
    let loading = start.elapsed().as_secs_f64();
    let watch = Watch::start();
    let rules = Rules::janus_pro(options.stage).ok_or("stages are 1, 2 and 3")?;
    let (janus, parts) = rules.apply(janus)?;
    let rows = rows(janus.config(), options.samples, options.words);
    if let Some(path) = &options.dump {
        dump(path, &stack(&rows))?;
    }
    let step: Vec<Batch> = rows.chunks(options.micro.max(1)).map(stack).collect();
    let mut trainee = Trainee::new(janus, options.activations);
    let mut optimizer = AdamW::default().into();
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for number in 0..=options.steps {
        let start = Instant::now();
        let (gradients, report) = trainee.gradients(&step)?;
        let (gradients, _) = clip(&trainee, gradients, 1.0)?;
        trainee = trainee.update(&mut optimizer, RATE, gradients);
        // The first one makes the moments.
        if number > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
        losses.push(report.joined().mean());
    }
    let (owned, resident) = watch.stop();
    let tokens: usize = rows.iter().map(|row| row.tokens).sum();
    let median = median(&seconds);
    println!(
        "{}",
        json!({
            "side": "janus", "stage": options.stage, "activations": format!("{:?}", options.activations),
            "weights": format!("{:?}", options.dtype), "rows": rows.len(), "micro": options.micro,
            "tokens": tokens, "supervised": step.iter().map(Batch::supervised).sum::<usize>(),
            "trained": parts.iter().map(|part| part.trained).sum::<u64>(),
            "load": loading, "seconds": seconds, "median": median,
            "tokens_per_second": tokens as f64 / median,
            "losses": losses, "peak_owned": owned, "peak_resident": resident,
        })
    );
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Numbers without a pattern, the same on every machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> i32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize % limit) as i32
    }
}

/// One row per sample, laid out as training lays them out; ids mean nothing.
fn rows(config: &JanusConfig, [understand, text, draw]: [usize; 3], words: usize) -> Vec<Batch> {
    let mut numbers = Numbers(1);
    let kinds = [(0, understand), (1, text), (2, draw)];
    let kinds = kinds.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count));
    kinds
        .map(|kind| match kind {
            0 => conversation(config, &mut numbers, words, true),
            1 => conversation(config, &mut numbers, words, false),
            _ => drawing(config, &mut numbers, words),
        })
        .collect()
}

fn blank(numbers: &mut Numbers, config: &JanusConfig, tokens: usize) -> Batch {
    let ids = (0..tokens).map(|_| numbers.below(config.language.vocab_size)).collect();
    Batch {
        rows: 1,
        tokens,
        ids,
        positions: (0..tokens as i32).collect(),
        documents: vec![0; tokens],
        ..Batch::default()
    }
}

/// A picture or none, a question, and an answer of which every word is learnt.
fn conversation(config: &JanusConfig, numbers: &mut Numbers, words: usize, picture: bool) -> Batch {
    let seen = if picture { config.image_tokens() } else { 0 };
    let mut row = blank(numbers, config, seen + 2 * words);
    if picture {
        row.image_places = (1..=seen as i32).collect();
        let count = 3 * config.vision.image_size.pow(2);
        row.pixels = (0..count).map(|_| numbers.below(256) as f32 / 127.5 - 1.0).collect();
    }
    let first = (seen + words) as i32;
    let target = |place: i32| Target { place: place - 1, id: row.ids[place as usize] };
    row.text_targets = (first..row.tokens as i32).map(target).collect();
    row
}

/// A caption and all codes of a picture; the last one is not read.
fn drawing(config: &JanusConfig, numbers: &mut Numbers, words: usize) -> Batch {
    let count = config.image_codes();
    let mut row = blank(numbers, config, words + count - 1);
    let codes: Vec<i32> =
        (0..count).map(|_| numbers.below(config.gen_vision.num_embeddings)).collect();
    let begin = words as i32 - 1;
    row.code_targets = (begin..).zip(&codes).map(|(place, id)| Target { place, id: *id }).collect();
    row.codes = codes[..count - 1].to_vec();
    row.code_places = (begin + 1..row.tokens as i32).collect();
    row
}

/// Rows as one batch, filled up on the right.
fn stack(rows: &[Batch]) -> Batch {
    let tokens = rows.iter().map(|row| row.tokens).max().unwrap_or(0);
    let mut all = Batch { rows: rows.len(), tokens, ..Batch::default() };
    for row in rows {
        let first = all.ids.len() as i32;
        let moved = |place: &i32| first + place;
        let target = |target: &Target| Target { place: first + target.place, ..*target };
        let filled = |values: &[i32], fill: i32| {
            let fill = std::iter::repeat_n(fill, tokens - row.tokens);
            values.iter().copied().chain(fill).collect::<Vec<i32>>()
        };
        all.ids.extend(filled(&row.ids, 0));
        all.positions.extend(filled(&row.positions, 0));
        all.documents.extend(filled(&row.documents, -1));
        all.pixels.extend(&row.pixels);
        all.codes.extend(&row.codes);
        all.image_places.extend(row.image_places.iter().map(moved));
        all.code_places.extend(row.code_places.iter().map(moved));
        all.text_targets.extend(row.text_targets.iter().map(target));
        all.code_targets.extend(row.code_targets.iter().map(target));
    }
    all
}

/// The batch for PyTorch.
fn dump(path: &Path, batch: &Batch) -> Result<(), Failure> {
    let ints = |values: &[i32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let pairs = |targets: &[Target]| {
        ints(&targets.iter().flat_map(|target| [target.place, target.id]).collect::<Vec<_>>())
    };
    let floats: Vec<u8> = batch.pixels.iter().flat_map(|value| value.to_le_bytes()).collect();
    let flat = |bytes: &[u8]| vec![bytes.len() / 4];
    let two = |bytes: &[u8]| vec![bytes.len() / 8, 2];
    let ids = ints(&batch.ids);
    let lists = [
        ("image_places", ints(&batch.image_places)),
        ("codes", ints(&batch.codes)),
        ("code_places", ints(&batch.code_places)),
    ];
    let targets = [
        ("text_targets", pairs(&batch.text_targets)),
        ("code_targets", pairs(&batch.code_targets)),
    ];
    let mut views =
        vec![("ids", TensorView::new(Dtype::I32, vec![batch.rows, batch.tokens], &ids)?)];
    for (name, bytes) in &lists {
        views.push((name, TensorView::new(Dtype::I32, flat(bytes), bytes)?));
    }
    for (name, bytes) in &targets {
        views.push((name, TensorView::new(Dtype::I32, two(bytes), bytes)?));
    }
    views.push(("pixels", TensorView::new(Dtype::F32, flat(&floats), &floats)?));
    Ok(safetensors::serialize_to_file(views, None, path)?)
}

/// Samples what this process owns until it is stopped.
struct Watch {
    done: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    /// From what is resident now.
    fn start() -> Self {
        // Where the system cannot forget, loading counts, too.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let (done, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, most) = (Arc::clone(&done), Arc::clone(&peak));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                most.fetch_max(status("RssAnon:"), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { done, peak, thread }
    }

    /// The most that was owned, and the most that was resident, mapped files included.
    fn stop(self) -> (u64, u64) {
        self.done.store(true, Ordering::Relaxed);
        // Only sleeps and reads: nothing in it panics.
        let _ = self.thread.join();
        (self.peak.load(Ordering::Relaxed), status("VmHWM:"))
    }
}

/// A figure of this process in bytes; 0 where the system does not tell.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
