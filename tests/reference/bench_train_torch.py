"""Times optimizer steps in PyTorch, of the same model and the same batch as the example `step`.

    target/release/examples/step --model DIR --stage 1 --dump batch.safetensors > janus.jsonl
    python bench_train_torch.py --model DIR --batch batch.safetensors --stage 1 [--checkpoint] > torch.jsonl
    python bench_train_torch.py --table janus.jsonl torch.jsonl

f32, AdamW, one norm over all gradients, sdpa attention; `--checkpoint` keeps the inputs of the layers only
(torch.utils.checkpoint). One process per measurement, so that peak memory is its own; prints one line of
JSON with the keys of the example. `--table` compares lines of the same stage, way and size.
"""

import argparse
import json
import os
import statistics
import threading
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

RATE, BETAS, EPSILON, CLIP = 1e-5, (0.9, 0.95), 1e-8, 1.0


def status(name: str) -> int:
    """A figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


class Watch:
    """Samples what this process owns, from what is resident now."""

    def __init__(self):
        Path("/proc/self/clear_refs").write_text("5")
        self.peak, self.done = 0, False
        self.thread = threading.Thread(target=self.sample, daemon=True)
        self.thread.start()

    def sample(self):
        while not self.done:
            self.peak = max(self.peak, status("RssAnon:"))
            time.sleep(0.01)

    def stop(self) -> tuple[int, int]:
        self.done = True
        self.thread.join()
        return self.peak, status("VmHWM:")


def trained(model, stage: int):
    """What the paper trains in a stage; everything else is frozen."""
    inner = model.model
    parts = [inner.aligner, inner.generation_aligner, inner.generation_embeddings, inner.generation_head]
    if stage >= 2:
        parts += [inner.language_model, model.lm_head]
    if stage == 3:
        parts += [inner.vision_model]
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    return [p for p in model.parameters() if p.requires_grad]


def read(path: Path, side: int) -> list[dict]:
    """The batch, row by row and without padding; places count from the row's own start."""
    from safetensors.torch import load_file

    whole = {name: value if value.is_floating_point() else value.long()
             for name, value in load_file(path).items()}
    rows, tokens = whole["ids"].shape
    pictures = whole["pixels"].reshape(-1, 3, side, side)
    result, seen = [], 0
    for row in range(rows):
        def own(places):
            return (places >= row * tokens) & (places < (row + 1) * tokens)
        one = {"ids": whole["ids"][row], "image_places": whole["image_places"], "code_places": whole["code_places"]}
        for name in ("image_places", "code_places"):
            one[name] = whole[name][own(whole[name])] - row * tokens
        one["codes"] = whole["codes"][own(whole["code_places"])]
        for name in ("text_targets", "code_targets"):
            mine = whole[name][own(whole[name][:, 0])].clone()
            mine[:, 0] -= row * tokens
            one[name] = mine
        # The last place that anything stands at, or that is predicted.
        ends = [one["image_places"] + 1, one["code_places"] + 1, one["text_targets"][:, 0] + 2]
        one["ids"] = one["ids"][: int(max(end.max() for end in ends if len(end)))]
        count = 1 if len(one["image_places"]) else 0
        one["pixels"] = pictures[seen : seen + count]
        seen += count
        result.append(one)
    return result


def stacked(rows: list[dict]) -> dict:
    """Rows as one batch of flat places, filled up on the right."""
    import torch
    import torch.nn.functional as F

    tokens = max(len(row["ids"]) for row in rows)
    batch = {"ids": torch.stack([F.pad(row["ids"], (0, tokens - len(row["ids"]))) for row in rows])}
    for name in ("image_places", "code_places"):
        batch[name] = torch.cat([row[name] + i * tokens for i, row in enumerate(rows)])
    for name in ("text_targets", "code_targets"):
        shift = torch.tensor([1, 0])
        batch[name] = torch.cat([row[name] + i * tokens * shift for i, row in enumerate(rows)])
    for name in ("codes", "pixels"):
        batch[name] = torch.cat([row[name] for row in rows])
    return batch


