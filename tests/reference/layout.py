"""Tensor names and shapes of the original checkpoint, and their Hugging Face twins."""

import re

import torch

from sizes import Sizes

Shapes = dict[str, tuple[int, ...]]


def original_shapes(s: Sizes) -> Shapes:
    """Every tensor of an original checkpoint, unused ones included, in file order."""
    shapes: Shapes = {}
    shapes |= _vision(s)
    shapes |= _projector("aligner", s.vision_width, s.hidden, s.aligner_depth)
    shapes |= _vq(s)
    shapes |= _projector("gen_aligner", s.code_dim, s.hidden, s.gen_aligner_depth)
    shapes |= _linear("gen_head.output_mlp_projector", s.hidden, s.hidden)
    shapes |= _linear("gen_head.vision_head", s.hidden, s.codes)
    shapes["gen_embed.weight"] = (s.codes, s.code_dim)
    shapes |= _language(s)
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _conv(name: str, inputs: int, outputs: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)}


def _projector(name: str, inputs: int, outputs: int, depth: int) -> Shapes:
    """Linear, then GELU and Linear; odd indices are the activations."""
    shapes = _linear(f"{name}.layers.0", inputs, outputs)
    for i in range(1, depth):
        shapes |= _linear(f"{name}.layers.{2 * i}", outputs, outputs)
    return shapes


def _vision(s: Sizes) -> Shapes:
    tower, width = "vision_model.vision_tower", s.vision_width
    shapes: Shapes = {f"{tower}.pos_embed": (1, s.vision_tokens, width)}
    shapes |= _conv(f"{tower}.patch_embed.proj", 3, width, s.patch)
    for i in range(s.vision_layers):
        block = f"{tower}.blocks.{i}"
        shapes |= _norm(f"{block}.norm1", width)
        shapes |= _linear(f"{block}.attn.qkv", width, 3 * width)
        shapes |= _linear(f"{block}.attn.proj", width, width)
        shapes |= _norm(f"{block}.norm2", width)
        shapes |= _linear(f"{block}.mlp.fc1", width, s.vision_mlp)
        shapes |= _linear(f"{block}.mlp.fc2", s.vision_mlp, width)
    shapes |= _norm(f"{tower}.norm", width)
    return shapes | _attention_pool(f"{tower}.attn_pool", s)


def _attention_pool(pool: str, s: Sizes) -> Shapes:
    """The pooling head of the released files: stored, never used."""
    width = s.vision_width
    shapes: Shapes = {f"{pool}.latent": (1, 1, width)}
    shapes |= _linear(f"{pool}.q", width, width)
    shapes |= _linear(f"{pool}.kv", width, 2 * width)
    shapes |= _linear(f"{pool}.proj", width, width)
    shapes |= _norm(f"{pool}.norm", width)
    shapes |= _linear(f"{pool}.mlp.fc1", width, s.vision_mlp)
    return shapes | _linear(f"{pool}.mlp.fc2", s.vision_mlp, width)


def _res(name: str, inputs: int, outputs: int) -> Shapes:
    shapes = _norm(f"{name}.norm1", inputs) | _conv(f"{name}.conv1", inputs, outputs, 3)
    shapes |= _norm(f"{name}.norm2", outputs) | _conv(f"{name}.conv2", outputs, outputs, 3)
    if inputs != outputs:
        shapes |= _conv(f"{name}.nin_shortcut", inputs, outputs, 1)
    return shapes


def _attn(name: str, width: int) -> Shapes:
    shapes = _norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= _conv(f"{name}.{part}", width, width, 1)
    return shapes


def _mid(name: str, width: int) -> Shapes:
    return _res(f"{name}.mid.0", width, width) | _attn(f"{name}.mid.1", width) | _res(f"{name}.mid.2", width, width)


def _vq(s: Sizes) -> Shapes:
    vq = "gen_vision_model"
    shapes = _vq_encoder(f"{vq}.encoder", s) | _vq_decoder(f"{vq}.decoder", s)
    shapes |= _conv(f"{vq}.quant_conv", s.vq_latent, s.code_dim, 1)
    shapes[f"{vq}.quantize.embedding.weight"] = (s.codes, s.code_dim)
    shapes[f"{vq}.quantize.codebook_used"] = (s.usage_buffer,)
    return shapes | _conv(f"{vq}.post_quant_conv", s.code_dim, s.vq_latent, 1)


def _vq_encoder(name: str, s: Sizes) -> Shapes:
    shapes = _conv(f"{name}.conv_in", 3, s.vq_base, 3)
    width, last = s.vq_base, len(s.vq_multipliers) - 1
    for level, multiplier in enumerate(s.vq_multipliers):
        block = f"{name}.conv_blocks.{level}"
        for j in range(s.vq_res_blocks):
            shapes |= _res(f"{block}.res.{j}", width, s.vq_base * multiplier)
            width = s.vq_base * multiplier
            if level == last:
                shapes |= _attn(f"{block}.attn.{j}", width)
        if level != last:
            shapes |= _conv(f"{block}.downsample.conv", width, width, 3)
    shapes |= _mid(name, width) | _norm(f"{name}.norm_out", width)
    return shapes | _conv(f"{name}.conv_out", width, s.vq_latent, 3)


