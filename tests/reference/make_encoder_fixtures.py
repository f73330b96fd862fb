"""Writes what sigmoid contrastive pre-training must compute: loss, gradients, five steps.

    python make_encoder_fixtures.py --out ../fixtures

The vision tower is that of tiny-pro; pool and text tower are made here. Writes `encoder-training.safetensors`.
"""

import argparse
import math
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers import JanusForConditionalGeneration

from gradients import condensed, original_gradients
from sizes import TINY_PRO
from stream import write_safetensors

COMMAND = "python make_encoder_fixtures.py --out ../fixtures"
STEPS, RATE, BETAS, EPSILON, DECAY, CLIP = 5, 1e-3, (0.9, 0.95), 1e-8, 1e-4, 1.0
PAIRS, LENGTH, TEXT, TEXT_HEADS, LAYERS = 6, 8, 16, 2, 1
WIDTH, HEADS = TINY_PRO.vision_width, TINY_PRO.vision_heads


def attend(q, k, v, heads: int):
    """`[N, a, W]` and twice `[N, b, W]`, already projected, to `[N, a, W]`."""
    cut = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)
    q, k, v = cut(q), cut(k), cut(v)
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        return self.proj(attend(*self.qkv(x).chunk(3, -1), TEXT_HEADS))


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width), Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.latent = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.q, self.kv, self.proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm, self.mlp = nn.LayerNorm(WIDTH, eps=1e-6), Mlp(WIDTH)

    def forward(self, tokens):
        q = self.q(self.latent).expand(len(tokens), -1, -1)
        y = self.proj(attend(q, *self.kv(tokens).chunk(2, -1), HEADS))
        return (y + self.mlp(self.norm(y)))[:, 0]


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(TINY_PRO.vocab, TEXT)
        self.positions = nn.Parameter(torch.zeros(1, LENGTH, TEXT))
        self.blocks = nn.ModuleList([Block(TEXT) for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(TEXT, eps=1e-6), nn.Linear(TEXT, WIDTH)

    def forward(self, ids):
        x = self.embed(ids) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, -1])


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool, self.text = Pool(), Text()
        self.temperature, self.bias = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        for parameter in self.parameters():
            # As a file in bf16 has them.
            parameter.data.normal_(0.0, 0.2).copy_(parameter.data.bfloat16().float())
        self.temperature.data.fill_(1.5)
        self.bias.data.fill_(-2.0)


def sigmoid_loss(vision, heads, pixels, ids):
    x = F.normalize(heads.pool(vision(pixels).last_hidden_state), dim=-1)
    z = F.normalize(heads.text(ids), dim=-1)
    fits = x @ z.T * heads.temperature.exp() + heads.bias
    y = 2 * torch.eye(len(x)) - 1
    return -F.logsigmoid(y * fits).sum() / len(x), (fits.argmax(1) == torch.arange(len(x))).float().mean()


def five_steps(vision, heads, pixels, ids) -> dict[str, torch.Tensor]:
    parameters = [p for p in vision.parameters() if p.grad is not None] + list(heads.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss, _ = sigmoid_loss(vision, heads, pixels, ids)
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(parameters, CLIP))
        optimizer.step()
        losses.append(loss.detach())
    print("losses", *(f"{loss.item():.6f}" for loss in losses), "norms", *(f"{norm.item():.4f}" for norm in norms))
    return {"steps.losses": torch.stack(losses), "steps.norms": torch.stack(norms)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    torch.set_num_threads(1)  # sums must not depend on the machine's core count
    torch.manual_seed(21)
    model = JanusForConditionalGeneration.from_pretrained(
        out / "tiny-pro/hf", dtype=torch.float32, attn_implementation="eager").eval()
    vision, heads = model.model.vision_model, Heads()
    small = torch.rand(PAIRS, 3, 4, 4) * 2 - 1
    pixels = small.repeat_interleave(TINY_PRO.image // 4, 2).repeat_interleave(TINY_PRO.image // 4, 3)
    ids = torch.randint(10, TINY_PRO.vocab, (PAIRS, LENGTH))
    tensors = {"small": small, "ids": ids}
    tensors |= {f"heads.{name}": p.detach().bfloat16() for name, p in heads.named_parameters()}
    loss, found = sigmoid_loss(vision, heads, pixels, ids)
    loss.backward()
    tensors |= {"loss": loss.detach()[None], "found": found[None]}
    for name, gradient in original_gradients(model, TINY_PRO, "vision_model.").items():
        tensors |= condensed(f"grad.{name}", gradient)
    for name, parameter in heads.named_parameters():
        tensors |= condensed(f"grad.heads.{name}", parameter.grad)
    tensors |= five_steps(vision, heads, pixels, ids)
    tensors = {name: value.contiguous() for name, value in sorted(tensors.items())}
    metadata = {"command": COMMAND, "seed": "21", "torch": torch.__version__, "transformers": transformers.__version__}
    write_safetensors(out / "encoder-training.safetensors", tensors, metadata)


if __name__ == "__main__":
    main()
