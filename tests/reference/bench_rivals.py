"""Times janus at every precision, PyTorch in bf16, and its rivals, all in turns on the same weights.

    python bench_rivals.py --model DIR --janus BINARY [--int8 DIR --int4 DIR] [--oxinfer BINARY]
                           [--llama-bench BINARY --gguf DIR] [--rounds 2] [--json FILE]

DIR is a folder with original names. Each round runs, one after another and alone: `janus bench` in
bf16 (factors rounded as PyTorch does), int8 and int4; PyTorch's loops as in bench_torch.py; a whole
picture by oxinfer in bf16, q8 and q4; llama.cpp's own benchmark on the files that
gguf_language_model.py writes. Prints medians of all rounds, in Markdown.

oxinfer is the program of the Rust package of that name (`cargo install oxinfer --version 0.0.7`), or
one that hands the same flags to its library and prints the same line at the end;
llama-bench is built out of the source package of llama-cpp-python (vendor/llama.cpp, cmake,
-DGGML_NATIVE=ON).
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

import torch

from bench_torch import PREFILL, TEXT_TOKENS, drawing_prompts, janus_round, torch_round
from full_size import GENERATION_PROMPT, find_sizes, load

JANUS = {"bf16": "bf16", "int8": "int8", "int4": "int4"}
OXINFER = {"bf16": "bf16", "q8": "int8", "q4": "int4"}
LLAMA = {"bf16": "bf16", "q8_0": "int8", "q4_0": "int4"}


def oxinfer_round(binary: Path, model: Path, quant: str, threads: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [str(binary), "--model", str(model), "--quant", quant, "--threads", str(threads),
                   "--generate-image", GENERATION_PROMPT, "-o", f"{folder}/picture.png"]
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
    told = re.search(r"prefill ([\d.]+)s .*\(([\d.]+) ms/step\) \| VQ decode ([\d.]+)s \| total ([\d.]+)s", ran.stderr)
    prefill, step, decode, total = map(float, told.groups())
    return {"image_prefill": prefill, "image_step": step / 1000, "vq_decode": decode, "image": total}


def llama_round(binary: Path, file: Path, threads: int) -> dict[str, float]:
    """A prompt, and words behind one as long: what is said after nothing is said faster."""
    command = [str(binary), "-m", str(file), "-t", str(threads), "-r", "1", "-o", "json"]

    def nanoseconds(*work: str) -> float:
        ran = subprocess.run(command + list(work), check=True, capture_output=True, text=True)
        return json.loads(ran.stdout)[0]["avg_ns"]

    prompt = nanoseconds("-p", str(PREFILL), "-n", "0")
    text = nanoseconds("-p", "0", "-n", str(TEXT_TOKENS), "-d", str(PREFILL))
    return {"prefill": prompt / 1e9, "text_token": text / 1e9 / TEXT_TOKENS}


def table(runs: dict[str, list[dict]]) -> str:
    def median(name, stage):
        values = [run[stage] for run in runs.get(name, []) if stage in run]
        return statistics.median(values) if values else None

    stages = ["vision", "prefill", "text_token", "image_prefill", "image_step", "vq_decode", "image"]
    lines = ["| | " + " | ".join(stages) + " |", "|---" * (len(stages) + 1) + "|"]
    for name in runs:
        cells = [median(name, stage) for stage in stages]
        shown = ["" if cell is None else f"{cell:.3f} s" for cell in cells]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    lines += ["", "Times as long as janus at the same precision (PyTorch bf16: against each):", ""]
    lines += ["| | " + " | ".join(stages) + " |", "|---" * (len(stages) + 1) + "|"]
    pairs = [("torch bf16", ours) for ours in JANUS]
    pairs += [(f"oxinfer {theirs}", ours) for theirs, ours in OXINFER.items()]
    pairs += [(f"llama.cpp {theirs}", ours) for theirs, ours in LLAMA.items()]
    for theirs, ours in pairs:
        both = [(median(theirs, stage), median(f"janus {ours}", stage)) for stage in stages]
        if any(a is not None and b is not None for a, b in both):
            shown = ["" if None in (a, b) else f"{a / b:.2f}" for a, b in both]
            lines.append(f"| {theirs} / janus {ours} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--janus", type=Path, required=True)
    parser.add_argument("--int8", type=Path, help="the same weights, as janus convert --dtype int8 wrote them")
    parser.add_argument("--int4", type=Path)
    parser.add_argument("--oxinfer", type=Path)
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--codes", type=int, default=576, help="image steps that are run; the rest is reckoned")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sizes, prompts = find_sizes(args.model), drawing_prompts(args.model)
    runs: dict[str, list[dict]] = {}

    def note(name: str, run: dict[str, float]):
        runs.setdefault(name, []).append(run)
        print(name, {stage: round(seconds, 4) for stage, seconds in run.items()}, flush=True)

    for number in range(args.rounds):
        print(f"round {number + 1}", flush=True)
        for dtype in JANUS:
            packed = getattr(args, dtype, None)
            model, flags = (packed, []) if packed else (args.model, ["--dtype", dtype])
            note(f"janus {dtype}", janus_round(args.janus, model, args.threads, args.codes, flags))
        if not args.no_torch:
            # Loaded anew each round, so that it holds no memory while others run.
            model = load(args.model, torch.bfloat16)
            torch_round(model, prompts, sizes, 4)  # first calls allocate and choose kernels
            note("torch bf16", torch_round(model, prompts, sizes, args.codes))
            del model
        for quant in OXINFER if args.oxinfer else ():
            note(f"oxinfer {quant}", oxinfer_round(args.oxinfer, args.model, quant, args.threads))
        for quant in LLAMA if args.llama_bench else ():
            note(f"llama.cpp {quant}", llama_round(args.llama_bench, args.gguf / f"{quant}.gguf", args.threads))
    print("\n" + table(runs))
    if args.json:
        args.json.write_text(json.dumps(runs, indent=1))


if __name__ == "__main__":
    main()
