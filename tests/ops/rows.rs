//! What training runs on, forward and back: attention of whole rows, norms, SwiGLU, GELU and the
//! optimizer's step, each against plain tensor operations and Burn's own gradients.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use janus_model::ops::{self, AdamWStep};
use janus_model::rope::{Positions, Rope};

use crate::common::{targets, values};
use crate::noise;

/// Largest difference as a share of the largest expected value; where all should be 0, as it is.
pub fn share(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    let scale = if scale == 0.0 { 1.0 } else { scale };
    let far = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
    far.fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) }) / scale
}

/// Result, and the gradients by all inputs of Σ y·(something uneven).
pub fn outcome<const I: usize, const O: usize, const N: usize>(
    inputs: &[Tensor<I>; N],
    run: impl Fn([Tensor<I>; N]) -> Tensor<O>,
) -> Vec<Vec<f32>> {
    let inputs = inputs.clone().map(|input| input.autodiff().require_grad());
    let y = run(inputs.clone());
    let weights = noise(y.dims(), 99, &y.device());
    let mut gradients = (y.clone() * weights).sum().backward();
    let mut found = vec![values(y.inner())];
    found.extend(inputs.map(|input| values(input.grad_remove(&mut gradients).unwrap())));
    found
}

pub fn same(name: &str, found: Vec<Vec<f32>>, expected: Vec<Vec<f32>>, limit: f64) -> f64 {
    let far = found.iter().zip(&expected).map(|(found, expected)| share(found, expected));
    let far: Vec<f64> = far.collect();
    assert!(far.iter().all(|far| *far < limit), "{name}: {far:?}");
    let worst = far.into_iter().fold(0.0, f64::max);
    println!("measured {name}: {worst:.1e}");
    worst
}

/// Attention as the formula says it, with a mask of -∞.
fn plain(
    [q, k, v]: [Tensor<4>; 3],
    turn: Option<(Tensor<4>, Tensor<4>)>,
    documents: Option<Tensor<2, Int>>,
) -> Tensor<4> {
    let [batch, tokens, heads, width] = q.dims();
    let group = heads / k.dims()[2];
    let seen = |x: Tensor<4>| x.swap_dims(1, 2); // [B, H, T, d]
    let turned = |x: Tensor<4>| match &turn {
        None => x,
        Some((cos, sin)) => {
            let half = width / 2;
            let (a, b) = (x.clone().slice_dim(3, 0..half), x.slice_dim(3, half..width));
            let first = a.clone() * cos.clone() - b.clone() * sin.clone();
            Tensor::cat(vec![first, b * cos.clone() + a * sin.clone()], 3)
        }
    };
    let shared = |x: Tensor<4>| {
        let heads = (0..heads).map(|head| x.clone().slice_dim(1, head / group..head / group + 1));
        Tensor::cat(heads.collect(), 1)
    };
    let (q, k, v) = (turned(seen(q)), shared(turned(seen(k))), shared(seen(v)));
    let scores = q.matmul(k.swap_dims(2, 3)) / (width as f32).sqrt();
    let scores = match documents {
        None => scores,
        Some(documents) => {
            let numbers: Vec<i64> = documents.clone().into_data().iter::<i64>().collect();
            let hidden = |at: usize| {
                let (row, query, key) =
                    (at / (heads * tokens * tokens), at / tokens % tokens, at % tokens);
                let of = |token: usize| numbers[row * tokens + token];
                key > query || of(key) != of(query)
            };
            let count = batch * heads * tokens * tokens;
            let mask: Vec<f32> =
                (0..count).map(|at| if hidden(at) { -1e30 } else { 0.0 }).collect();
            let shape = [batch, heads, tokens, tokens];
            scores.clone() + Tensor::from_data(TensorData::new(mask, shape), &scores.device())
        }
    };
    softmax(scores, 3).matmul(v).swap_dims(1, 2)
}

