//! The operations whose speed decides everything, behind one seam.
//!
//! [`JanusOps`] is a trait over Burn's `Backend`: its default bodies ([`reference`]) are plain
//! tensor operations that run and differentiate everywhere. A backend overrides what it can do
//! better; `tests/ops` holds every override against the reference. Today Flex (the CPU) reads
//! bf16 and f16 weights without expanding them in memory, a cache where it lies, and has training's
//! attention, norms and optimizer step in one piece each ([`flex`]); GPU kernels belong here too.
//! Weights of 8 and 4 bits are in [`crate::packed`].
//!
//! Call the functions of this module, not the trait.

// The macro below names `NdArray`, which Burn deprecates; we keep it as an oracle. It takes and
// returns tensors one by one.
#![allow(deprecated, clippy::too_many_arguments, clippy::type_complexity)]

pub mod ceiling;
mod cross_entropy;
#[cfg(feature = "cpu")]
pub mod flex;
mod gelu;
mod instructions;
mod memory;
pub mod portions;
mod products;
pub mod reference;
pub(crate) mod shared;
pub(crate) mod simd;
mod tracked;
mod workers;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Int, Tensor};

pub use instructions::{Instructions, VARIABLE as INSTRUCTIONS_VARIABLE};
pub use memory::keep_freed_memory;
pub use products::{Products, with_products};
pub use workers::on_workers;

/// Which of its tensors [`JanusOps::attention_rows`] uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Queries and keys are turned by `cos` and `sin`.
    pub turned: bool,
    /// A token sees earlier ones of its own document; otherwise it sees all.
    pub causal: bool,
}

/// Which of its tensors [`JanusOps::plus`] uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// One number for every column.
    pub bias: bool,
    /// One number for every number.
    pub onto: bool,
}

/// How a kernel moves over a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Places from one result to the next, down and across.
    pub stride: usize,
    /// Zeros above, left, below and right of the picture.
    pub padding: [usize; 4],
}

impl Default for Convolution {
    /// From place to place, without a border.
    fn default() -> Self {
        Self { stride: 1, padding: [0; 4] }
    }
}

impl Convolution {
    /// Height and width of the result.
    pub fn output(&self, [height, width]: [usize; 2], kernel: [usize; 2]) -> [usize; 2] {
        let [top, left, bottom, right] = self.padding;
        let places = |size: usize, kernel: usize| (size - kernel) / self.stride + 1;
        [places(top + height + bottom, kernel[0]), places(left + width + right, kernel[1])]
    }

    /// Whether the border is the same on opposite sides.
    fn even(&self) -> bool {
        self.padding[0] == self.padding[2] && self.padding[1] == self.padding[3]
    }
}

/// What [`group_norm`] does beside its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupRule {
    /// Groups that the channels are cut into.
    pub groups: usize,
    /// ε.
    pub epsilon: f64,
    /// Whether `z · sigmoid(z)` follows.
    pub swish: bool,
}

/// Numbers of one optimizer step; see [`adamw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// β₁.
    pub beta_1: f64,
    /// β₂.
    pub beta_2: f64,
    /// ε.
    pub epsilon: f64,
    /// η.
    pub rate: f64,
    /// ηλ, the share of every weight that is taken away.
    pub decay: f64,
    /// 1 − β₁ᵗ.
    pub rest_1: f64,
    /// 1 − β₂ᵗ.
    pub rest_2: f64,
}

