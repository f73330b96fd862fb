"""Gradients as fixtures keep them: whole where they are small, else a norm, projections and a sample."""

import math

import torch

from layout import original_shapes, to_hf
from sizes import Sizes

WHOLE, SAMPLED, PROJECTIONS = 64, 32, 3


def original_gradients(model, sizes: Sizes, prefix: str) -> dict[str, torch.Tensor]:
    """The gradient of every parameter of a part that has one, in original names and shapes."""
    found = {name: p.grad for name, p in model.named_parameters()}
    result = {}
    for name, shape in original_shapes(sizes).items():
        parts = [found.get(new) for new, _ in to_hf(name, torch.empty(shape))] if name.startswith(prefix) else []
        if parts and all(part is not None for part in parts):
            result[name] = torch.cat(parts).reshape(shape)
    return result


def projection(count: int, k: int) -> torch.Tensor:
    """A fixed direction that the Rust test makes again."""
    return torch.cos(torch.arange(count, dtype=torch.float64) * (0.37 + 0.11 * k) + k)


def condensed(name: str, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is kept of a gradient."""
    flat = gradient.flatten()
    if len(flat) <= WHOLE:
        return {name: gradient}
    exact = flat.double()
    projections = [exact @ projection(len(flat), k) for k in range(PROJECTIONS)]
    return {
        f"{name}#norm": exact.norm()[None].float(), f"{name}#projections": torch.stack(projections).float(),
        f"{name}#sample": flat[:: math.ceil(len(flat) / SAMPLED)],
    }
