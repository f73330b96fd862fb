//! AdamW with moments and, for narrow parameters, a master copy of the weight in f32.
//!
//! `m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; w ← w(1 − ηλ) − η/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε)`
//!
//! A bf16 weight of 1.0 cannot take a step of 1e-4: the next number is 0.0078 away. So the sum is
//! kept in f32 and the parameter is its rounding. Burn's own AdamW keeps none, and has other
//! defaults (β₂ 0.999, ε 1e-5, λ 1e-4).
//!
//! Paper: <https://arxiv.org/abs/1711.05101>; β from Janus-Pro's technical report, table 2; ε is
//! not published, PyTorch's default is used.

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_pack::Scalar;
use janus_model::ops::{self, AdamWStep};

/// Settings of the optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// β₁.
    pub beta_1: f64,
    /// β₂.
    pub beta_2: f64,
    /// ε.
    pub epsilon: f64,
    /// λ, decoupled from the gradient.
    pub weight_decay: f64,
}

impl Default for AdamW {
    /// Janus-Pro's.
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.95, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// What the optimizer remembers of one parameter, all in f32.
#[derive(Clone, Debug)]
pub struct AdamWState<const D: usize> {
    /// Steps taken.
    pub time: usize,
    /// m.
    pub moment_1: Kept<D>,
    /// v.
    pub moment_2: Kept<D>,
    /// The weight before rounding; absent where the parameter itself is f32.
    pub master: Option<Kept<D>>,
}

/// A tensor, or what was read of one. Burn reads a record onto its default device, which may be
/// none, or a card that somebody else uses; numbers wait until the first step tells the device.
#[derive(Clone, Debug)]
pub enum Kept<const D: usize> {
    /// On the device of its parameter.
    Tensor(Tensor<D>),
    /// As read.
    Data(TensorData),
}

impl<const D: usize> Kept<D> {
    fn moved(self, device: &Device) -> Tensor<D> {
        match self {
            Self::Tensor(tensor) => tensor.to_device(device),
            Self::Data(data) => Tensor::from_data(data, (device, DType::F32)),
        }
    }

    fn to_data(&self) -> TensorData {
        match self {
            Self::Tensor(tensor) => tensor.to_data(),
            Self::Data(data) => data.clone(),
        }
    }
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        let dtype = weight.dtype();
        let gradient = gradient.cast(DType::F32);
        let on = |kept: Kept<D>| kept.moved(&gradient.device());
        let nothing = || Tensor::zeros(gradient.dims(), (&gradient.device(), DType::F32));
        let (time, moments, wide) = match state {
            Some(AdamWState { time, moment_1, moment_2, master }) => {
                let wide = master.map_or_else(|| weight.cast(DType::F32), on);
                (time + 1, [moment_1, moment_2].map(on), wide)
            }
            None => (1, [nothing(), nothing()], weight.cast(DType::F32)),
        };
        let steps = i32::try_from(time).unwrap_or(i32::MAX);
        let [rest_1, rest_2] = [self.beta_1, self.beta_2].map(|beta| 1.0 - beta.powi(steps));
        let step = AdamWStep {
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon,
            rate,
            decay: rate * self.weight_decay,
            rest_1,
            rest_2,
        };
        let (wide, [moment_1, moment_2]) = ops::adamw(wide, gradient.clone(), moments, step);
        let (weight, master) = match dtype {
            DType::F32 => (wide, None),
            narrow => (wide.clone().cast(narrow), Some(Kept::Tensor(wide))),
        };
        let [moment_1, moment_2] = [moment_1, moment_2].map(Kept::Tensor);
        (weight, Some(AdamWState { time, moment_1, moment_2, master }))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        AdamWState {
            time: state.time,
            moment_1: Kept::Tensor(state.moment_1.moved(device)),
            moment_2: Kept::Tensor(state.moment_2.moved(device)),
            master: state.master.map(|master| Kept::Tensor(master.moved(device))),
        }
    }
}

