//! Cross-entropy in pieces against the plain way: all logits, log-softmax, Burn's own gradients.

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Int, Tensor};
use janus_model::linear::{Linear, LinearConfig, Lora};
use janus_model::ops;

use crate::common::{targets, values};
use crate::noise;

const ROWS: usize = 7;
const WIDTH: usize = 33;
const WORDS: usize = 19;

fn wanted(device: &Device) -> Tensor<1, Int> {
    Tensor::from_ints([0, 18, 3, 3, 7, 11, 1], device)
}

/// −Σ log softmax(xWᵀ)[target].
fn plain(x: Tensor<2>, w: Tensor<2>) -> Tensor<1> {
    let device = x.device();
    let w = w.cast(x.dtype());
    let logits = x.matmul(w.transpose()).cast(DType::F32);
    let chosen = log_softmax(logits, 1).gather(1, wanted(&device).reshape([ROWS, 1]));
    chosen.sum().neg()
}

fn in_pieces(at_once: usize) -> impl Fn(Tensor<2>, Tensor<2>) -> Tensor<1> {
    move |x, w| {
        let targets = wanted(&x.device());
        ops::cross_entropy(x, w, targets, at_once)
    }
}

/// Largest difference as a share of the largest expected value.
fn share(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    let far = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
    far.fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) }) / scale
}

type Outcome = (Vec<f32>, Option<Vec<f32>>, Option<Vec<f32>>);

/// Loss and gradients of 0.37 times it, by what is tracked.
fn outcome(
    device: &Device,
    [by_x, by_w]: [bool; 2],
    dtype: DType,
    loss: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<1>,
) -> Outcome {
    let track = |tensor: Tensor<2>, wanted| if wanted { tensor.require_grad() } else { tensor };
    // Large enough that softmax is far from even.
    let x = track(noise([ROWS, WIDTH], 5, device) * 3.0, by_x);
    let w = track(noise([WORDS, WIDTH], 6, device).cast(dtype), by_w);
    let loss = loss(x.clone(), w.clone());
    let found = values(loss.clone().inner());
    if !by_x && !by_w {
        return (found, None, None);
    }
    let mut gradients = (loss * 0.37).sum().backward();
    let mut of = |tensor: Tensor<2>| tensor.grad_remove(&mut gradients);
    let (by_x, by_w) = (of(x), of(w));
    assert!(by_w.as_ref().is_none_or(|gradient| gradient.dtype() == dtype));
    (found, by_x.map(values), by_w.map(values))
}

/// However many rows at once, and whichever side learns: frozen words, frozen states, both, none.
///
/// Measured: 5.1e-7.
#[test]
fn cross_entropy_in_pieces_is_cross_entropy() {
    let mut worst = 0.0f64;
    for target in targets() {
        let device = target.device.clone().autodiff();
        for tracked in [[true, true], [true, false], [false, true], [false, false]] {
            let expected = outcome(&device, tracked, DType::F32, plain);
            for at_once in [1, 2, 3, 7, 100] {
                let found = outcome(&device, tracked, DType::F32, in_pieces(at_once));
                let pairs = [
                    (Some(found.0), Some(expected.0.clone())),
                    (found.1, expected.1.clone()),
                    (found.2, expected.2.clone()),
                ];
                for (part, (found, expected)) in pairs.into_iter().enumerate() {
                    assert_eq!(found.is_some(), expected.is_some(), "{tracked:?} {part}");
                    let (Some(found), Some(expected)) = (found, expected) else { continue };
                    let far = share(&found, &expected);
                    assert!(far < 1e-5, "{} {tracked:?} {at_once} {part}: {far:.1e}", target.name);
                    worst = worst.max(far);
                }
            }
        }
        // Without a graph.
        let (x, w) =
            (noise([ROWS, WIDTH], 5, &target.device), noise([WORDS, WIDTH], 6, &target.device));
        let far = share(&values(in_pieces(2)(x.clone(), w.clone())), &values(plain(x, w)));
        assert!(far < 1e-5, "{} without a graph: {far:.1e}", target.name);
    }
    println!("measured: {worst:.1e}");
}

/// Weights in bf16 are read as they are, and get gradients in bf16.
///
/// Measured: loss 0, by x 2.5e-7, by the weight 5.0e-3, one step of bf16.
#[test]
fn narrow_weights_have_narrow_gradients() {
    for target in targets().into_iter().filter(|target| target.name == "flex") {
        let device = target.device.autodiff();
        let expected = outcome(&device, [true; 2], DType::BF16, plain);
        let found = outcome(&device, [true; 2], DType::BF16, in_pieces(3));
        let far = [
            share(&found.0, &expected.0),
            share(&found.1.unwrap(), &expected.1.unwrap()),
            share(&found.2.unwrap(), &expected.2.unwrap()),
        ];
        println!("measured: {far:?}");
        assert!(far[0] < 1e-5 && far[1] < 1e-5 && far[2] < 8e-3, "{far:?}");
    }
}

