"""Times PyTorch and `janus bench` in turns, stage by stage, on the same weights and threads.

    python bench_torch.py --model DIR --janus ../../target/release/janus [--rounds 3] [--codes 576]
                          [--num-images 1]

PyTorch runs the original loops of the reference in bf16 (transformers' modules, sdpa attention, a
growing cache, guidance in two rows). One round is one `janus bench` in a process of its own,
then each stage in PyTorch; the other side is idle meanwhile. Prints a table of medians, in
Markdown, and with --json FILE every single time.

Nothing else should run on the machine: OpenMP's threads spin, and a third program makes PyTorch
look many times slower than it is.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from tokenizers import Tokenizer
from transformers import DynamicCache

import tokenizer as tok
from expectations import GUIDANCE
from full_size import DTYPES, GENERATION_PROMPT, find_sizes, load
from prompts import generation_text, prompt_ids, unconditional

PREFILL = 600
TEXT_TOKENS = 32


def clock(work) -> tuple[float, object]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def text_stages(model) -> dict[str, float]:
    """A prompt without pictures, and tokens after it."""
    cache = DynamicCache(config=model.config.text_config)
    ids = torch.arange(PREFILL)[None] * 7919 % 90_000 + 100

    def read(ids):
        return model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]

    prefill, logits = clock(lambda: read(ids))

    def write(logits=logits):
        for _ in range(TEXT_TOKENS):
            logits = read(logits.argmax().reshape(1, 1))

    return {"prefill": prefill, "text_token": clock(write)[0] / TEXT_TOKENS}


def image_stages(model, cond: list[int], uncond: list[int], codes: int, pictures: int) -> dict[str, float]:
    """The original loop at weight 5, greedily, and the pictures."""
    inner = model.model
    cache = DynamicCache(config=model.config.text_config)
    chosen = []

    def step(embeddings):
        out = inner.language_model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
        logits = inner.generation_head(out.last_hidden_state[:, -1])
        with_prompt, without = logits.chunk(2)
        best = (without + GUIDANCE * (with_prompt - without)).argmax(-1)
        chosen.append(best)
        return model.prepare_embeddings_for_image_generation(best[:, None]).repeat(2, 1, 1)

    prompts = torch.tensor([cond] * pictures + [uncond] * pictures)
    prefill, embeddings = clock(lambda: step(inner.language_model.embed_tokens(prompts)))

    def draw(embeddings=embeddings):
        for _ in range(codes - 1):
            embeddings = step(embeddings)

    steps, _ = clock(draw)
    grid = torch.zeros(pictures, model.config.vq_config.num_patches**2, dtype=torch.int64)
    grid[:, :codes] = torch.stack(chosen, 1)
    decode, _ = clock(lambda: inner.vqmodel.decode(grid[:1]))  # one by one: together they would need gigabytes
    each = steps / (codes - 1)
    whole = prefill + each * (grid.shape[1] - 1) + decode * pictures
    return {"image_prefill": prefill, "image_step": each, "vq_decode": decode, "image": whole}


def drawing_prompts(folder: Path) -> tuple[list[int], list[int]]:
    """A prompt to draw from, and its unconditional twin."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    cond = prompt_ids(tokenizer, generation_text(GENERATION_PROMPT), 0)
    return cond, unconditional(cond, tok.special_ids(tokenizer)["pad"])


def torch_round(model, prompts, sizes, codes: int, pictures: int = 1) -> dict[str, float]:
    picture = torch.rand(1, 3, sizes.image, sizes.image).to(model.dtype) * 2 - 1
    vision, _ = clock(lambda: model.model.aligner(model.model.vision_model(picture).last_hidden_state))
    return {"vision": vision, **text_stages(model), **image_stages(model, *prompts, codes, pictures)}


def janus_round(binary: Path, model: Path, threads: int, codes: int, more: list[str]) -> dict[str, float]:
    command = [str(binary), "bench", "--model", str(model), "--json", "--device", "cpu",
               "--prefill", str(PREFILL), "--text-tokens", str(TEXT_TOKENS), "--codes", str(codes), *more]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return {stage["name"]: stage["seconds"] for stage in json.loads(out.stdout)["stages"]}


def table(ours: list[dict], theirs: list[dict]) -> str:
    lines = ["| stage | janus | PyTorch | PyTorch / janus |", "|---|---|---|---|"]
    for name in theirs[0]:
        a, b = (statistics.median(run[name] for run in runs) for runs in (ours, theirs))
        lines.append(f"| {name} | {a:.3f} s | {b:.3f} s | {b / a:.2f} |")
    return "\n".join(lines)


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--janus", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--codes", type=int, default=576, help="image steps that are run; the rest is reckoned")
    parser.add_argument("--num-images", type=int, default=1, help="pictures drawn together")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16", help="of PyTorch")
    parser.add_argument("--janus-flags", default="", help="more flags for `janus bench`, such as '--dtype f32'")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sizes, prompts = find_sizes(args.model), drawing_prompts(args.model)
    model = load(args.model, DTYPES[args.dtype])
    torch_round(model, prompts, sizes, 4)  # first calls allocate and choose kernels
    ours, theirs = [], []
    flags = [*args.janus_flags.split(), "--num-images", str(args.num_images)]
    for number in range(args.rounds):
        ours.append(janus_round(args.janus, args.model, args.threads, args.codes, flags))
        theirs.append(torch_round(model, prompts, sizes, args.codes, args.num_images))
        print(f"round {number + 1}: janus {ours[-1]['image']:.1f} s, PyTorch {theirs[-1]['image']:.1f} s", flush=True)
    print(f"\n{platform.machine()}, {args.threads} threads, torch {torch.__version__} {args.dtype}, "
          f"transformers {transformers.__version__}, median of {args.rounds}\n\n{table(ours, theirs)}")
    if args.json:
        args.json.write_text(json.dumps({"janus": ours, "torch": theirs}, indent=1))


if __name__ == "__main__":
    main()
