//! What a pickle may mention: three functions and ten storage classes, and nothing else.
//!
//! | Name | Why a state dict needs it |
//! |---|---|
//! | `collections.OrderedDict` | the dict itself, the (empty) hooks of tensors, `_metadata` |
//! | `torch._utils._rebuild_tensor_v2` | every tensor: storage, offset, size, stride |
//! | `torch._utils._rebuild_parameter` | every tensor of a dict saved with its parameters as such |
//! | `torch.FloatStorage` and nine like it | element type of a storage |
//!
//! `_rebuild_parameter` is what `state_dict(keep_vars=True)` and `dict(model.named_parameters())`
//! lead to. Its arguments are a tensor, a flag and empty hooks; here it yields that very tensor, so
//! it allows no more than `_rebuild_tensor_v2` does.

/// The names that may be mentioned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global<'a> {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// `torch.<Type>Storage`; the type is resolved when a kept tensor uses it.
    Storage(&'a str),
}

/// The allow-list.
pub(super) fn allowed<'a>(module: &'a str, name: &'a str) -> Option<Global<'a>> {
    const STORAGES: [&str; 10] = [
        "FloatStorage",
        "HalfStorage",
        "BFloat16Storage",
        "DoubleStorage",
        "LongStorage",
        "IntStorage",
        "ShortStorage",
        "CharStorage",
        "ByteStorage",
        "BoolStorage",
    ];
    match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch", name) if STORAGES.contains(&name) => Some(Global::Storage(name)),
        _ => None,
    }
}

/// Python's name of a refused instruction.
pub(super) fn refused_name(opcode: u8) -> &'static str {
    match opcode {
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        b'P' => "PERSID",
        _ => "EXT",
    }
}
