//! Matrices in 8 or 4 bits, as tensors of a file.
//!
//! Such a tensor has the name of the weight. It is of bytes, `[1 + lines, 64]`: a line that says what
//! follows, and then the matrix as [`crate::packed`] multiplies it, so that a mapped file is used
//! where it lies.
//!
//! | bytes of the first line | |
//! |---|---|
//! | 0..8 | `JANUSPAK` |
//! | 8..16 | 1, the order of lines |
//! | 16..24 | bits of a weight, 8 or 4 |
//! | 24..40 | outputs and inputs |
//! | 40..64 | zeros |
//!
//! All numbers are u64, little-endian. Whoever does not multiply such matrices sees an f32 tensor
//! `[out, in]` in their place, worked out when it is drawn: exactly what they stand for.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use burn::store::burn_pack::Error;
use burn::tensor::{Bytes, DType, TensorData};

use super::error::CheckpointError;
use super::lazy::{self, LazyTensor};
use crate::packed::{Bits, LINE, Packed, rounding};

const WORD: [u8; 8] = *b"JANUSPAK";
const ORDER: u64 = 1;

/// A tensor of a file that is a packed matrix.
#[derive(Clone)]
pub struct PackedTensor {
    /// As the file has it.
    pub stored: LazyTensor,
    /// Of a weight.
    pub bits: Bits,
    /// `[out, in]`.
    pub shape: [usize; 2],
}

impl fmt::Debug for PackedTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.stored.name, self.bits.name(), self.shape)
    }
}

