"""Writes adapters that PEFT itself made for the tiny model, and what the model computes with them.

    python make_adapter_fixtures.py --out ../fixtures
    python make_adapter_fixtures.py --out ../fixtures --check DIR    # an adapter written by janus

Reads tiny-pro as `make_fixtures.py` left it and writes `tiny-pro/adapter/` (every linear layer, ranks
and alphas that differ), `tiny-pro/adapter-decoder/` (the bare decoder, scaled by the root of its rank)
and `tiny-pro/adapters.safetensors`. Needs peft beside requirements.txt.

`--check` loads a folder with PEFT and says how far its results are from those of `adapter/`.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import JanusForConditionalGeneration

from stream import write_safetensors

COMMAND = "python make_adapter_fixtures.py --out ../fixtures"
SEED = 4
DECODER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OTHERS = [
    "projection_layer", "fc1", "fc2", "hidden_layers.0",
    # The image tokenizer has convolutions called proj_out.
    "generation_head.proj_out", "vision_head", "lm_head",
]
EVERYWHERE = LoraConfig(
    r=2, lora_alpha=4, target_modules=DECODER + OTHERS,
    rank_pattern={"o_proj": 3, "generation_aligner.fc1": 1},
    alpha_pattern={"^model.language_model.layers.1.mlp.down_proj": 7},
)
# Beside it, so that both change the same layers.
ROOT = LoraConfig(r=4, lora_alpha=3, target_modules=["q_proj", "v_proj"], use_rslora=True)


def load(out: Path) -> JanusForConditionalGeneration:
    folder = out / "tiny-pro" / "hf"
    return JanusForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()


def lively(model: torch.nn.Module, seed: int):
    """B is zero in a new adapter; these are not, and large enough to be seen."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if "lora_" in name:
            noise = torch.randn(value.shape, generator=generator)
            value.data = noise / value.shape[1] ** 0.5 * (1.0 if "lora_A" in name else 0.3)


@torch.no_grad()
def computed(model: JanusForConditionalGeneration, given: dict) -> dict[str, torch.Tensor]:
    """A question about a picture, and the logits of the code after a few codes of a drawing."""
    logits = model(input_ids=given["prompt.text_ids"], pixel_values=given["pixel_values"][:1]).logits
    inner = model.model
    codes = given["gen.codes"][None, :5]
    text = inner.language_model.embed_tokens(given["gen.prompt_ids"][None])
    drawn = inner.generation_aligner(inner.generation_embeddings(codes))
    hidden = inner.language_model(inputs_embeds=torch.cat([text, drawn], 1)).last_hidden_state
    return {"text": logits[:, -4:].clone(), "image": inner.generation_head(hidden[:, -1]).clone()}


def make(out: Path):
    given = load_file(out / "tiny-pro" / "expected.safetensors")
    wanted = {"none": computed(load(out), given)}

    wrapped = get_peft_model(load(out), EVERYWHERE)
    lively(wrapped, SEED)
    # Otherwise PEFT adds a copy of the whole text head.
    wrapped.save_pretrained(out / "tiny-pro" / "adapter", save_embedding_layers=False)
    wanted["adapter"] = computed(wrapped.base_model.model, given)

    model = load(out)
    decoder = get_peft_model(model.model.language_model, ROOT)
    lively(decoder, SEED + 1)
    decoder.save_pretrained(out / "tiny-pro" / "adapter-decoder")
    wanted["decoder"] = computed(model, given)
    model.model.language_model = decoder.merge_and_unload()
    both = PeftModel.from_pretrained(model, out / "tiny-pro" / "adapter")
    wanted["both"] = computed(both.base_model.model, given)

    for folder in ["adapter", "adapter-decoder"]:
        (out / "tiny-pro" / folder / "README.md").unlink()
        path = out / "tiny-pro" / folder / "adapter_config.json"
        config = json.loads(path.read_text())
        # A set, and a path of this machine: not the same twice.
        config["target_modules"].sort()
        config["base_model_name_or_path"] = "tiny-pro/hf"
        path.write_text(json.dumps(config, indent=2) + "\n")
    tensors = {f"{name}.{key}": value for name, pair in wanted.items() for key, value in pair.items()}
    for key in ["text", "image"]:
        changes = [(wanted[name][key] - wanted["none"][key]).abs().max() for name in wanted]
        print(key, "moves by", [f"{float(change):.2f}" for change in changes])
    versions = {"command": COMMAND, "seed": str(SEED), "peft": peft.__version__,
                "torch": torch.__version__, "transformers": transformers.__version__}
    write_safetensors(out / "tiny-pro" / "adapters.safetensors", tensors, versions)


def check(out: Path, folder: Path):
    given = load_file(out / "tiny-pro" / "expected.safetensors")
    wanted = load_file(out / "tiny-pro" / "adapters.safetensors")
    found = computed(PeftModel.from_pretrained(load(out), folder).base_model.model, given)
    for key, value in found.items():
        expected = wanted[f"adapter.{key}"]
        print(key, f"max difference {float((value - expected).abs().max()):.1e}",
              f"of {float(expected.abs().max()):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    if arguments.check:
        check(arguments.out, arguments.check)
    else:
        make(arguments.out)
