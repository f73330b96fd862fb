"""Writes what a training step of the tiny model must compute: losses, gradients, ten AdamW steps.

    python make_train_fixtures.py --out ../fixtures

Reads tiny-pro as `make_fixtures.py` left it and writes `tiny-pro/train.safetensors`.
"""

import argparse
import math
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import safetensors
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import JanusForConditionalGeneration

import tokenizer as tok
from layout import original_shapes, to_hf
from prompts import SYSTEM, generation_text, prompt_ids, render, turns
from sizes import TINY_PRO
from stream import write_safetensors

COMMAND = "python make_train_fixtures.py --out ../fixtures"
STEPS, RATE, BETAS, EPSILON, CLIP = 10, 1e-3, (0.9, 0.95), 1e-8, 1.0
# Gradients of up to so many values are kept whole; of others a norm, projections and a sample.
WHOLE, SAMPLED, PROJECTIONS = 2048, 512, 4


@dataclass
class Sample:
    """One row: what is read, and which hidden state must predict what."""

    ids: list[int]
    text_targets: list[tuple[int, int]]
    pixels: torch.Tensor | None = None
    image_places: tuple[int, ...] = ()
    codes: tuple[int, ...] = ()
    code_places: tuple[int, ...] = ()
    code_targets: tuple[tuple[int, int], ...] = ()

    @property
    def supervised(self) -> int:
        return len(self.text_targets) + len(self.code_targets)


def conversation(tokenizer: Tokenizer, system: str, talk: tuple[str, ...], pixels) -> Sample:
    """Supervises the answers, their end-of-sentence included, and nothing else."""
    ids, targets = [], []
    for turn in range(2, len(talk) + 1, 2):
        def encoded(answer):
            said = turns(*talk[: turn - 1], answer)
            return prompt_ids(tokenizer, render(system, said), TINY_PRO.vision_tokens)
        asked, ids = encoded(""), encoded(talk[turn - 1])
        assert ids[: len(asked)] == asked and len(ids) > len(asked) + 1
        targets += [(place - 1, ids[place]) for place in range(len(asked), len(ids))]
    special = tok.special_ids(tokenizer)
    assert [ids[place + 1] for place, _ in targets] == [id for _, id in targets]
    assert targets[-1][1] == special["eos"]
    places = tuple(i for i, id in enumerate(ids) if id == special["image_placeholder"])
    return Sample(ids, targets, pixels, places)


def drawing(tokenizer: Tokenizer, prompt: str, codes: torch.Tensor) -> Sample:
    """Supervises every code; the first is predicted from begin-of-image, the last is never read."""
    ids, codes = prompt_ids(tokenizer, generation_text(prompt), 0), codes.tolist()
    boi, pad = len(ids) - 1, tok.special_ids(tokenizer)["pad"]
    targets = tuple((boi + i, code) for i, code in enumerate(codes))
    places = tuple(range(boi + 1, boi + len(codes)))
    return Sample(ids + [pad] * len(places), [], None, (), tuple(codes[:-1]), places, targets)


def loss_sum(model, sample: Sample) -> torch.Tensor:
    """Cross-entropy summed over the supervised tokens of one row."""
    inner = model.model
    x = inner.language_model.embed_tokens(torch.tensor([sample.ids]))
    if sample.pixels is not None:
        features = inner.aligner(inner.vision_model(sample.pixels).last_hidden_state)
        x = x.index_copy(1, torch.tensor(sample.image_places), features.flatten(0, 1)[None])
    if sample.codes:
        codes = inner.generation_aligner(inner.generation_embeddings(torch.tensor([sample.codes])))
        x = x.index_copy(1, torch.tensor(sample.code_places), codes)
    hidden = inner.language_model(inputs_embeds=x, use_cache=False).last_hidden_state[0]
    total = torch.zeros(())
    for head, targets in ((model.lm_head, sample.text_targets), (inner.generation_head, sample.code_targets)):
        if targets:
            places, ids = (torch.tensor(column) for column in zip(*targets))
            total = total + F.cross_entropy(head(hidden[places]), ids, reduction="sum")
    return total


def gradients(model) -> dict[str, torch.Tensor]:
    """The gradient of every parameter that has one, in original names and shapes."""
    found = {name: p.grad for name, p in model.named_parameters()}
    result = {}
    for name, shape in original_shapes(TINY_PRO).items():
        parts = [found.get(new) for new, _ in to_hf(name, torch.empty(shape))]
        if parts and all(part is not None for part in parts):
            result[name] = torch.cat(parts).reshape(shape)
    kept = sum(g.numel() for g in result.values())
    assert kept == sum(g.numel() for g in found.values() if g is not None), "a gradient got lost"
    return result


