//! What the image tokenizer runs on, forward and back, against loops and Burn's own operations.

use burn::tensor::activation::sigmoid;
use burn::tensor::{Tensor, TensorData};
use janus_model::ops::{self, Convolution, GroupRule};

use crate::common::{targets, values};
use crate::noise;
use crate::rows::{outcome, same, share};

/// The definition, in f64, as loops.
fn loops(x: &Tensor<4>, weight: &Tensor<4>, bias: &Tensor<1>, rule: Convolution) -> Vec<f32> {
    let ([count, inputs, height, width], [outputs, _, tall, wide]) = (x.dims(), weight.dims());
    let [rows, columns] = rule.output([height, width], [tall, wide]);
    let (x, weight, bias) = (values(x.clone()), values(weight.clone()), values(bias.clone()));
    let mut y = Vec::new();
    for at in 0..count * outputs * rows * columns {
        let (column, row) = (at % columns, at / columns % rows);
        let (output, picture) = (at / columns / rows % outputs, at / columns / rows / outputs);
        let mut sum = f64::from(bias[output]);
        for part in 0..inputs * tall * wide {
            let (across, down, input) = (part % wide, part / wide % tall, part / wide / tall);
            let from = |place: usize, step: usize, before: usize, size: usize| {
                (place * rule.stride + step).checked_sub(before).filter(|place| *place < size)
            };
            let row = from(row, down, rule.padding[0], height);
            let column = from(column, across, rule.padding[1], width);
            let (Some(row), Some(column)) = (row, column) else { continue };
            let x = x[((picture * inputs + input) * height + row) * width + column];
            sum += f64::from(x) * f64::from(weight[output * inputs * tall * wide + part]);
        }
        y.push(sum as f32);
    }
    y
}

/// The upper halves of its numbers, which are bf16.
fn narrow(x: Tensor<4>) -> Tensor<4> {
    let (shape, device) = (x.dims(), x.device());
    let top = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
    let numbers: Vec<f32> = values(x).into_iter().map(top).collect();
    Tensor::from_data(TensorData::new(numbers, shape), &device)
}

/// Kernels of the tokenizer (3×3 with a border, 1×1, 3×3 with stride 2 and a border on two sides),
/// and others; pictures of odd sizes, and some that are cut into pieces.
///
/// Measured against Burn's, gradients included: 9.4e-7 on flex, 2.5e-6 on wgpu.
#[test]
fn convolutions_are_their_definition() {
    let border = |padding| Convolution { stride: 1, padding };
    let half = |padding| Convolution { stride: 2, padding };
    for target in targets() {
        for (rule, kernel, [count, inputs, height, width, outputs]) in [
            (border([1, 1, 1, 1]), [3, 3], [2, 3, 5, 7, 4]),
            (border([0, 0, 0, 0]), [1, 1], [3, 5, 4, 3, 2]),
            (half([0, 0, 1, 1]), [3, 3], [2, 2, 8, 6, 3]),
            (half([0, 0, 1, 1]), [3, 3], [1, 2, 7, 9, 3]),
            (half([1, 2, 0, 1]), [4, 3], [2, 1, 6, 5, 2]),
            (border([2, 0, 1, 3]), [2, 4], [1, 2, 3, 3, 1]),
            (border([3, 3, 3, 3]), [3, 3], [1, 1, 1, 1, 2]),
            (half([0, 0, 0, 0]), [1, 1], [9, 2, 5, 5, 2]),
            (border([0, 0, 3, 3]), [4, 4], [1, 1, 1, 1, 1]),
            (border([4, 4, 0, 0]), [3, 3], [1, 1, 1, 1, 1]),
            (border([1, 1, 1, 1]), [3, 3], [2, 32, 48, 50, 33]),
            // Rows as long as tiles, or nearly.
            (border([1, 1, 1, 1]), [3, 3], [2, 3, 5, 25, 4]),
            (border([0, 0, 0, 0]), [1, 1], [3, 5, 4, 30, 2]),
            (border([2, 0, 1, 3]), [2, 4], [1, 2, 3, 29, 13]),
            (border([0, 3, 0, 0]), [3, 2], [1, 1, 3, 62, 25]),
            // Channels that fill matrices, which take them where weights are bf16.
            (border([1, 1, 1, 1]), [3, 3], [2, 64, 5, 30, 40]),
        ] {
            let device = &target.device;
            let x = noise([count, inputs, height, width], 1, device);
            let weight = noise([outputs, inputs, kernel[0], kernel[1]], 2, device);
            let weight = if inputs == 64 { narrow(weight) } else { weight };
            let bias = noise([outputs], 3, device);
            let y = ops::conv2d(x.clone(), weight.clone(), bias.clone(), rule);
            let [rows, columns] = rule.output([height, width], kernel);
            assert_eq!(y.dims(), [count, outputs, rows, columns]);
            let far = share(&values(y), &loops(&x, &weight, &bias, rule));
            assert!(far < 1e-5, "{} {rule:?}: {far:.1e}", target.name);

            // Gradients against those of Burn's convolution, around which zeros are laid.
            let [top, left, bottom, right] = rule.padding;
            let inputs = [x, weight, bias.reshape([1, 1, 1, outputs])];
            let ours = outcome(&inputs, |[x, weight, bias]| {
                ops::conv2d(x, weight, bias.reshape([outputs]), rule)
            });
            let theirs = outcome(&inputs, |[x, weight, bias]| {
                let x = x.pad((left, right, top, bottom), 0.0);
                let options =
                    burn::tensor::ops::ConvOptions::new([rule.stride; 2], [0, 0], [1, 1], 1);
                let bias = Some(bias.reshape([outputs]));
                burn::tensor::module::conv2d(x, weight, bias, options)
            });
            same(target.name, ours, theirs, 1e-5);
        }
    }
}

