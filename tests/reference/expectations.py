"""What a tiny model must compute: every rung of the parity ladder."""

import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import DynamicCache, JanusForConditionalGeneration, JanusImageProcessorPil

import images
import tokenizer as tok
from prompts import SYSTEM, generation_text, left_pad, prompt_ids, render, turns, unconditional
from sizes import Sizes

GUIDANCE = 5.0
QUESTION = "What is in this picture?"
GENERATION_PROMPT = "a red cube on a blue sphere"
# A choice must win by this fraction of the logits' deviation to be a fair test.
MIN_MARGIN = 2e-3


class NarrowMargin(Exception):
    """A greedy choice was too close: another seed is needed."""


@dataclass
class Reference:
    """A loaded model with all that is needed to ask it questions."""

    model: JanusForConditionalGeneration
    sizes: Sizes
    tokenizer: Tokenizer
    pictures: list[np.ndarray]

    @property
    def llama(self):
        return self.model.model.language_model

    @property
    def ids(self) -> dict[str, int]:
        return tok.special_ids(self.tokenizer)

    def pixel_values(self) -> torch.Tensor:
        """Original rule, [N,3,S,S]."""
        squares = [images.normalised(images.canvas(p, self.sizes.image)) for p in self.pictures]
        return torch.from_numpy(np.stack(squares))

    def understanding_ids(self, system: str, messages: list[dict]) -> list[int]:
        return prompt_ids(self.tokenizer, render(system, messages), self.sizes.vision_tokens)

    def question_ids(self) -> list[int]:
        return self.understanding_ids(SYSTEM, turns(f"{tok.IMAGE}\n{QUESTION}", ""))


class Recorder:
    """Keeps the output of named modules while it is open."""

    def __init__(self, modules: dict[str, torch.nn.Module]):
        self.values: dict[str, torch.Tensor] = {}
        self.handles = [m.register_forward_hook(self._keep(name)) for name, m in modules.items()]

    def _keep(self, name):
        def hook(_module, _inputs, output):
            self.values[name] = (output[0] if isinstance(output, tuple) else output).detach().clone()
        return hook

    def __enter__(self):
        return self.values

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


def margins(logits: torch.Tensor) -> torch.Tensor:
    """By how much the best choice wins."""
    best = logits.topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]


def _require_margin(logits: torch.Tensor, what: str):
    ratio = float((margins(logits) / logits.std(dim=-1)).min())
    if ratio < MIN_MARGIN:
        raise NarrowMargin(f"{what}: {ratio:.1e}")