/// Two rows of `tokens` tokens in documents of several lengths, padding at the end of the second.
fn documents(tokens: usize, device: &Device) -> Tensor<2, Int> {
    let number = |row: usize, token: usize| match row {
        0 => (token > tokens / 3) as i64 + (token > tokens / 2) as i64,
        _ if token >= tokens - tokens / 5 => -1,
        _ => 0,
    };
    let numbers: Vec<i64> = (0..2 * tokens).map(|at| number(at / tokens, at % tokens)).collect();
    Tensor::from_data(TensorData::new(numbers, [2, tokens]), device)
}

/// With and without positions, documents and shared heads, at lengths around the kernel's blocks
/// of 64 queries; also where a document comes back after another.
///
/// Measured: 7.5e-7 at most on flex, ndarray and wgpu.
#[test]
fn attention_of_rows_is_attention() {
    for target in targets() {
        let mut worst = 0.0f64;
        for (tokens, heads, kv_heads, width) in
            [(1, 1, 1, 2), (5, 2, 2, 6), (64, 2, 1, 8), (65, 3, 3, 16), (150, 4, 2, 10)]
        {
            let device = &target.device;
            let shape = |heads| [2, tokens, heads, width];
            let inputs = [
                noise(shape(heads), 1, device) * 2.0,
                noise(shape(kv_heads), 2, device) * 2.0,
                noise(shape(kv_heads), 3, device),
            ];
            let rope = Rope::new(100.0, width, 2 * tokens, &device.clone().autodiff());
            let each = Tensor::<1, Int>::arange(0..2 * tokens as i64, &device.clone().autodiff());
            let each = Positions::Each(each.reshape([2, tokens]));
            let turns = [None, Some(Positions::From(3.min(tokens))), Some(each)];
            let device = device.clone().autodiff();
            let again = Tensor::<1, Int>::arange(0..2 * tokens as i64, &device);
            let again = (again / 2).remainder_scalar(2).reshape([2, tokens]);
            for seen in [None, Some(documents(tokens, &device)), Some(again)] {
                for positions in &turns {
                    let turn = || positions.as_ref().map(|p| rope.at(p, tokens).factors());
                    let run = |parts| ops::attention_rows(parts, turn(), seen.clone());
                    let judge = |parts| plain(parts, turn(), seen.clone());
                    let (found, expected) = (outcome(&inputs, run), outcome(&inputs, judge));
                    worst = worst.max(same(target.name, found, expected, 1e-5));
                }
            }
        }
        println!("measured {}: {worst:.1e}", target.name);
    }
}

/// Queries, keys and values cut out of one product are read where they lie.
///
/// Measured: 2.3e-7 at most.
#[test]
fn attention_reads_parts_of_a_wider_tensor() {
    for target in targets() {
        let wide = [noise([2, 9, 3, 4, 8], 7, &target.device)];
        let cut = |[wide]: [Tensor<5>; 1]| {
            [0, 1, 2].map(|part| wide.clone().slice_dim(2, part..part + 1).squeeze_dim::<4>(2))
        };
        let found = outcome(&wide, |wide| ops::attention_rows(cut(wide), None, None));
        let expected = outcome(&wide, |wide| plain(cut(wide), None, None));
        same(target.name, found, expected, 1e-5);
    }
}

