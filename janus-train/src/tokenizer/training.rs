//! The tokenizer and its critic under [`crate::strategy`].

use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{DType, Device, Tensor, TensorData};
use janus_model::checkpoint::LazyTensor;
use janus_model::load::{fill_part, part_tensors};
use janus_model::processor::{ImageLimits, Orientation, PixelValues};
use janus_model::vq::{VqConfig, VqModel};
use serde_json::Value;

use super::losses::TokenizerLoss;
use super::merge::merged;
use super::revive::Moves;
use super::usage::Usage;
use super::{CRITIC, Critic, Lpips, PREFIX, TokenizerConfig, augment, discriminator, local, soft};
use crate::data::error::Why;
use crate::data::prepare::decode;
use crate::data::random::hash;
use crate::data::sample::Sample;
use crate::data::{Cursor, Stream};
use crate::parts::kept::{filled, read, resumed, write, write_moments};
use crate::parts::numbers::{clipped, number, numbers};
use crate::parts::{PartError, Recipe, valid};
use crate::run::model::Companions;
use crate::run::{Found, Role, Run, RunError, Staging, model_in};
use crate::strategy::{Measured, StepError, Training};
use crate::weights::{self, Pupil, begin, learning};

/// What the noise before the encoder is drawn by.
const NOISE: u64 = 301;

/// Gradients of both networks; the critic's only where it learns.
#[derive(Debug)]
pub struct Pair {
    /// Of the tokenizer.
    pub tokenizer: GradientsParams,
    /// Of the critic.
    pub critic: Option<GradientsParams>,
}

/// What the parts of a step add up to.
#[derive(Default)]
struct Sums {
    tokenizer: GradientsAccumulator<VqModel>,
    critic: GradientsAccumulator<Critic>,
    measured: Measured,
    /// How often each code was chosen.
    counts: Vec<u64>,
}

/// A tokenizer that learns, with all that this needs.
#[derive(Debug)]
pub struct TokenizerTraining {
    config: TokenizerConfig,
    vq: Pupil<VqModel>,
    critic: Pupil<Critic>,
    /// Of the tokenizer's weights, on the device without gradients.
    average: Option<VqModel>,
    lpips: Option<Lpips>,
    data: Stream,
    valid: Option<(Stream, usize)>,
    usage: Usage,
    /// Of the step whose gradients are on their way.
    moves: Option<Moves>,
    companions: Companions,
    device: Device,
}

impl TokenizerTraining {
    /// At the beginning.
    ///
    /// # Errors
    /// Weights to start from, or networks of the perceptual term, cannot be used.
    pub fn new(
        config: TokenizerConfig,
        sizes: &VqConfig,
        data: Stream,
        device: &Device,
    ) -> Result<Self, PartError> {
        let device = device.clone().autodiff();
        let vq = first(&config, sizes.init(&device))?;
        let vq = if config.local_codes { local::kept(vq) } else { vq };
        let critic = config.critic.init(&device);
        // A run that is gone on from has one that knows its tokenizer.
        let known = match &config.start {
            Some(path) => critic_beside(&model_in(path)?)?,
            None => None,
        };
        let critic = match known {
            Some(tensors) => filled(critic, CRITIC, tensors, config.start.as_deref())?,
            None => begin(critic, CRITIC, config.seed, discriminator::law)?,
        };
        let lpips = config.lpips.as_ref().filter(|_| config.loss.perceptual > 0.0);
        let lpips = lpips.map(|lpips| Lpips::load(lpips, &device)).transpose()?;
        let adam = config.optimizer.adamw();
        let vq = config.learning(vq);
        Ok(Self {
            average: config.average.map(|_| vq.valid()),
            vq: Pupil::new(vq, adam.into()),
            critic: Pupil::new(learning(critic, CRITIC), adam.into()),
            lpips,
            data,
            valid: valid(&config.common())?,
            usage: Usage::new(sizes.num_embeddings),
            moves: None,
            companions: Companions::read(&config.model)?,
            device,
            config,
        })
    }

    /// The tokenizer as it is now.
    pub fn model(&self) -> &VqModel {
        self.vq.part()
    }

    /// The critic as it is now.
    pub fn critic(&self) -> &Critic {
        self.critic.part()
    }

