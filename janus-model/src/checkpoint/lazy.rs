//! Tensors that know their name, type and shape, and draw their bytes when asked.
//!
//! [`LazyTensor`] is burn-store's own transport type, so whatever comes out of here can be handed
//! to `module.apply(..)`. The functions below change a tensor without touching its bytes; the work
//! happens when, and as often as, somebody draws them. Where bytes need no change they stay what
//! they were, typically a slice of a mapped file.

use std::ops::Range;

use burn::{
    store::burn_pack::Error,
    tensor::{Bytes, DType, Shape, bf16, f16},
};

use super::{error::CheckpointError, mapped::MappedFile};

/// A named tensor whose bytes are produced on demand (little-endian, row-major).
pub use burn::store::burn_pack::Tensor as LazyTensor;

/// Elements converted at a time by [`cast`]: 4 MiB of f32, small beside any tensor that matters.
const CAST_CHUNK: usize = 1 << 20;

/// A tensor in `range` of a mapped file.
pub(crate) fn mapped(
    file: &MappedFile,
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    range: Range<usize>,
) -> LazyTensor {
    let file = file.clone();
    let align = dtype.size();
    LazyTensor::deferred(name, dtype, shape, None, range.len(), move || {
        file.draw(range.clone(), align)
    })
}

/// The same tensor under another name.
#[must_use]
pub fn renamed(mut tensor: LazyTensor, name: impl Into<String>) -> LazyTensor {
    tensor.name = name.into();
    tensor
}

/// The same bytes seen as another shape. The caller keeps the number of elements.
#[must_use]
pub fn reshaped(mut tensor: LazyTensor, shape: Vec<usize>) -> LazyTensor {
    debug_assert_eq!(elements(&tensor.shape.to_vec()), elements(&shape));
    tensor.shape = Shape::from(shape);
    tensor
}

/// Joins tensors along dimension 0: `[a, ..] + [b, ..] -> [a + b, ..]`.
///
/// `None` if there are no parts, they differ in type or in the other dimensions, or the sum of
/// their heights overflows.
#[must_use]
pub fn concat(name: impl Into<String>, parts: Vec<LazyTensor>) -> Option<LazyTensor> {
    let first = parts.first()?;
    let (dtype, mut shape) = (first.dtype, first.shape.to_vec());
    let alike = |part: &LazyTensor| {
        part.dtype == dtype && !part.shape.is_empty() && part.shape.to_vec()[1..] == shape[1..]
    };
    if shape.is_empty() || !parts.iter().all(alike) {
        return None;
    }
    let sum = |of: fn(&LazyTensor) -> usize| {
        parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(of(part)))
    };
    shape[0] = sum(|part| part.shape[0])?;
    let length = sum(LazyTensor::byte_len)?;
    Some(LazyTensor::deferred(name.into(), dtype, shape, None, length, move || {
        let mut joined = Vec::with_capacity(length);
        for part in &parts {
            joined.extend_from_slice(&part.to_bytes()?);
        }
        Ok(Bytes::from_bytes_vec(joined))
    }))
}

/// Rows `range` of dimension 0: `[n, ..] -> [range.len(), ..]`, without a copy where the bytes
/// are shared. `None` if the range lies outside.
#[must_use]
pub fn rows(
    tensor: &LazyTensor,
    name: impl Into<String>,
    range: Range<usize>,
) -> Option<LazyTensor> {
    let mut shape = tensor.shape.to_vec();
    let count = *shape.first()?;
    if count == 0 || range.start > range.end || range.end > count {
        return None;
    }
    let row_bytes = tensor.byte_len() / count;
    shape[0] = range.len();
    let (start, end) = (range.start * row_bytes, range.end * row_bytes);
    let source = tensor.clone();
    Some(LazyTensor::deferred(name.into(), tensor.dtype, shape, None, end - start, move || {
        let bytes = source.to_bytes()?;
        match bytes.view(start, end) {
            Ok(view) => Ok(view),
            Err(_) => Ok(Bytes::from_bytes_vec(bytes[start..end].to_vec())),
        }
    }))
}

