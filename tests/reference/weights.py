"""Random weights that keep a network numerically healthy."""

import math
import zlib

import torch


def _generator(name: str, seed: int) -> torch.Generator:
    """One stream per tensor, so that no weight depends on the order of making."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()) ^ (seed * 0x9E3779B1 & 0xFFFFFFFF))


def _is_norm(name: str) -> bool:
    parent = name.split(".")[-2]
    return parent in ("norm", "norm1", "norm2", "norm_out", "input_layernorm", "post_attention_layernorm")


# Standard deviation of whole tables, and gain over 1/sqrt(fan-in) of matrices.
_TABLES = {
    "gen_embed.weight": 1.0,
    "language_model.model.embed_tokens.weight": 0.7,
    "vision_model.vision_tower.pos_embed": 0.4,
    "vision_model.vision_tower.attn_pool.latent": 0.4,
}
_GAINS = {
    "attn.qkv.weight": 1.6, "self_attn.q_proj.weight": 1.7, "self_attn.k_proj.weight": 1.7,
    "lm_head.weight": 3.0, "gen_head.vision_head.weight": 2.5, "gen_aligner.layers.0.weight": 1.5,
    "gen_vision_model.decoder.conv_out.weight": 1.3, "gen_vision_model.quant_conv.weight": 1.5,
    "gen_vision_model.post_quant_conv.weight": 3.0,
}


def lively(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """bf16 weights for a tiny network whose outputs spread like a trained one's.

    Nothing sits at a neutral value: norms are not 1, biases not 0, codebook
    rows not unit vectors, so that a skipped operation shows.
    """
    noise = torch.randn(shape, generator=_generator(name, seed))
    if name.endswith("codebook_used"):
        value = torch.zeros(shape)
    elif name.endswith("quantize.embedding.weight"):
        lengths = 0.4 + 1.6 * torch.rand(shape[0], 1, generator=_generator(name + ".length", seed))
        value = noise * lengths
    elif name in _TABLES:
        value = noise * _TABLES[name]
    elif _is_norm(name) and name.endswith(".weight"):
        value = 1 + 0.15 * noise
    elif len(shape) == 1:
        value = 0.1 * noise
    else:
        gain = next((g for suffix, g in _GAINS.items() if name.endswith(suffix)), 1.0)
        value = noise * gain / math.sqrt(math.prod(shape[1:]))
    value = value.to(torch.bfloat16)
    return _coarse(value) if len(shape) == 4 else value


def _coarse(value: torch.Tensor) -> torch.Tensor:
    """Drops four of seven mantissa bits: convolutions are most of a tiny file, and so they compress."""
    return (value.view(torch.int16) & ~0xF).view(torch.bfloat16)


def calm(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """bf16 weights for a full-size network: small, like a fresh initialisation.

    Convolutions scale with their fan-in because a fixed deviation would let
    the deep VQ network explode or die; heads are widened so that the largest
    logit stands out.
    """
    noise = torch.randn(shape, generator=_generator(name, seed), dtype=torch.float32)
    if name.endswith("codebook_used"):
        noise.zero_()
    elif name.endswith("quantize.embedding.weight"):
        noise = torch.nn.functional.normalize(noise, dim=-1)
    elif name == "gen_embed.weight":
        noise *= 0.31
    elif _is_norm(name) and name.endswith(".weight"):
        noise.mul_(0.02).add_(1)
    elif len(shape) == 1:
        noise *= 0.02
    elif name.endswith(("lm_head.weight", "gen_head.vision_head.weight")):
        noise *= 3 / math.sqrt(shape[1])
    elif len(shape) == 4 or name.startswith(("gen_aligner.", "gen_head.", "aligner.")):
        noise *= 1 / math.sqrt(math.prod(shape[1:]))
    elif name.endswith("embed_tokens.weight"):
        noise *= 0.5
    else:
        noise *= 0.02
    return noise.to(torch.bfloat16)