    /// The same with another critic.
    ///
    /// # Errors
    /// Its tensors do not fit.
    pub fn with_critic(mut self, tensors: Vec<LazyTensor>) -> Result<Self, PartError> {
        let critic = filled(self.critic.part().clone(), CRITIC, tensors, None)?;
        let adam = self.config.optimizer.adamw();
        self.critic = Pupil::new(learning(critic, CRITIC), adam.into());
        Ok(self)
    }

    /// Gradients of a step over these pictures, clipped, and what was measured.
    ///
    /// # Errors
    /// The device fails.
    pub fn learn(
        &mut self,
        step: u64,
        pictures: &[PixelValues],
    ) -> Result<(Pair, Measured), StepError> {
        if step == 0 && self.config.soft_norms && self.config.start.is_none() {
            self.whiten(pictures);
        }
        let mut sums = Sums { counts: vec![0; self.usage.codes()], ..Sums::default() };
        for (part, rows) in (0..).zip(pictures.chunks(self.config.batch.rows.max(1))) {
            let share = rows.len() as f64 / pictures.len() as f64;
            self.micro((step, part), rows, share, &mut sums)?;
        }
        let Sums { mut tokenizer, mut critic, mut measured, counts } = sums;
        let (clip, mut norm) = (self.config.optimizer.clip, 0.0);
        let tokenizer = clipped(self.vq.part(), tokenizer.grads(), clip, &mut norm);
        measured.grad_norm = norm;
        let asked = self.config.loss.is_adversarial(step);
        let critic = asked.then(|| clipped(self.critic.part(), critic.grads(), clip, &mut norm));
        if critic.is_some() {
            measured.terms.add("critic_norm", norm);
            // A step is taken by both or by none.
            measured.grad_norm = if norm.is_finite() { measured.grad_norm } else { norm };
        }
        let (used, dead) = self.usage.shares(step, measured.supervised);
        measured.terms.add("codes_used", used);
        measured.terms.add("codes_dead", dead);
        self.moves = self.config.revive.and_then(|window| {
            let some = &pictures[..pictures.len().min(self.config.batch.rows)];
            let vq = self.vq.part().valid();
            let pixels = self.tensor(some).inner();
            let chance = (self.config.seed, step, window);
            Moves::find(&vq, &mut self.usage, chance, || vq.directions(pixels))
        });
        if let Some(degrees) = self.config.merge {
            self.moves = merged(self.vq.part(), &counts, degrees, (self.config.seed, step));
        }
        measured.tokens = measured.supervised;
        Ok((Pair { tokenizer, critic }, measured))
    }

    /// Makes the first latents white, and codes of them.
    fn whiten(&mut self, pictures: &[PixelValues]) {
        let pixels = self.tensor(pictures).inner();
        let still = self.vq.part().valid();
        self.vq.change(|vq| soft::whiten(vq, &still, pixels.clone()));
        let white = self.vq.part().valid();
        let codes = (0..self.usage.codes()).collect();
        let moves = Moves::onto(&white, codes, white.directions(pixels), (self.config.seed, 0));
        self.vq.change(|vq| moves.apply(vq));
        self.average = self.config.average.map(|_| self.vq.part().valid());
    }

    /// Adds what some pictures of a step teach, of which they are a `share`.
    fn micro(
        &mut self,
        (step, part): (u64, u64),
        pictures: &[PixelValues],
        share: f64,
        sums: &mut Sums,
    ) -> Result<(), StepError> {
        let asked = self.config.loss.is_adversarial(step);
        let pixels = self.tensor(pictures);
        let seen = match self.config.augment.noise > 0.0 {
            true => self.seen(pictures, hash(&[self.config.seed, NOISE, step, part])),
            false => pixels.clone(),
        };
        let (vq, judge, loss) = (self.vq.part(), self.critic.part(), &self.config.loss);
        let judged = loss.tokenizer(vq, asked.then_some(judge), self.lpips.as_ref(), &pixels, seen);
        let TokenizerLoss { total, terms, pictures: made, codes } = judged;
        let gradients = (total.clone() * share).backward();
        sums.tokenizer.accumulate(vq, GradientsParams::from_grads(gradients, vq));
        let measured = &mut sums.measured;
        measured.loss += share * number(total)?;
        let (names, values): (Vec<_>, Vec<_>) = terms.into_iter().unzip();
        for (name, value) in names.into_iter().zip(numbers(Tensor::cat(values, 0))?) {
            measured.terms.add(name, share * value);
        }
        if asked {
            let loss = loss.critic(judge, pixels, made);
            let gradients = (loss.clone() * share).backward();
            sums.critic.accumulate(judge, GradientsParams::from_grads(gradients, judge));
            measured.terms.add("critic", share * number(loss)?);
        }
        let codes = codes.into_data().convert::<i64>();
        measured.supervised += codes.num_elements() as u64;
        codes.iter::<i64>().for_each(|code| sums.counts[code as usize] += 1);
        self.usage.see(step, codes.iter::<i64>());
        Ok(())
    }

