"""Runs a whole checkpoint through transformers and writes what it computed, with timings.

    python full_size.py --model DIR --out FILE.safetensors
    python full_size.py --model DIR --only load
    python full_size.py --model DIR --forced FILE.safetensors --out STEPS.safetensors

DIR is an original or Hugging Face folder, .bin or .safetensors. In f32 a 1B
checkpoint takes 8.4 GB, plus file pages that the system may drop.
"""

import argparse
import json
import os
import resource
import time
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import JanusForConditionalGeneration

import images
import tokenizer as tok
from expectations import GUIDANCE, generate_codes, greedy_text, margins, to_u8
from layout import to_hf
from prompts import SYSTEM, generation_text, prompt_ids, render, turns, unconditional
from sizes import PRO_1B, PRO_7B, SMALL, TINY_ODD, TINY_PRO, Sizes, hf_config
from stream import write_safetensors

QUESTION = "What is in this picture?"
GENERATION_PROMPT = "A portrait of young girl. masterpiece, film grained, best quality."
TEXT_STEPS = 64
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


@contextmanager
def timed(name: str):
    start = time.perf_counter()
    yield
    report(name, time.perf_counter() - start)


def report(name: str, seconds: float):
    print(f"{name:<24}{seconds:9.3f} s", flush=True)


def report_memory():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    anonymous = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    private = int(anonymous.split()[1]) / 2**20
    print(f"peak resident {peak:.2f} GiB, now without file pages {private:.2f} GiB", flush=True)


def find_sizes(folder: Path) -> Sizes:
    """The known sizes with this depth and vocabulary."""
    config = json.loads((folder / "config.json").read_text())
    text = config.get("language_config") or config["text_config"]
    known = {(s.layers, s.vocab): s for s in (PRO_1B, PRO_7B, SMALL, TINY_PRO, TINY_ODD)}
    return known[text["num_hidden_layers"], text["vocab_size"]]


def stored_tensors(folder: Path):
    """(name, tensor) of every weight file; safetensors first, because they are faster."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    for file in files:
        if file.suffix == ".bin":
            yield from torch.load(file, map_location="cpu", mmap=True, weights_only=True).items()
            continue
        with safe_open(file, "pt") as opened:
            for name in opened.keys():
                yield name, opened.get_tensor(name)


def load(folder: Path, dtype: torch.dtype) -> JanusForConditionalGeneration:
    """The model with its weights in `dtype`, made without ever initialising it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = hf_config(find_sizes(folder), tok.special_ids(tokenizer))
    with torch.device("meta"):
        model = JanusForConditionalGeneration(config).eval()
    state = {}
    for name, tensor in stored_tensors(folder):
        parts = [(name, tensor)] if name.startswith(("model.", "lm_head.")) else to_hf(name, tensor)
        # clone: a shard's mapping must not outlive its reading.
        state |= {new: part.to(dtype) if part.dtype != dtype else part.clone() for new, part in parts}
    model.load_state_dict(state, strict=True, assign=True)
    _restore_buffers(model)
    return model


def _restore_buffers(model: JanusForConditionalGeneration):
    """Makes the two tables that no checkpoint holds."""
    embeddings, llama = model.model.vision_model.embeddings, model.model.language_model
    embeddings.position_ids = torch.arange(embeddings.num_positions)[None]
    llama.rotary_emb = type(llama.rotary_emb)(model.config.text_config)
    left = [name for name, value in [*model.named_parameters(), *model.named_buffers()] if value.is_meta]
    assert not left, left


def understand(model, tokenizer, sizes: Sizes) -> dict[str, torch.Tensor]:
    """Picture and question to the last position's logits and a greedy answer."""
    picture = images.normalised(images.canvas(images.pattern(427, 640), sizes.image))
    picture = torch.from_numpy(picture)[None]
    text = render(SYSTEM, turns(f"{tok.IMAGE}\n{QUESTION}", ""))
    ids = torch.tensor([prompt_ids(tokenizer, text, sizes.vision_tokens)])
    with timed("vision"):
        features = model.model.vision_model(picture).last_hidden_state
        features = model.model.aligner(features)
    chosen, logits, seconds = greedy_text(model, ids, picture, TEXT_STEPS)
    report(f"prefill + vision, {ids.shape[1]}", seconds[0])
    report("text token, mean", sum(seconds[1:]) / (len(seconds) - 1))
    return {
        "prompt.text_ids": ids, "pixel_values": picture, "aligner.output": features.float(),
        "prompt.logits.last": logits[:1].float(), "greedy.ids": chosen, "greedy.margins": margins(logits.float()),
    }


