//! The recipe of an image tokenizer: `stages/tokenizer.toml` has each value with its source.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use janus_model::JanusConfig;
use janus_model::checkpoint::LazyTensor;
use janus_model::load::part_names;
use janus_model::ops::Products;
use janus_model::vq::{VqConfig, VqModel};
use serde::{Deserialize, Serialize};

use super::training::TokenizerTraining;
use super::{AugmentConfig, CRITIC, CriticConfig, LossConfig, LpipsConfig, PART, PREFIX, soft};
use crate::config::validate::{Checked, between, positive, whole};
use crate::config::{
    GuardConfig, OptimizerConfig, RecipeError, SaveConfig, ScheduleConfig, Source, ValidConfig,
    is_exact,
};
use crate::data::OnBad;
use crate::parts::{Common, Description, Network, Opened, Part, PartBatch, PartError, Recipe};
use crate::parts::{data, identity, read as recipe};
use crate::start::part_in;
use crate::weights::learning;

/// A run that trains an image tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// `tokenizer`.
    pub part: Part,
    /// What the run is called.
    pub name: String,
    /// A model folder: sizes of the tokenizer, and what lies beside its weights in a checkpoint.
    pub model: PathBuf,
    /// A model folder or a run to take weights from; without one they begin at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Number that all chance derives from.
    pub seed: u64,
    /// Optimizer steps.
    pub steps: usize,
    /// What factors of matrix products of a step are rounded to on the CPU.
    #[serde(default, skip_serializing_if = "is_exact")]
    pub products: Products,
    /// Side of the pictures, in pixels; need not be that of the model.
    pub side: usize,
    /// Decay of the average of the weights, which is then what is kept; without one, no average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<f64>,
    /// Steps after which a code that none of them chose is moved to where a latent is; without it
    /// none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revive: Option<u64>,
    /// Codes within so many degrees of one that is very frequent are no longer used, as in plain
    /// grounds, which are one thing; see `merge.rs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<f64>,
    /// Norms that are almost lines while training, and branches that begin as nothing: for
    /// tokenizers of fewer than four channels to a norm's group, which learn no tint otherwise.
    #[serde(default, skip_serializing_if = "is_false")]
    pub soft_norms: bool,
    /// Codes tell of their own square of the picture and of nothing around it; see `local.rs`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub local_codes: bool,
    /// Only what makes pictures of codes learns: codes stay what they are, so that a model that
    /// draws them may have pictures that become sharper.
    #[serde(default, skip_serializing_if = "is_false")]
    pub decoder_only: bool,
    /// Learning rate by step.
    pub schedule: ScheduleConfig,
    /// How gradients become changes, for the tokenizer and for its critic.
    pub optimizer: OptimizerConfig,
    /// How much one step sees; the critic's norms see `rows` at a time.
    pub batch: PartBatch,
    /// What is learnt from.
    pub loss: LossConfig,
    /// Sizes of the critic.
    pub critic: CriticConfig,
    /// Networks of the perceptual term; without them it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lpips: Option<LpipsConfig>,
    /// What is left to chance.
    pub augment: AugmentConfig,
    /// When checkpoints are written, and which are kept.
    pub save: SaveConfig,
    /// What happens to steps that would do harm.
    pub guard: GuardConfig,
    /// What the run is judged by on the way.
    #[serde(default)]
    pub valid: ValidConfig,
    /// What happens to samples that cannot be used.
    #[serde(default)]
    pub on_bad: OnBad,
    /// Where pictures come from; whatever texts they have are not read.
    #[serde(default)]
    pub data: Vec<Source>,
}

impl Recipe for TokenizerConfig {
    type Training = TokenizerTraining;

