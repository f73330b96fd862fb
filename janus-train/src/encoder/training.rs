//! The encoder under [`crate::strategy`], in memory that does not grow with the batch.
//!
//! Every picture of a step is compared with every caption, so the loss needs all rows at once; the
//! towers need not. First all rows are computed without a graph; the loss gives the gradient of
//! each; then the towers see the samples once more, some at a time, and pass those gradients on.
//! What comes out is the gradient of the whole batch. A batch that is computed at once is seen
//! once.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use janus_model::JanusConfig;
use janus_model::checkpoint::LazyTensor;
use janus_model::load::part_tensors;
use janus_model::processor::{ImageLimits, Orientation, PixelValues, Processor};
use serde_json::Value;

use super::loss::{PairLoss, pairs};
use super::towers::law;
use super::{EncoderConfig, HEADS, PART, TextConfig, Towers};
use crate::data::error::Why;
use crate::data::prepare::decode;
use crate::data::sample::Sample;
use crate::data::{Cursor, Stream};
use crate::parts::kept::{filled, read, resumed, write, write_moments};
use crate::parts::numbers::{clipped, number};
use crate::parts::{PartError, Recipe, valid};
use crate::run::model::Companions;
use crate::run::{Found, Run, RunError, Staging, model_in};
use crate::start::part_in;
use crate::strategy::{Measured, StepError, Training};
use crate::weights::{Pupil, fresh, learning};

/// Pairs whose fit is worked out at once, at most.
const PAIRS: usize = 1 << 22;

/// A picture and its caption, ready for the towers.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Of the picture.
    pub pixels: PixelValues,
    /// Of the caption, filled up.
    pub ids: Vec<i32>,
    /// Whether the caption was longer.
    pub cut: bool,
}

/// An encoder that learns, with all that this needs.
#[derive(Debug)]
pub struct EncoderTraining {
    config: EncoderConfig,
    towers: Pupil<Towers>,
    processor: Processor,
    data: Stream,
    valid: Option<(Stream, usize)>,
    companions: Companions,
    device: Device,
}

impl EncoderTraining {
    /// At the beginning.
    ///
    /// # Errors
    /// Weights to start from, tokenizer or picture rules cannot be used.
    pub fn new(
        config: EncoderConfig,
        model: &JanusConfig,
        data: Stream,
        device: &Device,
    ) -> Result<Self, PartError> {
        let device = device.clone().autodiff();
        let processor =
            Processor::for_model(&config.model, model).map_err(janus_model::Error::from)?;
        let towers = config.towers(&model.vision, model.language.vocab_size, &device);
        let towers = started(&config, towers)?;
        Ok(Self {
            towers: Pupil::new(learning(towers, ""), config.optimizer.adamw().into()),
            processor,
            data,
            valid: valid(&config.common())?,
            companions: Companions::read(&config.model)?,
            device,
            config,
        })
    }

    /// The towers as they are now.
    pub fn towers(&self) -> &Towers {
        self.towers.part()
    }

    /// The same with other towers, all of them.
    ///
    /// # Errors
    /// Their tensors do not fit.
    pub fn with_towers(mut self, tensors: Vec<LazyTensor>) -> Result<Self, PartError> {
        let towers = filled(self.towers.part().clone(), "", tensors, None)?;
        self.towers = Pupil::new(learning(towers, ""), self.config.optimizer.adamw().into());
        Ok(self)
    }

    /// Gradients of a step over these pairs, clipped, and what was measured.
    ///
    /// # Errors
    /// The device fails.
    pub fn learn(&mut self, samples: &[Pair]) -> Result<(GradientsParams, Measured), StepError> {
        let towers = self.towers.part();
        let rows = self.config.batch.rows.max(1);
        let at_once = samples.len() <= rows;
        let features = |some: &[Pair]| self.features(towers, some, true);
        let (kept, whole) = match at_once {
            true => {
                let (x, z) = features(samples);
                (Some((x.clone(), z.clone())), (x.inner(), z.inner()))
            }
            false => (None, self.all_features(&towers.valid(), samples)),
        };
        let loss = compare(towers, &whole, rows);
        let mut sum = GradientsAccumulator::new();
        let mut first = 0;
        for some in samples.chunks(rows) {
            let (x, z) = kept.clone().unwrap_or_else(|| features(some));
            let part = |slopes: &Tensor<2>| {
                slopes.clone().slice_dim(0, first..first + some.len()).autodiff()
            };
            let through = (x * part(&loss.pictures)).sum() + (z * part(&loss.captions)).sum();
            let gradients = GradientsParams::from_grads(through.backward(), towers);
            sum.accumulate(towers, gradients);
            first += some.len();
        }
        let mut gradients = sum.grads();
        gradients.register(towers.heads.temperature.id, loss.temperature.clone());
        gradients.register(towers.heads.bias.id, loss.bias.clone());
        let mut measured = measured(loss, samples)?;
        let clip = self.config.optimizer.clip;
        let gradients = clipped(towers, gradients, clip, &mut measured.grad_norm);
        Ok((gradients, measured))
    }

