//! Attention, norms, convolutions and SwiGLU under automatic differentiation: what went in is kept, everything
//! between is worked out again on the way back, by the backend's own backward bodies.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, binary, unary};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, TensorMetadata};
use burn::tensor::Shape;

use super::{Convolution, GroupRule, JanusOps, Rules};

#[derive(Debug)]
struct Linear;

impl<B: JanusOps> Backward<B, 2> for Linear {
    type State = [Option<FloatTensor<B>>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [x, weight] = ops.state;
        let held = |tensor: Option<FloatTensor<B>>| tensor.expect("kept where it is needed");
        // dx = g·W and dW = gᵀ·x.
        let by_x = |gradient: FloatTensor<B>| {
            let weight = held(weight);
            let dtype = gradient.dtype();
            let narrow = weight.dtype() != dtype;
            let weight = if narrow { B::float_cast(weight, dtype.into()) } else { weight };
            B::product(gradient, weight, [false, false])
        };
        let by_weight = |gradient: FloatTensor<B>| B::product(gradient, held(x), [true, false]);
        binary::<B, _, _>(ops.parents, ops.node, gradients, by_x, by_weight);
    }
}

/// See [`super::linear()`]. A weight that learns has the dtype of `x`, or is cast by an operation
/// of its own, whose gradient is Burn's.
pub fn linear<B: JanusOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    weight: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let [by_x, by_weight] = [x.is_tracked(), weight.is_tracked()];
    if by_weight && x.dtype() != weight.dtype() {
        let dtype = x.dtype();
        return linear::<B, C>(x, Autodiff::<B, C>::float_cast(weight, dtype.into()));
    }
    let nodes = [x.node(), weight.node()];
    let (x, weight) = (x.into_primitive(), weight.into_primitive());
    let state = [by_weight.then(|| x.clone()), by_x.then(|| weight.clone())];
    let y = <B as JanusOps>::linear(x, weight);
    match Backward::<B, 2>::prepare::<C>(Linear, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[derive(Debug)]
struct Attention;

#[derive(Clone, Debug)]
struct AttentionState<B: JanusOps> {
    inputs: [FloatTensor<B>; 3],
    turn: [FloatTensor<B>; 2],
    documents: IntTensor<B>,
    rules: Rules,
}

impl<B: JanusOps> Backward<B, 3> for Attention {
    type State = AttentionState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let AttentionState { inputs: [q, k, v], turn: [cos, sin], documents, rules } = ops.state;
        let (q, k, v) = B::attention_rows_backward(q, k, v, cos, sin, documents, rules, gradient);
        for (parent, by) in ops.parents.into_iter().zip([q, k, v]) {
            if let Some(node) = parent {
                gradients.register::<B>(node.id, by);
            }
        }
    }
}

/// See [`super::attention_rows`].
pub fn attention_rows<B: JanusOps, C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<B, C>>; 3],
    turn: [FloatTensor<Autodiff<B, C>>; 2],
    documents: IntTensor<B>,
    rules: Rules,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let inputs = inputs.map(|input| input.into_primitive());
    let turn = turn.map(|table| table.into_primitive());
    let ([q, k, v], [cos, sin]) = (inputs.clone(), turn.clone());
    let y = B::attention_rows(q, k, v, cos, sin, documents.clone(), rules);
    let state = AttentionState { inputs, turn, documents, rules };
    match Backward::<B, 3>::prepare::<C>(Attention, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[derive(Debug)]
struct Norm;

#[derive(Clone, Debug)]
struct NormState<B: JanusOps> {
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    centred: bool,
    epsilon: f64,
}

impl<B: JanusOps> Backward<B, 3> for Norm {
    type State = NormState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let NormState { x, weight, centred, epsilon } = ops.state;
        let (x, weight, bias) = B::norm_backward(x, weight, gradient, centred, epsilon);
        // What is not centred has the weight in the bias's place: it gets a gradient once.
        let parts = if centred { 3 } else { 2 };
        for (parent, by) in ops.parents.into_iter().zip([x, weight, bias]).take(parts) {
            if let Some(node) = parent {
                gradients.register::<B>(node.id, by);
            }
        }
    }
}

