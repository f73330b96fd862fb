//! Plain bodies of [`super::JanusOps`]: slow, right, differentiable, the judge of every kernel.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

/// `x · Wᵀ`, the weight cast to the dtype of `x` first where they differ.
pub fn linear<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let weight = if weight.dtype() == x.dtype() {
        weight
    } else {
        let dtype = x.dtype();
        B::float_cast(weight, dtype.into())
    };
    B::float_matmul(x, B::float_swap_dims(weight, 0, 1))
}
