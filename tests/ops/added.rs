//! What is added to a product, and what is written into a cache.

use burn::tensor::{DType, Tensor};
use janus_model::ops;

use crate::common::{targets, values};
use crate::noise;

/// With a bias, with what was there before, with both and with neither; a step, a prompt, views.
///
/// The same sums in the same order: no difference on any backend.
#[test]
fn sums_are_those_of_single_numbers() {
    for target in targets() {
        let device = &target.device;
        for [rows, width] in [[1, 1], [2, 33], [70, 300], [600, 48]] {
            let y = noise([width, rows], 1, device).transpose();
            let (bias, onto) = (noise([width], 2, device), noise([rows, width], 3, device));
            for [biased, added] in [[false, false], [true, false], [false, true], [true, true]] {
                let mut expected = y.clone();
                if biased {
                    expected = expected + bias.clone().unsqueeze();
                }
                if added {
                    expected = expected + onto.clone();
                }
                let bias = biased.then(|| bias.clone());
                let found = ops::plus(y.clone(), bias, added.then(|| onto.clone()));
                let case = (target.name, rows, width, biased, added);
                assert_eq!(values(found), values(expected), "{case:?}");
            }
        }
    }
}

/// Gradients are ones: of every number, of every column's sum, of every number again.
#[test]
fn sums_differentiate() {
    for target in targets() {
        let device = target.device.clone().autodiff();
        let (rows, width) = (9, 5);
        let y = noise([rows, width], 1, &device).require_grad();
        let bias = noise([width], 2, &device).require_grad();
        let onto = noise([rows, width], 3, &device).require_grad();
        let sum = ops::plus(y.clone(), Some(bias.clone()), Some(onto.clone())).sum().backward();
        let ones = |count: usize, x: f32| vec![x; count];
        assert_eq!(values(y.grad(&sum).unwrap()), ones(rows * width, 1.0), "{}", target.name);
        assert_eq!(values(onto.grad(&sum).unwrap()), ones(rows * width, 1.0), "{}", target.name);
        assert_eq!(values(bias.grad(&sum).unwrap()), ones(width, rows as f32), "{}", target.name);
    }
}

/// Keys of a step and of a prompt, heads where they lie, in every format a cache has: written where they
/// belong, and nothing else is touched.
#[test]
fn a_cache_is_written_where_it_is_said() {
    for target in targets() {
        let formats = match target.name {
            "flex" => vec![DType::F32, DType::BF16, DType::F16],
            _ => vec![DType::F32],
        };
        for format in formats {
            for [batch, heads, tokens, start] in [[1, 1, 1, 0], [2, 3, 1, 6], [2, 16, 70, 9]] {
                let (capacity, width) = (start + tokens + 2, 24);
                let cache = noise([batch, heads, capacity, width], 1, &target.device).cast(format);
                let new = noise([batch, tokens, heads, width], 2, &target.device).swap_dims(1, 2);
                let parts = [
                    cache.clone().slice_dim(2, 0..start.max(1)),
                    new.clone().cast(format),
                    cache.clone().slice_dim(2, start + tokens..capacity),
                ];
                let skipped = usize::from(start == 0);
                let expected = Tensor::cat(parts.into_iter().skip(skipped).collect(), 2);
                let found = ops::put(cache.clone(), new, start);
                let numbers = |x: Tensor<4>| values(x.cast(DType::F32));
                assert_eq!(found.dtype(), format);
                assert_eq!(numbers(found), numbers(expected), "{} {format:?}", target.name);
            }
        }
    }
}