impl PackedTensor {
    /// What the first line of a tensor says; `None` where it is no packed matrix.
    ///
    /// # Errors
    /// A first line that does not fit what follows; a file that cannot be read.
    pub(super) fn of(tensor: &LazyTensor, dir: &Path) -> Result<Option<Self>, CheckpointError> {
        let rows = match tensor.shape.to_vec()[..] {
            [rows, LINE] if rows > 0 && tensor.dtype == DType::U8 => rows,
            _ => return Ok(None),
        };
        let bytes = lazy::draw(tensor)?;
        let Some((word, rest)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
        if *word != WORD {
            return Ok(None);
        }
        let bad = |problem| {
            let (path, tensor) = (dir.to_owned(), tensor.name.clone());
            CheckpointError::Packed { path, tensor, problem }
        };
        let number = |at: usize| -> u64 {
            rest.as_chunks::<8>().0.get(at).map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        if number(0) != ORDER {
            return Err(bad("its lines are in an order of another version"));
        }
        let bits = match number(1) {
            8 => Bits::Eight,
            4 => Bits::Four,
            _ => return Err(bad("it has neither 8 nor 4 bits")),
        };
        let size = |at| usize::try_from(number(at)).unwrap_or(usize::MAX);
        let shape = [size(2), size(3)];
        let fits = Packed::length(bits, shape) == Some((rows - 1) * LINE);
        if !fits || shape.contains(&0) {
            return Err(bad("its length is not that of its sizes"));
        }
        Ok(Some(Self { stored: tensor.clone(), bits, shape }))
    }

    /// The matrix, where it lies if it can be used there.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn packed(&self) -> Result<Packed, CheckpointError> {
        let lines = lazy::rows(&self.stored, &self.stored.name, 1..self.stored.shape[0]);
        // It has a row at least: see `of`.
        let lines = lines.unwrap_or_else(|| self.stored.clone());
        Ok(Packed::from_bytes(lazy::draw(&lines)?, self.bits, self.shape))
    }

    /// The same in f32, for whoever multiplies nothing else.
    pub(super) fn wide(&self) -> LazyTensor {
        let this = self.clone();
        let (name, [output, input]) = (self.stored.name.clone(), self.shape);
        let length = output * input * size_of::<f32>();
        LazyTensor::deferred(name, DType::F32, vec![output, input], None, length, move || {
            let packed = this.packed().map_err(|error| Error::IoError(error.to_string()))?;
            Ok(Bytes::from_elems(packed.values()))
        })
    }
}

/// Tensors under canonical names, with the matrices of the decoder rounded to so many bits and those
/// of both heads to 8, as `LoadOptions::packed` does it while loading: worked out when they are
/// drawn. `stored` are those that are in a file as they are wanted, and are taken as they are:
/// rounding once more would not always give the same.
#[must_use]
pub fn rounded(
    tensors: Vec<LazyTensor>,
    bits: Bits,
    stored: &HashMap<String, PackedTensor>,
) -> Vec<LazyTensor> {
    let tensors = tensors.into_iter().map(|tensor| {
        let layer = tensor.name.strip_suffix(".weight").filter(|_| lazy::is_float(tensor.dtype));
        let bits = layer.and_then(|layer| rounding(layer, bits));
        if let Some(found) = stored.get(&tensor.name).filter(|found| Some(found.bits) == bits) {
            return lazy::renamed(found.stored.clone(), tensor.name);
        }
        match (bits, &tensor.shape.to_vec()[..]) {
            (Some(bits), &[output, input]) => one_rounded(tensor, bits, [output, input]),
            _ => tensor,
        }
    });
    tensors.collect()
}

fn one_rounded(tensor: LazyTensor, bits: Bits, shape: [usize; 2]) -> LazyTensor {
    let Some(length) = Packed::length(bits, shape) else { return tensor };
    let name = tensor.name.clone();
    let lines = vec![1 + length / LINE, LINE];
    LazyTensor::deferred(name, DType::U8, lines, None, LINE + length, move || {
        let data = TensorData::from_bytes(tensor.to_bytes()?, shape, tensor.dtype);
        let packed = Packed::of_data(&data, shape, bits);
        let mut bytes = Vec::with_capacity(LINE + length);
        bytes.extend_from_slice(&first_line(bits, shape));
        bytes.extend_from_slice(packed.bytes());
        Ok(Bytes::from_bytes_vec(bytes))
    })
}

fn first_line(bits: Bits, [output, input]: [usize; 2]) -> [u8; LINE] {
    let bits = match bits {
        Bits::Eight => 8,
        Bits::Four => 4,
    };
    let numbers = [ORDER, bits, output as u64, input as u64];
    let mut line = [0; LINE];
    let places = line.as_chunks_mut::<8>().0;
    places[0] = WORD;
    places[1..].iter_mut().zip(numbers).for_each(|(to, number)| *to = number.to_le_bytes());
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::{Checkpoint, Limits, SaveOptions, save};
    use super::*;

    const NAME: &str = "language_model.model.layers.0.mlp.up_proj.weight";

    fn tensor(dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> LazyTensor {
        let length = bytes.len();
        LazyTensor::deferred(NAME.into(), dtype, shape, None, length, move || {
            Ok(Bytes::from_bytes_vec(bytes.clone()))
        })
    }

    fn weights([output, input]: [usize; 2]) -> LazyTensor {
        let weight = |at: usize| ((at * 7919 % 1009) as f32 - 504.0) / 100.0;
        let bytes = (0..output * input).flat_map(|at| weight(at).to_le_bytes()).collect();
        tensor(DType::F32, vec![output, input], bytes)
    }

    /// What a file gives back of a matrix with this first line.
    fn opened(change: impl FnOnce(&mut Vec<u8>)) -> Result<Checkpoint, CheckpointError> {
        let one = rounded(vec![weights([17, 65])], Bits::Four, &HashMap::new()).remove(0);
        let mut bytes = one.to_bytes().unwrap().to_vec();
        change(&mut bytes);
        let lines = bytes.len() / LINE;
        bytes.truncate(lines * LINE);
        let dir = tempfile::tempdir().unwrap();
        let packed = tensor(DType::U8, vec![lines, LINE], bytes);
        save(dir.path(), vec![packed], &SaveOptions::default()).unwrap();
        Checkpoint::open(dir.path(), &Limits::default())
    }

    #[test]
    fn a_matrix_comes_back_from_where_it_is_mapped() {
        for bits in [Bits::Eight, Bits::Four] {
            for shape in [[1, 1], [16, 64], [17, 65], [48, 200]] {
                let dir = tempfile::tempdir().unwrap();
                let mut norm = tensor(DType::F32, vec![3], vec![0; 12]);
                norm.name = "language_model.model.norm.weight".into();
                let tensors = rounded(vec![norm, weights(shape)], bits, &HashMap::new());
                save(dir.path(), tensors, &SaveOptions::default()).unwrap();
                let checkpoint = Checkpoint::open(dir.path(), &Limits::default()).unwrap();
                assert_eq!((checkpoint.bits(), checkpoint.raw().len()), (Some(bits), 2));
                let found = checkpoint.packed().remove(NAME).unwrap();
                assert_eq!((found.bits, found.shape), (bits, shape));
                let lines = lazy::rows(&found.stored, "", 1..found.stored.shape[0]).unwrap();
                let address = lines.to_bytes().unwrap().as_ptr().addr();
                assert!(address.is_multiple_of(LINE), "would be copied");
                let data = weights(shape).to_bytes().unwrap();
                let data = TensorData::from_bytes(data, shape, DType::F32);
                let expected = Packed::of_data(&data, shape, bits);
                let packed = found.packed().unwrap();
                assert!(packed.bytes() == expected.bytes() && packed.shape() == shape);
                let wide = checkpoint.raw().iter().find(|tensor| tensor.name == NAME).unwrap();
                assert_eq!((wide.dtype, wide.shape.to_vec()), (DType::F32, shape.to_vec()));
                let values: Vec<u8> =
                    packed.values().iter().flat_map(|value| value.to_le_bytes()).collect();
                assert_eq!(wide.to_bytes().unwrap()[..], values);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(opened(|_| {}).is_ok());
        let refused = |change: fn(&mut Vec<u8>)| opened(change).unwrap_err().to_string();
        assert!(refused(|bytes| bytes[8] = 2).contains("another version"));
        assert!(refused(|bytes| bytes[16] = 5).contains("neither 8 nor 4 bits"));
        let lengths: [fn(&mut Vec<u8>); 6] = [
            |bytes| bytes[16] = 8,
            |bytes| bytes[24] = 33,
            |bytes| bytes[32] = 129,
            |bytes| bytes[24..32].fill(0),
            |bytes| bytes[24..40].fill(0xff),
            |bytes| bytes.truncate(bytes.len() - LINE),
        ];
        for change in lengths {
            assert!(refused(change).contains("its length is not that of its sizes"));
        }
        // Any other bytes are no weights of a model.
        let checkpoint = opened(|bytes| bytes[0] = b'j').unwrap();
        assert_eq!(checkpoint.bits(), None);
        let error = checkpoint.canonical().unwrap_err();
        assert!(matches!(error, CheckpointError::UnsupportedDtype { .. }), "{error}");
    }
}
