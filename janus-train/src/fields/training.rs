//! The encoder under [`crate::strategy`].

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::activation::log_sigmoid;
use burn::tensor::{DType, Device, Tensor, TensorData};
use janus_model::JanusConfig;
use janus_model::checkpoint::LazyTensor;
use janus_model::linear::{Linear, LinearConfig};
use janus_model::load::{part_names, part_tensors};
use janus_model::processor::{ImageLimits, Orientation, PixelValues, Processor};
use janus_model::siglip::{VisionConfig, VisionTower};
use serde_json::Value;

use super::{FieldsConfig, HEADS, PART};
use crate::data::error::Why;
use crate::data::prepare::decode;
use crate::data::sample::Sample;
use crate::data::{Cursor, Stream};
use crate::parts::kept::{filled, read, resumed, write, write_moments};
use crate::parts::numbers::{clipped, number};
use crate::parts::{PartError, Recipe, valid};
use crate::run::model::Companions;
use crate::run::{Found, Run, RunError, Staging};
use crate::start::part_in;
use crate::strategy::{Measured, StepError, Training};
use crate::weights::{Pupil, fresh, learning, siglip};

/// An encoder, and what it says.
#[derive(Module, Debug)]
pub struct Seer {
    /// What is kept.
    pub vision_model: VisionTower,
    /// What is thrown away.
    pub heads: Heads,
}

/// What only this training needs.
#[derive(Module, Debug)]
pub struct Heads {
    /// Tokens to words.
    pub words: Linear,
}

impl Seer {
    /// Weights are not made yet.
    pub(super) fn new(vision: &VisionConfig, words: usize, device: &Device) -> Self {
        let words = LinearConfig::new(vision.hidden_size, words).init(device);
        Self { vision_model: vision.init(device), heads: Heads { words } }
    }

    /// How likely each word is of each field.
    ///
    /// # Shapes
    /// - `pixels`: `[N, 3, S, S]` in [-1, 1]
    /// - output: `[N, tokens, words]`, logits
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        self.heads.words.forward(self.vision_model.forward(pixels))
    }
}

/// A picture and its map, ready for the encoder.
#[derive(Clone, Debug)]
pub struct Mapped {
    pixels: PixelValues,
    /// 1 where a word holds, else −1, field by field.
    holds: Vec<f32>,
}

/// An encoder that learns, with all that this needs.
#[derive(Debug)]
pub struct FieldsTraining {
    config: FieldsConfig,
    seer: Pupil<Seer>,
    processor: Processor,
    data: Stream,
    valid: Option<(Stream, usize)>,
    companions: Companions,
    device: Device,
}

/// The loss of some pictures, `[1]`, and how many fields are right in every word.
struct Seen {
    loss: Tensor<1>,
    right: Tensor<1>,
}

impl FieldsTraining {
    /// At the beginning.
    ///
    /// # Errors
    /// Weights to start from, or picture rules, cannot be used.
    pub fn new(
        config: FieldsConfig,
        model: &JanusConfig,
        data: Stream,
        device: &Device,
    ) -> Result<Self, PartError> {
        let device = device.clone().autodiff();
        let processor =
            Processor::for_model(&config.model, model).map_err(janus_model::Error::from)?;
        let seer = Seer::new(&model.vision, config.words.len(), &device);
        let start = config.start.as_deref();
        let mut tensors = start.map(|path| part_in(path, PART)).transpose()?.unwrap_or_default();
        let new = |(name, shape): (String, Vec<usize>)| {
            let law = siglip(&name, &shape);
            fresh(config.seed, &name, &shape, law)
        };
        let names = part_names(&seer, "").into_iter();
        let names = names.filter(|(name, _)| start.is_none() || name.starts_with(HEADS));
        tensors.extend(names.map(new).collect::<Vec<LazyTensor>>());
        let seer = filled(seer, "", tensors, start)?;
        Ok(Self {
            seer: Pupil::new(learning(seer, ""), config.optimizer.adamw().into()),
            processor,
            data,
            valid: valid(&config.common())?,
            companions: Companions::read(&config.model)?,
            device,
            config,
        })
    }

    /// The encoder as it is now.
    pub fn seer(&self) -> &Seer {
        self.seer.part()
    }

    /// Gradients of a step over these pictures, clipped, and what was measured.
    ///
    /// # Errors
    /// The device fails.
    pub fn learn(&mut self, samples: &[Mapped]) -> Result<(GradientsParams, Measured), StepError> {
        let seer = self.seer.part();
        let (mut sum, mut measured) = (GradientsAccumulator::new(), Measured::default());
        for some in samples.chunks(self.config.batch.rows.max(1)) {
            let share = some.len() as f64 / samples.len() as f64;
            let seen = self.seen(seer, some, &self.device);
            let gradients = (seen.loss.clone() * share).backward();
            sum.accumulate(seer, GradientsParams::from_grads(gradients, seer));
            self.add(&mut measured, seen, (some.len(), samples.len()))?;
        }
        let clip = self.config.optimizer.clip;
        let gradients = clipped(seer, sum.grads(), clip, &mut measured.grad_norm);
        Ok((gradients, measured))
    }

    fn seen(&self, seer: &Seer, samples: &[Mapped], device: &Device) -> Seen {
        let (count, side) = (samples.len(), samples.first().map_or(0, |s| s.pixels.side));
        let pixels: Vec<f32> = samples.iter().flat_map(|s| &s.pixels.data).copied().collect();
        let pixels = TensorData::new(pixels, [count, 3, side, side]);
        let logits = seer.forward(Tensor::from_data(pixels, (device, DType::F32)));
        let holds: Vec<f32> = samples.iter().flat_map(|s| &s.holds).copied().collect();
        let holds = TensorData::new(holds, logits.dims());
        let holds = Tensor::<3>::from_data(holds, (device, DType::F32));
        let [_, tokens, words] = logits.dims();
        let fit = logits * holds;
        let right = fit.clone().greater_elem(0.0).float().sum_dim(2);
        let right = right.greater_elem(words as f64 - 0.5).float().sum();
        Seen { loss: -log_sigmoid(fit).sum() / (count * tokens) as f64, right }
    }