/// Measured: 3.5e-7 at most.
#[test]
fn norms_are_their_formulas() {
    for target in targets() {
        for (rows, width) in [(1, 5), (3, 7), (33, 64), (70, 100)] {
            let x = noise([rows, width], 1, &target.device) * 3.0 + 0.5;
            let vector = |seed| noise([width], seed, &target.device);
            let (weight, bias) = (vector(2), vector(3));
            let wide = |x: Tensor<1>| x.reshape([1, width]).expand([rows, width]);
            // All inputs as matrices, so that one function can take them.
            let inputs = [x, weight.reshape([1, width]), bias.reshape([1, width])];
            let flat = |x: Tensor<2>| x.reshape([width]);
            let epsilon = 1e-3;
            let scaled = |x: Tensor<2>| {
                let square = x.clone().square().mean_dim(1);
                x * (square + epsilon).sqrt().recip()
            };
            let rms = outcome(&inputs, |[x, w, b]| ops::rms_norm(x, flat(w), epsilon) + b * 0.0);
            let judge = outcome(&inputs, |[x, w, b]| scaled(x) * wide(flat(w)) + b * 0.0);
            same("RMSNorm", rms[..3].to_vec(), judge[..3].to_vec(), 1e-5);
            let layer = outcome(&inputs, |[x, w, b]| ops::layer_norm(x, flat(w), flat(b), epsilon));
            let judge = outcome(&inputs, |[x, w, b]| {
                let x = x.clone() - x.mean_dim(1);
                scaled(x) * wide(flat(w)) + wide(flat(b))
            });
            same("LayerNorm", layer, judge, 1e-5);
        }
    }
}

/// Measured: 1.2e-7 at most.
#[test]
fn swiglu_is_its_formula() {
    for target in targets() {
        for count in [1, 31, 20_000] {
            let inputs =
                [noise([1, count], 1, &target.device) * 9.0, noise([1, count], 2, &target.device)];
            let found = outcome(&inputs, |[gate, up]| ops::swiglu(gate, up));
            let judge = outcome(&inputs, |[gate, up]| gate.clone() * sigmoid(gate) * up);
            same(target.name, found, judge, 1e-6);
        }
    }
}