// By hand: Burn's derive expands to paths that exist in its own crates only.
impl<const D: usize> RecordState for AdamWState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_scalar(prefix, "time", Scalar::from(self.time));
        out.push_tensor(prefix, "moment_1", self.moment_1.to_data());
        out.push_tensor(prefix, "moment_2", self.moment_2.to_data());
        if let Some(master) = &self.master {
            out.push_tensor(prefix, "master", master.to_data());
        }
    }

    fn state_unflatten(prefix: &str, source: &mut StateSource, _: &Device) -> Option<Self> {
        let mut tensor = |leaf| source.take_tensor(prefix, leaf).map(Kept::Data);
        let (moment_1, moment_2) = (tensor("moment_1")?, tensor("moment_2")?);
        let master = tensor("master");
        let time = usize::try_from(source.take_scalar(prefix, "time")?).ok()?;
        Some(Self { time, moment_1, moment_2, master })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::optim::DynOptimizer;
    use burn::optim::DynState;

    use super::*;

    fn values(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.clone().cast(DType::F32).into_data().try_into_vec().unwrap()
    }

    fn kept(kept: &Kept<1>) -> Vec<f32> {
        kept.to_data().try_into_vec().unwrap()
    }

    fn tensor(values: &[f32], dtype: DType) -> Tensor<1> {
        Tensor::<1>::from_floats(values, &Device::flex()).cast(dtype)
    }

    /// By hand: the first step is η·g/(|g| + ε), whatever the size of g; the second, with the same
    /// g, again.
    #[test]
    fn first_steps_are_as_large_as_the_rate() {
        let (adam, gradient) = (AdamW::default(), tensor(&[1e-3, -50.0, 0.0], DType::F32));
        let weight = tensor(&[1.0, 1.0, 1.0], DType::F32);
        let (weight, state) = adam.step(0.1, weight, gradient.clone(), None);
        let close = |found: Vec<f32>, expected: [f32; 3]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
        };
        close(values(&weight), [0.9, 1.1, 1.0]);
        let (weight, state) = adam.step(0.1, weight, gradient, state);
        close(values(&weight), [0.8, 1.2, 1.0]);
        assert_eq!(state.unwrap().time, 2);
    }

    #[test]
    fn decay_is_apart_from_the_gradient() {
        let adam = AdamW { weight_decay: 0.1, ..AdamW::default() };
        let (weight, _) =
            adam.step(0.5, tensor(&[2.0], DType::F32), tensor(&[0.0], DType::F32), None);
        assert!((values(&weight)[0] - 2.0 * 0.95).abs() < 1e-6);
    }

    /// A hundred steps of 1e-4, each far too small for bf16 at 1.0, which must add up all the same.
    #[test]
    fn narrow_weights_move_by_steps_they_cannot_hold() {
        let (mut weight, mut state) = (tensor(&[1.0], DType::BF16), None);
        for _ in 0..100 {
            let gradient = tensor(&[1.0], DType::BF16);
            (weight, state) = AdamW::default().step(1e-4, weight, gradient, state);
            assert_eq!(weight.dtype(), DType::BF16);
        }
        let master = kept(state.unwrap().master.as_ref().unwrap())[0];
        assert!((master - 0.99).abs() < 1e-5, "{master}");
        assert!((values(&weight)[0] - 0.99).abs() < 0.004);
    }

    fn round_trip(state: AdamWState<1>) -> Option<AdamWState<1>> {
        let mut sink = StateSink::default();
        let adam: &dyn DynOptimizer = &AdamW::default();
        adam.state_flatten("7", &DynState::create(state, 1), &mut sink);
        let mut source = StateSource::new(sink.scalars.into_iter().collect());
        for (name, data) in sink.tensors {
            source.insert_tensor(name, data);
        }
        let state = adam.state_unflatten(1, "7", &mut source, &Device::flex())?;
        Some(state.downcast())
    }

    /// What is saved continues to the bit, with and without a master copy.
    #[test]
    fn a_saved_state_continues() {
        for dtype in [DType::F32, DType::BF16] {
            let gradient = |k: f32| tensor(&[0.3 * k, -0.01 * k, 7.0], dtype);
            let (mut weight, mut state) = (tensor(&[1.0, -2.0, 0.5], dtype), None);
            for k in [1.0, 2.0, -1.0] {
                (weight, state) = AdamW::default().step(1e-2, weight, gradient(k), state);
            }
            let saved = round_trip(state.clone().unwrap()).unwrap();
            assert_eq!(saved.master.is_some(), dtype == DType::BF16);
            let next = |state| AdamW::default().step(1e-2, weight.clone(), gradient(4.0), state);
            let ((a, one), (b, two)) = (next(state), next(Some(saved)));
            assert_eq!(values(&a), values(&b));
            let (one, two) = (one.unwrap(), two.unwrap());
            assert_eq!((one.time, kept(&one.moment_2)), (two.time, kept(&two.moment_2)));
        }
    }
}
