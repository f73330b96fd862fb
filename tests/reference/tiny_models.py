"""Writes a tiny model in both dialects."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import (
    GenerationConfig, JanusForConditionalGeneration, JanusImageProcessorPil, JanusProcessor, PreTrainedTokenizerFast)

import tokenizer as tok
from layout import hf_state, original_shapes
from sizes import Sizes, hf_config, original_config
from stream import write_safetensors
from weights import lively

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|User|>: {% else %}<|Assistant|>: {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image_placeholder>\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'user' %}{{ '\n\n' }}{% else %}<｜end▁of▁sentence｜>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)


def make_weights(sizes: Sizes, seed: int) -> dict[str, torch.Tensor]:
    """All tensors in original names."""
    return {name: lively(name, shape, seed) for name, shape in original_shapes(sizes).items()}


def empty_model(sizes: Sizes, tokenizer: Tokenizer) -> JanusForConditionalGeneration:
    """The transformers model of these sizes, with its generation settings."""
    ids = tok.special_ids(tokenizer)
    config = hf_config(sizes, ids)
    config._attn_implementation = "eager"
    model = JanusForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(
        bos_token_id=ids["bos"], eos_token_id=ids["eos"], pad_token_id=ids["pad"],
        guidance_scale=5, generation_kwargs={"boi_token_id": ids["boi"]},
    )
    return model


def fill(model: JanusForConditionalGeneration, original: dict[str, torch.Tensor]):
    """Copies original weights into `model`; every tensor must find its place."""
    model.load_state_dict(hf_state(original), strict=True)


def write_hf(folder: Path, sizes: Sizes, tokenizer: Tokenizer, original: dict, shard: str):
    """The folder as `save_pretrained` makes it, plus the older preprocessor file."""
    model = empty_model(sizes, tokenizer).to(torch.bfloat16)
    fill(model, original)
    model.save_pretrained(folder, max_shard_size=shard)
    _processor(sizes, tokenizer).save_pretrained(folder)
    # Published folders carry these two; the library version at hand merges them away.
    tok.write_json(folder / "preprocessor_config.json", {
        "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "JanusImageProcessor",
        "image_std": [0.5, 0.5, 0.5], "min_size": 14, "processor_class": "JanusProcessor", "resample": 3,
        "rescale_factor": 0.00392156862745098, "size": {"height": sizes.image, "width": sizes.image},
    })
    tok.write_json(folder / "special_tokens_map.json", {
        "boi_token": tok.BOI, "bos_token": tok.BOS, "eoi_token": tok.EOI, "eos_token": tok.EOS,
        "image_token": tok.IMAGE, "pad_token": tok.PAD,
    })


def _processor(sizes: Sizes, tokenizer: Tokenizer) -> JanusProcessor:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=tok.BOS, eos_token=tok.EOS, pad_token=tok.PAD,
        extra_special_tokens={"image_token": tok.IMAGE, "boi_token": tok.BOI, "eoi_token": tok.EOI},
        model_max_length=sizes.max_positions, clean_up_tokenization_spaces=False,
    )
    pictures = JanusImageProcessorPil(
        size={"height": sizes.image, "width": sizes.image}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return JanusProcessor(pictures, wrapped, chat_template=CHAT_TEMPLATE,
                          use_default_system_prompt=True, num_image_tokens=sizes.vision_tokens)


def write_original(folder: Path, sizes: Sizes, tokenizer: Tokenizer, original: dict, forms: tuple[str, ...]):
    """The folder as the original repositories ship it; `forms` out of safetensors, bin, bin-sharded."""
    folder.mkdir(parents=True, exist_ok=True)
    tok.write_json(folder / "config.json", original_config(sizes, explicit=True))
    tok.write_original_files(folder, tokenizer, sizes.image, sizes.vision_tokens, sizes.max_positions)
    if "safetensors" in forms:
        write_safetensors(folder / "model.safetensors", original, {"format": "pt"})
    if "bin" in forms:
        torch.save(original, folder / "pytorch_model.bin")
    if "bin-sharded" in forms:
        _write_bin_shards(folder, original)


def _write_bin_shards(folder: Path, original: dict):
    """Two pickled shards of about equal size and their index."""
    total, seen = sum(t.nbytes for t in original.values()), 0
    shards: list[dict] = [{}, {}]
    for name, tensor in original.items():
        shards[0 if seen < total / 2 else 1][name] = tensor
        seen += tensor.nbytes
    weight_map = {}
    for i, shard in enumerate(shards, 1):
        file = f"pytorch_model-{i:05}-of-{len(shards):05}.bin"
        torch.save(shard, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    tok.write_json(folder / "pytorch_model.bin.index.json",
                   {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def read_original(folder: Path) -> dict[str, torch.Tensor]:
    """Whatever form the folder holds, in original names."""
    if (folder / "model.safetensors").exists():
        return load_file(folder / "model.safetensors")
    files = sorted(folder.glob("pytorch_model*.bin"))
    return {k: v for file in files for k, v in torch.load(file, weights_only=True).items()}


def check_folders(original_folder: Path, hf_folder: Path, shards: int):
    """Both folders hold the same network, bit for bit, and the library finds every tensor."""
    expected = hf_state(read_original(original_folder))
    model, report = JanusForConditionalGeneration.from_pretrained(
        hf_folder, dtype=torch.bfloat16, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    stored = {k for f in hf_folder.glob("*.safetensors") for k in load_file(f)}
    assert stored == expected.keys(), "names on disk differ from names in memory"
    assert len(list(hf_folder.glob("*.safetensors"))) >= shards
