//! What happens while pictures are drawn: each is written as soon as it is finished, and shown.

use std::ops::ControlFlow;
use std::path::Path;

use janus_infer::preview::preview;
use janus_infer::{DrawEvent, DrawProgress, Engine, Manner, Picture};
use janus_model::ops::Products;
use janus_model::processor::RgbImage8;
use serde_json::{Value, json};

use super::plan::Plan;
use super::sources::Sources;
use crate::args::GenerateArgs;
use crate::interrupt;
use crate::metadata::{Adapter, Record, Source, codes_hash};
use crate::model::{Identity, Loaded};
use crate::pictures;
use crate::progress::Steps;
use crate::report::{self, Failure};
use crate::sheet::sheet;
use crate::show::Screen;
use crate::units::{plural, weights_name};

/// Rows of codes between two previews.
const PREVIEW_ROWS: u16 = 6;

/// What all records of a run have in common; none where nothing is recorded.
pub struct Origin {
    /// Name of the model's folder.
    pub model: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// What is on it.
    pub adapters: Vec<Adapter>,
    /// As after `--device`.
    pub device: String,
    /// Number format of the weights.
    pub dtype: String,
    /// What factors of products are rounded to, where they are.
    pub products: Option<Products>,
    /// Pictures that are drawn from.
    pub sources: Vec<Source>,
}

impl Origin {
    /// Of a model that was loaded.
    pub fn new(loaded: &Loaded, identity: Identity, sources: &Sources) -> Self {
        let Identity { name, fingerprint, adapters } = identity;
        let precision = loaded.engine.janus().precision();
        Self {
            model: name,
            fingerprint: fingerprint.to_string(),
            adapters,
            device: loaded.device.clone(),
            dtype: weights_name(&precision).to_owned(),
            products: Some(precision.products).filter(|products| *products != Products::F32),
            sources: sources.record(),
        }
    }

    fn record(&self, prompt: &str, manner: &Manner, picture: &Picture) -> Record {
        let sampling = manner.sampling;
        Record {
            version: Record::version_with(&self.adapters, &self.sources),
            prompt: prompt.to_owned(),
            seed: picture.sampler.seed,
            index: picture.sampler.stream,
            cfg: manner.guidance.weight,
            cfg_image: manner.guidance.pictures,
            images: self.sources.clone(),
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            repetition_penalty: sampling.repetition_penalty,
            model: self.model.clone(),
            model_fingerprint: self.fingerprint.clone(),
            adapters: self.adapters.clone(),
            device: self.device.clone(),
            dtype: self.dtype.clone(),
            products: self.products,
            codes_sha256: codes_hash(&picture.codes),
        }
    }
}

/// Takes pictures as they come.
pub struct Studio<'a> {
    args: &'a GenerateArgs,
    plan: &'a Plan,
    sources: &'a Sources,
    manner: &'a Manner,
    engine: &'a Engine,
    origin: Option<Origin>,
    /// The line for those being drawn together.
    steps: Option<Steps>,
    /// The number of the first of them.
    group: usize,
    screen: Screen,
    /// For the sheet.
    kept: Vec<RgbImage8>,
    /// What there is to say about each finished picture.
    pub images: Vec<Value>,
    /// Hash of the codes of the last one.
    pub last: Option<String>,
    failure: Option<Failure>,
}

impl<'a> Studio<'a> {
    /// With nothing drawn yet.
    pub fn new(
        args: &'a GenerateArgs,
        (plan, sources): (&'a Plan, &'a Sources),
        manner: &'a Manner,
        engine: &'a Engine,
        origin: Option<Origin>,
    ) -> Self {
        Self {
            args,
            plan,
            sources,
            manner,
            engine,
            origin,
            steps: None,
            group: 0,
            screen: Screen::new(args.watch.show),
            kept: Vec::new(),
            images: Vec::new(),
            last: None,
            failure: None,
        }
    }