    fn common(&self) -> Common<'_> {
        Common {
            name: &self.name,
            model: &self.model,
            seed: self.seed,
            steps: self.steps,
            products: self.products,
            schedule: &self.schedule,
            optimizer: &self.optimizer,
            batch: self.batch,
            save: &self.save,
            guard: &self.guard,
            valid: &self.valid,
            on_bad: self.on_bad,
            data: &self.data,
        }
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let lpips = self.lpips.iter_mut().flat_map(|lpips| [&mut lpips.vgg, &mut lpips.linear]);
        [&mut self.model].into_iter().chain(&mut self.start).chain(lpips).collect()
    }

    fn sources(&mut self) -> Vec<&mut Source> {
        self.data.iter_mut().chain(&mut self.valid.data).collect()
    }

    fn check(&self) -> Checked {
        whole("side", self.side, 16, 4096)?;
        if let Some(decay) = self.average {
            // At 1 the average would never hear of a weight.
            if !(0.0..1.0).contains(&decay) {
                return Err(RecipeError::range("average", decay, "at least 0 and below 1"));
            }
        }
        if self.revive == Some(0) {
            return Err(RecipeError::range("revive", 0, "at least 1"));
        }
        if let Some(degrees) = self.merge {
            between("merge", degrees, 0.0, 90.0)?;
            if self.revive.is_some() || self.decoder_only {
                let range = "absent with `revive`, which would give the codes back, and with \
                             `decoder_only`, which keeps them";
                return Err(RecipeError::range("merge", degrees, range));
            }
        }
        if self.decoder_only && (self.start.is_none() || self.revive.is_some()) {
            let range =
                "false without `start`, whose codes it keeps, and with `revive`, which moves them";
            return Err(RecipeError::range("decoder_only", true, range));
        }
        between("augment.min_crop", self.augment.min_crop, 0.1, 1.0)?;
        between("augment.noise", self.augment.noise, 0.0, 1.0)?;
        whole("critic.layers", self.critic.layers, 1, 8)?;
        whole("critic.width", self.critic.width, 1, 4096)?;
        let loss = &self.loss;
        positive("loss.reconstruction", loss.reconstruction)?;
        for (field, value) in [
            ("loss.perceptual", loss.perceptual),
            ("loss.codebook", loss.codebook),
            ("loss.commitment", loss.commitment),
            ("loss.adversarial", loss.adversarial),
        ] {
            between(field, value, 0.0, 1000.0)?;
        }
        let least = self.critic.least_side();
        if loss.adversarial > 0.0 && self.side < least {
            let range = format!("at least {least}, or the critic has no patch to judge");
            return Err(RecipeError::range("side", self.side, &range));
        }
        Ok(())
    }

    fn open(&self, device: &Device) -> Result<Opened<TokenizerTraining>, PartError> {
        let sizes = self.sizes()?;
        let data = data(&self.common())?;
        let codes = sizes.num_embeddings;
        let words = format!("an image tokenizer of {codes} codes of width {}", sizes.embed_dim);
        let networks = format!("{sizes:?} {:?}", self.critic);
        let norms = if self.soft_norms { " soft" } else { "" };
        let part = if self.decoder_only { " decoder" } else { "" };
        let ways = format!("{} {:?} {:?}{norms}{part}", self.side, self.augment, self.loss);
        let identity = identity(&self.common(), (0, words, &networks), &ways, &data);
        let training = TokenizerTraining::new(self.clone(), &sizes, data, device)?;
        Ok(Opened { training, identity })
    }

    fn describe(&self, device: &Device) -> Result<Description, PartError> {
        let sizes = self.sizes()?;
        let data = data(&self.common())?.len();
        let vq = count(&part_names(&sizes.init(device), PREFIX));
        let mut networks = vec![Network { name: PART.to_owned(), parameters: vq, kept: true }];
        if self.loss.adversarial > 0.0 {
            let parameters = count(&part_names(&self.critic.init(device), CRITIC));
            networks.push(Network { name: "critic".to_owned(), parameters, kept: false });
        }
        let average = if self.average.is_some() { vq } else { 0 };
        let activations = self.batch.rows as u64 * activations(&sizes, self.side);
        Ok(Description::of(&self.common(), networks, (data, average, activations)))
    }
}

impl TokenizerConfig {
    /// Reads and checks a recipe, with `key=value` overrides.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, PartError> {
        recipe(path, overrides)
    }

    /// A tokenizer at the beginning of its training.
    ///
    /// # Errors
    /// Weights, sizes or data cannot be used.
    pub fn begin(&self, device: &Device) -> Result<TokenizerTraining, PartError> {
        Ok(self.open(device)?.training)
    }

    /// Sizes of the tokenizer, which must be able to cut pictures of this side.
    fn sizes(&self) -> Result<VqConfig, PartError> {
        let (model, _) = JanusConfig::from_dir(&self.model)?;
        let factor = model.gen_vision.factor();
        match self.side.is_multiple_of(factor) {
            true => Ok(model.gen_vision),
            false => {
                let range = format!("a multiple of {factor}, the side of one code");
                Err(RecipeError::range("side", self.side, &range).into())
            }
        }
    }

    /// The tokenizer, ready to learn what it is to.
    pub(super) fn learning(&self, vq: VqModel) -> VqModel {
        let vq = learning(vq, PREFIX);
        if !self.decoder_only {
            return vq;
        }
        let VqModel { encoder, quant_conv, quantize, .. } = vq.clone();
        let (encoder, quant_conv) = (encoder.no_grad(), quant_conv.no_grad());
        VqModel { encoder, quant_conv, quantize: quantize.no_grad(), ..vq }
    }

    /// Weights of training as a checkpoint keeps them.
    pub(super) fn kept(&self, tensors: Vec<LazyTensor>) -> Vec<LazyTensor> {
        if self.soft_norms { soft::harden(tensors) } else { tensors }
    }

    /// Weights of a checkpoint as training has them.
    pub(super) fn trained(&self, tensors: Vec<LazyTensor>) -> Vec<LazyTensor> {
        if self.soft_norms { soft::soften(tensors) } else { tensors }
    }

    /// Weights to start from, if there are any.
    pub(super) fn start(&self) -> Result<Option<Vec<LazyTensor>>, PartError> {
        Ok(self.start.as_deref().map(|path| part_in(path, PART)).transpose()?)
    }
}

// Serde asks by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

fn count(names: &[(String, Vec<usize>)]) -> u64 {
    names.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
}

/// Bytes that backward needs of one picture: each residual block keeps about eight maps of its
/// channels, one level of the decoder one block more than its twin in the encoder.
fn activations(sizes: &VqConfig, side: usize) -> u64 {
    let levels = sizes.channel_multiplier.iter().enumerate();
    let blocks = 2 * sizes.num_res_blocks + 1;
    let maps = levels.map(|(level, multiplier)| {
        let places = (side >> level).pow(2);
        places * sizes.base_channels * multiplier * blocks * 8
    });
    4 * maps.sum::<usize>() as u64
}
