//! Every kernel against the reference body it stands in for, on every backend compiled in.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

mod added;
#[path = "../common/mod.rs"]
mod common;
mod loss;
mod pictures;
mod rounded;
mod rows;

use burn::tensor::{DType, Device, Tensor, TensorData};
use janus_model::ops;

use common::{targets, values};

/// Numbers without a pattern a kernel could hide behind, in [-1, 1].
fn noise<const D: usize>(shape: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>() as u32;
    let value = |i: u32| {
        let mixed = (i ^ seed).wrapping_mul(0x9E37_79B9).rotate_left(13).wrapping_mul(0x85EB_CA6B);
        f64::from(mixed) / f64::from(u32::MAX) * 2.0 - 1.0
    };
    let data: Vec<f32> = (0..count).map(|i| value(i) as f32).collect();
    Tensor::from_data(TensorData::new(data, shape), device)
}

/// What `x · Wᵀ` is, in f64, from the numbers the kernel was really given, and Σ|x·w|, the
/// scale that rounding errors are judged by.
fn exact(x: &[f32], w: &[f32], [rows, input, output]: [usize; 3]) -> Vec<(f64, f64)> {
    let cell = |r: usize, o: usize| {
        let term = |i: usize| f64::from(x[r * input + i]) * f64::from(w[o * input + i]);
        ((0..input).map(term).sum(), (0..input).map(|i| term(i).abs()).sum())
    };
    (0..rows * output).map(|at| cell(at / output, at % output)).collect()
}

/// Row counts around every switch of the kernel, widths that are no multiple of any vector.
///
/// Measured: 3.6e-7 on flex, ndarray and wgpu.
#[test]
fn linear_is_exact_up_to_rounding_in_every_weight_format() {
    for target in targets() {
        let formats = match target.name {
            "flex" => vec![DType::F32, DType::BF16, DType::F16],
            _ => vec![DType::F32],
        };
        let mut worst = 0.0f64;
        for [rows, input, output] in [
            [1, 1, 1],
            [1, 64, 129],
            [2, 200, 64],
            [3, 63, 65],
            [8, 96, 130],
            [9, 96, 130],
            [70, 257, 61],
            [40, 4300, 45],
        ] {
            for dtype in &formats {
                let x = noise([rows, input], 1, &target.device);
                let w = noise([output, input], 2, &target.device).cast(*dtype);
                let expected = exact(&values(x.clone()), &values(w.clone()), [rows, input, output]);
                let actual = values(ops::linear(x, w));
                for (a, (e, scale)) in actual.iter().zip(expected) {
                    worst = worst.max((f64::from(*a) - e).abs() / scale);
                }
            }
        }
        println!("measured {}: {worst:.1e} of Σ|x·w|", target.name);
        assert!(worst < 1e-6, "{}: {worst:.1e}", target.name);
    }
}

/// A transposed or sliced operand is a view with strides, not a buffer to be read in order.
#[test]
fn linear_reads_views_through_their_strides() {
    for target in targets() {
        let wide = noise([5, 40], 3, &target.device);
        let tall = noise([40, 7], 4, &target.device);
        let x = wide.clone().slice_dim(1, 8..40); // [5, 32], strided
        let w = tall.clone().transpose().slice_dim(1, 8..40); // [7, 32], strided
        let expected = values(x.clone().matmul(w.clone().transpose()));
        for (a, e) in values(ops::linear(x, w)).iter().zip(expected) {
            assert!((a - e).abs() < 1e-5, "{}: {a} {e}", target.name);
        }
    }
}

/// The gradient of a linear layer is that of the plain product.
#[test]
fn linear_differentiates() {
    for target in targets() {
        let device = target.device.clone().autodiff();
        let gradients = |product: fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
            let x = noise([3, 33], 5, &device).require_grad();
            let w = noise([17, 33], 6, &device).require_grad();
            let gradients = product(x.clone(), w.clone()).powi_scalar(2).sum().backward();
            (values(x.grad(&gradients).unwrap()), values(w.grad(&gradients).unwrap()))
        };
        let ours = gradients(ops::linear);
        let plain = gradients(|x, w| x.matmul(w.transpose()));
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(close(&ours.0, &plain.0) && close(&ours.1, &plain.1), "{}", target.name);
    }
}

/// The newest tokens over a cache with room to spare, against plain attention over what it holds:
/// one token, a few, more than the kernel takes, a whole prompt; shared heads; widths no vector
/// divides; where there are kernels for it, a cache in bf16.
///
/// Measured: 4.4e-7 of the largest value on flex, 5.1e-7 with a cache in bf16; the others run the
/// reference itself.
#[test]
fn cached_attention_is_attention_over_what_is_held() {
    for target in targets() {
        let formats = match target.name {
            "flex" => vec![DType::F32, DType::BF16],
            _ => vec![DType::F32],
        };
        for format in formats {
            let worst = worst_cached_attention(&target.device, format);
            println!("measured {} {format:?}: {worst:.1e}", target.name);
            assert!(worst < 1e-5, "{} {format:?}: {worst:.1e}", target.name);
        }
    }
}