def _vq_decoder(name: str, s: Sizes) -> Shapes:
    """Block 0 is the lowest resolution; each level has one block more than the encoder."""
    width, last = s.vq_base * s.vq_multipliers[-1], len(s.vq_multipliers) - 1
    shapes = _conv(f"{name}.conv_in", s.vq_latent, width, 3) | _mid(name, width)
    for level, multiplier in enumerate(reversed(s.vq_multipliers)):
        block = f"{name}.conv_blocks.{level}"
        for j in range(s.vq_res_blocks + 1):
            shapes |= _res(f"{block}.res.{j}", width, s.vq_base * multiplier)
            width = s.vq_base * multiplier
            if level == 0:
                shapes |= _attn(f"{block}.attn.{j}", width)
        if level != last:
            shapes |= _conv(f"{block}.upsample.conv", width, width, 3)
    return shapes | _norm(f"{name}.norm_out", width) | _conv(f"{name}.conv_out", width, 3, 3)


def _language(s: Sizes) -> Shapes:
    body = "language_model.model"
    shapes: Shapes = {f"{body}.embed_tokens.weight": (s.vocab, s.hidden)}
    for i in range(s.layers):
        layer = f"{body}.layers.{i}"
        queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
        shapes[f"{layer}.self_attn.q_proj.weight"] = (queries, s.hidden)
        shapes[f"{layer}.self_attn.k_proj.weight"] = (keys, s.hidden)
        shapes[f"{layer}.self_attn.v_proj.weight"] = (keys, s.hidden)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (s.hidden, queries)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (s.intermediate, s.hidden)
        shapes[f"{layer}.mlp.up_proj.weight"] = (s.intermediate, s.hidden)
        shapes[f"{layer}.mlp.down_proj.weight"] = (s.hidden, s.intermediate)
        shapes[f"{layer}.input_layernorm.weight"] = (s.hidden,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (s.hidden,)
    shapes[f"{body}.norm.weight"] = (s.hidden,)
    shapes["language_model.lm_head.weight"] = (s.vocab, s.hidden)
    return shapes


# Applied in order, each at most once; what a name keeps is the same in both dialects.
_RENAMES = [
    (r"^vision_model\.vision_tower\.pos_embed$", r"model.vision_model.embeddings.position_embedding.weight"),
    (r"^vision_model\.vision_tower\.patch_embed\.proj\.", r"model.vision_model.embeddings.patch_embedding."),
    (r"^vision_model\.vision_tower\.blocks\.(\d+)\.norm([12])\.", r"model.vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^vision_model\.vision_tower\.blocks\.(\d+)\.attn\.proj\.", r"model.vision_model.encoder.layers.\1.self_attn.projection_layer."),
    (r"^vision_model\.vision_tower\.blocks\.(\d+)\.attn\.qkv\.", r"model.vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"^vision_model\.vision_tower\.blocks\.(\d+)\.mlp\.", r"model.vision_model.encoder.layers.\1.mlp."),
    (r"^vision_model\.vision_tower\.norm\.", r"model.vision_model.post_layernorm."),
    (r"^aligner\.layers\.0\.", r"model.aligner.fc1."),
    (r"^gen_aligner\.layers\.0\.", r"model.generation_aligner.fc1."),
    (r"^gen_embed\.", r"model.generation_embeddings."),
    (r"^gen_head\.output_mlp_projector\.", r"model.generation_head.proj_out."),
    (r"^gen_head\.vision_head\.", r"model.generation_head.vision_head."),
    (r"^gen_vision_model\.", r"model.vqmodel."),
    (r"\.encoder\.conv_blocks\.(\d+)\.res\.", r".encoder.down.\1.block."),
    (r"\.encoder\.conv_blocks\.", r".encoder.down."),
    (r"\.decoder\.conv_blocks\.(\d+)\.res\.", r".decoder.up.\1.block."),
    (r"\.decoder\.conv_blocks\.", r".decoder.up."),
    (r"\.mid\.0\.", r".mid.block_1."),
    (r"\.mid\.1\.", r".mid.attn_1."),
    (r"\.mid\.2\.", r".mid.block_2."),
    (r"^language_model\.model\.", r"model.language_model."),
    (r"^language_model\.lm_head\.", r"lm_head."),
]


def to_hf(name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """One original tensor under its Hugging Face names: none when dropped, three for a fused qkv."""
    if ".attn_pool." in name or name.endswith(".codebook_used"):
        return []
    if name.endswith(".pos_embed"):
        tensor = tensor[0]
    new = _later_projector_layer(name)
    for pattern, replacement in _RENAMES:
        new = re.sub(pattern, replacement, new, count=1)
    if ".self_attn.qkv." not in new:
        return [(new, tensor)]
    thirds = tensor.chunk(3, dim=0)
    return [(new.replace(".qkv.", f".{which}_proj."), third) for which, third in zip("qkv", thirds)]


def _later_projector_layer(name: str) -> str:
    """aligner.layers.2 is the first of Hugging Face's `hidden_layers`, 4 the second."""
    match = re.match(r"^(aligner|gen_aligner)\.layers\.([1-9]\d*)\.(.*)$", name)
    if match is None:
        return name
    outer = "model.aligner" if match[1] == "aligner" else "model.generation_aligner"
    return f"{outer}.hidden_layers.{int(match[2]) // 2 - 1}.{match[3]}"


def hf_state(original: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A whole state dict in Hugging Face names."""
    return {new: part.contiguous() for name, tensor in original.items() for new, part in to_hf(name, tensor)}