    /// Rows of pictures and of captions, `[n, W]` each; with a graph where `learning`.
    fn features(
        &self,
        towers: &Towers,
        samples: &[Pair],
        learning: bool,
    ) -> (Tensor<2>, Tensor<2>) {
        let device = if learning { self.device.clone() } else { self.device.clone().inner() };
        let side = samples.first().map_or(0, |pair| pair.pixels.side);
        let pixels: Vec<f32> = samples.iter().flat_map(|pair| &pair.pixels.data).copied().collect();
        let pixels = TensorData::new(pixels, [samples.len(), 3, side, side]);
        let ids: Vec<i32> = samples.iter().flat_map(|pair| &pair.ids).copied().collect();
        let ids = TensorData::new(ids, [samples.len(), self.config.text.length]);
        let pixels = Tensor::<4>::from_data(pixels, (&device, DType::F32));
        (towers.pictures(pixels), towers.captions(Tensor::<2, Int>::from_data(ids, &device)))
    }

    /// The same of any number of samples, without a graph.
    fn all_features(&self, towers: &Towers, samples: &[Pair]) -> (Tensor<2>, Tensor<2>) {
        let some = samples.chunks(self.config.batch.rows.max(1));
        let (x, z): (Vec<_>, Vec<_>) = some.map(|some| self.features(towers, some, false)).unzip();
        (Tensor::cat(x, 0), Tensor::cat(z, 0))
    }

    /// The pairs of the next step.
    fn pairs(&mut self) -> Result<Vec<Pair>, StepError> {
        let (processor, text) = (&self.processor, self.config.text);
        let ready = |sample: &Sample, _| pair(sample, processor, text);
        Ok(self.data.next(self.config.batch.size, ready)?)
    }
}

/// The loss between all rows.
fn compare(towers: &Towers, (x, z): &(Tensor<2>, Tensor<2>), rows: usize) -> PairLoss {
    let heads = &towers.heads;
    let plain = |value: Tensor<1>| if value.is_autodiff() { value.inner() } else { value };
    let (temperature, bias) = (plain(heads.temperature.val()), plain(heads.bias.val()));
    let most = (PAIRS / x.dims()[0].max(1)).max(rows);
    pairs(x, z, (&temperature, &bias), most)
}

fn measured(loss: PairLoss, samples: &[Pair]) -> Result<Measured, StepError> {
    let count = samples.len() as u64;
    let tokens = samples.iter().map(|pair| pair.ids.len() as u64).sum();
    let mut measured =
        Measured { loss: number(loss.loss)?, supervised: count, tokens, ..Measured::default() };
    let cut = samples.iter().filter(|pair| pair.cut).count() as f64;
    measured.terms.add("found", number(loss.found)?);
    measured.terms.add("captions_cut", cut / count as f64);
    Ok(measured)
}

/// Towers at the beginning of a run: what `start` has, and chance for the rest.
fn started(config: &EncoderConfig, towers: Towers) -> Result<Towers, PartError> {
    let mut tensors = Vec::new();
    if let Some(path) = &config.start {
        tensors = part_in(path, PART)?;
        let model = model_in(path)?;
        let heads = model.parent().map(|checkpoint| checkpoint.join("heads"));
        if let Some(heads) = heads.filter(|heads| heads.is_dir()) {
            tensors.extend(read(&heads).map_err(janus_model::Error::from)?);
        }
    }
    let given = |name: &str| tensors.iter().any(|tensor| tensor.name == name);
    let names = janus_model::load::part_names(&towers, "");
    // A part that is given is given whole: what it lacks is an error, not left to chance.
    let is_part = |name: &str, prefix: &str| {
        name.starts_with(prefix) && tensors.iter().any(|tensor| tensor.name.starts_with(prefix))
    };
    let new: Vec<LazyTensor> = names
        .iter()
        .filter(|(name, _)| !given(name) && !is_part(name, PART) && !is_part(name, HEADS))
        .map(|(name, shape)| fresh(config.seed, name, shape, law(name, shape)))
        .collect();
    tensors.extend(new);
    Ok(filled(towers, "", tensors, config.start.as_deref())?)
}

