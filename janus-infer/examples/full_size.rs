//! Runs a checkpoint of any size on the CPU, times every stage, and compares with what PyTorch
//! computed from the same file (`tests/reference/full_size.py`):
//!
//! ```sh
//! cargo run --release -p janus-infer --example full_size -- --model DIR [--expected FILE]
//! ```
//!
//! `--draw CODES` draws a whole picture and writes its codes; PyTorch then says what it would have
//! chosen (`full_size.py --forced CODES --out FILE`), and `--expected FILE` compares every step.
//! Without `--expected`, a prompt is answered with a few tokens and a picture begun. Ends with an
//! error if an id, a code or a number is further from PyTorch than the bounds of the parity ladder.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program for developers

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use janus_infer::chat::{Prompt, TextRequest, Writing};
use janus_infer::generate::{Drawing, ImageRequest};
use janus_infer::sampling::Sampling;
use janus_model::processor::{Conversation, Message, Processor};
use janus_model::{Janus, LoadOptions};
use safetensors::SafeTensors;

/// Largest difference allowed, as a share of a tensor's largest value.
const BOUND: f64 = 1e-4;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).map(PathBuf::from)
    };
    let model = option("--model")
        .ok_or("usage: full_size --model DIR [--expected FILE] [--f32] [--only-load]")?;
    let dtype = args.contains(&"--f32".to_owned()).then_some(DType::F32);
    let options = LoadOptions { dtype, ..Default::default() };
    let watch = Watch::start();
    let (janus, report) = timed("load", || Janus::load(&model, &Device::flex(), &options))?;
    println!("{:<32}{:9.2} GiB", "private memory at most", watch.stop());
    let precision = janus.precision();
    println!(
        "{} tensors, weights {:?}, arithmetic {:?}",
        report.tensors, precision.weights, precision.compute
    );
    memory();
    if args.contains(&"--only-load".to_owned()) {
        return Ok(());
    }
    let mut failures = 0;
    match option("--expected") {
        Some(path) => {
            let bytes = std::fs::read(path)?;
            let expected = Expected(SafeTensors::deserialize(&bytes)?);
            failures += match (option("--draw"), expected.0.tensor("gen.guided.steps")) {
                (Some(file), _) => draw_all(&janus, &expected, &file)?,
                (None, Ok(_)) => forced(&janus, &expected)?,
                (None, Err(_)) => compare(&janus, &expected)?,
            };
        }
        None => try_out(&janus, &Processor::for_model(&model, janus.config())?)?,
    }
    memory();
    if failures > 0 {
        return Err(format!("{failures} comparisons failed").into());
    }
    Ok(())
}

/// Everything in the file, in the order of the parity ladder.
fn compare(janus: &Janus, expected: &Expected) -> Result<usize, Failure> {
    let device = janus.device();
    let pixels = expected.tensor::<4>("pixel_values", &device);
    let features = timed("vision and aligner", || janus.encode_image(pixels))?;
    let mut failed = expected.close("aligner.output", &values(features.clone()));

    let ids = expected.ints("prompt.text_ids");
    let [_, tokens, _] = features.dims();
    let start = ids.windows(tokens).position(|w| w.iter().all(|id| *id == w[0])).unwrap();
    let slots = vec![(0..ids.len()).map(|i| (start..start + tokens).contains(&i)).collect()];
    let x = janus.embed_prompt(row(&ids, &device), &slots, features)?;
    let mut cache = janus.cache(1, ids.len() + 64);
    let rope = janus.rope(ids.len() + 64);
    let mut read = |x: Tensor<3>, at: usize| {
        let positions = janus_model::rope::Positions::From(at);
        let mask = janus_model::llama::Mask::Causal;
        let hidden = janus.hidden(x, &rope, &positions, &mask, Some(&mut cache));
        let last = hidden.dims()[1] - 1;
        janus.text_logits(hidden.slice_dim(1, last..last + 1)).map(values)
    };
    let mut logits = timed(&format!("prefill of {} tokens", ids.len()), || read(x, 0))?;
    failed += expected.close("prompt.logits.last", &logits);
    let wanted = expected.ints("greedy.ids");
    let mut chosen = Vec::new();
    let start = Instant::now();
    for step in 0..wanted.len() {
        chosen.push(argmax(&logits));
        if step + 1 < wanted.len() {
            logits = read(janus.embed_text(row(&chosen[step..], &device)), ids.len() + step)?;
        }
    }
    each("text token", start, wanted.len() - 1);
    failed += equal("greedy.ids", &chosen, &wanted);
    drop(cache);
    Ok(failed + draw(janus, expected)?)
}