    /// `[N, 3, S, S]`, where gradients are known.
    fn tensor(&self, pictures: &[PixelValues]) -> Tensor<4> {
        self.numbers(pictures.iter().flat_map(|p| &p.data).copied().collect())
    }

    /// The same, as the encoder sees it.
    fn seen(&self, pictures: &[PixelValues], chance: u64) -> Tensor<4> {
        let clean = pictures.iter().flat_map(|p| &p.data).copied().collect();
        self.numbers(self.config.augment.noisy(clean, chance))
    }

    fn numbers(&self, numbers: Vec<f32>) -> Tensor<4> {
        let side = self.config.side;
        let count = numbers.len() / (3 * side * side);
        let data = TensorData::new(numbers, [count, 3, side, side]);
        Tensor::from_data(data, (&self.device, DType::F32))
    }

    /// The pictures of the next step.
    fn pictures(&mut self) -> Result<Vec<PixelValues>, StepError> {
        let (side, augment) = (self.config.side, self.config.augment);
        let ready = move |sample: &Sample, chance: u64| {
            Ok(augment.square(&picture(sample, chance)?, side, chance))
        };
        Ok(self.data.next(self.config.batch.size, ready)?)
    }
}

/// The tokenizer before the first step.
fn first(config: &TokenizerConfig, fresh: VqModel) -> Result<VqModel, PartError> {
    let fresh = if config.soft_norms { fresh.with_norm_epsilon(soft::EPSILON) } else { fresh };
    Ok(match config.start()? {
        None if config.soft_norms => begin(fresh, PREFIX, config.seed, soft::law)?,
        None => begin(fresh, PREFIX, config.seed, weights::tokenizer)?,
        Some(tensors) => filled(fresh, PREFIX, config.trained(tensors), config.start.as_deref())?,
    })
}

/// One picture of a sample, chosen by chance where there are several.
fn picture(sample: &Sample, chance: u64) -> Result<janus_model::processor::RgbImage8, Why> {
    let count = sample.pictures.len() as u64;
    if count == 0 {
        return Err(Why::Record("there is no picture".to_owned()));
    }
    let chosen = &sample.pictures[(hash(&[chance, 0]) % count) as usize];
    decode(chosen, &ImageLimits::default(), Orientation::default())
}

/// The critic in a checkpoint whose model is `model`.
fn critic_beside(model: &Path) -> Result<Option<Vec<LazyTensor>>, PartError> {
    let folder = model.parent().map(|checkpoint| checkpoint.join("critic"));
    let folder = folder.filter(|folder| folder.is_dir());
    let read = folder.map(|folder| read(&folder).map_err(janus_model::Error::from));
    Ok(read.transpose()?)
}

impl Training for TokenizerTraining {
    type Gradients = Pair;

    fn gradients(&mut self, step: u64) -> Result<Option<(Pair, Measured)>, StepError> {
        let pictures = self.pictures()?;
        self.learn(step, &pictures).map(Some)
    }

    fn pass_by(&mut self, _: u64) -> Result<(), StepError> {
        self.pictures().map(drop)
    }

    fn update(&mut self, gradients: Pair, rate: f64) {
        self.vq.update(gradients.tokenizer, rate);
        if self.config.local_codes {
            self.vq.change(local::kept);
        }
        let moves = self.moves.take();
        if let Some(moves) = &moves {
            self.vq.change(|vq| moves.apply(vq));
        }
        if let (Some(average), Some(decay)) = (self.average.take(), self.config.average) {
            let now = self.vq.part().valid();
            let mut average = averaged(average, &now, decay);
            if self.config.decoder_only {
                // Not even a last bit of what makes codes may change.
                let VqModel { encoder, quant_conv, quantize, .. } = now;
                average = VqModel { encoder, quant_conv, quantize, ..average };
            }
            self.average = Some(match moves {
                Some(moves) => moves.apply(average),
                None => average,
            });
        }
        if let Some(gradients) = gradients.critic {
            self.critic.update(gradients, rate);
        }
    }

