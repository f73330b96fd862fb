"""Writes a small data file and what the tiny model must lose on it: `janus eval loss` against PyTorch.

    python make_eval_fixtures.py --out ../fixtures

Reads tiny-pro as `make_fixtures.py` left it and writes `tiny-pro/eval/`: `data.jsonl`, its pictures, and
`expected.json`.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer
from transformers import JanusForConditionalGeneration

import images
import tokenizer as tok
from expectations import quantise
from make_train_fixtures import Sample, conversation, drawing, loss_sum
from prompts import SYSTEM
from sizes import TINY_PRO

COMMAND = "python make_eval_fixtures.py --out ../fixtures"
# A code must win by so much that rounding cannot choose another one.
MARGIN = 1e-3

# name, height, width, seed of the picture
PICTURES = [("landscape", 30, 40, 21), ("portrait", 50, 37, 22), ("cube", 96, 96, 11), ("wide", 60, 110, 0)]

# system text (None: the usual one), pictures, turns; `<image>` is the place of a picture
SAMPLES = [
    (None, ["landscape"], ("<image>\nWhat is in this picture?", "A red cat next to the river.")),
    (None, [], ("Hello, how are you?", "Fine, thanks.", "What is a cube?", "A box.")),
    (None, ["cube"], ("a red cube on a blue sphere", "<image>")),
    ("You see.", ["portrait", "landscape"],
     ("<image>\nWhat is this?", "A house.", "<image>\nAnd this?", "A tree under a bright sky.")),
    (None, ["wide"], ("a green river. best quality, film grained", "<image>")),
    ("", [], ("你好", "今天的天气很好 🙂")),
]


def centred(picture: np.ndarray, side: int) -> np.ndarray:
    """The middle of a picture whose short side became `side`."""
    height, width = picture.shape[:2]
    short = min(height, width)
    scaled = images.resize(picture, height * side // short, width * side // short)
    top, left = (scaled.shape[0] - side) // 2, (scaled.shape[1] - side) // 2
    return scaled[top : top + side, left : left + side]


def codes(model, picture: np.ndarray) -> tuple[torch.Tensor, float]:
    """Codes of a picture, and by how much the closest choice won."""
    network = model.model.vqmodel
    pixels = torch.from_numpy(images.normalised(centred(picture, TINY_PRO.image)))[None]
    found, margins = quantise(network.quant_conv(network.encoder(pixels)), network.quantize.embedding.weight)
    return found.flatten(), float(margins.min())


def sample(model, tokenizer: Tokenizer, system, names, talk, pictures) -> Sample:
    """One line of the data as a row."""
    if talk[-1] == "<image>":
        return drawing(tokenizer, talk[0], codes(model, pictures[names[0]])[0])
    squares = [images.normalised(images.canvas(pictures[name], TINY_PRO.image)) for name in names]
    pixels = torch.from_numpy(np.stack(squares)) if squares else None
    talk = tuple(text.replace("<image>", tok.IMAGE) for text in talk)
    return conversation(tokenizer, SYSTEM if system is None else system, talk, pixels)


def line(system, names, talk) -> str:
    """One sample as the native format has it."""
    said = [] if system is None else [{"role": "system", "content": system}]
    said += [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(talk)]
    return json.dumps({"messages": said, "images": [f"{name}.png" for name in names]}, ensure_ascii=False)


def drawn_from(model, height: int, width: int, seed: int) -> np.ndarray:
    """The first picture from this seed on whose codes no rounding can change."""
    while True:
        picture = images.scene(height, width, seed)
        if codes(model, picture)[1] >= MARGIN:
            return picture
        seed += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    root = parser.parse_args().out / "tiny-pro"
    torch.set_num_threads(1)  # sums must not depend on the machine's core count
    torch.set_grad_enabled(False)
    tokenizer = Tokenizer.from_file(str(root / "hf" / "tokenizer.json"))
    model = JanusForConditionalGeneration.from_pretrained(
        root / "hf", dtype=torch.float32, attn_implementation="eager").eval()
    drawn = {names[0] for _, names, talk in SAMPLES if talk[-1] == "<image>"}
    pictures = {name: drawn_from(model, h, w, seed) if name in drawn else images.scene(h, w, seed)
                for name, h, w, seed in PICTURES}
    folder = root / "eval"
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png", optimize=True)
    (folder / "data.jsonl").write_text("".join(line(*given) + "\n" for given in SAMPLES), encoding="utf-8")
    sums, counts, each = {"text": 0.0, "image": 0.0}, {"text": 0, "image": 0}, []
    for given in SAMPLES:
        row = sample(model, tokenizer, *given, pictures)
        kind = "image" if row.code_targets else "text"
        loss = float(loss_sum(model, row).double())
        sums[kind] += loss
        counts[kind] += row.supervised
        each.append({"kind": kind, "sum": loss, "tokens": row.supervised})
    total = {kind: {"loss": sums[kind] / counts[kind], "tokens": counts[kind]} for kind in sums}
    made = {"torch": torch.__version__, "transformers": transformers.__version__, "command": COMMAND}
    (folder / "expected.json").write_text(json.dumps({**total, "samples": each, "made": made}, indent=1) + "\n")
    print(json.dumps(total))


if __name__ == "__main__":
    main()
