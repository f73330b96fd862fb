"""A safetensors writer that needs no more memory than one tensor, and always writes the same bytes.

The library's own writer wants all tensors at once and orders metadata at random.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch

_NAMES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}
Entry = tuple[torch.dtype, tuple[int, ...]]


class SafetensorsFile:
    """Writes the header at once; then `add` must be called for each entry, in order."""

    def __init__(self, path: Path, entries: dict[str, Entry], metadata: dict[str, str]):
        self.pending = list(entries.items())
        header: dict = {"__metadata__": dict(sorted(metadata.items()))}
        offset = 0
        for name, (dtype, shape) in entries.items():
            end = offset + math.prod(shape) * dtype.itemsize
            header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.file = open(path, "wb")
        self.file.write(len(text).to_bytes(8, "little") + text)

    def add(self, name: str, tensor: torch.Tensor):
        assert self.pending.pop(0) == (name, (tensor.dtype, tuple(tensor.shape))), name
        self.file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())

    def close(self):
        assert not self.pending, f"{len(self.pending)} tensors missing"
        self.file.close()


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]):
    """A whole file at once."""
    file = SafetensorsFile(path, {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}, metadata)
    for name, tensor in tensors.items():
        file.add(name, tensor)
    file.close()


def stream_safetensors(path: Path, entries: dict[str, Entry], make: Callable[[str], torch.Tensor]):
    """A file whose tensors are made one by one."""
    file = SafetensorsFile(path, entries, {"format": "pt"})
    for name in entries:
        file.add(name, make(name))
    file.close()