/// Guided image logits, all codes, the picture.
fn draw(janus: &Janus, expected: &Expected) -> Result<usize, Failure> {
    let device = janus.device();
    let prompt = expected.ints("gen.prompt_ids");
    let twin = expected.ints("gen.uncond_ids");
    let mut failed = 0;
    for (name, ids) in [("cond", &prompt), ("uncond", &twin)] {
        let rope = janus.rope(ids.len());
        let positions = janus_model::rope::Positions::From(0);
        let x = janus.embed_text(row(ids, &device));
        let mask = janus_model::llama::Mask::Causal;
        let hidden = janus.hidden(x, &rope, &positions, &mask, None);
        let last = hidden.slice_dim(1, ids.len() - 1..ids.len()).squeeze_dim::<2>(1);
        failed += expected.close(&format!("gen.logits.{name}"), &values(janus.image_logits(last)?));
    }
    let wanted = expected.ints("gen.codes");
    let mut request = ImageRequest::new(&prompt, twin[1], 0, 0..1);
    request.sampling = Sampling::GREEDY;
    let mut drawing = Drawing::new(janus, &request)?;
    timed(&format!("image prefill, 2 x {}", prompt.len()), || drawing.step())?;
    let start = Instant::now();
    for _ in 1..wanted.len() {
        drawing.step()?;
    }
    each("image step, 2 rows", start, wanted.len() - 1);
    failed += equal("gen.codes", &drawing.finish().codes[0], &wanted);

    Ok(failed + picture(janus, expected)?)
}

/// The picture of the given codes.
fn picture(janus: &Janus, expected: &Expected) -> Result<usize, Failure> {
    let codes = expected.ints("vq.decode.codes");
    let pixels = timed("VQ decode", || janus.decode_codes(row(&codes, &janus.device())))?;
    let [_, _, height, width] = pixels.dims();
    let pixels = values(pixels);
    let failed = expected.close("vq.decode.pixels", &pixels);
    let picture = janus_model::processor::output::to_rgb(&pixels, width, height)?;
    let theirs = expected.0.tensor("vq.decode.u8")?.data().to_vec();
    let off = picture.pixels().iter().zip(&theirs).filter(|(a, b)| a != b).count();
    let worst = picture.pixels().iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b)).max();
    let worst = worst.unwrap_or(u8::MAX);
    println!("{:<32}{off} of {} bytes differ, by at most {worst}", "picture", theirs.len());
    Ok(failed + usize::from(worst > 1))
}