/// Whether [`cast`] can convert from and to this type.
#[must_use]
pub fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// The float format that most values are in.
#[must_use]
pub fn main_dtype(tensors: &[LazyTensor]) -> DType {
    let values = |dtype: &DType| -> usize {
        let same = tensors.iter().filter(|tensor| tensor.dtype == *dtype);
        same.map(|tensor| tensor.shape.num_elements()).sum()
    };
    [DType::BF16, DType::F16, DType::F32].into_iter().max_by_key(values).unwrap_or(DType::F32)
}

/// Converts between f32, f16 and bf16, rounding to nearest even.
///
/// A tensor that already has the type, or whose type is no float, comes back unchanged.
#[must_use]
pub fn cast(tensor: LazyTensor, to: DType) -> LazyTensor {
    let from = tensor.dtype;
    if from == to || !is_float(from) || !is_float(to) {
        return tensor;
    }
    let shape = tensor.shape.to_vec();
    let length = tensor.byte_len() / from.size() * to.size();
    LazyTensor::deferred(tensor.name.clone(), to, shape, None, length, move || {
        let bytes = tensor.to_bytes()?;
        let mut converted = Vec::with_capacity(length);
        for chunk in bytes.chunks(CAST_CHUNK * from.size()) {
            convert(chunk, from, to, &mut converted);
        }
        Ok(Bytes::from_bytes_vec(converted))
    })
}

/// Appends `source`, a whole number of `from` elements, to `target` as `to` elements.
pub(crate) fn convert(source: &[u8], from: DType, to: DType, target: &mut Vec<u8>) {
    match to {
        DType::F32 => floats(source, from, |value| target.extend_from_slice(&value.to_le_bytes())),
        DType::F16 => floats(source, from, |value| {
            target.extend_from_slice(&f16::from_f32(value).to_le_bytes());
        }),
        DType::BF16 => floats(source, from, |value| {
            target.extend_from_slice(&bf16::from_f32(value).to_le_bytes());
        }),
        _ => target.extend_from_slice(source),
    }
}

/// Calls `visit` with every element as f32 (exact for f16 and bf16).
pub(crate) fn floats(source: &[u8], from: DType, mut visit: impl FnMut(f32)) {
    match from {
        DType::F32 => {
            let (chunks, _) = source.as_chunks::<4>();
            chunks.iter().for_each(|&bytes| visit(f32::from_le_bytes(bytes)));
        }
        DType::F16 => {
            let (chunks, _) = source.as_chunks::<2>();
            chunks.iter().for_each(|&bytes| visit(f16::from_le_bytes(bytes).to_f32()));
        }
        DType::BF16 => {
            let (chunks, _) = source.as_chunks::<2>();
            chunks.iter().for_each(|&bytes| visit(bf16::from_le_bytes(bytes).to_f32()));
        }
        _ => {}
    }
}

/// Draws the bytes of a tensor, keeping its name in the error.
///
/// # Errors
/// The file changed since it was opened, or could not be read.
pub fn draw(tensor: &LazyTensor) -> Result<Bytes, CheckpointError> {
    tensor.to_bytes().map_err(|error| CheckpointError::Draw {
        tensor: tensor.name.clone(),
        message: match error {
            Error::IoError(message) => message,
            other => other.to_string(),
        },
    })
}

/// Looks for NaN and infinity in every float tensor, drawing one at a time.
///
/// Off by default everywhere, without so much as a warning: it reads every weight, where opening
/// reads headers only and mapped weights may never be read in full. Callers opt in
/// (`--check-tensors` on the command line), and what is found is then an error.
///
/// # Errors
/// The first tensor that holds a non-finite value, with their number; or a read error.
pub fn check_tensors<'a>(
    tensors: impl IntoIterator<Item = &'a LazyTensor>,
) -> Result<(), CheckpointError> {
    for tensor in tensors {
        let bytes = draw(tensor)?;
        let (mut elements, mut count, mut first) = (0, 0, None);
        floats(&bytes, tensor.dtype, |value| {
            if !value.is_finite() {
                count += 1;
                first.get_or_insert(elements);
            }
            elements += 1;
        });
        if let Some(first) = first {
            let tensor = tensor.name.clone();
            return Err(CheckpointError::NonFinite { tensor, count, elements, first });
        }
    }
    Ok(())
}

/// Number of elements of a shape; `None` on overflow.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim))
}
