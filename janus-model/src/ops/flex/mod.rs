//! CPU bodies of [`super::JanusOps`] on Burn's Flex backend.

mod adamw;
mod attention;
mod attention_pairs;
mod attention_rows;
mod cached;
mod conv;
mod conv_tiles;
mod group_norm;
mod linear;
mod loss;
#[cfg(target_arch = "x86_64")]
mod matrices;
#[cfg(target_arch = "x86_64")]
mod matrix_steps;
mod norm;
mod panels;
mod pointwise;
mod rotation;
mod rows;
mod share;
mod steps;
mod strips;
mod tiles;

use burn::backend::Flex;
use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::DType;

use super::{AdamWStep, Added, Convolution, GroupRule, JanusOps, Rules, reference};
use attention_rows::Attention;
#[cfg(target_arch = "x86_64")]
pub(super) use matrices::multiply_only as multiply_matrices;

/// Whether all of these are f32, the only format the kernels below compute in.
fn wide(tensors: &[&FloatTensor<Flex>]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// The numbers of a contiguous tensor, in order.
fn numbers(tensor: &FloatTensor<Flex>) -> &[f32] {
    &tensor.storage::<f32>()[tensor.layout().start_offset()..][..tensor.layout().num_elements()]
}

impl JanusOps for Flex {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        match (x.dtype(), weight.dtype()) {
            (DType::F32, DType::BF16 | DType::F16) => linear::linear(x, weight),
            // Burn's f32 product is single-threaded for the few rows of a decoding step.
            (DType::F32, DType::F32) if x.layout().shape()[0] <= linear::FEW_ROWS => {
                linear::linear(x, weight)
            }
            (DType::F32, DType::F32) => share::whole_product(x, weight, [false, true]),
            _ => reference::linear::<Self>(x, weight),
        }
    }

    fn plus(
        y: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        onto: FloatTensor<Self>,
        added: Added,
    ) -> FloatTensor<Self> {
        match wide(&[&y, &bias, &onto]) {
            true => pointwise::plus(y, added.bias.then_some(bias), added.onto.then_some(onto)),
            false => reference::plus::<Self>(y, bias, onto, added),
        }
    }

    fn put(cache: FloatTensor<Self>, new: FloatTensor<Self>, start: usize) -> FloatTensor<Self> {
        match wide(&[&new]) && matches!(cache.dtype(), DType::F32 | DType::BF16) {
            true => cached::put(cache, new, start),
            false => reference::put::<Self>(cache, new, start),
        }
    }

    fn product(a: FloatTensor<Self>, b: FloatTensor<Self>, turned: [bool; 2]) -> FloatTensor<Self> {
        match wide(&[&a, &b]) {
            true => share::whole_product(a, b, turned),
            false => reference::product::<Self>(a, b, turned),
        }
    }

    fn attention_cached(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        total: usize,
    ) -> FloatTensor<Self> {
        let tokens = q.layout().shape()[2];
        if tokens <= linear::FEW_ROWS
            && let Some(y) = attention::attention_cached(&q, &keys, &values, total)
        {
            return y;
        }
        // All there is, as of a prompt: whole rows.
        if tokens == total && wide(&[&q]) {
            let [q, k, v] = [q, cached::held(keys, total), cached::held(values, total)]
                .map(|heads| Self::float_swap_dims(heads, 1, 2)); // [B, T, H, d]
            return Self::float_swap_dims(Attention::causal(q, k, v).forward(), 1, 2);
        }
        reference::attention_cached::<Self>(q, keys, values, total)
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
        if let Some(attention) = attention([&q, &k, &v, &cos, &sin], &documents, rules) {
            return attention.forward();
        }
        reference::attention_rows::<Self>(q, k, v, cos, sin, documents, rules)
    }

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
        if let Some(attention) = attention([&q, &k, &v, &cos, &sin], &documents, rules) {
            return attention.backward(gradient).into();
        }
        reference::attention_rows_backward::<Self>(q, k, v, cos, sin, documents, rules, gradient)
    }

    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        match wide(&[&x, &cos, &sin]) {
            true => rotation::rotate(x, cos, sin),
            false => reference::rotate::<Self>(x, cos, sin),
        }
    }

    fn norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        centred: bool,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        match wide(&[&x, &weight, &bias]) {
            true => norm::forward(x, weight, centred.then_some(bias), epsilon),
            false => reference::norm::<Self>(x, weight, bias, centred, epsilon),
        }
    }

    fn norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        centred: bool,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        match wide(&[&x, &weight, &gradient]) {
            true => norm::backward(x, weight, gradient, centred, epsilon).into(),
            false => reference::norm_backward::<Self>(x, weight, gradient, centred, epsilon),
        }
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        match wide(&[&gate, &up]) {
            true => pointwise::swiglu(gate, up),
            false => reference::swiglu::<Self>(gate, up),
        }
    }

    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        match wide(&[&gate, &up, &gradient]) {
            true => pointwise::swiglu_backward(gate, up, gradient).into(),
            false => reference::swiglu_backward::<Self>(gate, up, gradient),
        }
    }

    fn gelu_erf(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match wide(&[&x]) {
            true => pointwise::gelu(x),
            false => Self::gelu(x),
        }
    }

    fn gelu_erf_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        match wide(&[&x, &gradient]) {
            true => pointwise::gelu_backward(x, gradient),
            false => Self::gelu_backward(x, gradient), // of the erf form, unlike other backends
        }
    }

    fn logit_loss(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        match loss::Targets::read(&targets) {
            Some(targets) if wide(&[&logits]) => loss::logit_loss(logits, targets),
            _ => reference::logit_loss::<Self>(logits, targets),
        }
    }

    fn square_sums(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match wide(&[&x]) {
            true => loss::square_sums(x),
            false => reference::square_sums::<Self>(x),
        }
    }

    fn scaled(x: FloatTensor<Self>, factor: f64) -> FloatTensor<Self> {
        match wide(&[&x]) {
            true => loss::scaled(x, factor as f32),
            false => Self::float_mul_scalar(x, factor.into()),
        }
    }

    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        rule: Convolution,
    ) -> FloatTensor<Self> {
        if !wide(&[&x]) {
            return reference::conv2d::<Self>(x, weight, bias, rule);
        }
        // Narrow weights are widened first: each of them meets thousands of places.
        let [weight, bias] = [weight, bias].map(widened);
        conv::forward(x, weight, bias, rule)
    }

    fn convolve_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: Convolution,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        match wide(&[&x, &weight, &gradient]) {
            true => conv::backward(x, weight, gradient, rule).into(),
            false => reference::conv2d_backward::<Self>(x, weight, gradient, rule),
        }
    }

    fn group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        rule: GroupRule,
    ) -> FloatTensor<Self> {
        match wide(&[&x, &weight, &bias]) {
            true => group_norm::forward(x, weight, bias, rule),
            false => reference::group_norm::<Self>(x, weight, bias, rule),
        }
    }

    fn group_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        rule: GroupRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        match wide(&[&x, &weight, &bias, &gradient]) {
            true => group_norm::backward(x, weight, bias, gradient, rule).into(),
            false => reference::group_norm_backward::<Self>(x, weight, bias, gradient, rule),
        }
    }

    fn adamw(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        match wide(&[&weight, &gradient, &moment_1, &moment_2]) {
            true => adamw::adamw([weight, gradient, moment_1, moment_2], step),
            false => reference::adamw::<Self>(weight, gradient, moment_1, moment_2, step),
        }
    }
}

