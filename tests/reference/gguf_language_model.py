"""Writes the language model of a Janus folder as GGUF, in bf16, Q8_0 and Q4_0, for llama.cpp to time.

    python gguf_language_model.py --model DIR --out DIR

Words only: llama.cpp has no Janus. There is no vocabulary in the files, which is enough for llama-bench.
As llama.cpp's own quantisation does it, norms stay in f32 and everything else is quantised.
Needs the package `gguf`.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch

from full_size import find_sizes, stored_tensors

NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TYPES = {
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
}
FILE_TYPES = {
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}


def name_of(name: str) -> str | None:
    """llama.cpp's name of a tensor of the language model."""
    name = name.removeprefix("language_model.").removesuffix(".weight")
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    if name in whole:
        return whole[name] + ".weight"
    if not name.startswith("model.layers."):
        return None
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.weight"


def paired(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp turns neighbours, where Hugging Face turns halves."""
    width = weight.shape[0] // heads
    return weight.reshape(heads, 2, width // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write(folder: Path, sizes, kind: str, out: Path):
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(16384)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("no_vocab")
    shapes = {}
    for name, tensor in stored_tensors(folder):
        if not name.startswith("language_model.") or name.endswith("inv_freq"):
            continue
        heads = sizes.heads
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = paired(tensor, heads)
        values = tensor.float().numpy()
        new = name_of(name)
        shapes[new] = values.shape
        if values.ndim == 1:
            writer.add_tensor(new, values)
            continue
        kind_of = TYPES[kind]
        packed = gguf.quants.quantize(np.ascontiguousarray(values), kind_of)
        writer.add_tensor(new, packed, raw_dtype=kind_of)
    vocabulary, width = shapes["token_embd.weight"]
    writer.add_vocab_size(vocabulary)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(shapes["blk.0.ffn_up.weight"][0])
    writer.add_block_count(sum(name.endswith("attn_q.weight") for name in shapes))
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for kind in TYPES:
        path = args.out / f"{kind}.gguf"
        write(args.model, find_sizes(args.model), kind, path)
        print(f"{path}: {path.stat().st_size / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
