"""How far PyTorch in bf16 is from PyTorch in f32 in the steps of a picture: what janus's rounded steps
(`--rounded-steps`) are held against in tests/parity/rounded.rs.

    python bf16_steps.py tests/fixtures/tiny-pro tests/fixtures/tiny-odd

The fixture's codes are given, step by step, with guidance at weight 5; its logits are those of f32.
Printed: the largest difference as a share of the largest value, the same of the root mean squares, and
the first code that differs when each is the likeliest one.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file
from transformers import JanusForConditionalGeneration


@torch.no_grad()
def guided_logits(model, prompts: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    inputs, cache, steps = model.model.language_model.embed_tokens(prompts), None, []
    for code in codes:
        out = model.model.language_model(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        cond, uncond = model.model.generation_head(out.last_hidden_state[:, -1]).float()
        steps.append(uncond + 5.0 * (cond - uncond))
        inputs = model.prepare_embeddings_for_image_generation(code.expand(2, 1))
    return torch.stack(steps)


def main():
    for folder in map(Path, sys.argv[1:]):
        given = load_file(folder / "expected.safetensors")
        prompts = torch.cat([given["gen.prompt_ids"].view(1, -1), given["gen.uncond_ids"].view(1, -1)]).long()
        codes, expected = given["gen.codes"].flatten().long(), given["gen.guided.steps"]
        for dtype in (torch.float32, torch.bfloat16):
            model = JanusForConditionalGeneration.from_pretrained(folder / "hf", dtype=dtype).eval()
            off = guided_logits(model, prompts, codes) - expected.view(len(codes), -1)
            largest = (off.abs().max() / expected.abs().max()).item()
            mean = (off.square().mean() / expected.square().mean()).sqrt().item()
            best = (off + expected.view(len(codes), -1)).argmax(-1)
            differs = (best != codes).nonzero().flatten()
            first = differs[0].item() if len(differs) else None
            print(f"{folder.name} {dtype}: largest {largest:.2e}, mean {mean:.2e}, first other code {first} "
                  f"of {len(codes)}, {len(differs)} others")


main()