/// Backend operations of Janus. The default bodies define what each one computes.
#[backend_extension(
    Flex: cfg(feature = "cpu"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "gpu"),
    Autodiff,
    Fusion: cfg(feature = "fusion"),
)]
pub trait JanusOps: Backend {
    /// `x · Wᵀ`: `[rows, in]` and `[out, in]` give `[rows, out]` in the dtype of `x`.
    #[fusion(default)]
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::linear::<Self>(x, weight)
    }

    /// `y + bias + onto`, of which `added` says what there is: `[rows, out]`, `[out]` and `[rows, out]`; see
    /// [`plus`].
    #[fusion(default)]
    fn plus(
        y: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        onto: FloatTensor<Self>,
        added: Added,
    ) -> FloatTensor<Self> {
        reference::plus::<Self>(y, bias, onto, added)
    }

    /// `new`, `[B, H, T, d]`, in place of `[B, H, start.., d]` of `cache`, in the dtype of the latter; see
    /// [`put`].
    #[fusion(default)]
    fn put(cache: FloatTensor<Self>, new: FloatTensor<Self>, start: usize) -> FloatTensor<Self> {
        reference::put::<Self>(cache, new, start)
    }

    /// `a · b` of matrices in one dtype, each transposed first where `turned` says so.
    #[fusion(default)]
    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>, turned: [bool; 2]) -> FloatTensor<Self> {
        reference::product::<Self>(a, b, turned)
    }

    /// Causal attention of the newest tokens over a cache: `[B, H, T, d]` over the first `total`
    /// of `[B, H_kv, capacity, d]`, of which the last `T` are the new ones.
    #[fusion(default)]
    fn attention_cached(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        total: usize,
    ) -> FloatTensor<Self> {
        reference::attention_cached::<Self>(q, keys, values, total)
    }

    /// `x · Φ(x)`, in its erf form.
    #[fusion(default)]
    fn gelu_erf(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu(x)
    }

    /// Gradient of [`JanusOps::gelu_erf`] at `x`, times `gradient`.
    #[fusion(default)]
    fn gelu_erf_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::gelu_erf_backward::<Self>(x, gradient)
    }

    /// Attention of whole rows: `[B, T, H, d]` over `[B, T, H_kv, d]`; see [`attention_rows`].
    #[fusion(default)]
    fn attention_rows(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        documents: IntTensor<Self>,
        rules: Rules,
    ) -> FloatTensor<Self> {
        reference::attention_rows::<Self>(q, k, v, cos, sin, documents, rules)
    }

    /// Gradients of [`JanusOps::attention_rows`] by `q`, `k` and `v`.
    #[fusion(default)]
    fn attention_rows_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        documents: IntTensor<Self>,
        rules: Rules,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        reference::attention_rows_backward::<Self>(q, k, v, cos, sin, documents, rules, gradient)
    }

    /// Heads `[B, H, T, d]` turned to their positions by `[1 or B, 1, T, d/2]`, in f32 where they are
    /// narrower; see [`crate::rope`].
    #[fusion(default)]
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        reference::rotate::<Self>(x, cos, sin)
    }

    /// LayerNorm of `[rows, D]` where it is `centred`, RMSNorm, without the bias, where not; see [`rms_norm`] and [`layer_norm`].
    #[fusion(default)]
    fn norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        centred: bool,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        reference::norm::<Self>(x, weight, bias, centred, epsilon)
    }

    /// Gradients of [`JanusOps::norm`] by `x`, the weight and, where it is `centred`, the bias.
    #[fusion(default)]
    fn norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        centred: bool,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        reference::norm_backward::<Self>(x, weight, gradient, centred, epsilon)
    }

    /// `silu(gate) · up`.
    #[fusion(default)]
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::swiglu::<Self>(gate, up)
    }

    /// Gradients of [`JanusOps::swiglu`] by `gate` and `up`.
    #[fusion(default)]
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::swiglu_backward::<Self>(gate, up, gradient)
    }

    /// Cross-entropy of f32 logits `[n, V]`, summed, `[1]`, and its gradient by them; see
    /// [`logit_loss`].
    #[fusion(default)]
    fn logit_loss(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::logit_loss::<Self>(logits, targets)
    }

    /// Squares of `[rows, width]` summed over each row, `[rows]`.
    #[fusion(default)]
    fn square_sums(x: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::square_sums::<Self>(x)
    }

    /// `x · factor`.
    #[fusion(default)]
    fn scaled(x: FloatTensor<Self>, factor: f64) -> FloatTensor<Self> {
        Self::float_mul_scalar(x, factor.into())
    }

    /// `[N, C_in, H, W]`, `[C_out, C_in, k, k]` and `[C_out]`; see [`conv2d`].
    #[fusion(default)]
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        rule: Convolution,
    ) -> FloatTensor<Self> {
        reference::conv2d::<Self>(x, weight, bias, rule)
    }

    /// Gradients of [`JanusOps::convolve`] by `x`, the weight and the bias.
    #[fusion(default)]
    fn convolve_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: Convolution,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        reference::conv2d_backward::<Self>(x, weight, gradient, rule)
    }

    /// GroupNorm of `[N, C, H, W]`, with swish or without; see [`group_norm`].
    #[fusion(default)]
    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        rule: GroupRule,
    ) -> FloatTensor<Self> {
        reference::group_norm::<Self>(x, weight, bias, rule)
    }

    /// Gradients of [`JanusOps::group_norm`] by `x`, the weight and the bias.
    #[fusion(default)]
    fn group_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: GroupRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        reference::group_norm_backward::<Self>(x, weight, bias, gradient, rule)
    }

    /// Weight and moments after one step, all f32; see [`adamw`].
    #[fusion(default)]
    fn adamw(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        reference::adamw::<Self>(weight, gradient, moment_1, moment_2, step)
    }

    /// Cross-entropy of `x · Wᵀ`, summed over rows: `[rows, in]`, `[out, in]` and `[rows]` give
    /// `[1]` in f32. Logits of `at_once` rows exist at any time.
    #[fusion(default)]
    fn cross_entropy(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        at_once: usize,
    ) -> FloatTensor<Self> {
        cross_entropy::in_pieces::<Self>(x, weight, targets, at_once, [false; 2]).loss
    }
}

