//! `y = x · Wᵀ + b`, with `W` stored as in the checkpoint: `[out, in]`, in the file's own dtype.
//!
//! Burn's own `Linear` keeps `[in, out]`, which would force a transposed copy of every matrix of
//! a mapped file. Here the product reads the file's layout; see [`crate::ops::linear`].

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{DType, Device, Int, Tensor};

use crate::ops;
use crate::packed::{Bits, Packed};

/// Sizes of a [`Linear`].
#[derive(Clone, Copy, Debug)]
pub struct LinearConfig {
    /// Width of the input.
    pub input: usize,
    /// Width of the output.
    pub output: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

/// A dense layer. See the [module documentation](self).
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Added to the weight without ever being multiplied out; see [`crate::adapters`].
    pub lora: Option<Lora>,
    /// What is multiplied with in place of the weight, which is then no number everywhere and takes
    /// no memory.
    #[module(skip)]
    packed: Option<Packed>,
}

/// `s · B · A`, of low rank r: a change to a weight that stays as it is.
///
/// Paper: <https://arxiv.org/abs/2106.09685>.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[r, in]`.
    pub a: Param<Tensor<2>>,
    /// `[out, r]`.
    pub b: Param<Tensor<2>>,
    /// s, which is α / r.
    pub scale: f64,
}

impl LinearConfig {
    /// A layer with a bias.
    pub fn new(input: usize, output: usize) -> Self {
        Self { input, output, bias: true }
    }

    /// A layer without a bias.
    pub fn no_bias(input: usize, output: usize) -> Self {
        Self { input, output, bias: false }
    }

    /// Random weights, N(0, 0.02²), zero bias; nothing is computed before first use.
    pub fn init(&self, device: &Device) -> Linear {
        let weight = Initializer::Normal { mean: 0.0, std: 0.02 };
        Linear {
            weight: weight.init([self.output, self.input], device),
            bias: self.bias.then(|| Initializer::Zeros.init([self.output], device)),
            lora: None,
            packed: None,
        }
    }
}

impl Linear {
    /// Rounds the weight to so many bits, for good: what it was is forgotten.
    pub fn pack(&mut self, bits: Bits) {
        self.put(Packed::of(self.weight.val(), bits));
    }

    /// Takes a rounded weight in place of its own.
    pub fn put(&mut self, packed: Packed) {
        let device = self.weight.lazy_device();
        let gone = Tensor::<2>::full([1, 1], f32::NAN, &device).expand(packed.shape());
        self.packed = Some(packed);
        self.weight = Param::initialized(self.weight.id, gone);
    }

    /// The weight as it is multiplied, where it was rounded.
    pub fn packed(&self) -> Option<&Packed> {
        self.packed.as_ref()
    }

    /// Applies the layer to the last axis; the result has the dtype of `x`.
    ///
    /// # Shapes
    /// - `x`: `[…, in]`
    /// - output: `[…, out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let [y] = apply([self], x, [None]);
        y
    }

    /// `onto` and the result of the layer.
    ///
    /// # Shapes
    /// - `x`: `[…, in]`
    /// - `onto`, output: `[…, out]`
    pub fn forward_onto<const D: usize>(&self, x: Tensor<D>, onto: Tensor<D>) -> Tensor<D> {
        let [y] = apply([self], x, [Some(onto)]);
        y
    }
}

/// Applies each of these layers to the same `x`, as [`Linear::forward`] does. Rounded weights do so
/// in one go.
///
/// # Shapes
/// As [`Linear::forward`].
pub fn together<const N: usize, const D: usize>(
    layers: [&Linear; N],
    x: Tensor<D>,
) -> [Tensor<D>; N] {
    apply(layers, x, [(); N].map(|()| None))
}

/// As [`together`], each result added to what is there for it.
fn apply<const N: usize, const D: usize>(
    layers: [&Linear; N],
    x: Tensor<D>,
    onto: [Option<Tensor<D>>; N],
) -> [Tensor<D>; N] {
    let mut dims = x.dims();
    let input = dims[D - 1];
    let rows = dims.iter().product::<usize>() / input;
    let x = x.reshape([rows, input]);
    let changes = layers.map(|layer| layer.lora.as_ref().map(|lora| lora.forward(x.clone())));
    let mut parts = products(layers, x).into_iter().zip(changes).zip(onto);
    layers.map(|layer| {
        let ((mut y, change), onto) = parts.next().expect("as many as layers"); // [rows, out]
        if let Some(change) = change {
            y = y + change;
        }
        let shape = y.dims();
        let onto = onto.map(|onto| onto.reshape(shape));
        y = ops::plus(y, layer.bias.as_ref().map(|bias| bias.val()), onto);
        dims[D - 1] = shape[1];
        y.reshape(dims)
    })
}