    fn left_out(&mut self) -> Vec<String> {
        self.data.take_left_out()
    }

    fn validate(&mut self) -> Result<Option<Measured>, StepError> {
        let Some((mut stream, count)) = self.valid.take() else { return Ok(None) };
        let start = stream.cursor().clone();
        let side = self.config.side;
        let ready = move |sample: &Sample, _| Ok(augment::middle(&picture(sample, 0)?, side));
        let (mut measured, mut left) = (Measured::default(), count);
        let vq = self.average.clone().unwrap_or_else(|| self.vq.part().valid());
        while left > 0 {
            let some = left.min(self.config.batch.rows);
            let pixels = self.tensor(&stream.next(some, ready)?).inner();
            let (made, _) = vq.reconstruct(pixels.clone());
            let error = number((made - pixels).square().mean())?;
            measured.loss += error * some as f64 / count as f64;
            left -= some;
        }
        stream.seek(&start, true)?;
        self.valid = Some((stream, count));
        measured.supervised = count as u64;
        Ok(Some(measured))
    }

    fn cursors(&self) -> Value {
        // Plain numbers and strings always serialise.
        serde_json::to_value(self.data.cursor()).unwrap_or_default()
    }

    fn save(&mut self, run: &mut Run, staging: &mut Staging) -> Result<(), RunError> {
        let kept = |vq: &VqModel| self.config.kept(part_tensors(vq, PREFIX));
        let weights = kept(&self.vq.part().valid());
        let shown = match &self.average {
            Some(average) => kept(average),
            None => weights.clone(),
        };
        staging.model(run, &self.companions, shown, |_| false)?;
        if self.average.is_some() {
            write(staging, "weights", weights)?;
        }
        write(staging, "critic", part_tensors(&self.critic.part().valid(), CRITIC))?;
        staging.bytes(Role::Other, "usage", &self.usage.to_bytes())?;
        write_moments(staging, "moments.bpk", &self.vq)?;
        write_moments(staging, "critic.bpk", &self.critic)
    }

    fn load(&mut self, found: &Found) -> Result<(), StepError> {
        let folder = &found.path;
        let read = |name: &str| read(&folder.join(name));
        let tensors = |name: &str| read(name).map(|tensors| self.config.trained(tensors));
        let model = tensors("model")?;
        let weights = match &mut self.average {
            Some(average) => {
                fill_part(average, PREFIX, model, folder)?;
                tensors("weights")?
            }
            None => model,
        };
        let adam = self.config.optimizer.adamw();
        let moments = |name: &str| folder.join(name);
        let vq = |vq| self.config.learning(vq);
        self.vq = resumed(&self.vq, PREFIX, weights, (adam, &moments("moments.bpk")), vq)?;
        let (weights, critic) = (read("critic")?, |critic| learning(critic, CRITIC));
        let moments = moments("critic.bpk");
        self.critic = resumed(&self.critic, CRITIC, weights, (adam, &moments), critic)?;
        let usage = Usage::from_bytes(&fs::read(folder.join("usage"))?, self.usage.codes());
        self.usage = usage.ok_or("usage: of another codebook")?;
        let cursor: Cursor = serde_json::from_value(found.state.cursors.clone())?;
        Ok(self.data.seek(&cursor, false)?)
    }
}

/// `decay · average + (1 − decay) · now`, parameter by parameter.
fn averaged(average: VqModel, now: &VqModel, decay: f64) -> VqModel {
    /// Weights by id: what is kept for gradients keeps tensors of any rank.
    struct Collect(GradientsParams);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.register(param.id, param.val());
        }
    }
    struct Blend(GradientsParams, f64);
    impl ModuleMapper for Blend {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, mapper) = param.consume();
            let value = match self.0.remove::<D>(id) {
                Some(now) => value * self.1 + now * (1.0 - self.1),
                None => value,
            };
            Param::from_mapped_value(id, value, mapper)
        }
    }
    let mut weights = Collect(GradientsParams::new());
    now.visit(&mut weights);
    average.map(&mut Blend(weights.0, decay))
}