/// A picture and what is said about it.
fn pair(sample: &Sample, processor: &Processor, text: TextConfig) -> Result<Pair, Why> {
    let [picture] = sample.pictures.as_slice() else {
        let problem = format!("{} pictures, a pair has one", sample.pictures.len());
        return Err(Why::Record(problem));
    };
    let (ids, cut) = ids(&sample.caption()?, processor, text)?;
    let image = decode(picture, &ImageLimits::default(), Orientation::default())?;
    Ok(Pair { pixels: processor.image.understanding_pixels(&image), ids, cut })
}

/// Ids of a caption with its end, filled up with padding; whether it was cut.
fn ids(text: &str, processor: &Processor, config: TextConfig) -> Result<(Vec<i32>, bool), Why> {
    let special = processor.tokenizer.special();
    let mut ids = processor.tokenizer.encode_plain(text)?;
    let cut = ids.len() + 1 > config.length;
    if cut && !config.cut {
        return Err(Why::TooLong { tokens: ids.len() + 1, limit: config.length });
    }
    ids.truncate(config.length - 1);
    ids.push(special.eos);
    ids.resize(config.length, special.pad);
    Ok((ids.into_iter().map(|id| id as i32).collect(), cut))
}

impl Training for EncoderTraining {
    type Gradients = GradientsParams;

    fn gradients(&mut self, _: u64) -> Result<Option<(GradientsParams, Measured)>, StepError> {
        let pairs = self.pairs()?;
        self.learn(&pairs).map(Some)
    }

    fn pass_by(&mut self, _: u64) -> Result<(), StepError> {
        self.pairs().map(drop)
    }

    fn update(&mut self, gradients: GradientsParams, rate: f64) {
        self.towers.update(gradients, rate);
    }

    fn left_out(&mut self) -> Vec<String> {
        self.data.take_left_out()
    }

    fn validate(&mut self) -> Result<Option<Measured>, StepError> {
        let Some((mut stream, count)) = self.valid.take() else { return Ok(None) };
        let start = stream.cursor().clone();
        let (processor, text) = (&self.processor, self.config.text);
        let ready = |sample: &Sample, _| pair(sample, processor, text);
        let towers = self.towers.part().valid();
        let (mut all, mut left) = (Measured::default(), count);
        while left > 0 {
            let some = left.min(self.config.batch.size);
            let pairs = stream.next(some, ready)?;
            let whole = self.all_features(&towers, &pairs);
            let found = measured(compare(&towers, &whole, self.config.batch.rows), &pairs)?;
            all.loss += found.loss * some as f64 / count as f64;
            left -= some;
        }
        stream.seek(&start, true)?;
        self.valid = Some((stream, count));
        all.supervised = count as u64;
        Ok(Some(all))
    }

    fn cursors(&self) -> Value {
        // Plain numbers and strings always serialise.
        serde_json::to_value(self.data.cursor()).unwrap_or_default()
    }

    fn save(&mut self, run: &mut Run, staging: &mut Staging) -> Result<(), RunError> {
        let tensors = part_tensors(&self.towers.part().valid(), "");
        let (heads, model): (Vec<_>, Vec<_>) =
            tensors.into_iter().partition(|tensor| tensor.name.starts_with(HEADS));
        staging.model(run, &self.companions, model, |_| false)?;
        write(staging, "heads", heads)?;
        write_moments(staging, "moments.bpk", &self.towers)
    }

    fn load(&mut self, found: &Found) -> Result<(), StepError> {
        let folder = &found.path;
        let mut tensors = read(&folder.join("model"))?;
        tensors.extend(read(&folder.join("heads"))?);
        let adam = self.config.optimizer.adamw();
        self.towers = resumed(&self.towers, "", tensors, (adam, &found.moments()), |towers| {
            learning(towers, "")
        })?;
        let cursor: Cursor = serde_json::from_value(found.state.cursors.clone())?;
        Ok(self.data.seek(&cursor, false)?)
    }
}