/// All codes of a greedy guided picture, written for PyTorch to judge (`full_size.py --forced`).
fn draw_all(janus: &Janus, expected: &Expected, file: &Path) -> Result<usize, Failure> {
    let prompt = expected.ints("gen.prompt_ids");
    let twin = expected.ints("gen.uncond_ids");
    let mut request = ImageRequest::new(&prompt, twin[1], 0, 0..1);
    request.sampling = Sampling::GREEDY;
    let drawn = timed("whole picture, guided", || {
        janus_infer::generate::draw(janus, &request, |_| ControlFlow::Continue(()))
    })?;
    let codes = &drawn.codes[0];
    let start = expected.ints("gen.codes");
    let bytes = |ids: &[i32]| ids.iter().flat_map(|id| i64::from(*id).to_le_bytes()).collect();
    let data: Vec<(&str, usize, Vec<u8>)> =
        [("gen.prompt_ids", &prompt), ("gen.uncond_ids", &twin), ("gen.codes", codes)]
            .map(|(key, ids)| (key, ids.len(), bytes(ids)))
            .into();
    let views = data.iter().map(|(key, len, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![*len], bytes);
        view.map(|view| (*key, view))
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    std::fs::write(file, safetensors::serialize(views, None)?)?;
    Ok(equal("first codes", &codes[..start.len().min(codes.len())], &start))
}

/// Guided logits of every step, the codes given (`full_size.py --forced`).
fn forced(janus: &Janus, expected: &Expected) -> Result<usize, Failure> {
    let device = janus.device();
    let codes = expected.ints("gen.codes");
    let rows = ["gen.prompt_ids", "gen.uncond_ids"].map(|key| row(&expected.ints(key), &device));
    let mut x = janus.embed_text(Tensor::cat(rows.to_vec(), 0)); // [2, L, D]
    let room = x.dims()[1] + codes.len();
    let (rope, mut cache) = (janus.rope(room), janus.cache(2, room));
    let mut guided = Vec::new();
    for code in codes {
        let [rows, tokens, width] = x.dims();
        let positions = janus_model::rope::Positions::From(cache.len());
        let mask = janus_model::llama::Mask::Causal;
        let hidden = janus.hidden(x, &rope, &positions, &mask, Some(&mut cache));
        let last = hidden.slice_dim(1, tokens - 1..tokens).reshape([rows, width]);
        let logits = values(janus.image_logits(last)?);
        let (cond, uncond) = logits.split_at(logits.len() / 2);
        guided.extend(cond.iter().zip(uncond).map(|(c, u)| u + 5.0 * (c - u)));
        let both = TensorData::new(vec![code; 2], [2, 1]);
        x = janus.embed_codes(Tensor::from_data(both, &device))?;
    }
    let failed = expected.close("gen.guided.steps", &guided);
    Ok(failed + picture(janus, expected)?)
}

/// A short answer and the beginning of a picture, for timing.
fn try_out(janus: &Janus, processor: &Processor) -> Result<(), Failure> {
    let question = Conversation::new(vec![Message::user("Hello, how are you?")]).awaiting_answer();
    let input = processor.understand(&question, &[])?;
    let mut request = TextRequest::new(Vec::new());
    request.max_new_tokens = 8;
    let mut writing = Writing::new(janus, Prompt::prepared(janus, &input)?, request)?;
    timed(&format!("prefill of {} tokens", input.ids[0].len()), || writing.step())?;
    let start = Instant::now();
    while !writing.is_done() {
        writing.step()?;
    }
    each("text token", start, 7);
    println!("answer ids {:?}", writing.answers()[0].ids);
    let prompt = processor.generate("A portrait of young girl.")?;
    let ids: Vec<i32> = prompt.conditional.iter().map(|id| *id as i32).collect();
    let pad = processor.tokenizer.special().pad as i32;
    let mut request = ImageRequest::new(&ids, pad, 0, 0..1);
    request.sampling = Sampling::GREEDY;
    let start = Instant::now();
    let mut seconds = Vec::new();
    let drawn = janus_infer::generate::draw(janus, &request, |progress| {
        seconds.push(start.elapsed().as_secs_f64());
        if progress.done == 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    println!("{:<32}{:9.3} s", "image prefill, guided", seconds[0]);
    println!("{:<32}{:9.3} s", "image step, 2 rows", (seconds[8] - seconds[0]) / 8.0);
    println!("first codes {:?}", drawn.codes[0]);
    Ok(())
}

/// PyTorch's numbers.
struct Expected<'a>(SafeTensors<'a>);

impl Expected<'_> {
    fn floats(&self, key: &str) -> Vec<f32> {
        let data = self.0.tensor(key).unwrap().data().to_vec();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn ints(&self, key: &str) -> Vec<i32> {
        let data = self.0.tensor(key).unwrap().data().to_vec();
        let int = |b: &[u8]| i64::from_le_bytes(b.try_into().unwrap()) as i32;
        data.chunks_exact(8).map(int).collect()
    }

    fn tensor<const D: usize>(&self, key: &str, device: &Device) -> Tensor<D> {
        let shape = self.0.tensor(key).unwrap().shape().to_vec();
        Tensor::from_data(TensorData::new(self.floats(key), shape), device)
    }

    /// Prints the largest difference; 1 if it is above the bound.
    fn close(&self, key: &str, actual: &[f32]) -> usize {
        let expected = self.floats(key);
        assert_eq!(actual.len(), expected.len(), "{key}");
        let scale = expected.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
        let difference = |(a, e): (&f32, &f32)| (f64::from(*a) - f64::from(*e)).abs();
        let worst = actual.iter().zip(&expected).map(difference).fold(0.0, f64::max);
        let verdict = if worst <= BOUND * scale { "" } else { "  TOO FAR" };
        println!(
            "{key:<32}max difference {worst:.2e}, {:.1e} of {scale:.3}{verdict}",
            worst / scale
        );
        usize::from(!verdict.is_empty())
    }
}

fn equal(key: &str, actual: &[i32], expected: &[i32]) -> usize {
    let same = actual.iter().zip(expected).take_while(|(a, e)| a == e).count();
    println!("{key:<32}{same} of {} equal", expected.len());
    usize::from(actual != expected)
}

fn argmax(logits: &[f32]) -> i32 {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (1..logits.len()).fold(0, better) as i32
}

fn row(ids: &[i32], device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(ids.to_vec(), [1, ids.len()]), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("{what:<32}{:9.3} s", start.elapsed().as_secs_f64());
    result
}

fn each(what: &str, start: Instant, count: usize) {
    println!("{what:<32}{:9.3} s each of {count}", start.elapsed().as_secs_f64() / count as f64);
}

/// One figure of this process in GiB, by its name in `/proc/self/status`.
fn status(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1_048_576.0)
}

/// Memory now: what is private, and the peak with file pages.
fn memory() {
    if let (Some(private), Some(peak)) = (status("RssAnon"), status("VmHWM")) {
        println!("private memory {private:.2} GiB, peak with file pages {peak:.2} GiB");
    }
}

/// Looks at the private memory every millisecond: the system keeps no peak of it.
struct Watch {
    running: Arc<AtomicBool>,
    thread: JoinHandle<f64>,
}

impl Watch {
    fn start() -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let flag = running.clone();
        let thread = std::thread::spawn(move || {
            let mut peak = 0.0f64;
            while flag.load(Ordering::Relaxed) {
                peak = peak.max(status("RssAnon").unwrap_or(0.0));
                std::thread::sleep(Duration::from_millis(1));
            }
            peak
        });
        Self { running, thread }
    }

    fn stop(self) -> f64 {
        self.running.store(false, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