def projection(count: int, k: int) -> torch.Tensor:
    """A fixed direction that the Rust test makes again."""
    return torch.cos(torch.arange(count, dtype=torch.float64) * (0.37 + 0.11 * k) + k)


def condensed(name: str, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """A small gradient whole; of a large one its norm, projections and every n-th value."""
    flat = gradient.flatten()
    if len(flat) <= WHOLE:
        return {f"{name}": gradient}
    exact = flat.double()
    projections = [exact @ projection(len(flat), k) for k in range(PROJECTIONS)]
    return {
        f"{name}#norm": exact.norm()[None].float(), f"{name}#projections": torch.stack(projections).float(),
        f"{name}#sample": flat[:: math.ceil(len(flat) / SAMPLED)],
    }


def stored(sample: Sample) -> dict[str, torch.Tensor]:
    """The row as the Rust test reads it."""
    pairs = {"text_targets": sample.text_targets, "code_targets": sample.code_targets}
    lists = {"ids": sample.ids, "image_places": sample.image_places, "codes": sample.codes,
             "code_places": sample.code_places}
    result = {key: torch.tensor(value, dtype=torch.int64).reshape(-1, 2) for key, value in pairs.items()}
    result |= {key: torch.tensor(value, dtype=torch.int64) for key, value in lists.items()}
    return result | ({"pixels": sample.pixels} if sample.pixels is not None else {})


def one_backward(model, samples: dict[str, Sample]) -> dict[str, torch.Tensor]:
    """Loss and gradients of each sample alone, mean over its supervised tokens."""
    result = {}
    for name, sample in samples.items():
        model.zero_grad(set_to_none=True)
        loss = loss_sum(model, sample) / sample.supervised
        loss.backward()
        result |= {f"{name}.{key}": value for key, value in stored(sample).items()}
        result[f"{name}.loss"] = loss.detach()[None]
        found = gradients(model)
        for parameter, gradient in found.items():
            result |= condensed(f"{name}.grad.{parameter}", gradient)
        print(f"{name}: {len(sample.ids)} tokens, {sample.supervised} supervised, loss {float(loss.detach()):.6f}, "
              f"{len(found)} gradients")
    return result


def ten_steps(model, samples: dict[str, Sample]) -> dict[str, torch.Tensor]:
    """The mixed batch under AdamW: loss before each step and after the last, norm before clipping."""
    # The image tokenizer never trains; it gets no gradient here because codes are numbers.
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=0.0)
    total, losses, norms = sum(s.supervised for s in samples.values()), [], []
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = sum(loss_sum(model, sample) for sample in samples.values()) / total
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP))
        optimizer.step()
        losses.append(loss.detach())
    with torch.no_grad():
        losses.append(sum(loss_sum(model, sample) for sample in samples.values()) / total)
    print("losses", *(f"{float(loss):.5f}" for loss in losses))
    print("norms", *(f"{float(norm):.4f}" for norm in norms))
    return {"steps.losses": torch.stack(losses), "steps.norms": torch.stack(norms)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    folder = parser.parse_args().out / "tiny-pro"
    torch.set_num_threads(1)  # sums must not depend on the machine's core count
    tokenizer = Tokenizer.from_file(str(folder / "hf" / "tokenizer.json"))
    model = JanusForConditionalGeneration.from_pretrained(
        folder / "hf", dtype=torch.float32, attn_implementation="eager").eval()
    known = load_file(folder / "expected.safetensors")
    asked = f"{tok.IMAGE}\nWhat is in this picture?"
    samples = {
        "und": conversation(tokenizer, SYSTEM, (asked, "A red cat next to the river."), known["pixel_values"][:1]),
        "text": conversation(tokenizer, "", ("Hello, how are you?", "Fine, thanks.", "What is a cube?", "A box."), None),
        "gen": drawing(tokenizer, "a red cube on a blue sphere", known["vq.encode.codes"]),
    }
    tensors = one_backward(model, samples) | ten_steps(model, samples)
    tensors = {name: value.contiguous() for name, value in sorted(tensors.items())}
    write_safetensors(folder / "train.safetensors", tensors, {
        "torch": torch.__version__, "transformers": transformers.__version__,
        "safetensors": safetensors.__version__, "seed": "none: weights and samples are given", "command": COMMAND,
        "adamw": f"lr {RATE}, betas {BETAS}, eps {EPSILON}, weight decay 0, clip {CLIP}",
    })


if __name__ == "__main__":
    main()