#[cfg(feature = "ndarray")]
impl JanusOps for burn::backend::NdArray {}

#[cfg(feature = "gpu")]
impl JanusOps for burn_cubecl::CubeBackend {}

impl<B: JanusOps, C: burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy> JanusOps
    for Autodiff<B, C>
{
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::linear::<B, C>(x, weight)
    }

    fn gelu_erf(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::tracked::<B, C>(x)
    }

    fn attention_rows(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        documents: IntTensor<Self>,
        rules: Rules,
    ) -> FloatTensor<Self> {
        tracked::attention_rows::<B, C>([q, k, v], [cos, sin], documents, rules)
    }

    fn norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        centred: bool,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        tracked::norm::<B, C>([x, weight, bias], centred, epsilon)
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::swiglu::<B, C>(gate, up)
    }

    /// The gradient is there already; it is not tracked any further.
    fn logit_loss(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        tracked::logit_loss::<B, C>(logits, targets)
    }

    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        rule: Convolution,
    ) -> FloatTensor<Self> {
        tracked::convolve::<B, C>([x, weight, bias], rule)
    }

    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        rule: GroupRule,
    ) -> FloatTensor<Self> {
        tracked::group_norm::<B, C>([x, weight, bias], rule)
    }

    fn cross_entropy(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        at_once: usize,
    ) -> FloatTensor<Self> {
        cross_entropy::tracked::<B, C>(x, weight, targets, at_once)
    }
}

/// `x · Wᵀ` for a weight stored `[out, in]` in any float dtype.
///
/// # Shapes
/// - `x`: `[rows, in]`, the dtype computed in
/// - `weight`: `[out, in]`
/// - output: `[rows, out]`, in the dtype of `x`
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let y = <Dispatch as JanusOps>::linear(x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(y)
}

