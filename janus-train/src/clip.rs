//! Clipping by the norm of all gradients together, and the guard before the optimizer.
//!
//! Burn clips tensor by tensor, which turns the direction of a step; the paper's clip of 1.0 is
//! one norm over the whole model.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use janus_model::ops;

use crate::step::parameter_name;

/// A gradient that must not reach weights or moments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gradient of {} parameters is not finite, first of {}", names.len(), names[0])]
pub struct NotFinite {
    /// Canonical names, in the order of the model.
    pub names: Vec<String>,
}

/// Norm of every parameter's gradient, by canonical name, in the order of the model.
///
/// Squares are summed in f32 along the last axis and in f64 from there on, so that a table of
/// millions of numbers loses nothing. One read from the device.
pub fn norms<M: Module>(module: &M, gradients: &GradientsParams) -> Vec<(String, f64)> {
    let mut squares = Squares { gradients, path: Vec::new(), names: Vec::new(), rows: Vec::new() };
    module.visit(&mut squares);
    if squares.rows.is_empty() {
        return Vec::new();
    }
    let counts: Vec<usize> = squares.rows.iter().map(|rows| rows.dims()[0]).collect();
    let rows = Tensor::cat(squares.rows, 0).into_data();
    let mut rows = rows.iter::<f32>().map(f64::from);
    let norm = |count: usize| rows.by_ref().take(count).sum::<f64>().sqrt();
    squares.names.into_iter().zip(counts.into_iter().map(norm)).collect()
}

/// Scales all gradients so that their norm is at most `limit`; returns the norm before.
///
/// As PyTorch's `clip_grad_norm_`: the factor is `limit / (norm + 1e-6)` where that is below 1.
///
/// # Errors
/// [`NotFinite`], and then the gradients are gone: the step must be skipped.
pub fn clip<M: Module>(
    module: &M,
    gradients: GradientsParams,
    limit: f64,
) -> Result<(GradientsParams, f64), NotFinite> {
    let norms = norms(module, &gradients);
    clip_known(module, gradients, &norms, limit)
}

/// As [`clip`], where the norms of all gradients are known already.
///
/// # Errors
/// As [`clip`].
pub fn clip_known<M: Module>(
    module: &M,
    gradients: GradientsParams,
    norms: &[(String, f64)],
    limit: f64,
) -> Result<(GradientsParams, f64), NotFinite> {
    let bad = norms.iter().filter(|(_, norm)| !norm.is_finite()).map(|(name, _)| name.clone());
    let names: Vec<String> = bad.collect();
    if !names.is_empty() {
        return Err(NotFinite { names });
    }
    let norm = norms.iter().map(|(_, norm)| norm * norm).sum::<f64>().sqrt();
    let factor = limit / (norm + 1e-6);
    if factor >= 1.0 {
        return Ok((gradients, norm));
    }
    let mut scale = Scale { gradients, factor };
    module.visit(&mut scale);
    Ok((scale.gradients, norm))
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    path: Vec<String>,
    names: Vec<String>,
    rows: Vec<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn enter_module(&mut self, name: &str, _kind: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _kind: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.get::<D>(param.id) else { return };
        let shape = gradient.dims();
        let width = shape[D - 1];
        let rows = shape.iter().product::<usize>() / width;
        let rows = ops::square_sums(gradient.reshape([rows, width]));
        // Text tables may live with the processor.
        let rows = match self.rows.first() {
            Some(first) => rows.to_device(&first.device()),
            None => rows,
        };
        self.names.push(parameter_name(&self.path.join(".")));
        self.rows.push(rows);
    }
}

struct Scale {
    gradients: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, ops::scaled(gradient, self.factor));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::module::Param;
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Two {
        flat: Param<Tensor<1>>,
        square: Param<Tensor<2>>,
    }

    /// Norms 3 and 4, so 5 in all.
    fn two(third: f32) -> (Two, GradientsParams) {
        let device = Device::flex();
        let two = Two {
            flat: Param::from_tensor(Tensor::zeros([2], &device)),
            square: Param::from_tensor(Tensor::zeros([2, 2], &device)),
        };
        let mut gradients = GradientsParams::new();
        gradients.register(two.flat.id, Tensor::<1>::from_floats([0.0, 3.0], &device));
        let square = [[third, 2.0], [2.0, 2.0]];
        gradients.register(two.square.id, Tensor::<2>::from_floats(square, &device));
        (two, gradients)
    }

    #[test]
    fn one_norm_over_everything() {
        let (two, gradients) = two(2.0);
        let expected = [("flat".to_owned(), 3.0), ("square".to_owned(), 4.0)];
        assert_eq!(norms(&two, &gradients), expected);
        let (gradients, norm) = clip(&two, gradients, 1.0).unwrap();
        assert_eq!(norm, 5.0);
        let clipped = norms(&two, &gradients);
        assert!((clipped[0].1 - 0.6).abs() < 1e-6 && (clipped[1].1 - 0.8).abs() < 1e-6);
    }

    #[test]
    fn what_is_small_enough_keeps_its_bits() {
        let (two, gradients) = two(2.0);
        let (gradients, _) = clip(&two, gradients, 6.0).unwrap();
        let flat = gradients.get::<1>(two.flat.id).unwrap().into_data();
        assert_eq!(flat.try_into_vec::<f32>().unwrap(), [0.0, 3.0]);
    }

    #[test]
    fn what_is_not_finite_is_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (two, gradients) = two(bad);
            let error = clip(&two, gradients, 1.0).unwrap_err();
            assert_eq!(error.names, ["square"]);
        }
    }

    /// No gradient, nothing to clip: a norm of zero, no division by it.
    #[test]
    fn nothing_has_no_norm() {
        let (two, _) = two(2.0);
        assert_eq!(clip(&two, GradientsParams::new(), 1.0).unwrap().1, 0.0);
    }
}
