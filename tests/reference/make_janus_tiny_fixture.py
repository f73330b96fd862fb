"""Writes what the shipped janus-tiny must compute, by transformers from its own folder.

    python make_janus_tiny_fixture.py --model ../../weights/janus-tiny --out ../fixtures/janus-tiny/expected.safetensors

Loaded as any user loads it: `JanusForConditionalGeneration.from_pretrained`, nothing missing and
nothing left over. Weights are what they are, so questions and prompts are tried until every greedy
choice is clear enough for a fair test.
"""

import argparse
import hashlib
import itertools
import os
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from tokenizers import Tokenizer

import expectations
import images
from check_export import check_processor, load
from expectations import NarrowMargin, Reference
from stream import write_safetensors

COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "black", "white"]
PROMPTS = [
    f"a {one} {shape} {where} a {other} {second}"
    for one, other in zip(COLOURS, COLOURS[3:] + COLOURS[:3])
    for shape, second in [("circle", "star"), ("square", "heart"), ("cross", "triangle")]
    for where in ("above", "and", "to the left of")
]
QUESTIONS = ["what do you see?", "How many objects are there?", "what is in the picture?", "is there a red circle?"]


def sizes(config) -> SimpleNamespace:
    """What the expectations ask of sizes."""
    vision = config.vision_config
    tokens = (vision.image_size // vision.patch_size) ** 2
    return SimpleNamespace(image=vision.image_size, vision_tokens=tokens, grid=config.vq_config.num_patches)


def first_clear(name: str, values: list[str], compute) -> dict[str, torch.Tensor]:
    """What `compute` gives for the first value of a setting that makes every choice clear."""
    for value in values:
        setattr(expectations, name, value)
        try:
            result = compute()
            print(f"{name} = {value!r}")
            return result
        except NarrowMargin as reason:
            print(f"{value!r}: {reason}")
    raise SystemExit(f"no {name} gives clear choices")


def vq(ref: Reference, codes: torch.Tensor) -> dict[str, torch.Tensor]:
    """As in the ladder, of the first picture whose codes are clear."""
    scene = images.scene
    for seed in itertools.count(11):
        images.scene = lambda width, height, seed=seed: scene(width, height, seed=seed)
        try:
            return expectations.vq(ref, codes)
        except NarrowMargin as reason:
            print(f"picture {seed}: {reason}")
        finally:
            images.scene = scene


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)  # sums must not depend on the machine's core count

    model = load(args.model)
    check_processor(args.model)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    pictures = [images.scene(71, 110, seed=1), images.pattern(120, 77)]
    ref = Reference(model, sizes(model.config), tokenizer, pictures)
    result = first_clear("GENERATION_PROMPT", PROMPTS, lambda: expectations.generation(ref))
    result |= first_clear("QUESTION", QUESTIONS, lambda: expectations.question(ref))
    result |= vq(ref, result["gen.codes"])
    result |= expectations.pixels(ref) | expectations.vision(ref) | expectations.batch(ref)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    weights = (args.model / "model.safetensors").read_bytes()
    write_safetensors(args.out, {name: value.contiguous() for name, value in sorted(result.items())}, {
        "torch": torch.__version__, "transformers": transformers.__version__,
        "weights": hashlib.sha256(weights).hexdigest(),
        "command": "python make_janus_tiny_fixture.py --model ../../weights/janus-tiny "
                   "--out ../fixtures/janus-tiny/expected.safetensors",
    })


if __name__ == "__main__":
    main()