/// `y + bias + onto`, in place where nobody else holds `y`; what is not there is not added.
///
/// # Shapes
/// - `y`, `onto`: `[rows, out]`
/// - `bias`: `[out]`
/// - output: `[rows, out]`
pub fn plus(y: Tensor<2>, bias: Option<Tensor<1>>, onto: Option<Tensor<2>>) -> Tensor<2> {
    let added = Added { bias: bias.is_some(), onto: onto.is_some() };
    let [bias, onto] = [bias.map(Tensor::into_dispatch), onto.map(Tensor::into_dispatch)];
    // One stands in for the other that is not there.
    let Some(any) = bias.clone().or_else(|| onto.clone()) else { return y };
    let [bias, onto] = [bias, onto].map(|tensor| tensor.unwrap_or_else(|| any.clone()));
    Tensor::from_dispatch(<Dispatch as JanusOps>::plus(y.into_dispatch(), bias, onto, added))
}

/// Keys or values of new tokens written into a cache, in place where nobody else holds it.
///
/// # Shapes
/// - `cache`: `[B, H, capacity, d]`
/// - `new`: `[B, H, T, d]`, written from token `start` on, in the dtype of the cache
/// - output: `[B, H, capacity, d]`
///
/// # Panics
/// When the cache has no room for them.
pub fn put(cache: Tensor<4>, new: Tensor<4>, start: usize) -> Tensor<4> {
    let [cache, new] = [cache, new].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as JanusOps>::put(cache, new, start))
}

/// Causal attention of the `T` newest tokens over a key-value cache with room to spare.
///
/// # Shapes
/// - `q`: `[B, H, T, d]`
/// - `keys`, `values`: `[B, H_kv, capacity, d]`; the first `total` are held, the last `T` of them
///   belong to `q`; in the dtype of `q` or a narrower one
/// - output: `[B, H, T, d]`, in the dtype of `q`
pub fn attention_cached(
    q: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    total: usize,
) -> Tensor<4> {
    let [q, keys, values] = [q, keys, values].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as JanusOps>::attention_cached(q, keys, values, total))
}

/// Attention of whole rows: softmax(q·kᵀ / √d)·v, without a cache, forward and back.
///
/// # Shapes
/// - `q`: `[B, T, H, d]`; `k`, `v`: `[B, T, H_kv, d]`, each head of which H / H_kv query heads share
/// - `turn`: cosines and sines for queries and keys, each `[1 or B, 1, T, d/2]`, see [`crate::rope`]
/// - `documents`: `[B, T]`; with it, a token sees itself and earlier ones of its own document,
///   without, every token sees all
/// - output: `[B, T, H, d]`
pub fn attention_rows(
    [q, k, v]: [Tensor<4>; 3],
    turn: Option<(Tensor<4>, Tensor<4>)>,
    documents: Option<Tensor<2, Int>>,
) -> Tensor<4> {
    let device = q.device();
    let rules = Rules { turned: turn.is_some(), causal: documents.is_some() };
    // Where something is not used, nearly nothing stands for it.
    let (cos, sin) = turn.unwrap_or_else(|| {
        let none = Tensor::zeros([1; 4], &device);
        (none.clone(), none)
    });
    let documents = documents.unwrap_or_else(|| Tensor::zeros([1; 2], &device)).into_dispatch();
    let [q, k, v, cos, sin] = [q, k, v, cos, sin].map(Tensor::into_dispatch);
    let y = <Dispatch as JanusOps>::attention_rows(q, k, v, cos, sin, documents, rules);
    Tensor::from_dispatch(y)
}

/// Heads turned to their positions: with `x = [a, b]` cut in the middle of a head,
/// `[a·cos − b·sin, b·cos + a·sin]`; see [`crate::rope`].
///
/// # Shapes
/// - `x` and output: `[B, H, T, d]`; computed in f32 where it is narrower
/// - `cos`, `sin`: `[1 or B, 1, T, d/2]`
pub fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let [x, cos, sin] = [x, cos, sin].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as JanusOps>::rotate(x, cos, sin))
}

/// `x / √(mean(x²) + ε) · w` over the last axis, statistics in f32.
///
/// # Shapes
/// - `x` and output: `[rows, D]`; `weight`: `[D]`
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(<Dispatch as JanusOps>::norm(x, weight.clone(), weight, false, epsilon))
}

