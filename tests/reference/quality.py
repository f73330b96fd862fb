"""What 8 and 4 bits cost: janus's rounding beside llama.cpp's at equal bits, on the same model.

    python quality.py --model DIR --janus BINARY [--codes 64]

DIR is a folder with Hugging Face names, or one of the known sizes with original names. PyTorch computes
everything in f32; only the weights of the decoder and of both heads differ. janus's are what `janus
convert --dtype int8|int4` wrote, read back as f32; llama.cpp's are Q8_0 and Q4_0 of the package `gguf`
(heads in Q8_0, as janus has them; and, in a row of its own, in Q4_0, too). Activations, which both
programs round to 8 bits, stay exact here.

The unrounded model draws codes at temperature 1 without guidance; every model then says what it would
have drawn at each place. Words are those of the prompts. Printed, in Markdown: the error of the logits
(of their deviation), the divergence of the probabilities, and how often the likeliest is the same.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import JanusForConditionalGeneration

from full_size import load
from prompts import generation_text, prompt_ids

PROMPTS = [
    "a red circle above a blue square", "three green stars", "a yellow heart on a dark background",
    "two white triangles", "a purple cross to the left of an orange circle", "a black square",
]


def opened(folder: Path) -> JanusForConditionalGeneration:
    config = json.loads((folder / "config.json").read_text())
    if "text_config" in config:
        return JanusForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return load(folder, torch.float32)


def drawn(model, ids: list[int], count: int, seed: int) -> torch.Tensor:
    """Codes, one after another, at temperature 1."""
    make = torch.Generator().manual_seed(seed)
    inputs = model.model.language_model.embed_tokens(torch.tensor([ids]))
    cache, codes = None, []
    for _ in range(count):
        out = model.model.language_model(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logits = model.model.generation_head(out.last_hidden_state[:, -1])
        codes.append(torch.multinomial(logits.softmax(-1), 1, generator=make))
        inputs = model.prepare_embeddings_for_image_generation(codes[-1])
    return torch.cat(codes, dim=1)


def logits_of(model, prompts: list[list[int]], codes: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of every word of the prompts and of every code."""
    words, places = [], []
    for ids, given in zip(prompts, codes):
        text = model.model.language_model.embed_tokens(torch.tensor([ids]))
        inputs = torch.cat([text, model.prepare_embeddings_for_image_generation(given[:, :-1])], dim=1)
        hidden = model.model.language_model(inputs_embeds=inputs).last_hidden_state[0]
        words.append(model.lm_head(hidden[: len(ids) - 1]))
        places.append(model.model.generation_head(hidden[len(ids) - 1 :]))
    return {"words": torch.cat(words), "codes": torch.cat(places)}


def compared(exact: torch.Tensor, other: torch.Tensor) -> list[str]:
    error = (other - exact).norm() / (exact - exact.mean(-1, keepdim=True)).norm()
    p, q = exact.log_softmax(-1), other.log_softmax(-1)
    divergence = (p.exp() * (p - q)).sum(-1).mean()
    same = (exact.argmax(-1) == other.argmax(-1)).float().mean()
    return [f"{error:.4f}", f"{divergence:.5f}", f"{100 * same:.1f} %"]


def quantised(model, kinds: dict[str, gguf.GGMLQuantizationType]):
    """Rounds matrices in place, by what the names of their layers begin with."""
    for name, layer in model.named_modules():
        kind = next((kind for start, kind in kinds.items() if name.startswith(start)), None)
        if kind is None or not isinstance(layer, torch.nn.Linear):
            continue
        weight = np.ascontiguousarray(layer.weight.detach().numpy())
        packed = gguf.quants.quantize(weight, kind)
        layer.weight.data = torch.from_numpy(gguf.quants.dequantize(packed, kind).copy())


def as_janus_has_it(binary: Path, model: Path, dtype: str, folder: Path) -> Path:
    names = "hf" if "text_config" in json.loads((model / "config.json").read_text()) else "original"
    packed, plain = folder / dtype, folder / f"{dtype}-plain"
    for source, target, more in [(model, packed, dtype), (packed, plain, "f32")]:
        command = [str(binary), "convert", str(source), str(target), "--names", names, "--dtype", more]
        subprocess.run(command, check=True, capture_output=True)
    return plain


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--janus", type=Path, required=True)
    parser.add_argument("--codes", type=int, default=64)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    prompts = [prompt_ids(tokenizer, generation_text(prompt), 0) for prompt in PROMPTS]
    model = opened(args.model)
    codes = [drawn(model, ids, args.codes, seed) for seed, ids in enumerate(prompts)]
    exact = logits_of(model, prompts, codes)
    del model

    def row(name: str, model):
        found = logits_of(model, prompts, codes)
        cells = compared(exact["codes"], found["codes"]) + compared(exact["words"], found["words"])
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)

    head = ["codes: error", "divergence", "same choice", "words: error", "divergence", "same choice"]
    print("| | " + " | ".join(head) + " |\n" + "|---" * (len(head) + 1) + "|")
    q8, q4 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0
    layers, heads = "model.language_model.layers", ["model.generation_head", "lm_head"]
    for dtype, kinds in [
        ("int8", {"llama.cpp Q8_0": {layers: q8, **dict.fromkeys(heads, q8)}}),
        ("int4", {
            "llama.cpp Q4_0, heads Q8_0": {layers: q4, **dict.fromkeys(heads, q8)},
            "llama.cpp Q4_0": {layers: q4, **dict.fromkeys(heads, q4)},
        }),
    ]:
        with tempfile.TemporaryDirectory() as folder:
            row(f"janus {dtype}", opened(as_janus_has_it(args.janus, args.model, dtype, Path(folder))))
        for name, kind in kinds.items():
            model = opened(args.model)
            quantised(model, kind)
            row(name, model)
            del model


if __name__ == "__main__":
    main()