/// Weights in bf16 are their numbers in f32.
#[test]
fn narrow_kernels_are_widened() {
    for target in targets().into_iter().filter(|target| target.name == "flex") {
        let x = noise([2, 3, 6, 5], 1, &target.device);
        let narrow = |tensor: Tensor<4>| tensor.cast(burn::tensor::DType::BF16);
        let weight = narrow(noise([4, 3, 3, 3], 2, &target.device));
        let bias = noise([4], 3, &target.device).cast(burn::tensor::DType::BF16);
        let rule = Convolution { stride: 1, padding: [1; 4] };
        let f32 = burn::tensor::DType::F32;
        let wide = ops::conv2d(x.clone(), weight.clone().cast(f32), bias.clone().cast(f32), rule);
        assert_eq!(values(ops::conv2d(x, weight, bias, rule)), values(wide));
    }
}

/// With and without swish, groups of one channel and of several, and far from mean 0.
///
/// Measured: 1.2e-6 at most.
#[test]
fn group_norm_is_its_formula() {
    for target in targets() {
        for (groups, [count, channels, height, width], level) in [
            (4, [2, 4, 3, 5], 0.0),
            (2, [3, 6, 4, 4], 0.3),
            (32, [1, 64, 5, 7], 5.0),
            (1, [2, 3, 40, 41], -1.0),
        ] {
            for swish in [false, true] {
                let device = &target.device;
                let x = noise([count, channels, height, width], 1, device) + level;
                let vector = |seed| noise([1, channels, 1, 1], seed, device);
                let (inputs, flat) =
                    ([x, vector(2), vector(3)], |x: Tensor<4>| x.reshape([channels]));
                let rule = GroupRule { groups, epsilon: 1e-4, swish };
                let ours = outcome(&inputs, |[x, weight, bias]| {
                    ops::group_norm(x, flat(weight), flat(bias), rule)
                });
                let judge = outcome(&inputs, |[x, weight, bias]| {
                    let size = channels * height * width / groups;
                    let x = x.reshape([count, groups, size]);
                    let x = x.clone() - x.mean_dim(2);
                    let x = x.clone() / (x.square().mean_dim(2) + rule.epsilon).sqrt();
                    let z = x.reshape([count, channels, height, width]) * weight + bias;
                    if swish { z.clone() * sigmoid(z) } else { z }
                });
                same(target.name, ours, judge, 2e-5);
            }
        }
    }
}

/// Half of a tensor, and one whose channels lie last in memory, are read in their order.
#[test]
fn views_are_read_through_their_strides() {
    for target in targets() {
        let device = &target.device;
        let wide = noise([4, 3, 6, 8], 5, device);
        let view = wide.slice_dim(0, 2..4).permute([0, 2, 3, 1]); // [2, 6, 8, 3]
        let same_numbers: TensorData = view.clone().into_data();
        let copy = Tensor::<4>::from_data(same_numbers, device);
        let (weight, bias) = (noise([2, 6, 3, 3], 6, device), noise([2], 7, device));
        let rule = Convolution { stride: 1, padding: [1; 4] };
        let run = |x| values(ops::conv2d(x, weight.clone(), bias.clone(), rule));
        assert_eq!(run(view.clone()), run(copy.clone()), "{}", target.name);
        let vector = noise([6], 8, device);
        let rule = GroupRule { groups: 3, epsilon: 1e-6, swish: true };
        let run = |x| values(ops::group_norm(x, vector.clone(), vector.clone(), rule));
        assert_eq!(run(view), run(copy), "{}", target.name);
    }
}
