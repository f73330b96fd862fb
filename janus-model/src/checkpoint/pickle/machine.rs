//! A pickle interpreter that can build a state dict and nothing else.
//!
//! A pickle is a program for a small stack machine; Python's own machine may call any function it
//! names. This one knows the names a state dict consists of ([`allow`](super::allow)), refuses
//! every other one **at the instruction that mentions it**, and calls nothing: names are enum
//! variants. Values live in one arena and refer to each other by index, so hostile nesting or cycles cost
//! neither stack nor leaked memory. Instructions:
//! <https://github.com/python/cpython/blob/main/Lib/pickletools.py>.

use std::collections::HashMap;

use super::{
    PickleError,
    allow::{Global, allowed, refused_name},
};
use crate::checkpoint::limits::Limits;

/// A value on the stack, in the memo or in a container.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    /// A float, byte string or over-long integer: never part of a tensor's description.
    Opaque,
    Text(&'a str),
    Global(Global<'a>),
    /// Index of a [`Node`].
    Node(usize),
}

/// A container, or what an allowed call stands for.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// `('storage', type, key, device, elements)`.
    Storage {
        storage_type: &'a str,
        key: &'a str,
        elements: i64,
    },
    /// Arguments of `_rebuild_tensor_v2`, interpreted by [`super::views`].
    Tensor {
        storage: usize,
        offset: i64,
        size: usize,
        stride: usize,
    },
}

/// The arena and its root, once the program has stopped.
pub(super) struct Program<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) root: Value<'a>,
}

struct Machine<'a, 'l> {
    code: &'a [u8],
    /// Next byte to read.
    at: usize,
    /// First byte of the current instruction, for messages.
    start: usize,
    stack: Vec<Value<'a>>,
    /// Stack heights at the open MARKs.
    marks: Vec<usize>,
    memo: HashMap<u64, Value<'a>>,
    nodes: Vec<Node<'a>>,
    /// Nesting of each node.
    depths: Vec<usize>,
    /// Values inside all containers.
    contained: usize,
    limits: &'l Limits,
}

/// Runs `code` to its STOP, which must be its last byte.
///
/// # Errors
/// See [`PickleError`].
pub(super) fn run<'a>(code: &'a [u8], limits: &Limits) -> Result<Program<'a>, PickleError> {
    let mut machine = Machine {
        code,
        at: 0,
        start: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        nodes: Vec::new(),
        depths: Vec::new(),
        contained: 0,
        limits,
    };
    let mut opcodes = 0_u64;
    loop {
        opcodes += 1;
        machine.within("number of instructions", opcodes, limits.pickle_opcodes)?;
        machine.start = machine.at;
        let opcode = machine.byte()?;
        if opcode == b'.' {
            break;
        }
        machine.step(opcode)?;
        let objects =
            machine.stack.len() + machine.nodes.len() + machine.memo.len() + machine.contained;
        machine.within("number of objects", objects as u64, limits.pickle_objects as u64)?;
    }
    let root = machine.pop()?;
    if machine.at != code.len() {
        return Err(PickleError::Trailing { at: machine.at });
    }
    Ok(Program { nodes: machine.nodes, root })
}