fn worst_cached_attention(device: &Device, format: DType) -> f32 {
    use burn::tensor::module::attention;
    use burn::tensor::ops::AttentionModuleOptions;
    let mut worst = 0.0f32;
    for [batch, heads, kv_heads, tokens, total, width] in [
        [1, 1, 1, 1, 1, 8],
        [2, 4, 4, 1, 37, 128],
        [2, 6, 2, 3, 20, 12],
        [1, 4, 2, 8, 8, 33],
        [1, 4, 2, 2, 30, 80],
        [1, 2, 2, 11, 40, 16],
        [2, 4, 2, 70, 70, 32],
    ] {
        let capacity = total + 5;
        let q = noise([batch, heads, tokens, width], 7, device) * 3.0;
        let [keys, values] =
            [8, 9].map(|s| noise([batch, kv_heads, capacity, width], s, device).cast(format));
        let held = |cache: &Tensor<4>| {
            let part = cache.clone().slice_dim(2, 0..total).cast(DType::F32);
            let group = heads / kv_heads;
            part.reshape([batch, kv_heads, 1, total, width])
                .expand([batch, kv_heads, group, total, width])
                .reshape([batch, heads, total, width])
        };
        let options = AttentionModuleOptions { is_causal: tokens > 1, ..Default::default() };
        let (k, v) = (held(&keys), held(&values));
        let expected = crate::values(attention(q.clone(), k, v, None, None, options));
        let actual = crate::values(ops::attention_cached(q, keys, values, total));
        let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for (a, e) in actual.iter().zip(&expected) {
            worst = worst.max((a - e).abs() / scale);
        }
    }
    worst
}

/// Φ in f64, by the series of erf, which converges fast enough here.
fn normal_distribution(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    0.5 + sum / std::f64::consts::PI.sqrt()
}

/// Value and gradient, `x·Φ(x)` and `Φ(x) + x·φ(x)`. The gradient that Burn has on every backend but
/// Flex belongs to the tanh form, and would be 5e-4 off.
///
/// Measured: 2.5e-7 and 1.2e-7 on flex and ndarray, 4.4e-7 and 2.5e-7 on wgpu.
#[test]
fn gelu_and_its_gradient_are_of_the_erf_form() {
    for target in targets() {
        let plain = noise([7, 401], 5, &target.device) * 4.0;
        let inputs: Vec<f64> = values(plain.clone()).into_iter().map(f64::from).collect();
        let x = plain.autodiff().require_grad();
        let y = ops::gelu(x.clone());
        let outputs = values(y.clone().inner());
        let slopes = values(x.grad(&y.sum().backward()).unwrap());
        let mut worst = [0.0f64; 2];
        for ((x, y), slope) in inputs.into_iter().zip(outputs).zip(slopes) {
            let (below, density) = (normal_distribution(x), (-x * x / 2.0).exp());
            let exact = below + x * density / std::f64::consts::TAU.sqrt();
            let off = [f64::from(y) - x * below, f64::from(slope) - exact];
            worst = [0, 1].map(|i| worst[i].max(off[i].abs()));
        }
        let [value, gradient] = worst;
        println!("measured {}: value {value:.1e}, gradient {gradient:.1e}", target.name);
        assert!(worst.iter().all(|off| *off < 3e-6), "{}: {worst:?}", target.name);
    }
}

/// One pass over heads where they lie, against the tensor operations it stands for: positions of all
/// rows and of each, sizes of a step and of a prompt.
#[test]
fn rotation_is_its_definition() {
    for target in targets() {
        for [batch, heads, tokens, width, own] in
            [[2, 3, 1, 8, 1], [2, 3, 1, 8, 2], [1, 1, 5, 2, 1], [3, 4, 130, 36, 3]]
        {
            let device = &target.device;
            let x = noise([batch, tokens, heads, width], 1, device).swap_dims(1, 2);
            let [cos, sin] = [2, 3].map(|seed| noise([own, 1, tokens, width / 2], seed, device));
            let a = x.clone().slice_dim(3, 0..width / 2);
            let b = x.clone().slice_dim(3, width / 2..width);
            let first = a.clone() * cos.clone() - b.clone() * sin.clone();
            let expected = Tensor::cat(vec![first, b * cos.clone() + a * sin.clone()], 3);
            let found = ops::rotate(x, cos, sin);
            assert_eq!(found.dims(), [batch, heads, tokens, width]);
            assert_eq!(values(found), values(expected), "{}", target.name);
        }
    }
}