fn widened(tensor: FloatTensor<Flex>) -> FloatTensor<Flex> {
    if wide(&[&tensor]) { tensor } else { Flex::float_cast(tensor, DType::F32.into()) }
}

/// Numbers that can be changed where they lie: in order, from the beginning of their memory.
fn whole(tensor: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let plain = tensor.is_contiguous() && tensor.layout().start_offset() == 0;
    if plain { tensor } else { tensor.to_contiguous() }
}

/// Whole numbers of a tensor, in order, whatever their size.
fn integers(tensor: &IntTensor<Flex>) -> Option<Vec<i64>> {
    let tensor = tensor.to_contiguous();
    let part = tensor.layout().start_offset()..;
    let count = tensor.layout().num_elements();
    match tensor.dtype() {
        DType::I32 => {
            let numbers = &tensor.storage::<i32>()[part][..count];
            Some(numbers.iter().map(|number| i64::from(*number)).collect())
        }
        DType::I64 => Some(tensor.storage::<i64>()[part][..count].to_vec()),
        _ => None,
    }
}

/// The work of [`attention_rows`], if it can do it.
fn attention(
    [q, k, v, cos, sin]: [&FloatTensor<Flex>; 5],
    documents: &IntTensor<Flex>,
    rules: Rules,
) -> Option<Attention> {
    if !wide(&[q, k, v, cos, sin]) {
        return None;
    }
    let turn = rules.turned.then(|| (cos.clone(), sin.clone()));
    let documents = rules.causal.then(|| documents.clone());
    Attention::new(q.clone(), k.clone(), v.clone(), turn, documents)
}