/// See [`super::rms_norm`] and [`super::layer_norm`].
pub fn norm<B: JanusOps, C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<B, C>>; 3],
    centred: bool,
    epsilon: f64,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let [x, weight, bias] = inputs.map(|input| input.into_primitive());
    let y = B::norm(x.clone(), weight.clone(), bias, centred, epsilon);
    let state = NormState { x, weight, centred, epsilon };
    match Backward::<B, 3>::prepare::<C>(Norm, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(state, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[derive(Debug)]
struct SwiGlu;

impl<B: JanusOps> Backward<B, 2> for SwiGlu {
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [gate, up] = ops.state;
        let (gate, up) = B::swiglu_backward(gate, up, gradient);
        for (parent, by) in ops.parents.into_iter().zip([gate, up]) {
            if let Some(node) = parent {
                gradients.register::<B>(node.id, by);
            }
        }
    }
}

/// See [`super::swiglu`].
pub fn swiglu<B: JanusOps, C: CheckpointStrategy>(
    gate: FloatTensor<Autodiff<B, C>>,
    up: FloatTensor<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = [gate.node(), up.node()];
    let (gate, up) = (gate.into_primitive(), up.into_primitive());
    let y = B::swiglu(gate.clone(), up.clone());
    match Backward::<B, 2>::prepare::<C>(SwiGlu, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish([gate, up], y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[derive(Debug)]
struct Convolve;

impl<B: JanusOps> Backward<B, 3> for Convolve {
    type State = ([FloatTensor<B>; 2], Convolution);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let ([x, weight], rule) = ops.state;
        let (x, weight, bias) = B::convolve_backward(x, weight, gradient, rule);
        for (parent, by) in ops.parents.into_iter().zip([x, weight, bias]) {
            if let Some(node) = parent {
                gradients.register::<B>(node.id, by);
            }
        }
    }
}

/// See [`super::conv2d`].
pub fn convolve<B: JanusOps, C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<B, C>>; 3],
    rule: Convolution,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let [x, weight, bias] = inputs.map(|input| input.into_primitive());
    let y = B::convolve(x.clone(), weight.clone(), bias, rule);
    match Backward::<B, 3>::prepare::<C>(Convolve, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(([x, weight], rule), y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[derive(Debug)]
struct GroupNorm;

impl<B: JanusOps> Backward<B, 3> for GroupNorm {
    type State = ([FloatTensor<B>; 3], GroupRule);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let ([x, weight, bias], rule) = ops.state;
        let (x, weight, bias) = B::group_norm_backward(x, weight, bias, gradient, rule);
        for (parent, by) in ops.parents.into_iter().zip([x, weight, bias]) {
            if let Some(node) = parent {
                gradients.register::<B>(node.id, by);
            }
        }
    }
}

/// See [`super::group_norm`].
pub fn group_norm<B: JanusOps, C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<B, C>>; 3],
    rule: GroupRule,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let inputs = inputs.map(|input| input.into_primitive());
    let [x, weight, bias] = inputs.clone();
    let y = B::group_norm(x, weight, bias, rule);
    match Backward::<B, 3>::prepare::<C>(GroupNorm, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((inputs, rule), y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[derive(Debug)]
struct LogitLoss;

impl<B: JanusOps> Backward<B, 1> for LogitLoss {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let slope = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |by| {
            B::float_mul(slope, B::float_reshape(by, Shape::new([1, 1])))
        });
    }
}

/// See [`super::logit_loss`]; the gradient is returned as a constant.
pub fn logit_loss<B: JanusOps, C: CheckpointStrategy>(
    logits: FloatTensor<Autodiff<B, C>>,
    targets: IntTensor<B>,
) -> (FloatTensor<Autodiff<B, C>>, FloatTensor<Autodiff<B, C>>) {
    let node = logits.node();
    let (loss, slope) = B::logit_loss(logits.into_primitive(), targets);
    let constant = <Autodiff<B, C> as AutodiffBackend>::from_inner(slope.clone());
    let loss = match Backward::<B, 1>::prepare::<C>(LogitLoss, [node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(slope, loss),
        OpsKind::UnTracked(prep) => prep.finish(loss),
    };
    (loss, constant)
}
