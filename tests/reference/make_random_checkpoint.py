"""Writes a checkpoint with the published names, shapes and files, and random weights.

    python make_random_checkpoint.py --size 1b --out DIR --format both

For speed, memory and conversion tests of the true size, where the real weights
are not at hand. Tensors are made and written one by one (safetensors) or shard
by shard (bin).
"""

import argparse
import math
import time
from functools import lru_cache
from pathlib import Path

import torch

import tokenizer as tok
from layout import original_shapes, to_hf
from sizes import PRO_1B, PRO_7B, SMALL, Sizes, hf_config, original_config
from stream import stream_safetensors
from weights import calm

# elements, tensors: what the published files hold
COUNTS = {"1b": (2_089_297_547, 882), "7b": (7_420_434_059, 936)}
SIZES = {"1b": PRO_1B, "7b": PRO_7B}
SPECIAL_IDS = {
    "1b": {"bos": 100000, "eos": 100001, "pad": 100002, "boi": 100003, "eoi": 100580,
           "image_placeholder": 100581, "user": 100588, "assistant": 100589},
    "7b": {"bos": 100000, "eos": 100001, "pad": 100015, "boi": 100016, "eoi": 100593,
           "image_placeholder": 100594, "user": 100601, "assistant": 100602},
}
# Janus-1.3B, the predecessor: the 1B network with the 7B tokenizer.
COUNTS["1.3b"], SIZES["1.3b"], SPECIAL_IDS["1.3b"] = COUNTS["1b"], PRO_1B, SPECIAL_IDS["7b"]
# No published model: small enough to train in every way within minutes.
COUNTS["100m"], SIZES["100m"] = (116_062_027, 546), SMALL
SPECIAL_IDS["100m"] = {role: id - 70_000 for role, id in SPECIAL_IDS["1b"].items()}


class Source:
    """Makes tensors by their name in the file, original or Hugging Face."""

    def __init__(self, sizes: Sizes, seed: int, names: str):
        self.original = original_shapes(sizes)
        self.made = lru_cache(maxsize=1)(lambda name: calm(name, self.original[name], seed))
        self.origin: dict[str, tuple[str, int]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in self.original.items():
            blank = torch.empty(shape, device="meta")
            parts = to_hf(name, blank) if names == "hf" else [(name, blank)]
            for i, (new, part) in enumerate(parts):
                self.origin[new], self.shapes[new] = (name, i), tuple(part.shape)
        self.names = names

    def make(self, name: str) -> torch.Tensor:
        original, i = self.origin[name]
        tensor = self.made(original)
        return to_hf(original, tensor)[i][1] if self.names == "hf" else tensor

    def shards(self, limit: float) -> list[list[str]]:
        """Names in file order, cut so that no shard exceeds `limit` bytes."""
        shards, used = [[]], 0
        for name, shape in self.shapes.items():
            size = 2 * math.prod(shape)
            if used + size > limit and shards[-1]:
                shards.append([])
                used = 0
            shards[-1].append(name)
            used += size
        return shards


def check_counts(size: str, shapes: dict[str, tuple[int, ...]]):
    found = sum(map(math.prod, shapes.values())), len(shapes)
    assert found == COUNTS[size], f"{found} instead of {COUNTS[size]}"


def write_weights(folder: Path, source: Source, kind: str, limit: float):
    """All shards of one format, and their index if there is more than one."""
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    shards = source.shards(limit)
    weight_map = {}
    for i, names in enumerate(shards, 1):
        file = f"{stem}.{suffix}" if len(shards) == 1 else f"{stem}-{i:05}-of-{len(shards):05}.{suffix}"
        weight_map |= dict.fromkeys(names, file)
        if kind == "safetensors":
            entries = {name: (torch.bfloat16, source.shapes[name]) for name in names}
            stream_safetensors(folder / file, entries, source.make)
        else:
            torch.save({name: _alone(source.make(name)) for name in names}, folder / file)
    if len(shards) > 1:
        total = 2 * sum(map(math.prod, source.shapes.values()))
        tok.write_json(folder / f"{stem}.{suffix}.index.json",
                       {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """torch.save writes the whole storage behind a view, so a third of a fused qkv needs its own."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def write_config_files(folder: Path, size: str, names: str):
    """config.json, tokenizer and processor files."""
    sizes = SIZES[size]
    tokenizer = tok.finish(tok.with_fillers(tok.train_base(), SPECIAL_IDS[size]["bos"]), reserved=576,
                           extra_characters=size in ("7b", "1.3b"), adds_bos=False)
    assert tok.special_ids(tokenizer) == SPECIAL_IDS[size], tok.special_ids(tokenizer)
    tok.write_original_files(folder, tokenizer, sizes.image, sizes.vision_tokens, sizes.max_positions)
    if names == "original":
        tok.write_json(folder / "config.json", original_config(sizes, explicit=sizes is SMALL))
    else:
        config = hf_config(sizes, SPECIAL_IDS[size])
        config.dtype = torch.bfloat16
        config.architectures = ["JanusForConditionalGeneration"]
        config.save_pretrained(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--format", choices=["bin", "safetensors", "both"], default="safetensors",
                        help="both writes to OUT/bin and OUT/safetensors")
    parser.add_argument("--names", choices=["original", "hf"], default="original")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-gb", type=float, default=5.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    check_counts(args.size, original_shapes(SIZES[args.size]))
    source = Source(SIZES[args.size], args.seed, args.names)
    for kind in ("bin", "safetensors") if args.format == "both" else (args.format,):
        folder = args.out / kind if args.format == "both" else args.out
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        write_config_files(folder, args.size, args.names)
        write_weights(folder, source, kind, args.shard_gb * 1e9)
        print(f"{folder}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
