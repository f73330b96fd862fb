//! The two factors of an adapter as plain numbers, and how adapters of one layer become one.

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::linear::{Linear, Lora};

/// `s · B · A`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Factors {
    pub rank: usize,
    pub input: usize,
    pub output: usize,
    /// `[r, in]`, row by row.
    pub a: Vec<f32>,
    /// `[out, r]`, row by row.
    pub b: Vec<f32>,
    pub scale: f64,
}

impl Factors {
    /// Those of a layer, if it has an adapter.
    pub fn of(linear: &Linear) -> Option<Self> {
        let lora = linear.lora.as_ref()?;
        let ([rank, input], [output, _]) = (lora.a.val().dims(), lora.b.val().dims());
        let values = |factor: &Param<Tensor<2>>| {
            let data = factor.val().inner().cast(DType::F32).into_data();
            data.iter::<f32>().collect()
        };
        let (a, b) = (values(&lora.a), values(&lora.b));
        Some(Self { rank, input, output, a, b, scale: lora.scale })
    }

    /// As parameters on a device.
    pub fn lora(self, device: &Device) -> Lora {
        let parameter = |values: Vec<f32>, shape: [usize; 2]| {
            let value = Tensor::from_data(TensorData::new(values, shape), (device, DType::F32));
            Param::initialized(ParamId::new(), value).set_require_grad(true)
        };
        let a = parameter(self.a, [self.rank, self.input]);
        let b = parameter(self.b, [self.output, self.rank]);
        Lora { a, b, scale: self.scale }
    }

    /// Both changes as one of rank r₁ + r₂: A above A, B beside B. Where the scales differ, B of
    /// the second takes what is between them.
    pub fn and(self, other: Self) -> Self {
        debug_assert_eq!((self.input, self.output), (other.input, other.output));
        let ratio = other.scale / self.scale;
        let adapted = |b: &f32| if ratio == 1.0 { *b } else { (f64::from(*b) * ratio) as f32 };
        let rows = self.b.chunks_exact(self.rank).zip(other.b.chunks_exact(other.rank));
        let beside = |(own, more): (&[f32], &[f32])| {
            own.iter().copied().chain(more.iter().map(adapted)).collect::<Vec<_>>()
        };
        let b = rows.flat_map(beside).collect();
        let mut a = self.a;
        a.extend(other.a);
        Self { rank: self.rank + other.rank, a, b, ..self }
    }

    /// The same change to the n-th third of a layer of three times the height.
    pub fn in_third(self, third: usize) -> Self {
        let mut b = vec![0.0; 3 * self.b.len()];
        b[third * self.b.len()..][..self.b.len()].copy_from_slice(&self.b);
        Self { output: 3 * self.output, b, ..self }
    }

    /// Thirds of one layer as one. Where they share A, as those of a layer that is one here do,
    /// nothing but B grows.
    pub fn joined([q, k, v]: [Self; 3]) -> Self {
        let shared = [&k, &v].iter().all(|third| third.a == q.a && third.scale == q.scale);
        if shared {
            let b = [&q.b[..], &k.b, &v.b].concat();
            return Self { output: 3 * q.output, b, ..q };
        }
        q.in_third(0).and(k.in_third(1)).and(v.in_third(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(rank: usize, first: f32, scale: f64) -> Factors {
        let (input, output) = (3, 2);
        let count = |n: usize, start: f32| (0..n).map(|i| start + i as f32).collect();
        let (a, b) = (count(rank * input, first), count(output * rank, 2.0 * first));
        Factors { rank, input, output, a, b, scale }
    }

    /// `s · B · A`, `[out, in]`.
    fn product(f: &Factors) -> Vec<f64> {
        let at = |o: usize, i: usize| {
            let sum = |r| f64::from(f.b[o * f.rank + r]) * f64::from(f.a[r * f.input + i]);
            f.scale * (0..f.rank).map(sum).sum::<f64>()
        };
        (0..f.output).flat_map(|o| (0..f.input).map(move |i| at(o, i))).collect()
    }

    #[test]
    fn changes_add_up_with_their_scales() {
        let (one, two) = (factors(1, 1.0, 2.0), factors(2, -3.0, 0.5));
        let sum: Vec<f64> = product(&one).iter().zip(product(&two)).map(|(a, b)| a + b).collect();
        let joined = one.and(two);
        assert_eq!((joined.rank, joined.scale), (3, 2.0));
        assert_eq!(product(&joined), sum);
    }

    #[test]
    fn thirds_change_their_own_rows() {
        let thirds = [factors(1, 1.0, 2.0), factors(2, -3.0, 2.0), factors(1, 4.0, 1.0)];
        let rows: Vec<f64> = thirds.iter().flat_map(product).collect();
        let joined = Factors::joined(thirds);
        assert_eq!((joined.rank, joined.output), (4, 6));
        assert_eq!(product(&joined), rows);
    }

    #[test]
    fn thirds_that_share_a_stay_of_their_rank() {
        let q = factors(2, 1.0, 2.0);
        let [mut k, mut v] = [q.clone(), q.clone()];
        k.b.fill(7.0);
        v.b.fill(-1.0);
        let joined = Factors::joined([q.clone(), k, v]);
        assert_eq!((joined.rank, &joined.a), (2, &q.a));
        assert_eq!(joined.b[4..], [[7.0; 4], [-1.0; 4]].concat());
    }
}