impl<'a> Machine<'a, '_> {
    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            0x80 => self.protocol()?,
            0x95 => drop(self.take(8)?), // FRAME: a length for buffered reading
            b'(' => self.mark()?,
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool),
            b'K' | b'M' | b'J' | 0x8a | b'G' => self.number(opcode)?,
            b'X' | 0x8c | 0x8d | b'U' | b'T' => self.text(opcode)?,
            b'B' | b'C' => self.binary(opcode)?,
            b')' => self.push_node(Node::Tuple(Vec::new()))?,
            0x85..=0x87 => self.short_tuple(usize::from(opcode - 0x84))?,
            b't' | b'l' | b'd' => self.collect(opcode)?,
            b']' => self.push_node(Node::List(Vec::new()))?,
            b'}' => self.push_node(Node::Dict(Vec::new()))?,
            b'a' | b'e' => self.append(opcode)?,
            b's' | b'u' => self.set_items(opcode)?,
            b'q' | b'r' | 0x94 => self.memo_put(opcode)?,
            b'h' | b'j' => self.memo_get(opcode)?,
            b'c' | 0x93 => self.global(opcode)?,
            b'Q' => self.persistent_id()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'i' | b'o' | 0x81 | 0x92 | 0x82..=0x84 | b'P' => {
                return Err(PickleError::ForbiddenOpcode {
                    opcode: refused_name(opcode),
                    at: self.start,
                });
            }
            _ => {
                return Err(PickleError::UnknownOpcode { opcode, at: self.start });
            }
        }
        Ok(())
    }

    // --- reading the code ---

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(count);
        let bytes = end.and_then(|end| self.code.get(self.at..end));
        let bytes = bytes.ok_or(PickleError::Truncated { at: self.start })?;
        self.at += count;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned little-endian number of `width` ≤ 8 bytes.
    fn unsigned(&mut self, width: usize) -> Result<u64, PickleError> {
        Ok(self.take(width)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn sized(&mut self, width: usize) -> Result<&'a [u8], PickleError> {
        let length = self.unsigned(width)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = &self.code[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or(PickleError::Truncated { at: self.start })?)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|_| self.bad("a name that is not UTF-8"))
    }

    // --- scalars ---

    fn protocol(&mut self) -> Result<(), PickleError> {
        let version = self.byte()?;
        if version > 5 { Err(self.bad("an unknown protocol version")) } else { Ok(()) }
    }

    fn number(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b'K' => Value::Int(self.unsigned(1)? as i64),
            b'M' => Value::Int(self.unsigned(2)? as i64),
            b'J' => Value::Int(i64::from(self.unsigned(4)? as u32 as i32)),
            b'G' => {
                self.take(8)?;
                Value::Opaque
            }
            _ => long(self.sized(1)?),
        };
        self.stack.push(value);
        Ok(())
    }

    fn text(&mut self, opcode: u8) -> Result<(), PickleError> {
        let width = match opcode {
            0x8c | b'U' => 1,
            0x8d => 8,
            _ => 4,
        };
        let bytes = self.sized(width)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.bad("text that is not UTF-8"))?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn binary(&mut self, opcode: u8) -> Result<(), PickleError> {
        self.sized(if opcode == b'C' { 1 } else { 4 })?;
        self.stack.push(Value::Opaque);
        Ok(())
    }

    // --- stack and memo ---

    fn mark(&mut self) -> Result<(), PickleError> {
        self.marks.push(self.stack.len());
        self.within("nesting", self.marks.len() as u64, self.limits.pickle_depth as u64)
    }

    /// Takes the top value; those below an open MARK are out of reach.
    fn pop(&mut self) -> Result<Value<'a>, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let value = if self.stack.len() > floor { self.stack.pop() } else { None };
        value.ok_or(PickleError::StackUnderflow { at: self.start })
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>, PickleError> {
        let height = self.marks.pop().ok_or(PickleError::StackUnderflow { at: self.start })?;
        Ok(self.stack.split_off(height))
    }

    fn memo_put(&mut self, opcode: u8) -> Result<(), PickleError> {
        let index = match opcode {
            b'q' => self.unsigned(1)?,
            b'r' => self.unsigned(4)?,
            _ => self.memo.len() as u64,
        };
        let top = self.pop()?;
        self.stack.push(top);
        self.memo.insert(index, top);
        Ok(())
    }

    fn memo_get(&mut self, opcode: u8) -> Result<(), PickleError> {
        let index = self.unsigned(if opcode == b'h' { 1 } else { 4 })?;
        let value = self.memo.get(&index).copied();
        self.stack.push(value.ok_or(PickleError::UnknownMemo { index, at: self.start })?);
        Ok(())
    }

    // --- containers ---

    fn depth(&self, value: Value<'a>) -> usize {
        if let Value::Node(index) = value { self.depths[index] } else { 0 }
    }

    fn deepest(&self, values: &[Value<'a>]) -> usize {
        values.iter().map(|&value| self.depth(value)).max().unwrap_or(0)
    }

    fn new_node(&mut self, node: Node<'a>) -> Result<usize, PickleError> {
        let inner = match &node {
            Node::Tuple(items) | Node::List(items) => self.deepest(items),
            Node::Dict(items) => {
                items.iter().map(|&(_, value)| self.depth(value)).max().unwrap_or(0)
            }
            Node::Storage { .. } | Node::Tensor { .. } => 0,
        };
        self.within("nesting", inner as u64 + 1, self.limits.pickle_depth as u64)?;
        self.contained += match &node {
            Node::Tuple(items) | Node::List(items) => items.len(),
            Node::Dict(items) => 2 * items.len(),
            Node::Storage { .. } | Node::Tensor { .. } => 0,
        };
        self.nodes.push(node);
        self.depths.push(inner + 1);
        Ok(self.nodes.len() - 1)
    }

    fn push_node(&mut self, node: Node<'a>) -> Result<(), PickleError> {
        let index = self.new_node(node)?;
        self.stack.push(Value::Node(index));
        Ok(())
    }

    fn short_tuple(&mut self, length: usize) -> Result<(), PickleError> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push_node(Node::Tuple(items))
    }

    fn collect(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = self.pop_mark()?;
        let node = match opcode {
            b't' => Node::Tuple(items),
            b'l' => Node::List(items),
            _ => Node::Dict(self.pairs(items)?),
        };
        self.push_node(node)
    }

    fn pairs(&self, items: Vec<Value<'a>>) -> Result<Vec<(Value<'a>, Value<'a>)>, PickleError> {
        let (pairs, rest) = items.as_chunks::<2>();
        if rest.is_empty() {
            Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
        } else {
            Err(self.bad("a dict key without a value"))
        }
    }

    /// The container on top of the stack, made one deeper than `inner` if it is not yet.
    fn container(&mut self, inner: usize) -> Result<&mut Node<'a>, PickleError> {
        let top = self.pop()?;
        self.stack.push(top);
        let Value::Node(index) = top else {
            return Err(self.bad("items for something that is no container"));
        };
        self.within("nesting", inner as u64 + 1, self.limits.pickle_depth as u64)?;
        self.depths[index] = self.depths[index].max(inner + 1);
        Ok(&mut self.nodes[index])
    }

    fn append(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = if opcode == b'a' { vec![self.pop()?] } else { self.pop_mark()? };
        let inner = self.deepest(&items);
        self.contained += items.len();
        match self.container(inner)? {
            Node::List(list) => list.extend(items),
            _ => return Err(self.bad("items for something that is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = if opcode == b's' {
            let value = self.pop()?;
            vec![self.pop()?, value]
        } else {
            self.pop_mark()?
        };
        let inner = self.deepest(&items);
        self.contained += items.len();
        let pairs = self.pairs(items)?;
        match self.container(inner)? {
            Node::Dict(dict) => dict.extend(pairs),
            _ => return Err(self.bad("items for something that is no dict")),
        }
        Ok(())
    }

    // --- names and calls ---

    fn global(&mut self, opcode: u8) -> Result<(), PickleError> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (module, name) {
                (Value::Text(module), Value::Text(name)) => (module, name),
                _ => return Err(self.bad("a global whose name is no text")),
            }
        };
        let global = allowed(module, name).ok_or_else(|| PickleError::ForbiddenGlobal {
            module: module.to_owned(),
            name: name.to_owned(),
            at: self.start,
        })?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Node(index) => match &self.nodes[index] {
                Node::Tuple(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    fn persistent_id(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let node = match self.tuple(id) {
            Some(
                &[
                    Value::Text("storage"),
                    Value::Global(Global::Storage(storage_type)),
                    Value::Text(key),
                    Value::Text(_device),
                    Value::Int(elements),
                ],
            ) => Node::Storage { storage_type, key, elements },
            _ => return Err(self.bad("a persistent id that is no tensor storage")),
        };
        self.push_node(node)
    }

    fn reduce(&mut self) -> Result<(), PickleError> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let Value::Global(callable) = callable else {
            return Err(PickleError::ForbiddenCall { what: "REDUCE", at: self.start });
        };
        let Some(arguments) = self.tuple(arguments) else {
            return Err(self.bad("call arguments that are no tuple"));
        };
        match (callable, arguments) {
            (Global::OrderedDict, []) => self.push_node(Node::Dict(Vec::new())),
            // `(storage, offset, size, stride, requires_grad, hooks[, metadata])`
            (
                Global::RebuildTensor,
                &[
                    Value::Node(storage),
                    Value::Int(offset),
                    Value::Node(size),
                    Value::Node(stride),
                    _,
                    _,
                    ..,
                ],
            ) if arguments.len() <= 7 && matches!(self.nodes[storage], Node::Storage { .. }) => {
                self.push_node(Node::Tensor { storage, offset, size, stride })
            }
            // `(tensor, requires_grad, hooks)`: a parameter is its tensor.
            (Global::RebuildParameter, &[Value::Node(tensor), _, _])
                if matches!(self.nodes[tensor], Node::Tensor { .. }) =>
            {
                self.stack.push(Value::Node(tensor));
                Ok(())
            }
            (Global::Storage(_), _) => {
                Err(PickleError::ForbiddenCall { what: "REDUCE", at: self.start })
            }
            _ => Err(self.bad("wrong arguments for a call")),
        }
    }

    /// `OrderedDict` carries module versions as attributes (`_metadata`); they are not needed.
    fn build(&mut self) -> Result<(), PickleError> {
        let state = self.pop()?;
        let target = self.pop()?;
        self.stack.push(target);
        let is_dict = |value| match value {
            Value::Node(index) => matches!(self.nodes[index], Node::Dict(_)),
            _ => false,
        };
        if is_dict(target) && is_dict(state) {
            Ok(())
        } else {
            Err(PickleError::ForbiddenCall { what: "BUILD", at: self.start })
        }
    }

    // --- errors ---

    fn bad(&self, what: &'static str) -> PickleError {
        PickleError::BadValue { what, at: self.start }
    }

    fn within(&self, what: &'static str, value: u64, limit: u64) -> Result<(), PickleError> {
        if value <= limit {
            return Ok(());
        }
        Err(PickleError::Limit { what, limit, at: self.start })
    }
}

/// A little-endian two's complement integer of up to 255 bytes.
fn long<'a>(bytes: &[u8]) -> Value<'a> {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|&byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}
