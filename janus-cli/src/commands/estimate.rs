//! `janus estimate`: what a request will take, before anything is loaded.

use burn::tensor::DType;
use janus_infer::Guidance;
use janus_infer::memory::{Forecast, Workload, forecast, pictures_at_once};
use janus_model::JanusConfig;
use janus_model::capacity::largest_tensor;
use janus_model::checkpoint::Limits;
use serde_json::{Value, json};

use crate::args::EstimateArgs;
use crate::choice::Choice;
use crate::device::{self, Backend, Found};
use crate::folder::Folder;
use crate::report::{self, Exit, Failure, Verdict};
use crate::units::{WeightType, size};

/// Runs the command.
pub fn run(args: &EstimateArgs) -> Result<Verdict, Failure> {
    let guidance = match args.sources {
        0 => Guidance::words(args.cfg),
        _ => Guidance::editing(args.cfg, Guidance::PICTURES),
    };
    guidance.validate()?;
    let (config, file) = sizes(args)?;
    let mut plans = Vec::new();
    for found in devices(args)? {
        let dtypes = args.dtype.map_or_else(|| found.dtypes(), |dtype| vec![dtype]);
        for dtype in dtypes {
            plans.extend(Plan::new(args, &config, file, &found, dtype, guidance));
        }
    }
    if plans.is_empty() {
        let message = "no device here can use that format";
        return Err(Failure::new(Exit::Usage, message).hint("`janus devices` lists the formats"));
    }
    match args.json {
        true => {
            report::print_json(&json!({"plans": plans.iter().map(Plan::json).collect::<Vec<_>>()}))?
        }
        false => report::print(&text(args, &plans))?,
    }
    Ok(Verdict::Yes)
}

/// Sizes, and the format of the files; published models are in bf16.
fn sizes(args: &EstimateArgs) -> Result<(JanusConfig, DType), Failure> {
    if !args.model.exists() {
        let name = args.model.to_string_lossy().to_ascii_lowercase();
        if let Some(config) = JanusConfig::preset(&name) {
            return Ok((config, DType::BF16));
        }
    }
    let limits = Limits::default();
    let folder = Folder::open(&Choice::find(&args.model, &limits)?.base, &limits)?;
    Ok((folder.config, folder.checkpoint.main_dtype()))
}

/// The device that was named, or all that are real.
fn devices(args: &EstimateArgs) -> Result<Vec<Found>, Failure> {
    if let Some(choice) = args.device {
        return Ok(vec![choice.open()?]);
    }
    device::pin("flex");
    let all = Backend::ALL.into_iter().flat_map(Backend::devices);
    Ok(all.filter(Found::is_automatic).collect())
}

/// One device with one format.
struct Plan {
    device: String,
    dtype: WeightType,
    /// Bytes that can be had, where that is known.
    available: Option<u64>,
    asking: Forecast,
    /// With the number of pictures drawn together.
    drawing: Vec<(u16, Forecast)>,
    /// Most pictures that fit at once.
    at_once: usize,
}

impl Plan {
    fn new(
        args: &EstimateArgs,
        config: &JanusConfig,
        file: DType,
        found: &Found,
        dtype: WeightType,
        guidance: Guidance,
    ) -> Option<Self> {
        let place = found.place(config, file, Some(dtype))?;
        let words = args.prompt_tokens as usize;
        let answer = args.max_new_tokens as usize;
        let asking = Workload::asking(config, usize::from(args.images), words, answer);
        let prompt = Workload::editing_prompt(config, words, usize::from(args.sources));
        let drawing = |count: &u16| {
            let work = Workload::drawing(config, prompt, usize::from(*count), guidance);
            (*count, forecast(config, &place, &work))
        };
        let available = found.memory();
        let bounds = (available, largest_tensor(&found.device));
        Some(Self {
            device: found.id(),
            dtype,
            available,
            asking: forecast(config, &place, &asking),
            drawing: args.num_images.iter().map(drawing).collect(),
            at_once: pictures_at_once(config, &place, (prompt, guidance), MOST, bounds),
        })
    }

    fn fits(&self, forecast: &Forecast) -> Option<bool> {
        self.available.map(|available| forecast.total() <= available)
    }

    fn json(&self) -> Value {
        let forecast = |forecast: &Forecast| {
            let parts = |parts: &[(&str, u64)]| -> Value {
                parts.iter().map(|(name, bytes)| ((*name).to_owned(), json!(bytes))).collect()
            };
            let phases: Vec<Value> = forecast
                .phases
                .iter()
                .map(|p| json!({"name": p.name, "cached": p.cached, "activations": p.activations}))
                .collect();
            json!({
                "total_bytes": forecast.total(), "weights": parts(&forecast.weights),
                "mapped": parts(&forecast.mapped), "cache_bytes": forecast.cache,
                "program_bytes": forecast.program, "phases": phases, "fits": self.fits(forecast),
            })
        };
        let generate: Vec<Value> = self
            .drawing
            .iter()
            .map(|(count, f)| json!({"num_images": count, "memory": forecast(f)}))
            .collect();
        json!({
            "device": self.device, "dtype": self.dtype.torch_name(),
            "available_bytes": self.available, "most_images_at_once": self.at_once,
            "ask": forecast(&self.asking), "generate": generate,
        })
    }
}

/// More together is no faster.
const MOST: usize = 256;

fn text(args: &EstimateArgs, plans: &[Plan]) -> String {
    let mut text = String::new();
    for plan in plans {
        let known = plan.available.map_or("unknown".to_owned(), size);
        text += &format!("{}, {}: {known} available\n", plan.device, plan.dtype.torch_name());
        text += &line(["", "weights", "mapped", "cache", "work", "peak"].map(str::to_owned), None);
        let pictures = if args.images == 1 { "picture" } else { "pictures" };
        let ask = format!("ask, {} {pictures}", args.images);
        text += &line(row(&ask, &plan.asking), plan.fits(&plan.asking));
        for (count, forecast) in &plan.drawing {
            text += &line(row(&format!("draw {count}"), forecast), plan.fits(forecast));
        }
        text += &format!("  at most {} pictures at once\n\n", plan.at_once);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn row(label: &str, forecast: &Forecast) -> [String; 6] {
    let sum = |parts: &[(&str, u64)]| size(parts.iter().map(|(_, bytes)| bytes).sum());
    [
        label.to_owned(),
        sum(&forecast.weights),
        sum(&forecast.mapped),
        size(forecast.cache),
        size(forecast.activations()),
        size(forecast.total()),
    ]
}

fn line([label, weights, mapped, cache, work, total]: [String; 6], fits: Option<bool>) -> String {
    let verdict = match fits {
        Some(false) => "  too much",
        _ => "",
    };
    format!("  {label:<16}{weights:>11}{mapped:>11}{cache:>11}{work:>11}{total:>11}{verdict}\n")
}
