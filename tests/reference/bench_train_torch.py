"""Time and memory of one optimizer step in PyTorch f32, beside the same step in Rust.

    python bench_train_torch.py --step ../../target/release/examples/step --size small --stage 3 --rows 2

Prints a table of both, in turns, each measurement in a process of its own. Sizes, tokens and
targets are those of `janus-train/examples/step.rs`; weights are random on both sides.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from sizes import PRO_1B, hf_config

CAPTION, QUESTION, ANSWER = 24, 24, 32
SMALL = replace(
    PRO_1B, hidden=768, intermediate=2048, layers=8, heads=12, kv_heads=12, head_dim=64, vocab=16_384,
    vision_width=512, vision_layers=6, vision_heads=8,
)
SIZES = {"small": SMALL, "1b": PRO_1B}
FROZEN = {1: ("vision_model", "vqmodel", "language_model", "lm_head"), 2: ("vision_model", "vqmodel"), 3: ("vqmodel",)}


def numbers(count: int, limit: int, offset: int) -> list[int]:
    return [(i * 7919 + offset * 104_729 + 13) % limit for i in range(count)]


def build(sizes, stage: int, recompute: bool):
    import torch
    from transformers import JanusForConditionalGeneration

    # Any ids below the vocabulary: embeddings are given, none is looked for.
    ids = {name: place for place, name in enumerate(("bos", "eos", "pad", "boi", "eoi", "image_placeholder", "user", "assistant"))}
    torch.manual_seed(0)
    model = JanusForConditionalGeneration(hf_config(sizes, ids)).float()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(f".{part}." in f".{name}." for part in FROZEN[stage]))
    if recompute:
        model.model.language_model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def loss_sum(model, sizes, row: int | None):
    import torch
    import torch.nn.functional as F

    inner = model.model
    table = inner.language_model.embed_tokens
    if row is not None:
        count = sizes.grid**2
        codes = torch.tensor(numbers(count, sizes.codes, row))
        words = table(torch.tensor(numbers(CAPTION, 10_000, row)))
        read = inner.generation_aligner(inner.generation_embeddings(codes[:-1]))
        x = torch.cat([words, read])[None]
        hidden = inner.language_model(inputs_embeds=x, use_cache=False).last_hidden_state[0]
        return F.cross_entropy(inner.generation_head(hidden[CAPTION - 1:]), codes, reduction="sum"), count, x.shape[1]
    side = sizes.image
    pixels = torch.tensor([((i * 31) % 255) / 127.5 - 1.0 for i in range(3 * side * side)]).reshape(1, 3, side, side)
    seen = inner.aligner(inner.vision_model(pixels).last_hidden_state)[0]
    answer = torch.tensor(numbers(ANSWER, 10_000, 2))
    x = torch.cat([table(torch.tensor(numbers(QUESTION, 10_000, 1))), seen, table(answer)])[None]
    hidden = inner.language_model(inputs_embeds=x, use_cache=False).last_hidden_state[0]
    first = QUESTION + sizes.vision_tokens
    logits = model.lm_head(hidden[first - 1: first - 1 + ANSWER])
    return F.cross_entropy(logits, answer, reduction="sum"), ANSWER, x.shape[1]


def measure(args) -> dict:
    import torch

    torch.set_num_threads(args.threads)
    sizes = SIZES[args.size]
    model = build(sizes, args.stage, args.recompute)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    supervised = args.rows * sizes.grid**2 + ANSWER
    seconds = []
    for _ in range(args.steps):
        start, tokens, total = time.perf_counter(), 0, 0.0
        optimizer.zero_grad(set_to_none=True)
        for row in [*range(args.rows), None]:
            loss, _, length = loss_sum(model, sizes, row)
            if loss.requires_grad:
                (loss / supervised).backward()
            total, tokens = total + float(loss.detach()), tokens + length
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": min(seconds[1:] or seconds), "tokens": tokens, "loss": total / supervised,
            "trained": sum(p.numel() for p in trained), "peak_rss": peak}


def in_process(command: list[str], threads: int) -> dict:
    env = os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return json.loads(out.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=Path, help="the Rust example; without it, only PyTorch, in this process")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--stage", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--recompute", action="store_true")
    args = parser.parse_args()
    if args.step is None:
        print(json.dumps(measure(args)))
        return
    common = ["--size", args.size, "--stage", str(args.stage), "--rows", str(args.rows), "--steps", str(args.steps)]
    for recompute in (False, True):
        torch_command = [sys.executable, __file__, *common, "--threads", str(args.threads)]
        torch_command += ["--recompute"] * recompute
        activations = "recomputed" if recompute else "kept"
        rust_command = [str(args.step), args.size, str(args.stage), str(args.rows), activations, str(args.steps)]
        best = {}
        for _ in range(args.rounds):
            for name, command in (("PyTorch", torch_command), ("janus", rust_command)):
                found = in_process(command, args.threads)
                if name not in best or found["seconds"] < best[name]["seconds"]:
                    best[name] = found
        for name, found in best.items():
            print(f"{args.size} stage {args.stage} {activations:10} {name:8} {found['seconds']:8.3f} s a step "
                  f"{found['tokens'] / found['seconds']:8.0f} tokens/s {found['peak_rss'] / 1e9:6.2f} GB "
                  f"{found['trained'] / 1e6:8.1f} M trained")
        ratio = best["PyTorch"]["seconds"] / best["janus"]["seconds"]
        print(f"{'':28} janus is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