/// `(x − mean) / √(variance + ε) · w + b` over the last axis, in f32.
///
/// # Shapes
/// - `x` and output: `[rows, D]`; `weight`, `bias`: `[D]`
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as JanusOps>::norm(x, weight, bias, true, epsilon))
}

/// Convolution with a bias.
///
/// # Shapes
/// - `x`: `[N, C_in, H, W]`
/// - `weight`: `[C_out, C_in, k, k]`; `bias`: `[C_out]`
/// - output: `[N, C_out, H', W']`, see [`Convolution::output`]
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, rule: Convolution) -> Tensor<4> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as JanusOps>::convolve(x, weight, bias, rule))
}

/// GroupNorm in f32, and swish behind it where the rule says so.
///
/// # Shapes
/// - `x` and output: `[N, C, H, W]`; `weight`, `bias`: `[C]`
pub fn group_norm(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, rule: GroupRule) -> Tensor<4> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as JanusOps>::group_norm(x, weight, bias, rule))
}

/// `silu(gate) · up`, both of one shape.
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    let (gate, up) = (gate.into_dispatch(), up.into_dispatch());
    Tensor::from_dispatch(<Dispatch as JanusOps>::swiglu(gate, up))
}

/// One step of AdamW: new weight, m and v, all f32 and without a graph.
///
/// `m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; w ← w(1 − ηλ) − η/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε)`
pub fn adamw<const D: usize>(
    weight: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let [weight, gradient] = [weight, gradient].map(Tensor::into_dispatch);
    let [moment_1, moment_2] = moments.map(Tensor::into_dispatch);
    let (weight, moment_1, moment_2) =
        <Dispatch as JanusOps>::adamw(weight, gradient, moment_1, moment_2, step);
    (Tensor::from_dispatch(weight), [moment_1, moment_2].map(Tensor::from_dispatch))
}

/// Cross-entropy of logits against the number each row should have given, summed, in nats.
///
/// # Shapes
/// - `logits`: `[n, V]`; computed in f32
/// - `targets`: `[n]`, each below `V`
/// - output: `[1]`, in f32
pub fn logit_loss(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let (logits, targets) = (logits.cast(DType::F32).into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(<Dispatch as JanusOps>::logit_loss(logits, targets).0)
}

/// Squares summed over each row, in f32.
///
/// # Shapes
/// - `x`: `[rows, width]`
/// - output: `[rows]`
pub fn square_sums(x: Tensor<2>) -> Tensor<1> {
    let x = x.cast(DType::F32).into_dispatch();
    Tensor::from_dispatch(<Dispatch as JanusOps>::square_sums(x))
}

/// `x · factor`, where `x` lies if nobody else holds it.
pub fn scaled<const D: usize>(x: Tensor<D>, factor: f64) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as JanusOps>::scaled(x.into_dispatch(), factor))
}

/// GELU in its erf form. Its gradient is that of the erf form, too: Burn's own, on every backend
/// but Flex, is that of the tanh approximation, which is off by up to 5e-4.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as JanusOps>::gelu_erf(x.into_dispatch()))
}

/// Cross-entropy of the rows of `x · Wᵀ` against the number each should have given, summed, in nats.
///
/// Differentiable by `x` and by the weight, whichever wants it, and never more than `at_once` rows
/// of logits are in memory: for 102,400 words and 4096 rows, logits and what softmax and its
/// gradient make of them would take 1.7 GB each.
///
/// # Shapes
/// - `x`: `[rows, in]`, the dtype computed in
/// - `weight`: `[out, in]`
/// - `targets`: `[rows]`, each below `out`
/// - output: `[1]`, in f32
pub fn cross_entropy(
    x: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    at_once: usize,
) -> Tensor<1> {
    let [x, weight] = [x, weight].map(Tensor::into_dispatch);
    let targets = targets.into_dispatch();
    Tensor::from_dispatch(<Dispatch as JanusOps>::cross_entropy(x, weight, targets, at_once))
}