def loss_sum(model, batch: dict):
    """Cross-entropy summed over the supervised tokens. Padding is on the right, so causal is enough."""
    import torch
    import torch.nn.functional as F

    inner, (rows, tokens) = model.model, batch["ids"].shape
    x = inner.language_model.embed_tokens(batch["ids"]).flatten(0, 1)
    if len(batch["pixels"]):
        features = inner.aligner(inner.vision_model(batch["pixels"]).last_hidden_state)
        x = x.index_copy(0, batch["image_places"], features.flatten(0, 1))
    if len(batch["codes"]):
        codes = inner.generation_aligner(inner.generation_embeddings(batch["codes"][None]))[0]
        x = x.index_copy(0, batch["code_places"], codes)
    hidden = inner.language_model(inputs_embeds=x.reshape(rows, tokens, -1), use_cache=False).last_hidden_state
    hidden, total = hidden.flatten(0, 1), torch.zeros(())
    for head, targets in ((model.lm_head, batch["text_targets"]), (inner.generation_head, batch["code_targets"])):
        if len(targets):
            total = total + F.cross_entropy(head(hidden[targets[:, 0]]), targets[:, 1], reduction="sum")
    return total


def measure(args) -> dict:
    import torch

    from full_size import find_sizes, load

    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    model = load(args.model, torch.float32)
    loading = time.perf_counter() - start
    rows = read(args.batch, find_sizes(args.model).image)
    parameters = trained(model, args.stage)
    if args.checkpoint:
        # Only models in training recompute; there is no dropout that this would switch on.
        model.train()
        model.activation_checkpointing_enable()
    micro = args.micro or len(rows)
    step = [stacked(rows[i : i + micro]) for i in range(0, len(rows), micro)]
    total = sum(len(row[name]) for row in rows for name in ("text_targets", "code_targets"))
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=0.0)
    watch, seconds, losses = Watch(), [], []
    for number in range(args.steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for batch in step:
            part = loss_sum(model, batch) / total
            if part.requires_grad:
                part.backward()
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        if number:
            seconds.append(time.perf_counter() - start)
        losses.append(loss)
    owned, resident = watch.stop()
    tokens = sum(len(row["ids"]) for row in rows)
    median = statistics.median(seconds)
    return {
        "side": f"torch {torch.__version__}", "stage": args.stage,
        "activations": "Recomputed" if args.checkpoint else "Kept", "weights": "float32",
        "rows": len(rows), "micro": micro, "tokens": tokens, "supervised": total,
        "trained": sum(p.numel() for p in parameters), "load": loading, "seconds": seconds, "median": median,
        "tokens_per_second": tokens / median, "losses": losses, "peak_owned": owned, "peak_resident": resident,
    }


def table(ours: Path, theirs: Path) -> str:
    """Medians over all steps of all lines of one kind, side by side."""
    def grouped(path):
        groups = {}
        for line in path.read_text().splitlines():
            run = json.loads(line)
            key = run["trained"], run["stage"], run["activations"], run["rows"], run["micro"]
            groups.setdefault(key, []).append(run)
        return groups

    def figures(runs):
        median = statistics.median(seconds for run in runs for seconds in run["seconds"])
        return median, runs[0]["tokens"] / median, max(run["peak_owned"] for run in runs)

    lines = ["| stage | activations | trained | rows, at once | janus | PyTorch f32 | PyTorch / janus | tokens/s "
             "| peak memory janus | PyTorch | losses differ by |", "|" + "---|" * 11]
    ours, theirs = grouped(ours), grouped(theirs)
    for key in ours:
        if key not in theirs:
            continue
        (a, rate, memory), (b, _, other) = figures(ours[key]), figures(theirs[key])
        far = max(abs(x / y - 1) for x, y in zip(ours[key][0]["losses"], theirs[key][0]["losses"]))
        count, stage, way, rows, micro = key
        lines.append(f"| {stage} | {way.lower()} | {count / 1e6:.1f} M | {rows}, {micro} | {a:.2f} s | {b:.2f} s "
                     f"| {b / a:.2f} | {rate:.1f} | {memory / 1e9:.2f} GB | {other / 1e9:.2f} GB | {far:.1e} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--batch", type=Path)
    parser.add_argument("--stage", type=int, choices=[1, 2, 3], default=1)
    parser.add_argument("--micro", type=int, default=0, help="rows at once; all by default")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--table", type=Path, nargs=2, metavar=("JANUS", "TORCH"))
    args = parser.parse_args()
    if args.table:
        return print(table(*args.table))
    if not (args.model and args.batch):
        parser.error("--model and --batch, or --table")
    print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