    /// Draws everything there is to draw. Returns whether it came to the end.
    ///
    /// # Errors
    /// Of the engine, or of writing; what was finished before is on disk and is told.
    pub fn draw(&mut self) -> Result<bool, Failure> {
        if interrupt::raised() {
            return Ok(false);
        }
        let (engine, plan, manner) = (self.engine, self.plan, self.manner);
        let pictures = &self.sources.pictures;
        let drawn = match pictures.is_empty() {
            true => engine.draw(&plan.orders, manner, |event| self.take(event)),
            false => engine.edit(pictures, &plan.orders, manner, |event| self.take(event)),
        };
        self.end_line();
        let drawn = match self.failure.take() {
            Some(failure) => Err(failure),
            None => drawn.map_err(Failure::from),
        };
        if drawn.as_ref().is_err_and(|failure| !failure.is_closed_pipe()) && self.finished() > 0 {
            report::note(&format!("finished before this error: {}", share(self.finished(), plan)));
        }
        drawn
    }

    /// Pictures on disk.
    pub fn finished(&self) -> usize {
        self.images.len()
    }

    /// Writes the sheet, if one is wanted and something is on it. Returns where it is.
    ///
    /// # Errors
    /// Of writing.
    pub fn write_sheet(&self) -> Result<Option<&Path>, Failure> {
        let (Some(target), Some(sheet)) = (&self.plan.grid, sheet(&self.kept)) else {
            return Ok(None);
        };
        pictures::write(&target.path, &target.encoding.encode(&sheet, None)?)?;
        if !self.args.json {
            report::print(&format!("{}\n", target.path.display()))?;
        }
        Ok(Some(&target.path))
    }

    fn take(&mut self, event: DrawEvent<'_>) -> ControlFlow<()> {
        let done = match event {
            DrawEvent::Step(progress) => self.step(progress).map(|()| interrupt::flow()),
            // Even if somebody wants us to stop: its codes took longer than its pixels will.
            DrawEvent::Finished(picture) => self.keep(picture).map(ControlFlow::Continue),
        };
        done.unwrap_or_else(|failure| {
            self.failure = Some(failure);
            ControlFlow::Break(())
        })
    }

    fn step(&mut self, progress: DrawProgress<'_>) -> Result<(), Failure> {
        let DrawProgress { finished, pictures, step } = progress;
        self.group = finished;
        let count = step.codes.len();
        let line = self.steps.get_or_insert_with(|| Steps::new(finished, count, pictures));
        line.show(step.done, step.total);
        let Some(target) = &self.plan.preview else { return Ok(()) };
        let rows = self.args.watch.preview_every.unwrap_or(PREVIEW_ROWS);
        let every = usize::from(rows) * self.engine.janus().config().gen_vision.grid();
        // The whole picture is near: it is decoded anyway.
        if step.done == step.total || !step.done.is_multiple_of(every) {
            return Ok(());
        }
        let image = preview(self.engine.janus(), &step.codes[0])?;
        pictures::write(&target.path, &target.encoding.encode(&image, None)?)?;
        self.screen.preview(&image);
        Ok(())
    }

    fn keep(&mut self, picture: Picture) -> Result<(), Failure> {
        self.end_line();
        let (order, target) =
            (&self.plan.orders[picture.prompt], &self.plan.targets[picture.prompt]);
        let record = self.origin.as_ref();
        let record = record.map(|origin| origin.record(&order.prompt, self.manner, &picture));
        let bytes = target.encoding.encode(&picture.image, record.as_ref())?;
        pictures::write(&target.path, &bytes)?;
        if let (Some(preview), true) = (&self.plan.preview, picture.prompt == self.group) {
            pictures::write(&preview.path, &preview.encoding.encode(&picture.image, None)?)?;
        }
        self.images.push(json!({
            "path": target.path, "prompt": order.prompt, "codes": picture.codes,
            "seed": picture.sampler.seed, "index": picture.sampler.stream,
            "format": target.encoding.format.name().to_ascii_lowercase(),
        }));
        self.last = Some(codes_hash(&picture.codes));
        self.screen.finished(&picture.image);
        if self.plan.grid.is_some() {
            self.kept.push(picture.image);
        }
        if self.args.json {
            return Ok(());
        }
        report::print(&format!("{}\n", target.path.display()))
    }

    fn end_line(&mut self) {
        if let Some(steps) = self.steps.take() {
            steps.finish();
        }
    }
}

/// `2 of 5 pictures`.
pub fn share(count: usize, plan: &Plan) -> String {
    format!("{count} of {}", plural(plan.orders.len(), "picture"))
}
