//! Cross-entropy of `x · Wᵀ`, a few rows at a time; see [`super::cross_entropy()`].
//!
//! Where gradients are wanted they are worked out in the same pass, while the logits of those few
//! rows are there, and only multiplied by the gradient of the loss on the way back:
//!
//! ```text
//! L = Σ ln Σ exp(xWᵀ) − (xWᵀ)[target]     dL/dlogits = softmax − 1[target] =: S
//! dL/dx = S · W                           dL/dW = Sᵀ · x
//! ```
//! So nothing of the size `[rows, words]` outlives its piece, and nothing is computed twice.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, binary};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::{DType, Shape, Slice};

use super::JanusOps;
use super::reference::cast;

/// The loss, and its gradients where they were wanted.
pub struct Found<B: Backend> {
    /// `[1]`, in f32.
    pub loss: FloatTensor<B>,
    x: Option<FloatTensor<B>>,
    weight: Option<FloatTensor<B>>,
}

/// `at_once` rows after the other.
pub fn in_pieces<B: JanusOps>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: IntTensor<B>,
    at_once: usize,
    [want_x, want_weight]: [bool; 2],
) -> Found<B> {
    let [rows, width] = x.shape().dims::<2>();
    let (dtype, kept) = (x.dtype(), weight.dtype());
    // Once, not piece by piece, for a product that reads one format only.
    let weight = if want_x && kept != dtype { cast::<B>(weight, dtype) } else { weight };
    let mut loss = B::float_zeros(Shape::new([1]), &x.device(), DType::F32.into());
    let (mut by_x, mut by_weight) = (Vec::new(), None);
    for first in (0..rows).step_by(at_once.max(1)) {
        let part = first..rows.min(first + at_once.max(1));
        let some = [part.clone(), 0..width].map(Slice::from);
        let x = B::float_slice(x.clone(), &some);
        let targets = B::int_slice(targets.clone(), &[Slice::from(part)]);
        let logits = cast::<B>(<B as JanusOps>::linear(x.clone(), weight.clone()), DType::F32); // [n, V]
        let (sum, slope) = B::logit_loss(logits, targets);
        loss = B::float_add(loss, sum);
        if !want_x && !want_weight {
            continue;
        }
        let slope = cast::<B>(slope, dtype);
        if want_x {
            by_x.push(B::product(slope.clone(), weight.clone(), [false, false]));
        }
        if want_weight {
            let more = B::product(slope, x, [true, false]);
            by_weight = Some(match by_weight {
                Some(before) => B::float_add(before, more),
                None => more,
            });
        }
    }
    let x = (!by_x.is_empty()).then(|| B::float_cat(by_x, 0));
    Found { loss, x, weight: by_weight.map(|gradient| cast::<B>(gradient, kept)) }
}

/// The operation in the graph; its state is the gradients by `x` and by the weight.
#[derive(Debug)]
struct CrossEntropy;

impl<B: JanusOps> Backward<B, 2> for CrossEntropy {
    type State = [Option<FloatTensor<B>>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [x, weight] = ops.state;
        let scaled = |found: Option<FloatTensor<B>>| {
            move |by: FloatTensor<B>| {
                let found = found.expect("worked out for every parent that is tracked");
                let by = cast::<B>(B::float_reshape(by, Shape::new([1, 1])), found.dtype());
                B::float_mul(found, by)
            }
        };
        binary::<B, _, _>(ops.parents, ops.node, gradients, scaled(x), scaled(weight));
    }
}

/// Forward in pieces, with gradients for what is tracked.
pub fn tracked<B: JanusOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
    targets: IntTensor<B>,
    at_once: usize,
) -> FloatTensor<Autodiff<B, C>> {
    let wanted = [x.is_tracked(), weight.is_tracked()];
    let nodes = [x.node(), weight.node()];
    let (x, weight) = (x.into_primitive(), weight.into_primitive());
    match Backward::<B, 2>::prepare::<C>(CrossEntropy, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let found = in_pieces::<B>(x, weight, targets, at_once, wanted);
            prep.finish([found.x, found.weight], found.loss)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::cross_entropy(x, weight, targets, at_once)),
    }
}