def generate(model, tokenizer, sizes: Sizes, steps: int) -> dict[str, torch.Tensor]:
    """Guided greedy codes and the picture they make; missing codes are 0."""
    cond = prompt_ids(tokenizer, generation_text(GENERATION_PROMPT), 0)
    uncond = unconditional(cond, tok.special_ids(tokenizer)["pad"])
    run = generate_codes(model, cond, uncond, steps)
    report(f"image prefill, 2 x {len(cond)}", float(run["seconds"][0]))
    report("image step, mean", float(run["seconds"][1:].mean()))
    codes = torch.zeros(sizes.grid**2, dtype=torch.int64)
    codes[:steps] = run["codes"]
    with timed("VQ decode"):
        decoded = model.model.vqmodel.decode(codes[None]).float()
    return {
        "gen.prompt_ids": torch.tensor(cond), "gen.uncond_ids": torch.tensor(uncond),
        "gen.logits.cond": run["cond"].float(), "gen.logits.uncond": run["uncond"].float(),
        "gen.logits.guided": run["guided"][0].float(),
        "gen.codes": run["codes"], "gen.margins": margins(run["guided"].float()),
        "vq.decode.codes": codes, "vq.decode.pixels": decoded, "vq.decode.u8": to_u8(decoded),
    }


def force(model, codes: torch.Tensor, cond: torch.Tensor, uncond: torch.Tensor) -> dict[str, torch.Tensor]:
    """Guided logits of every step with the codes given, in one pass without cache, and their picture.

    Where every code is the best of its own step, a greedy loop chooses the same ones: each step
    sees the same codes before it.
    """
    inner = model.model
    prompt = inner.language_model.embed_tokens(torch.stack([cond, uncond]))
    drawn = model.prepare_embeddings_for_image_generation(codes[None, :-1]).repeat(2, 1, 1)
    with timed(f"forced pass, 2 x {prompt.shape[1] + drawn.shape[1]}"):
        hidden = inner.language_model(inputs_embeds=torch.cat([prompt, drawn], 1), use_cache=False).last_hidden_state
        logits = inner.generation_head(hidden[:, -len(codes):])
    guided = (logits[1] + GUIDANCE * (logits[0] - logits[1])).float()
    with timed("VQ decode"):
        decoded = inner.vqmodel.decode(codes[None]).float()
    same = int((guided.argmax(1) == codes).sum())
    print(f"greedy choice equals the given code in {same} of {len(codes)} steps, "
          f"smallest margin {margins(guided).min():.2e}", flush=True)
    return {"gen.prompt_ids": cond, "gen.uncond_ids": uncond, "gen.codes": codes, "gen.guided.steps": guided,
            "vq.decode.codes": codes, "vq.decode.pixels": decoded, "vq.decode.u8": to_u8(decoded)}


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="f32")
    parser.add_argument("--codes", type=int, help="image steps (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["load"])
    parser.add_argument("--forced", type=Path, metavar="FILE",
                        help="only check the codes in FILE: guided logits of every step, and the picture")
    args = parser.parse_args()
    if args.out is None and args.only is None:
        parser.error("--out is needed")
    torch.set_num_threads(args.threads)
    with timed("load"):
        model = load(args.model, DTYPES[args.dtype])
    report_memory()
    if args.only == "load":
        return
    if args.forced:
        with safe_open(args.forced, "pt") as given:
            result = force(model, *(given.get_tensor(f"gen.{name}") for name in ("codes", "prompt_ids", "uncond_ids")))
    else:
        sizes, tokenizer = find_sizes(args.model), Tokenizer.from_file(str(args.model / "tokenizer.json"))
        result = understand(model, tokenizer, sizes)
        result |= generate(model, tokenizer, sizes, args.codes or sizes.grid**2)
    report_memory()
    write_safetensors(args.out, {name: value.contiguous() for name, value in sorted(result.items())}, {
        "torch": torch.__version__, "transformers": transformers.__version__, "dtype": args.dtype,
        "command": f"python full_size.py --dtype {args.dtype} --codes {len(result['gen.codes'])}",
    })


if __name__ == "__main__":
    main()