/// `x · Wᵀ` for the weight of each layer.
fn products<const N: usize>(layers: [&Linear; N], x: Tensor<2>) -> Vec<Tensor<2>> {
    let packed: Vec<&Packed> = layers.iter().filter_map(|layer| layer.packed.as_ref()).collect();
    if packed.len() == N && Packed::alike(&packed) {
        return Packed::forward_each(&packed, x);
    }
    let product = |layer: &Linear| match &layer.packed {
        Some(packed) => packed.forward(x.clone()),
        None => ops::linear(x.clone(), layer.weight.val()),
    };
    layers.map(product).into()
}

/// Outputs of [`Linear::cross_entropy`] in memory at any time, 128 MiB in f32 and three times that
/// with softmax and gradient: small beside a model with so many outputs, and many enough for a fast
/// product. All of 4096 rows of 102,400 words take 1.6 GiB, and three times that, too.
pub const OUTPUTS_AT_ONCE: usize = 1 << 25;

impl Linear {
    /// Cross-entropy of the rows of the result against the number each should have given, summed;
    /// the result itself never exists as a whole. See [`ops::cross_entropy`].
    ///
    /// # Shapes
    /// - `x`: `[rows, in]`
    /// - `targets`: `[rows]`, each below `out`
    /// - output: `[1]`, in f32
    pub fn cross_entropy(&self, x: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
        let [output, _] = self.weight.lazy_shape().dims();
        let at_once = (OUTPUTS_AT_ONCE / output).max(1);
        if self.packed.is_some() {
            return self.packed_cross_entropy(x, targets, at_once);
        }
        let (x, weight) = self.as_one_product(x);
        ops::cross_entropy(x, weight, targets, at_once)
    }

    /// The same with rounded weights, which do not learn.
    fn packed_cross_entropy(
        &self,
        x: Tensor<2>,
        targets: Tensor<1, Int>,
        at_once: usize,
    ) -> Tensor<1> {
        let parts = x.split(at_once, 0).into_iter().zip(targets.split(at_once, 0));
        let losses = parts.map(|(x, targets)| ops::logit_loss(self.forward(x), targets));
        losses.reduce(|sum, more| sum + more).expect("a row at least")
    }

    /// `x · Wᵀ + s·(x·Aᵀ)·Bᵀ + b` is one product of wider rows: `[x, s·x·Aᵀ, 1] · [W, B, b]ᵀ`.
    /// A layer without adapter and bias is returned as it is.
    fn as_one_product(&self, x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let ([rows, _], [output, _]) = (x.dims(), self.weight.lazy_shape().dims());
        let (mut inputs, mut weights) = (vec![x.clone()], vec![self.weight.val()]);
        if let Some(Lora { a, b, scale }) = &self.lora {
            inputs.push(ops::linear(x.clone(), a.val()) * *scale);
            weights.push(b.val());
        }
        if let Some(bias) = &self.bias {
            inputs.push(Tensor::ones([rows, 1], (&x.device(), x.dtype())));
            weights.push(bias.val().reshape([output, 1]));
        }
        match (inputs.len(), weights.pop()) {
            (1, Some(weight)) => (x, weight),
            (_, last) => {
                weights.extend(last);
                let same = weights.into_iter().map(|weight| weight.cast(x.dtype()));
                (Tensor::cat(inputs, 1), Tensor::cat(same.collect(), 1))
            }
        }
    }
}

impl Lora {
    /// # Shapes
    /// - `x`: `[rows, in]`
    /// - output: `[rows, out]`
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        ops::linear(ops::linear(x, self.a.val()), self.b.val()) * self.scale
    }

    /// The change of the weight, `[out, in]`, in f32.
    pub fn product(&self) -> Tensor<2> {
        let [a, b] = [&self.a, &self.b].map(|factor| factor.val().cast(DType::F32));
        b.matmul(a) * self.scale
    }
}
