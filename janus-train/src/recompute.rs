//! Backward through a chain of blocks that keeps only what goes into each of them.
//!
//! Keeping everything costs some 30 activations of `[B, T, D]` per decoder block and the attention
//! weights `[B, H, T, T]`; keeping the inputs costs one. Going back, each block runs again with a
//! graph of its own, which is dropped before the next. Blocks run both times on the same
//! operations (the first time with weights that want no gradient, not on the device's faster
//! kernels without one), so on the processor every gradient is equal to plain backward to the bit.
//!
//! Burn's own gradient checkpointing recomputes single memory-bound operations, and none that
//! has a frozen weight: in stage 1, where the whole language model is frozen, it saves nothing.
//!
//! Paper: <https://arxiv.org/abs/1604.06174>.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Gradients, Tensor};
use janus_model::Janus;
use janus_model::llama::DecoderLayer;
use janus_model::siglip::{SiglipVit, VisionBlock};

use crate::batch::Batch;
use crate::step::{Losses, StepError, Trainee, embed, losses, pass, pixels, see, trains};

/// Runs blocks one after the other without a graph.
///
/// Returns the output of the last and the input of each.
pub fn forward<M: Module>(
    blocks: &[M],
    x: Tensor<3>,
    run: impl Fn(&M, Tensor<3>) -> Tensor<3>,
) -> (Tensor<3>, Vec<Tensor<3>>) {
    let mut x = x.detach();
    let mut inputs = Vec::with_capacity(blocks.len());
    for block in blocks {
        let output = run(&block.clone().no_grad(), x.clone());
        inputs.push(std::mem::replace(&mut x, output));
    }
    (x, inputs)
}

/// Goes back from the gradient of the last output to that of the first input.
///
/// Every block's own gradients are given to `take`. With `to_the_start` unset it may stop early,
/// at the lowest block that trains, and returns nothing.
pub fn backward<M: Module>(
    blocks: &[M],
    inputs: Vec<Tensor<3>>,
    gradient: Tensor<3>,
    to_the_start: bool,
    run: impl Fn(&M, Tensor<3>) -> Tensor<3>,
    mut take: impl FnMut(GradientsParams),
) -> Option<Tensor<3>> {
    let lowest = match to_the_start {
        true => 0,
        false => blocks.iter().position(trains)?,
    };
    let mut gradient = gradient;
    for (block, input) in blocks.iter().zip(inputs).skip(lowest).rev() {
        let input = input.detach().require_grad();
        let output = run(block, input.clone());
        let mut gradients = pull(output, gradient);
        gradient = input.grad_remove(&mut gradients).expect("a block's output uses its input");
        take(GradientsParams::from_grads(gradients, block));
    }
    to_the_start.then_some(gradient)
}

/// Backward from `y`, whose gradient is known.
fn pull(y: Tensor<3>, gradient: Tensor<3>) -> Gradients {
    (y * gradient.autodiff()).sum().backward()
}

impl Trainee {
    /// As [`Trainee::micro_step`], one block of the decoder, and of the encoder if it trains, at a
    /// time.
    pub(crate) fn micro_step_in_blocks(
        &self,
        batch: &Batch,
        total: usize,
    ) -> Result<(GradientsParams, Losses), StepError> {
        batch.check(self.janus.config())?;
        let janus = &self.janus;
        let model = &janus.language_model.model;
        let mut gradients = GradientsAccumulator::new();
        let mut take = |new| gradients.accumulate(janus, new);

        let pass = pass(janus, batch);
        let seen = Seen::of(janus, batch)?;
        let x = embed(janus, batch, seen.features())?;
        let run = |layer: &DecoderLayer, x| layer.forward(x, &pass, None);
        let (y, inputs) = forward(&model.layers, x, run);

        let y = y.detach().require_grad();
        let losses = losses(janus, model.norm.forward(y.clone()), batch)?;
        let mut tail = self.objective(losses.clone(), total).backward();
        let gradient = y.grad_remove(&mut tail).expect("the loss uses the hidden states");
        take(GradientsParams::from_grads(tail, janus));

        let below = trains_below(janus);
        if let Some(gradient) = backward(&model.layers, inputs, gradient, below, run, &mut take) {
            let x = embed(janus, batch, seen.features())?;
            if x.is_tracked() {
                let mut new = pull(x, gradient);
                seen.backward(&mut new, &mut take);
                take(GradientsParams::from_grads(new, janus));
            }
        }
        Ok((gradients.grads(), losses))
    }
}

/// Whether anything below the decoder's blocks trains.
fn trains_below(janus: &Janus) -> bool {
    trains(&janus.language_model.model.embed_tokens)
        || trains(&janus.vision_model)
        || trains(&janus.aligner)
        || trains(&janus.gen_embed)
        || trains(&janus.gen_aligner)
}

/// What the encoder made of the pictures, and what going back through it takes.
#[allow(clippy::large_enum_variant)] // one per micro-batch, on the stack
enum Seen<'a> {
    /// No pictures, or an encoder that is not gone back through.
    Done(Option<Tensor<3>>),
    /// An encoder that trains.
    Blocks { tower: &'a SiglipVit, pixels: Tensor<4>, inputs: Vec<Tensor<3>>, last: Tensor<3> },
}

impl<'a> Seen<'a> {
    fn of(janus: &'a Janus, batch: &Batch) -> Result<Self, StepError> {
        match (&janus.vision_model, pixels(janus, batch)) {
            (Some(tower), Some(pixels)) if trains(tower) => {
                let tower = &tower.vision_tower;
                let x = tower.embed(pixels.clone());
                let (last, inputs) = forward(&tower.blocks, x, VisionBlock::forward);
                Ok(Self::Blocks { tower, pixels, inputs, last: last.detach().require_grad() })
            }
            _ => Ok(Self::Done(see(janus, batch)?)),
        }
    }

    /// `[N, tokens, W]`, with the final norm in the graph where the encoder trains.
    fn features(&self) -> Option<Tensor<3>> {
        match self {
            Self::Done(features) => features.clone(),
            Self::Blocks { tower, last, .. } => Some(tower.finish(last.clone())),
        }
    }

    /// Goes back from what `gradients` has for the output of the last block.
    fn backward(self, gradients: &mut Gradients, mut take: impl FnMut(GradientsParams)) {
        let Self::Blocks { tower, pixels, inputs, last } = self else { return };
        let Some(gradient) = last.grad_remove(gradients) else { return };
        let start = trains(&tower.patch_embed) || trains(&tower.pos_embed);
        let run = VisionBlock::forward;
        if let Some(gradient) = backward(&tower.blocks, inputs, gradient, start, run, &mut take) {
            take(GradientsParams::from_grads(pull(tower.embed(pixels), gradient), tower));
        }
    }
}
