"""Writes what drawing from pictures (editing) must give on the tiny models.

    python make_edit_fixtures.py --out ../fixtures

Reads the tiny models as `make_fixtures.py` left them and writes `*/edit.safetensors`. The loop is that of
the published example of Janus-4o: three interleaved rows per picture, no attention mask, positions
0, 1, 2, …; choices are greedy.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import DynamicCache, JanusForConditionalGeneration

import tokenizer as tok
from expectations import MIN_MARGIN, margins, quantise
from prompts import render, turns, unconditional
from stream import write_safetensors

COMMAND = "python make_edit_fixtures.py --out ../fixtures"
# Tried until every greedy choice is clear.
WISHES = [
    "Turn it into a red house.", "Make it a blue cube.", "A green river at night, please.",
    "Paint the cat black.", "Yellow sphere, white mountain.", "Remove the tree.", "Add a dog to the house.",
    "Now in red and blue.", "The same by night.", "A white cat in place of the dog.",
]
WEIGHTS = {"one": (5.0, 5.0), "two": (3.0, 1.5)}


def edit_ids(tokenizer: Tokenizer, wish: str, pictures: int, tokens: int, codes: int) -> torch.Tensor:
    """Each picture as placeholders between its ends, then as padding between its ends; then the wish."""
    picture = tok.BOI + tok.IMAGE * tokens + tok.EOI + tok.BOI + tok.PAD * codes + tok.EOI
    text = render("", turns(picture * pictures + wish, "")) + tok.BOI
    return torch.tensor([tok.special_ids(tokenizer)["bos"], *tok.encode(tokenizer, text)])


@torch.no_grad()
def encode(model, pixels: torch.Tensor) -> torch.Tensor:
    """Codes of pictures, [n, codes]; a choice that is not clear is no fair test."""
    network = model.model.vqmodel
    found, gaps = quantise(network.quant_conv(network.encoder(pixels)), network.quantize.embedding.weight)
    assert gaps.min() > 2e-6, f"codes of the pictures: {gaps.min():.1e}"
    return found.reshape(len(pixels), -1)


@torch.no_grad()
def draw(model, special: dict, ids: torch.Tensor, pixels: torch.Tensor, weights: tuple[float, float]):
    """Greedy codes, the three rows' first logits, and the guided logits of every step."""
    inner = model.model
    features = inner.aligner(inner.vision_model(pixels).last_hidden_state)
    sources = encode(model, pixels)
    embedded = inner.generation_aligner(inner.generation_embeddings(sources))
    twin = torch.tensor(unconditional(ids.tolist(), special["pad"]))
    x = inner.language_model.embed_tokens(torch.stack([ids, ids, twin])).clone()
    x[:2, ids == special["image_placeholder"]] = features.flatten(0, 1)
    ends = (ids == special["eoi"]).nonzero().flatten()[::2]
    for end, codes in zip(ends, embedded):
        x[0, end + 2 : end + 2 + len(codes)] = codes
    cache, codes, guided, first = DynamicCache(config=model.config.text_config), [], [], None
    cfg, cfg_pictures = weights
    for _ in range(sources.shape[1]):
        hidden = inner.language_model(inputs_embeds=x, past_key_values=cache, use_cache=True).last_hidden_state
        full, part, nothing = inner.generation_head(hidden[:, -1])
        first = torch.stack([full, part, nothing]) if first is None else first
        mixed = (full + cfg_pictures * part) / (1 + cfg_pictures)
        guided.append(nothing + cfg * (mixed - nothing))
        codes.append(int(guided[-1].argmax()))
        newest = inner.generation_aligner(inner.generation_embeddings(torch.tensor([[codes[-1]]])))
        x = newest.repeat(3, 1, 1)
    return {"codes": torch.tensor(codes), "rows": first, "guided": torch.stack(guided), "sources": sources}


def case(model, tokenizer: Tokenizer, pixels: torch.Tensor, weights: tuple[float, float]):
    """The first wish whose choices all win clearly."""
    special = tok.special_ids(tokenizer)
    tokens = pixels.shape[-1] ** 2 // model.config.vision_config.patch_size ** 2
    for number, wish in enumerate(WISHES):
        ids = edit_ids(tokenizer, wish, len(pixels), tokens, encode(model, pixels).shape[1])
        found = draw(model, special, ids, pixels, weights)
        clear = float((margins(found["guided"]) / found["guided"].std(dim=-1)).min())
        kinds = found["codes"].unique().numel()
        print(f"{len(pixels)} pictures, {wish!r}: margin {clear:.1e}, {kinds} kinds of codes")
        if clear >= MIN_MARGIN and kinds >= 12:
            guided = found.pop("guided")
            return {**found, "ids": ids, "wish": torch.tensor(list(wish.encode()), dtype=torch.uint8),
                    "weights": torch.tensor(weights), "guided": guided[0]}
    raise SystemExit("no wish gives clear choices")


def make(out: Path, name: str):
    folder = out / name / "hf"
    model = JanusForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pixels = load_file(out / name / "expected.safetensors")["pixel_values"]
    tensors = {}
    for label, weights in WEIGHTS.items():
        count = {"one": 1, "two": 2}[label]
        found = case(model, tokenizer, pixels[:count], weights)
        tensors |= {f"{label}.{key}": value for key, value in found.items()}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "command": COMMAND}
    write_safetensors(out / name / "edit.safetensors", tensors, versions)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for model_name in ["tiny-pro", "tiny-odd"]:
        make(arguments.out, model_name)
