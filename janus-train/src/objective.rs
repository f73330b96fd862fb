//! `L = −Σ log p(xᵢ | x₍<ᵢ₎)`: one cross-entropy for words and image codes, no task weights
//! unless a recipe asks for one, averaged over all supervised tokens of the global batch however
//! it is cut up.
//!
//! That average is why sums and counts are kept apart until the end: the mean of the means of
//! two micro-batches is another number when they supervise different numbers of tokens.
//!
//! Source: Janus, <https://arxiv.org/abs/2410.13848>, section 3.3; unchanged in Janus-Pro.

use burn::tensor::{Int, Tensor};
use janus_model::ops;

/// Cross-entropy summed over supervised tokens, and how many there were.
#[derive(Clone, Debug)]
pub struct Sum {
    /// `[1]`, in nats, f32.
    pub loss: Tensor<1>,
    /// Supervised tokens.
    pub tokens: usize,
}

impl Sum {
    /// Rows of logits against the token each should have predicted.
    ///
    /// Give only supervised rows: a row that is masked out afterwards still costs its logits. For
    /// words, of which there are 102,400, see [`janus_model::Janus::text_loss`]. Computed in f32.
    ///
    /// # Shapes
    /// - `logits`: `[N, V]`
    /// - `targets`: `[N]`, each below `V`
    pub fn of(logits: Tensor<2>, targets: Tensor<1, Int>) -> Self {
        let [tokens, _] = logits.dims();
        Self { loss: ops::logit_loss(logits, targets), tokens }
    }

    /// Each token counting `weight` times.
    pub fn weighed(self, weight: f64) -> Self {
        match weight == 1.0 {
            true => self,
            false => Self { loss: self.loss * weight, tokens: self.tokens },
        }
    }

    /// Both sums as one.
    pub fn join(self, other: Self) -> Self {
        Self { loss: self.loss + other.loss, tokens: self.tokens + other.tokens }
    }

    /// Loss per token of a step that supervises `total` tokens over all its micro-batches.
    ///
    /// # Panics
    /// When `total` is zero: a batch without a supervised token has no mean.
    pub fn mean_over(self, total: usize) -> Tensor<1> {
        assert!(total > 0, "a step must supervise at least one token");
        self.loss / total as f64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn sum(logits: Vec<f32>, targets: Vec<i32>) -> Sum {
        let (device, rows) = (Device::flex(), targets.len());
        let width = logits.len() / rows;
        let logits = Tensor::from_data(TensorData::new(logits, [rows, width]), &device);
        Sum::of(logits, Tensor::from_data(TensorData::new(targets, [rows]), &device))
    }

    fn value(tensor: Tensor<1>) -> f32 {
        tensor.into_data().try_into_vec::<f32>().unwrap()[0]
    }

    #[test]
    fn even_logits_cost_the_log_of_the_vocabulary() {
        let even = sum(vec![3.0; 4 * 1000], vec![0, 1, 500, 999]);
        assert_eq!(even.tokens, 4);
        assert!((value(even.mean_over(4)) - 1000f32.ln()).abs() < 1e-5);
    }

    /// −log softmax by hand: [1, 2, 3] → 3 costs 0.40761, [0, 0] padded with −∞ → costs ln 2.
    #[test]
    fn values_by_hand() {
        let loss = sum(vec![1.0, 2.0, 3.0, 0.0, 0.0, f32::NEG_INFINITY], vec![2, 0]);
        assert!((value(loss.loss) - (0.407_606 + 2f32.ln())).abs() < 1e-5);
    }

    /// Cutting a batch in two must not change the loss, even where the parts differ in size.
    #[test]
    fn micro_batches_add_up_to_the_whole() {
        let logits = [0.5, -1.0, 2.0, 0.1, 0.2, 0.3, -2.0, 4.0, 0.0];
        let whole = value(sum(logits.to_vec(), vec![0, 2, 1]).mean_over(3));
        let parts = sum(logits[..3].to_vec(), vec![0]).join(sum(logits[3..].to_vec(), vec![2, 1]));
        assert!((whole - value(parts.mean_over(3))).abs() < 1e-6);
    }
}
