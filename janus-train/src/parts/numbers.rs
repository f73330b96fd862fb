//! From the device to plain numbers, and the norm in between.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::clip::clip;
use crate::strategy::StepError;

/// Gradients whose norm is at most `limit`; none where one is no number.
pub(crate) fn clipped<M: Module>(
    part: &M,
    gradients: GradientsParams,
    limit: f64,
    norm: &mut f64,
) -> GradientsParams {
    match clip(part, gradients, limit) {
        Ok((gradients, found)) => {
            *norm = found;
            gradients
        }
        Err(_) => {
            *norm = f64::NAN;
            GradientsParams::new()
        }
    }
}

/// All numbers of a tensor.
pub(crate) fn numbers(tensor: Tensor<1>) -> Result<Vec<f64>, StepError> {
    let numbers: Vec<f32> = tensor.into_data().try_into_vec().map_err(|e| format!("{e:?}"))?;
    Ok(numbers.into_iter().map(f64::from).collect())
}

/// The only number of a tensor.
pub(crate) fn number(tensor: Tensor<1>) -> Result<f64, StepError> {
    Ok(numbers(tensor)?.first().copied().unwrap_or(f64::NAN))
}