def pixels(ref: Reference) -> dict[str, torch.Tensor]:
    """Source pictures and both size rules."""
    side = ref.sizes.image
    images.check_resize(ref.pictures, side)
    processor = JanusImageProcessorPil(
        size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    hf = processor([p.transpose(2, 0, 1) for p in ref.pictures], input_data_format="channels_first",
                   return_tensors="pt").pixel_values
    own = np.stack([images.normalised(images.canvas(p, side, images.fitted_hf)) for p in ref.pictures])
    assert np.abs(hf.numpy() - own).max() < 1e-6
    sources = {f"image.source.{i}": torch.from_numpy(p) for i, p in enumerate(ref.pictures)}
    return sources | {"pixel_values": ref.pixel_values(), "pixel_values.hf": hf}


def vision(ref: Reference) -> dict[str, torch.Tensor]:
    """Every stage of the tower and its projection."""
    tower = ref.model.model.vision_model
    modules = {"siglip.embeddings": tower.embeddings, "siglip.output": tower.post_layernorm}
    modules |= {f"siglip.block.{i}": layer for i, layer in enumerate(tower.encoder.layers)}
    out = tower.embeddings(ref.pixel_values())
    for layer in tower.encoder.layers:
        out = layer(out, None)
    with Recorder({k: m for k, m in modules.items() if k != "siglip.output"}) as values:
        # The library normalises a second time for a pooled output nobody uses,
        # so the tower's own result is taken, not the norm's last call.
        result = tower(ref.pixel_values()).last_hidden_state
    assert torch.equal(result, tower.post_layernorm(out))
    return values | {"siglip.output": result, "aligner.output": ref.model.model.aligner(result)}


def question(ref: Reference) -> dict[str, torch.Tensor]:
    """The understanding prompt through the language model, and its greedy answer."""
    ids = torch.tensor([ref.question_ids()])
    picture = ref.pixel_values()[:1]
    modules = {f"llama.layer.{i}": layer for i, layer in enumerate(ref.llama.layers)}
    modules["llama.output"] = ref.llama.norm
    with Recorder(modules) as values:
        logits = ref.model(input_ids=ids, pixel_values=picture).logits
    greedy, steps, _ = greedy_text(ref.model, ids, picture, 24)
    _check_uncached_agrees(ref, ids, picture, greedy, steps)
    _require_margin(steps, "text")
    return values | {
        "prompt.text_ids": ids, "prompt.embeds": _prompt_embeds(ref, ids, picture),
        "prompt.logits.tail": logits[:, -8:], "greedy.ids": greedy, "greedy.margins": margins(steps),
    }


def _prompt_embeds(ref: Reference, ids: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    """Text embeddings with the placeholder rows overwritten by picture features."""
    embeds = ref.llama.embed_tokens(ids).clone()
    features = ref.model.model.aligner(ref.model.model.vision_model(picture).last_hidden_state)
    embeds[ids == ref.ids["image_placeholder"]] = features.flatten(0, 1)
    assert torch.equal(ref.llama(inputs_embeds=embeds).last_hidden_state,
                       ref.model.model(input_ids=ids, pixel_values=picture).last_hidden_state)
    return embeds


def greedy_text(model, ids: torch.Tensor, picture: torch.Tensor, steps: int):
    """Largest logit, `steps` times, never stopping.

    Returns ids [steps], logits [steps,V] and the seconds of each call, of which the first is the prefill.
    """
    cache, chosen, kept, seconds = DynamicCache(config=model.config.text_config), [], [], []
    inputs = {"input_ids": ids, "pixel_values": picture}
    for _ in range(steps):
        start = time.perf_counter()
        kept.append(model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1])
        seconds.append(time.perf_counter() - start)
        chosen.append(int(kept[-1].argmax()))
        inputs = {"input_ids": torch.tensor([[chosen[-1]]])}
    return torch.tensor(chosen), torch.stack(kept), seconds


def _check_uncached_agrees(ref, ids, picture, chosen, logits):
    """One pass over the whole sequence gives the logits of the cached steps."""
    whole = torch.cat([ids, chosen[None]], dim=1)
    uncached = ref.model(input_ids=whole, pixel_values=picture).logits[0, ids.shape[1] - 1 : -1]
    assert torch.allclose(uncached, logits, atol=1e-3)


def batch(ref: Reference) -> dict[str, torch.Tensor]:
    """Two left-padded prompts of unequal length, one without a picture."""
    talk = turns("Hello, how are you?", "Fine, thanks.", "What is a cube?", "A box.", "And a sphere?", "")
    rows, mask = left_pad([ref.question_ids(), ref.understanding_ids(SYSTEM, talk)], ref.ids["pad"])
    ids, mask = torch.tensor(rows), torch.tensor(mask)
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    picture = ref.pixel_values()[:1]
    logits = ref.model(input_ids=ids, pixel_values=picture, attention_mask=mask, position_ids=positions).logits[:, -1]
    alone = ref.model(input_ids=ids[1:, mask[1] == 1]).logits[:, -1]
    assert torch.allclose(alone[0], logits[1], atol=1e-3)
    return {"batch.ids": ids, "batch.mask": mask, "batch.positions": positions, "batch.logits.last": logits}


def generation(ref: Reference) -> dict[str, torch.Tensor]:
    """Text to image with guidance, greedy, by the original loop."""
    cond = prompt_ids(ref.tokenizer, generation_text(GENERATION_PROMPT), 0)
    uncond = unconditional(cond, ref.ids["pad"])
    run = generate_codes(ref.model, cond, uncond, ref.sizes.grid**2)
    _require_margin(run["guided"], "image")
    if run["codes"].unique().numel() < 20:
        raise NarrowMargin(f"image: only {run['codes'].unique().numel()} distinct codes")
    _check_library_agrees(ref, cond, run["codes"])
    return {
        "gen.prompt_ids": torch.tensor(cond), "gen.uncond_ids": torch.tensor(uncond),
        "gen.logits.cond": run["cond"], "gen.logits.uncond": run["uncond"], "gen.logits.guided": run["guided"][0],
        "gen.codes": run["codes"], "gen.guided.steps": run["guided"], "gen.margins": margins(run["guided"]),
    }


def generate_codes(model, cond: list[int], uncond: list[int], steps: int) -> dict[str, torch.Tensor]:
    """The original loop: interleaved rows, no attention mask, positions 0, 1, 2, ...

    `cond` and `uncond` are the first step's logits [C], `guided` all steps' [steps,C],
    `seconds` the time of each step, of which the first holds the prefill.
    """
    inner, cache = model.model, DynamicCache(config=model.config.text_config)
    x = inner.language_model.embed_tokens(torch.tensor([cond, uncond]))
    codes, guided, seconds, first = [], [], [], None
    for _ in range(steps):
        start = time.perf_counter()
        hidden = inner.language_model(inputs_embeds=x, past_key_values=cache, use_cache=True).last_hidden_state
        logits = inner.generation_head(hidden[:, -1])
        first = logits if first is None else first
        guided.append(logits[1] + GUIDANCE * (logits[0] - logits[1]))
        codes.append(int(guided[-1].argmax()))
        x = model.prepare_embeddings_for_image_generation(torch.tensor([[codes[-1]], [codes[-1]]]))
        seconds.append(time.perf_counter() - start)
    return {"cond": first[0], "uncond": first[1], "guided": torch.stack(guided), "codes": torch.tensor(codes),
            "seconds": torch.tensor(seconds)}


def _check_library_agrees(ref: Reference, cond: list[int], codes: torch.Tensor):
    """transformers' own image generation gives the same codes."""
    ids = torch.tensor([cond])
    found = ref.model.generate(
        ids, attention_mask=torch.ones_like(ids), generation_mode="image", do_sample=False, guidance_scale=GUIDANCE)
    assert torch.equal(found[0], codes), "the original loop and transformers disagree"


def quantise(latents: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Original rule: latents and codebook rows are normalised, the first nearest wins.

    Latents [N,e,h,w] to codes [N*h*w], and by how much the second nearest was farther.
    """
    rows = F.normalize(latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]), dim=-1)
    table = F.normalize(codebook, dim=-1)
    distances = (rows**2).sum(1, keepdim=True) + (table**2).sum(1) - 2 * rows @ table.T
    nearest = distances.topk(2, dim=1, largest=False).values
    return distances.argmin(1), nearest[:, 1] - nearest[:, 0]


def to_u8(decoded: torch.Tensor) -> torch.Tensor:
    """[1,3,S,S] in about [-1,1] to u8 [S,S,3]; truncated, not rounded."""
    scaled = ((decoded + 1) / 2 * 255).clamp(0, 255)
    return scaled[0].permute(1, 2, 0).to(torch.uint8).contiguous()


def vq(ref: Reference, codes: torch.Tensor) -> dict[str, torch.Tensor]:
    """Picture to codes by the original rule, and the generated codes to a picture."""
    network = ref.model.model.vqmodel
    side = ref.sizes.image
    picture = torch.from_numpy(images.normalised(images.scene(side, side, seed=11)))[None]
    latents = network.quant_conv(network.encoder(picture))
    found, gaps = quantise(latents, network.quantize.embedding.weight)
    if gaps.min() < 1e-4 or found.unique().numel() < 12:
        raise NarrowMargin(f"vq: margin {gaps.min():.1e}, {found.unique().numel()} codes")
    decoded = network.decode(codes[None])
    return {
        "vq.encode.input": picture, "vq.encode.z": latents, "vq.encode.codes": found, "vq.encode.margins": gaps,
        "vq.decode.codes": codes, "vq.decode.pixels": decoded, "vq.decode.u8": to_u8(decoded),
    }


@torch.no_grad()
def compute(ref: Reference) -> dict[str, torch.Tensor]:
    """All expectations, cheap and choosy ones first; raises NarrowMargin for a poor seed."""
    result = generation(ref)
    result |= question(ref)
    result |= vq(ref, result["gen.codes"])
    result |= pixels(ref) | vision(ref) | batch(ref)
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in sorted(result.items())}
