//! CPU bodies of [`super::JanusOps`] on Burn's Flex backend.

mod attention;
mod linear;
mod rows;

use burn::backend::Flex;
use burn::backend::ops::ActivationOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;

use super::{JanusOps, reference};

impl JanusOps for Flex {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        match (x.dtype(), weight.dtype()) {
            (DType::F32, DType::BF16 | DType::F16) => linear::linear(x, weight),
            // Burn's f32 product is single-threaded for the few rows of a decoding step.
            (DType::F32, DType::F32) if x.layout().shape()[0] <= linear::FEW_ROWS => {
                linear::linear(x, weight)
            }
            _ => reference::linear::<Self>(x, weight),
        }
    }

    fn attention_cached(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        total: usize,
    ) -> FloatTensor<Self> {
        let few = q.layout().shape()[2] <= linear::FEW_ROWS;
        let plain = |t: &FloatTensor<Self>| {
            t.dtype() == DType::F32 && t.is_contiguous() && t.layout().start_offset() == 0
        };
        if few && q.dtype() == DType::F32 && plain(&keys) && plain(&values) {
            return attention::attention_cached(q, &keys, &values, total);
        }
        reference::attention_cached::<Self>(q, keys, values, total)
    }

    fn gelu_erf_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu_backward(x, gradient) // in one pass, and of the erf form
    }
}
