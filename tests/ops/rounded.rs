//! Products of rounded factors: exactly those of factors that were rounded before, or, where the
//! processor has nothing for them, those of the factors as they are.

use burn::tensor::{DType, Device, Tensor};
use janus_model::ops::{self, Convolution, Instructions, Products, with_products};

use crate::common::{targets, values};
use crate::noise;
use crate::rows::share;

/// What is expected of a factor on this device.
fn rounded<const D: usize>(x: Tensor<D>, flex: bool) -> Tensor<D> {
    if flex && Instructions::get().bf16 {
        return x.cast(DType::BF16).cast(DType::F32);
    }
    x
}

fn in_bf16<T>(work: impl FnOnce() -> T) -> T {
    with_products(Products::Bf16, work)
}

/// Measured: 1.9e-7 of the largest value on flex, with what follows.
const LIMIT: f64 = 1e-6;

#[test]
fn linear_rounds_both_factors() {
    for target in targets() {
        let (device, flex) = (&target.device, target.name.starts_with("flex"));
        for [rows, input, output] in [[33, 31, 33], [70, 257, 61], [130, 64, 200]] {
            let (x, w) = (noise([rows, input], 1, device), noise([output, input], 2, device));
            let expected = values(ops::linear(rounded(x.clone(), flex), rounded(w.clone(), flex)));
            let worst = share(&values(in_bf16(|| ops::linear(x.clone(), w.clone()))), &expected);
            println!("measured {}: {worst:.1e}", target.name);
            assert!(worst < LIMIT, "{}: {worst:.1e}", target.name);
            if flex {
                // A weight that is kept in bf16 was rounded, whatever the processor can.
                let narrow = w.clone().cast(DType::BF16);
                let x = rounded(x.clone(), flex);
                let expected = values(ops::linear(x.clone(), narrow.clone().cast(DType::F32)));
                let worst = share(&values(in_bf16(|| ops::linear(x, narrow))), &expected);
                println!("measured {}, narrow: {worst:.1e}", target.name);
                assert!(worst < LIMIT, "{}: {worst:.1e}", target.name);
            }
            let exact = share(&values(ops::linear(x.clone(), w.clone())), &expected);
            let differs = values(rounded(x.clone(), flex)) != values(x);
            assert_eq!(exact > 1e-5, differs, "{}: {exact:.1e}", target.name);
        }
    }
}

/// As many rows as are met in strips are not rounded, whatever is asked for: decoding is exact.
#[test]
fn few_rows_stay_exact() {
    for target in targets() {
        let (device, flex) = (&target.device, target.name.starts_with("flex"));
        for rows in [1, 9, 32] {
            let (x, w) = (noise([rows, 70], 1, device), noise([45, 70], 2, device));
            let (w, weight) = match flex {
                true => (w.clone().cast(DType::BF16).cast(DType::F32), w.cast(DType::BF16)),
                false => (w.clone(), w),
            };
            let expected = values(ops::linear(x.clone(), w));
            let worst = share(&values(in_bf16(|| ops::linear(x, weight))), &expected);
            println!("measured {}: {worst:.1e}", target.name);
            assert!(worst < LIMIT, "{} {rows}: {worst:.1e}", target.name);
        }
    }
}

/// Unless steps are to be rounded, and weights are kept in bf16: then few rows are like many.
#[test]
fn few_rows_are_rounded_in_rounded_steps() {
    let device = &Device::flex();
    for rows in [1, 9, 32, 33] {
        let (x, w) = (noise([rows, 70], 1, device), noise([45, 70], 2, device));
        let weight = w.cast(DType::BF16);
        let expected =
            values(ops::linear(rounded(x.clone(), true), weight.clone().cast(DType::F32)));
        let found = with_products(Products::Bf16Steps, || ops::linear(x.clone(), weight.clone()));
        let found = values(found);
        let worst = share(&found, &expected);
        println!("measured {rows}: {worst:.1e}");
        assert!(worst < LIMIT, "{rows}: {worst:.1e}");
        if values(rounded(x.clone(), true)) != values(x.clone()) {
            // A row is what it is alone.
            let row = x.slice_dim(0, 0..1);
            let alone = with_products(Products::Bf16Steps, || ops::linear(row, weight));
            assert_eq!(values(alone), found[..45], "{rows}");
        }
    }
}

/// Gradients are products, too: of the rounded gradient and the rounded other factor.
#[test]
fn gradients_round_both_factors() {
    for target in targets() {
        let (device, flex) = (target.device.clone().autodiff(), target.name.starts_with("flex"));
        let x = noise([40, 33], 5, &device).require_grad();
        let w = noise([17, 33], 6, &device).require_grad();
        let slope = noise([40, 17], 7, &device);
        let found = in_bf16(|| {
            let y = ops::linear(x.clone(), w.clone()) * slope.clone();
            let gradients = y.sum().backward();
            [x.grad(&gradients).unwrap(), w.grad(&gradients).unwrap()]
        });
        let [x, w, slope] = [x, w, slope].map(|t| rounded(t.inner(), flex));
        let expected = [slope.clone().matmul(w), slope.transpose().matmul(x)];
        for (found, expected) in found.into_iter().zip(expected) {
            let worst = share(&values(found), &values(expected));
            println!("measured {}: {worst:.1e}", target.name);
            assert!(worst < LIMIT, "{}: {worst:.1e}", target.name);
        }
    }
}

#[test]
fn convolutions_round_both_factors() {
    for target in targets() {
        let (device, flex) = (&target.device, target.name.starts_with("flex"));
        for (kernel, stride) in [(3, 1), (3, 2), (1, 1)] {
            let rule = Convolution { stride, padding: [kernel / 2; 4] };
            // Rows that tiles take, with a channel that has no other, and shorter ones; whole matrices.
            for [channels, width] in [[20, 17], [21, 27], [64, 33]] {
                let x = noise([2, channels, 13, width], 1, device);
                let weight = noise([14, channels, kernel, kernel], 2, device);
                let bias = noise([14], 3, device);
                let [x_rounded, w_rounded] = [&x, &weight].map(|t| rounded(t.clone(), flex));
                let expected = values(ops::conv2d(x_rounded, w_rounded, bias.clone(), rule));
                let found = in_bf16(|| ops::conv2d(x, weight, bias, rule));
                let worst = share(&values(found), &expected);
                println!("measured {}: {worst:.1e}", target.name);
                assert!(worst < LIMIT, "{}: {worst:.1e}", target.name);
            }
        }
    }
}

/// The way of a thread is its own, and ends with the work.
#[test]
fn the_way_ends_with_the_work() {
    let device = Device::flex();
    let (x, w) = (noise([16, 64], 1, &device), noise([16, 64], 2, &device));
    let product = || values(ops::linear(x.clone(), w.clone()));
    let exact = product();
    let (inside, nested) = in_bf16(|| (product(), with_products(Products::F32, product)));
    assert_eq!(nested, exact);
    let _ = std::panic::catch_unwind(|| in_bf16(|| panic!("on purpose")));
    assert_eq!(product(), exact);
    assert_eq!(inside != exact, values(rounded(x.clone(), true)) != values(x.clone()));
}