/// A layer with a bias and an adapter is one product, too: loss and all gradients as of its output.
///
/// Measured: 5.0e-7.
#[test]
fn a_whole_layer_in_pieces() {
    for target in targets().into_iter().filter(|target| target.dtype == DType::F32) {
        let device = target.device.clone().autodiff();
        let param =
            |shape, seed| burn::module::Param::from_tensor(noise::<2>(shape, seed, &device));
        let mut layer: Linear = LinearConfig::new(WIDTH, WORDS).init(&device);
        layer.weight = param([WORDS, WIDTH], 1);
        layer.bias = Some(burn::module::Param::from_tensor(noise([WORDS], 2, &device)));
        layer.lora = Some(Lora { a: param([2, WIDTH], 3), b: param([WORDS, 2], 4), scale: 1.7 });
        let gradients = |loss: &dyn Fn(Tensor<2>) -> Tensor<1>| {
            let x = noise([ROWS, WIDTH], 5, &device).require_grad();
            let loss = loss(x.clone());
            let mut found = vec![values(loss.clone().inner())];
            let gradients = loss.backward();
            let lora = layer.lora.as_ref().unwrap();
            for by in [x, layer.weight.val(), lora.a.val(), lora.b.val()] {
                found.push(values(by.grad(&gradients).unwrap()));
            }
            found.push(values(layer.bias.as_ref().unwrap().val().grad(&gradients).unwrap()));
            found
        };
        let expected = gradients(&|x| {
            let logits = log_softmax(layer.forward(x), 1);
            logits.gather(1, wanted(&device).reshape([ROWS, 1])).sum().neg()
        });
        let found = gradients(&|x| layer.cross_entropy(x, wanted(&device)));
        for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let far = share(found, expected);
            println!("measured {} {part}: {far:.1e}", target.name);
            assert!(far < 1e-5, "{} {part}: {far:.1e}", target.name);
        }
    }
}

/// Rows and words of the next test: their logits take 420 MB in f32.
const LARGE: [usize; 2] = [2048, 51_200];

/// Loss and gradients of large logits; prints by how many bytes the process grew at most.
#[test]
#[ignore = "the process that the other test starts"]
fn child() {
    let Ok(way) = std::env::var("JANUS_TEST_WAY") else { return };
    let device = Device::flex().autodiff();
    let [rows, words] = LARGE;
    let x = noise([rows, 16], 1, &device).require_grad();
    let w = noise([words, 16], 2, &device).require_grad();
    let targets: Vec<i32> = (0..rows as i32).collect();
    let targets = Tensor::<1, Int>::from_ints(targets.as_slice(), &device);
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = resident();
    let loss = match way.as_str() {
        "whole" => {
            let logits = log_softmax(x.clone().matmul(w.clone().transpose()), 1);
            logits.gather(1, targets.reshape([rows, 1])).sum().neg()
        }
        _ => ops::cross_entropy(x.clone(), w.clone(), targets, 64),
    };
    let gradients = loss.backward();
    let sum = values(x.grad(&gradients).unwrap()).iter().map(|v| v.abs()).sum::<f32>();
    println!("grew {} bytes, gradients {sum:.3}", resident() - before);
}

/// The most that this process had in memory, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// In a process of its own, because memory is counted by process. Both ways have the same gradients.
///
/// Expected: of 64 rows logits, softmax and a copy or two, 13 MB each; of all of them 420 MB each.
/// Measured: 35 MiB, and 1204 MiB.
#[test]
#[cfg(target_os = "linux")]
fn pieces_bound_the_memory() {
    let grown = |way: &str| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "loss::child", "--ignored", "--nocapture"]);
        let output = command.env("JANUS_TEST_WAY", way).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, rest) = text.split_once("grew ").unwrap_or_else(|| panic!("{text}"));
        let (bytes, rest) = rest.split_once(" bytes, gradients ").unwrap();
        let sum: f64 = rest.lines().next().unwrap().parse().unwrap();
        (bytes.parse::<usize>().unwrap(), sum)
    };
    let ((pieces, a), (whole, b)) = (grown("pieces"), grown("whole"));
    println!("measured: {} MiB, and {} MiB", pieces >> 20, whole >> 20);
    let logits = 4 * LARGE[0] * LARGE[1];
    assert!(pieces < logits / 4, "{pieces} bytes");
    assert!(whole > logits, "{whole} bytes: the test measures nothing");
    assert!((a / b - 1.0).abs() < 1e-4, "{a} {b}");
}