/// In f64, by the series of the error function.
fn exact_gelu(x: f64) -> [f64; 2] {
    let t = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (t, t);
    for n in 1..400 {
        term *= -t * t / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    let below = 0.5 + sum / std::f64::consts::PI.sqrt();
    let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
    [x * below, below + x * density]
}

/// Measured: 4.3e-7 at most, values and gradients.
#[test]
fn gelu_is_that_of_the_error_function() {
    for target in targets() {
        let points: Vec<f32> = (-500..=500).map(|i| i as f32 / 100.0).collect();
        let x = Tensor::<1>::from_data(TensorData::new(points.clone(), [1001]), &target.device);
        let x = x.autodiff().require_grad();
        let y = ops::gelu(x.clone());
        let mut gradients = y.clone().sum().backward();
        let slope = values(x.grad_remove(&mut gradients).unwrap());
        let mut worst = [0.0f64; 2];
        for ((x, y), slope) in points.iter().zip(values(y.inner())).zip(slope) {
            let exact = exact_gelu(f64::from(*x));
            for (worst, (found, exact)) in worst.iter_mut().zip([y, slope].iter().zip(exact)) {
                *worst = worst.max((f64::from(*found) - exact).abs());
            }
        }
        println!("measured {}: {worst:?}", target.name);
        assert!(worst.iter().all(|far| *far < 2e-6), "{}: {worst:?}", target.name);
    }
}

/// Weight and moments follow the formula over several steps, and what others still hold of the
/// tensors stays as it was.
#[test]
fn adamw_is_its_formula_and_changes_nobody_elses_numbers() {
    for target in targets() {
        let count = 40_000;
        let mut weight = noise([count], 1, &target.device);
        let mut moments = [0, 1].map(|_| Tensor::<1>::zeros([count], &target.device));
        let mut judge: Vec<[f64; 3]> =
            values(weight.clone()).iter().map(|w| [f64::from(*w), 0.0, 0.0]).collect();
        for time in 1..4 {
            let gradient = noise([count], 10 + time, &target.device);
            let (beta_1, beta_2, epsilon, rate, decay) = (0.9, 0.95, 1e-8, 0.01, 0.001);
            let [rest_1, rest_2] = [beta_1, beta_2].map(|beta: f64| 1.0 - beta.powi(time as i32));
            let step = AdamWStep { beta_1, beta_2, epsilon, rate, decay, rest_1, rest_2 };
            let (held, before) = (weight.clone(), values(weight.clone()));
            let (next, [m, v]) = ops::adamw(weight, gradient.clone(), moments, step);
            assert_eq!(values(held), before);
            for ([w, m, v], g) in judge.iter_mut().zip(values(gradient)) {
                let g = f64::from(g);
                *m = *m * beta_1 + g * (1.0 - beta_1);
                *v = *v * beta_2 + g * g * (1.0 - beta_2);
                let scale = (*v / rest_2).sqrt() + epsilon;
                *w = *w * (1.0 - decay) - rate / rest_1 * *m / scale;
            }
            let column = |at: usize| judge.iter().map(|all| all[at] as f32).collect::<Vec<_>>();
            for (at, found) in [&next, &m, &v].into_iter().enumerate() {
                let far = share(&values(found.clone()), &column(at));
                assert!(far < 1e-6, "{} {time} {at}: {far:.1e}", target.name);
            }
            (weight, moments) = (next, [m, v]);
        }
    }
}

/// Large and small logits, targets anywhere; the gradient of a multiple of the loss.
///
/// Measured: 6e-8.
#[test]
fn the_loss_of_logits_is_cross_entropy() {
    for target in targets() {
        for [rows, words] in [[1, 1], [3, 19], [40, 300]] {
            let device = target.device.clone().autodiff();
            let wanted: Vec<i64> = (0..rows).map(|row| (row * 7 % words) as i64).collect();
            let wanted = TensorData::new(wanted, [rows]);
            let wanted = Tensor::<1, Int>::from_data(wanted, &device);
            let inputs = [noise([rows, words], 1, &target.device) * 20.0];
            let found = outcome(&inputs, |[x]| ops::logit_loss(x, wanted.clone()) * 0.3);
            let judge = outcome(&inputs, |[x]| {
                let chosen = wanted.clone().reshape([rows, 1]);
                let all = burn::tensor::activation::log_softmax(x, 1);
                all.gather(1, chosen).sum().neg() * 0.3
            });
            same(target.name, found, judge, 1e-5);
        }
        let bad = Tensor::<2>::from_floats([[0.0, f32::NAN, 1.0]], &target.device);
        let loss = ops::logit_loss(bad, Tensor::from_ints([0], &target.device));
        assert!(values(loss)[0].is_nan(), "{}", target.name);
    }
}

/// Also of a tensor that somebody else holds, and of one that begins inside another.
#[test]
fn gradients_are_measured_and_scaled() {
    for target in targets() {
        let x = noise([37, 1001], 4, &target.device).slice_dim(0, 5..30);
        let before = values(x.clone());
        let squares = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() as f32;
        let sums: Vec<f32> = before.chunks(1001).map(squares).collect();
        assert!(share(&values(ops::square_sums(x.clone())), &sums) < 1e-5, "{}", target.name);
        let doubled: Vec<f32> = before.iter().map(|x| x * 2.0).collect();
        assert_eq!(values(ops::scaled(x.clone(), 2.0)), doubled, "{}", target.name);
        assert_eq!(values(x), before, "{}", target.name);
    }
}

/// Views of any kind.
///
/// Measured: equal to the products of each backend.
#[test]
fn linear_goes_back_through_views() {
    for target in targets() {
        for [rows, input, output] in [[1, 1, 1], [9, 33, 20], [70, 64, 65]] {
            let x = noise([input, rows], 1, &target.device).transpose();
            let wide = noise([output, input + 3], 2, &target.device);
            let inputs = [x, wide.slice_dim(1, 3..input + 3)];
            let found = outcome(&inputs, |[x, weight]| ops::linear(x, weight));
            let judge = outcome(&inputs, |[x, weight]| x.matmul(weight.transpose()));
            same(target.name, found, judge, 1e-5);
        }
    }
}
