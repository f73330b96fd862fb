//! From the arguments of `_rebuild_tensor_v2` to byte ranges of a mapped storage.
//!
//! A tensor is a view: a storage (one entry of the archive), an offset, a size and a stride, all
//! in elements and all under the control of whoever wrote the file. Everything is checked here,
//! once, so that drawing bytes later cannot leave the storage.

use std::{collections::HashMap, ops::Range};

use burn::tensor::{BoolStore, Bytes, DType};

use super::{
    PickleError, ViewProblem,
    machine::{Node, Program, Value},
};
use crate::checkpoint::{
    lazy::{self, LazyTensor},
    limits::Limits,
    mapped::MappedFile,
};

/// A view whose every element is known to lie in `bytes`, a range of the file.
#[derive(Debug, Clone)]
struct View {
    dtype: DType,
    size: Vec<usize>,
    stride: Vec<usize>,
    /// Range of the file that the view touches, starting with its first element.
    bytes: Range<usize>,
}

/// The tensors of a state dict, in its order.
///
/// # Errors
/// The root is no dict of tensors, or a view does not fit its storage.
pub(super) fn tensors(
    program: &Program<'_>,
    storages: &HashMap<String, Range<u64>>,
    file: &MappedFile,
    limits: &Limits,
) -> Result<Vec<LazyTensor>, PickleError> {
    let Value::Node(root) = program.root else {
        return Err(PickleError::NotStateDict);
    };
    let Node::Dict(items) = &program.nodes[root] else {
        return Err(PickleError::NotStateDict);
    };
    if items.len() > limits.tensors {
        let limit = limits.tensors as u64;
        return Err(PickleError::Limit { what: "number of tensors", limit, at: 0 });
    }
    let mut seen = std::collections::HashSet::new();
    let mut tensors = Vec::with_capacity(items.len());
    for (key, value) in items {
        let Value::Text(name) = key else {
            return Err(PickleError::NotStateDict);
        };
        if name.len() > limits.name_bytes {
            let (bytes, limit) = (name.len(), limits.name_bytes);
            return Err(PickleError::NameTooLong { name: (*name).to_owned(), bytes, limit });
        }
        if !seen.insert(name) {
            return Err(PickleError::DuplicateKey { key: (*name).to_owned() });
        }
        let Value::Node(node) = value else {
            return Err(PickleError::NotATensor { key: (*name).to_owned() });
        };
        let view = view(program, *node, storages, limits)
            .ok_or_else(|| PickleError::NotATensor { key: (*name).to_owned() })?
            .map_err(|problem| PickleError::BadView { tensor: (*name).to_owned(), problem })?;
        tensors.push(lazy_view(file, (*name).to_owned(), view));
    }
    Ok(tensors)
}

/// Checks one view against its storage; `None` if the node is no tensor.
fn view(
    program: &Program<'_>,
    node: usize,
    storages: &HashMap<String, Range<u64>>,
    limits: &Limits,
) -> Option<Result<View, ViewProblem>> {
    let Node::Tensor { storage, offset, size, stride } = &program.nodes[node] else {
        return None;
    };
    let Node::Storage { storage_type, key, elements } = &program.nodes[*storage] else {
        return None;
    };
    let check = || {
        let dtype = dtype(storage_type)
            .ok_or_else(|| ViewProblem::UnsupportedDtype { dtype: (*storage_type).to_owned() })?;
        let size = numbers(program, *size)?;
        let stride = numbers(program, *stride)?;
        if size.len() != stride.len() || size.len() > limits.rank {
            return Err(ViewProblem::BadGeometry(
                "rank too high, or size and stride differ in rank",
            ));
        }
        let place = storages
            .get(*key)
            .ok_or_else(|| ViewProblem::MissingStorage { key: (*key).to_owned() })?;
        let offset = usize::try_from(*offset)
            .map_err(|_| ViewProblem::BadGeometry("negative storage offset"))?;
        let held = ((place.end - place.start) / dtype.size() as u64) as usize;
        let declared = usize::try_from(*elements).unwrap_or(usize::MAX);
        if declared > held {
            return Err(ViewProblem::StorageTooSmall {
                needed: declared as u64,
                held: held as u64,
            });
        }
        let extent = extent(offset, &size, &stride)?;
        if extent.end > declared {
            let (needed, held) = (extent.end as u64, declared as u64);
            return Err(ViewProblem::StorageTooSmall { needed, held });
        }
        let at = |element: usize| place.start as usize + element * dtype.size();
        Ok(View { dtype, size, stride, bytes: at(extent.start)..at(extent.end) })
    };
    Some(check())
}