    /// Adds what was seen of so many pictures, of so many in all.
    fn add(
        &self,
        measured: &mut Measured,
        seen: Seen,
        (some, all): (usize, usize),
    ) -> Result<(), StepError> {
        let fields = self.processor.num_image_tokens;
        measured.loss += number(seen.loss)? * some as f64 / all as f64;
        measured.terms.add("right", number(seen.right)? / (all * fields) as f64);
        measured.supervised += (some * fields) as u64;
        measured.tokens = measured.supervised;
        Ok(())
    }

    /// The pictures of the next step.
    fn pictures(&mut self) -> Result<Vec<Mapped>, StepError> {
        let (processor, words) = (&self.processor, &self.config.words);
        let ready = |sample: &Sample, _| mapped(sample, processor, words);
        Ok(self.data.next(self.config.batch.size, ready)?)
    }
}

/// A picture and what lies in each of its fields.
fn mapped(sample: &Sample, processor: &Processor, words: &[String]) -> Result<Mapped, Why> {
    let [picture] = sample.pictures.as_slice() else {
        let problem = format!("{} pictures, a map has one", sample.pictures.len());
        return Err(Why::Record(problem));
    };
    let holds = holds(&sample.caption()?, processor.num_image_tokens, words)?;
    let image = decode(picture, &ImageLimits::default(), Orientation::default())?;
    Ok(Mapped { pixels: processor.image.understanding_pixels(&image), holds })
}

/// A map as numbers.
fn holds(map: &str, fields: usize, words: &[String]) -> Result<Vec<f32>, Why> {
    let said: Vec<&str> = map.split(',').collect();
    if said.len() != fields {
        let problem = format!("{} fields between commas, the encoder has {fields}", said.len());
        return Err(Why::Record(problem));
    }
    let mut holds = vec![-1.0; fields * words.len()];
    for (said, holds) in said.iter().zip(holds.chunks_exact_mut(words.len())) {
        for word in said.split_whitespace() {
            let found = words.iter().position(|known| known == word);
            let unknown = || Why::Record(format!("{word:?} is not among the words of the recipe"));
            holds[found.ok_or_else(unknown)?] = 1.0;
        }
    }
    Ok(holds)
}

impl Training for FieldsTraining {
    type Gradients = GradientsParams;

    fn gradients(&mut self, _: u64) -> Result<Option<(GradientsParams, Measured)>, StepError> {
        let pictures = self.pictures()?;
        self.learn(&pictures).map(Some)
    }

    fn pass_by(&mut self, _: u64) -> Result<(), StepError> {
        self.pictures().map(drop)
    }

    fn update(&mut self, gradients: GradientsParams, rate: f64) {
        self.seer.update(gradients, rate);
    }

    fn left_out(&mut self) -> Vec<String> {
        self.data.take_left_out()
    }

    fn validate(&mut self) -> Result<Option<Measured>, StepError> {
        let Some((mut stream, count)) = self.valid.take() else { return Ok(None) };
        let start = stream.cursor().clone();
        let (processor, words) = (&self.processor, &self.config.words);
        let ready = |sample: &Sample, _| mapped(sample, processor, words);
        let (seer, device) = (self.seer.part().valid(), self.device.clone().inner());
        let (mut measured, mut left) = (Measured::default(), count);
        while left > 0 {
            let some = left.min(self.config.batch.rows);
            let pictures = stream.next(some, ready)?;
            self.add(&mut measured, self.seen(&seer, &pictures, &device), (some, count))?;
            left -= some;
        }
        stream.seek(&start, true)?;
        self.valid = Some((stream, count));
        Ok(Some(measured))
    }

    fn cursors(&self) -> Value {
        // Plain numbers and strings always serialise.
        serde_json::to_value(self.data.cursor()).unwrap_or_default()
    }

    fn save(&mut self, run: &mut Run, staging: &mut Staging) -> Result<(), RunError> {
        let tensors = part_tensors(&self.seer.part().valid(), "");
        let (heads, model): (Vec<_>, Vec<_>) =
            tensors.into_iter().partition(|tensor| tensor.name.starts_with(HEADS));
        staging.model(run, &self.companions, model, |_| false)?;
        write(staging, "heads", heads)?;
        write_moments(staging, "moments.bpk", &self.seer)
    }

    fn load(&mut self, found: &Found) -> Result<(), StepError> {
        let mut tensors = read(&found.path.join("model"))?;
        tensors.extend(read(&found.path.join("heads"))?);
        let adam = self.config.optimizer.adamw();
        self.seer =
            resumed(&self.seer, "", tensors, (adam, &found.moments()), |seer| learning(seer, ""))?;
        let cursor: Cursor = serde_json::from_value(found.state.cursors.clone())?;
        Ok(self.data.seek(&cursor, false)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_field_by_field() {
        let words = ["grey", "red", "circle"].map(str::to_owned);
        let found = holds("grey, red circle,grey", 3, &words).unwrap();
        assert_eq!(found, [1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -1.0, -1.0]);
        // Nothing said is nothing that holds.
        assert_eq!(holds(",", 2, &words).unwrap(), [-1.0; 6]);
        let refused = |map| holds(map, 2, &words).unwrap_err().to_string();
        assert!(refused("grey").contains("1 fields between commas, the encoder has 2"));
        assert!(refused("grey, blue").contains("\"blue\" is not among the words"));
    }
}
