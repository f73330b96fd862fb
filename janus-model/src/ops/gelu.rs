//! GELU under automatic differentiation; see [`super::gelu()`].

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;

use super::JanusOps;

/// The operation in the graph; its state is where its input is found.
#[derive(Debug)]
struct Gelu;

impl<B: JanusOps> Backward<B, 1> for Gelu {
    type State = NodeId;

    fn backward(
        self,
        ops: Ops<NodeId, 1>,
        gradients: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let x = checkpointer.retrieve_node_output(ops.state);
        unary::<B, _>(ops.parents, ops.node, gradients, |gradient| {
            B::gelu_erf_backward(x, gradient)
        });
    }
}

/// Forward as the backend computes it, backward by [`JanusOps::gelu_erf_backward`].
pub fn tracked<B: JanusOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    match Backward::<B, 1>::prepare::<C>(Gelu, [x.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let state = prep.checkpoint(&x);
            prep.finish(state, B::gelu_erf(x.into_primitive()))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::gelu_erf(x.into_primitive())),
    }
}