/// The elements of the storage that a view touches.
fn extent(offset: usize, size: &[usize], stride: &[usize]) -> Result<Range<usize>, ViewProblem> {
    const OVERFLOW: ViewProblem = ViewProblem::BadGeometry("size, stride or offset overflow");
    let count = lazy::elements(size).ok_or(OVERFLOW)?;
    if count == 0 {
        return Ok(0..0);
    }
    let mut last = offset;
    for (&size, &stride) in size.iter().zip(stride) {
        if stride == 0 && size > 1 {
            return Err(ViewProblem::BadGeometry("stride 0: one element stands for many"));
        }
        let reach = (size - 1).checked_mul(stride).ok_or(OVERFLOW)?;
        last = last.checked_add(reach).ok_or(OVERFLOW)?;
    }
    let end = last.checked_add(1).ok_or(OVERFLOW)?;
    // Overlapping strides could still make a small storage fill a huge tensor.
    if count > end - offset {
        return Err(ViewProblem::BadGeometry("strides that use an element twice"));
    }
    Ok(offset..end)
}

/// A tuple (or list, as `torch.Size` may appear) of non-negative integers.
fn numbers(program: &Program<'_>, node: usize) -> Result<Vec<usize>, ViewProblem> {
    const BAD: ViewProblem =
        ViewProblem::BadGeometry("a size or stride that is no tuple of integers");
    let (Node::Tuple(items) | Node::List(items)) = &program.nodes[node] else {
        return Err(BAD);
    };
    let number = |value: &Value<'_>| match value {
        Value::Int(number) => usize::try_from(*number)
            .map_err(|_| ViewProblem::BadGeometry("negative size or stride")),
        _ => Err(BAD),
    };
    items.iter().map(number).collect()
}

/// Element type of a `torch` storage class; `None` for types that Janus never uses.
fn dtype(storage_type: &str) -> Option<DType> {
    Some(match storage_type {
        "FloatStorage" => DType::F32,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "CharStorage" => DType::I8,
        "ByteStorage" => DType::U8,
        "BoolStorage" => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}

/// A contiguous view is a slice of the mapping; any other is gathered when drawn.
fn lazy_view(file: &MappedFile, name: String, view: View) -> LazyTensor {
    if is_contiguous(&view) {
        return lazy::mapped(file, name, view.dtype, view.size, view.bytes);
    }
    let file = file.clone();
    let (dtype, shape) = (view.dtype, view.size.clone());
    let length = shape.iter().product::<usize>() * dtype.size();
    LazyTensor::deferred(name, dtype, shape, None, length, move || {
        let source = file.draw(view.bytes.clone(), 1)?;
        Ok(Bytes::from_bytes_vec(gather(&source, &view, length)))
    })
}

fn is_contiguous(view: &View) -> bool {
    // Nothing to gather; and the product below holds for no more than what lies in the file.
    if view.bytes.is_empty() {
        return true;
    }
    let mut expected = 1;
    for (&size, &stride) in view.size.iter().zip(&view.stride).rev() {
        // The stride of a dimension of one element is never used.
        if size != 1 && stride != expected {
            return false;
        }
        expected *= size;
    }
    true
}

/// Copies a strided view into row-major order.
fn gather(source: &[u8], view: &View, length: usize) -> Vec<u8> {
    let width = view.dtype.size();
    let mut target = Vec::with_capacity(length);
    let mut index = vec![0; view.size.len()];
    let mut element = 0;
    while target.len() < length {
        target.extend_from_slice(&source[element * width..(element + 1) * width]);
        // Count up like an odometer, moving `element` along.
        for dim in (0..index.len()).rev() {
            index[dim] += 1;
            element += view.stride[dim];
            if index[dim] < view.size[dim] {
                break;
            }
            element -= view.stride[dim] * view.size[dim];
            index[dim] = 0;
        }
    }
    target
}
