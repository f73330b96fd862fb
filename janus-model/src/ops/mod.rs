//! The operations whose speed decides everything, behind one seam.
//!
//! [`JanusOps`] is a trait over Burn's `Backend`: its default bodies ([`reference`]) are plain
//! tensor operations that run and differentiate everywhere. A backend overrides what it can do
//! better; `tests/ops` holds every override against the reference. Today Flex (the CPU) reads
//! bf16 and f16 weights without expanding them in memory, and a cache where it lies ([`flex`]); quantised weights and GPU
//! kernels belong here too.
//!
//! Call the functions of this module, not the trait.

// The macro below names `NdArray`, which Burn deprecates; we keep it as an oracle.
#![allow(deprecated)]

mod cross_entropy;
#[cfg(feature = "cpu")]
pub mod flex;
mod gelu;
pub mod reference;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};

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
    fn gelu_erf(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::tracked::<B, C>(x)
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

/// Causal attention of the `T` newest tokens over a key-value cache with room to spare.
///
/// # Shapes
/// - `q`: `[B, H, T, d]`
/// - `keys`, `values`: `[B, H_kv, capacity, d]`; the first `total` are held, the last `T` of them
///   belong to `q`
/// - output: `[B, H, T, d]`
pub fn attention_cached(
    q: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    total: usize,
) -> Tensor<4> {
    let [q, keys, values] = [q, keys, values].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as JanusOps>::attention_cached(q, keys, values, total))
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
