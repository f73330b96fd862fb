//! How fast the CPU's kernels are at the shapes of the 1B model, beside what the machine can do.
//!
//! ```sh
//! cargo bench -p janus-model --bench kernels            # all of them
//! cargo bench -p janus-model --bench kernels -- attention
//! ```
//!
//! Every line is the median of some turns. What is read is counted once; per cent are of the measured
//! rate of reading, or of multiplying and adding.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;

use burn::tensor::{DType, Device, Tensor, TensorData};
use janus_model::ops::ceiling::Ceiling;
use janus_model::ops::{self, Convolution, Products, on_workers, with_products};
use janus_model::packed::{Bits, Packed};

/// Width, inner width, heads, blocks and positions of the language model.
const WIDTH: usize = 2048;
const INNER: usize = 5632;
const HEADS: usize = 16;
const LAYERS: usize = 24;
const POSITIONS: usize = 600;
/// Matrices that take turns, so that none is in a cache when it is read.
const MATRICES: usize = 16;

struct Bench {
    device: Device,
    ceiling: Ceiling,
    wish: Option<String>,
}

fn main() {
    ops::keep_freed_memory(); // as the program does
    // Cargo hands over `--bench`, too.
    let wish = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let bench = Bench { device: Device::flex(), ceiling: Ceiling::measure(), wish };
    let Ceiling { read, wide, narrow } = bench.ceiling;
    println!("{:<46}{:>10.1} GB/s", "reading memory", read / 1e9);
    println!("{:<46}{:>10.0} GFLOP/s", "f32", wide / 1e9);
    if let Some(narrow) = narrow {
        println!("{:<46}{:>10.0} GFLOP/s", "bf16 into f32", narrow / 1e9);
    }
    bench.attention();
    bench.steps();
    bench.prompt();
    bench.pictures();
}

impl Bench {
    /// The median of some turns, told beside a ceiling; `amount` is bytes or FLOP, in `unit` by 10⁹.
    fn tell(
        &self,
        name: &str,
        amount: f64,
        (unit, most): (&str, f64),
        mut work: impl FnMut() + Send,
    ) {
        if self.wish.as_ref().is_some_and(|wish| !name.contains(wish.as_str())) {
            return;
        }
        let mut turn = || {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        };
        let mut seconds = on_workers(&self.device, || {
            turn();
            (0..7).map(|_| turn()).collect::<Vec<_>>()
        });
        seconds.sort_by(f64::total_cmp);
        let (median, rate) = (seconds[3], amount / seconds[3]);
        println!(
            "{name:<46}{:>10.2} ms{:>9.1} {unit:<8}{:>4.0} %",
            median * 1e3,
            rate / 1e9,
            100.0 * rate / most
        );
    }

    fn reading(&self, name: &str, bytes: f64, work: impl FnMut() + Send) {
        self.tell(name, bytes, ("GB/s", self.ceiling.read), work);
    }

    fn working(&self, name: &str, flop: f64, rounded: bool, work: impl FnMut() + Send) {
        self.tell(name, flop, ("GFLOP/s", self.ceiling.products(rounded)), work);
    }

    fn noise<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let count = shape.iter().product::<usize>() as u32;
        let number = |i: u32| f64::from(i.wrapping_mul(0x9E37_79B9)) / f64::from(u32::MAX) - 0.5;
        let numbers: Vec<f32> = (0..count).map(|i| number(i) as f32).collect();
        Tensor::from_data(TensorData::new(numbers, shape), &self.device)
    }

    /// One token of two rows over half of a picture, all blocks.
    fn attention(&self) {
        let (total, width) = (POSITIONS / 2, WIDTH / HEADS);
        let q = self.noise([2, HEADS, 1, width]);
        for (format, bytes) in [(DType::BF16, 2), (DType::F32, 4)] {
            let cache = || self.noise([2, HEADS, POSITIONS, width]).cast(format);
            let caches: Vec<_> = (0..LAYERS).map(|_| [cache(), cache()]).collect();
            let read = LAYERS * 2 * 2 * HEADS * total * width * bytes;
            self.reading(
                &format!("attention, 2 rows, cache {}", format.name()),
                read as f64,
                || {
                    for [keys, values] in &caches {
                        ops::attention_cached(q.clone(), keys.clone(), values.clone(), total);
                    }
                },
            );
        }
    }

    /// Rows of a step, matrix after matrix.
    fn steps(&self) {
        let weight = self.noise([INNER, WIDTH]);
        let count = (MATRICES * INNER * WIDTH) as f64;
        // Every one in memory of its own.
        let weights: Vec<_> =
            (0..MATRICES).map(|i| (weight.clone() + i as f32).cast(DType::BF16)).collect();
        for rows in [1, 2, 8, 32] {
            let x = self.noise([rows, WIDTH]);
            for (products, name) in [(Products::Bf16, "exact"), (Products::Bf16Steps, "rounded")] {
                self.reading(&format!("step of {rows}, bf16, {name}"), 2.0 * count, || {
                    with_products(products, || {
                        weights.iter().for_each(|weight| {
                            ops::linear(x.clone(), weight.clone());
                        });
                    });
                });
            }
        }
        drop(weights);
        for bits in [Bits::Eight, Bits::Four] {
            let packed = || Packed::of(weight.clone(), bits);
            let weights: Vec<_> = (0..MATRICES).map(|_| packed()).collect();
            for rows in [1, 2, 8, 32] {
                let x = self.noise([rows, WIDTH]);
                let bytes = bits.bytes(count as u64) as f64;
                self.reading(&format!("step of {rows}, {}", bits.name()), bytes, || {
                    weights.iter().for_each(|weight| {
                        weight.forward(x.clone());
                    });
                });
            }
        }
    }

    /// Many rows at once.
    fn prompt(&self) {
        let (x, weight) = (self.noise([POSITIONS, WIDTH]), self.noise([INNER, WIDTH]));
        let flop = (2 * POSITIONS * WIDTH * INNER) as f64;
        let narrow = weight.clone().cast(DType::BF16);
        for (products, rounded) in [(Products::F32, false), (Products::Bf16, true)] {
            let name = if rounded { "rounded" } else { "exact" };
            self.working(&format!("prompt of {POSITIONS}, bf16, {name}"), flop, rounded, || {
                with_products(products, || {
                    ops::linear(x.clone(), narrow.clone());
                });
            });
        }
        for bits in [Bits::Eight, Bits::Four] {
            let packed = Packed::of(weight.clone(), bits);
            self.working(&format!("prompt of {POSITIONS}, {}", bits.name()), flop, true, || {
                packed.forward(x.clone());
            });
        }
    }

    /// Convolutions of the image tokenizer.
    fn pictures(&self) {
        for [input, output, side, kernel] in
            [[512, 512, 24, 3], [256, 256, 96, 3], [128, 128, 384, 3], [256, 128, 192, 1]]
        {
            let x = self.noise([1, input, side, side]);
            let (weight, bias) =
                (self.noise([output, input, kernel, kernel]), self.noise([output]));
            let rule = Convolution { stride: 1, padding: [kernel / 2; 4] };
            let flop = (2 * input * output * (side * kernel).pow(2)) as f64;
            for (products, rounded) in [(Products::F32, false), (Products::Bf16, true)] {
                let name = if rounded { "rounded" } else { "exact" };
                let name =
                    format!("convolution {kernel}x{kernel}, {input} to {output}, {side}, {name}");
                self.working(&name, flop, rounded, || {
                    with_products(products, || {
                        ops::conv2d(x.clone(), weight.clone(), bias.clone(), rule);
                    });
                });
            }
        }
    }
}
