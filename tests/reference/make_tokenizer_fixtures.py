"""Writes what training the image tokenizer must compute: loss terms, gradients, five steps.

    python make_tokenizer_fixtures.py --out ../fixtures

The tokenizer is that of tiny-pro, the critic and the perceptual networks are tiny ones made here. Writes
`tokenizer-training/{expected.safetensors,vgg.pth,lpips.pth}`.
"""

import argparse
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

COMMAND = "python make_tokenizer_fixtures.py --out ../fixtures"
STEPS, RATE, BETAS, EPSILON, CLIP = 5, 1e-4, (0.9, 0.95), 1e-8, 1.0
SIDE, PICTURES, ROWS = 16, 4, 2
WEIGHTS = {"reconstruction": 1.0, "perceptual": 0.5, "codebook": 1.0, "commitment": 0.25, "adversarial": 0.5}
# The critic has a say from this step on, counted from 1.
FROM = 3
WIDTH, LAYERS = 4, 2
# Channels of the thirteen convolutions of a tiny VGG-16; 0 stands for a pool.
VGG = (2, 2, 0, 3, 3, 0, 4, 4, 4, 0, 3, 3, 3, 0, 5, 5, 5)
PREFIX = "gen_vision_model."


def critic() -> nn.Sequential:
    """PatchGAN with BatchNorm."""
    modules = [nn.Conv2d(3, WIDTH, 4, 2, 1), nn.LeakyReLU(0.2)]
    width = WIDTH
    for i in range(1, LAYERS + 1):
        wide = WIDTH * min(2**i, 8)
        stride = 2 if i < LAYERS else 1
        modules += [nn.Conv2d(width, wide, 4, stride, 1, bias=False), nn.BatchNorm2d(wide), nn.LeakyReLU(0.2)]
        width = wide
    net = nn.Sequential(*modules, nn.Conv2d(width, 1, 4, 1, 1))
    for module in net:
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, 0.2)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.1)
            nn.init.normal_(module.bias, 0.0, 0.1)
    return net.train()


def critic_names(net: nn.Sequential) -> dict[str, nn.Parameter]:
    """Ours to PyTorch's parameters."""
    names, layer = {}, -1
    for module in net:
        kind = "conv" if isinstance(module, nn.Conv2d) else "norm"
        layer += kind == "conv"
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            names |= {f"critic.layers.{layer}.{kind}.{leaf}": p for leaf, p in module.named_parameters()}
    return names


class Perceptual(nn.Module):
    """LPIPS over VGG-16, of any width."""

    def __init__(self):
        super().__init__()
        modules, width = [], 3
        for wide in VGG:
            modules += [nn.MaxPool2d(2)] if wide == 0 else [nn.Conv2d(width, wide, 3, 1, 1), nn.ReLU()]
            width = wide or width
        self.features = nn.Sequential(*modules)
        at, self.ends, widths = 0, [], []
        for i, wide in enumerate(VGG):
            at += 1 if wide == 0 else 2
            if i + 1 == len(VGG) or VGG[i + 1] == 0:
                self.ends.append(at)
                widths.append(wide)
        self.lins = nn.ParameterList([torch.rand(1, wide, 1, 1) for wide in widths])
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[None, :, None, None])

    def forward(self, a, b):
        a, b = (a - self.shift) / self.scale, (b - self.shift) / self.scale
        total, begin = 0.0, 0
        for end, lin in zip(self.ends, self.lins):
            for module in self.features[begin:end]:
                a, b = module(a), module(b)
            unit = [x / (x.square().sum(1, keepdim=True).clamp_min(1e-20).sqrt() + 1e-10) for x in (a, b)]
            total = total + F.conv2d((unit[0] - unit[1]).square(), lin).mean((2, 3), keepdim=True)
            begin = end
        return total.mean()


def reconstruct(vq, pixels):
    """The tokenizer with normalised codes and straight-through gradients."""
    z = vq.quant_conv(vq.encoder(pixels)).permute(0, 2, 3, 1)
    z, rows = F.normalize(z, dim=-1), F.normalize(vq.quantize.embedding.weight, dim=-1)
    flat = z.reshape(-1, z.shape[-1])
    distance = flat.square().sum(1, keepdim=True) + rows.square().sum(1) - 2 * flat @ rows.T
    codes = distance.argmin(1)
    snapped = rows[codes].view_as(z)
    codebook, commitment = F.mse_loss(snapped, z.detach()), F.mse_loss(z, snapped.detach())
    through = (z + (snapped - z).detach()).permute(0, 3, 1, 2)
    return vq.decoder(vq.post_quant_conv(through)), codebook, commitment, codes


def add_gradients(part: nn.Module, loss: torch.Tensor):
    """Of this part's parameters and no others."""
    parameters = list(part.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def backward(vq, net, perceptual, pictures, adversarial: bool) -> tuple[dict[str, float], torch.Tensor]:
    """Accumulates the gradients of both networks over rows of pictures."""
    terms: dict[str, float] = {}
    all_codes = []
    for rows in pictures.split(ROWS):
        share = len(rows) / len(pictures)
        made, codebook, commitment, codes = reconstruct(vq, rows)
        parts = {"reconstruction": F.mse_loss(made, rows), "codebook": codebook, "commitment": commitment,
                 "perceptual": perceptual(rows, made)}
        if adversarial:
            parts["adversarial"] = -net(made).mean()
        loss = sum(WEIGHTS[name] * part for name, part in parts.items())
        add_gradients(vq, share * loss)
        parts["loss"] = loss
        all_codes.append(codes)
        if adversarial:
            real, fake = net(rows), net(made.detach())
            parts["critic"] = 0.5 * WEIGHTS["adversarial"] * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
            add_gradients(net, share * parts["critic"])
        for name, part in parts.items():
            terms[name] = terms.get(name, 0.0) + share * part.item()
    return terms, torch.cat(all_codes)


def five_steps(vq, net, perceptual, pictures) -> dict[str, torch.Tensor]:
    """Loss terms and norms of each step before its update."""
    adam = {"lr": RATE, "betas": BETAS, "eps": EPSILON}
    optimizers = [torch.optim.Adam(part.parameters(), **adam) for part in (vq, net)]
    result = {}
    for step in range(STEPS):
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        adversarial = step + 1 >= FROM
        terms, codes = backward(vq, net, perceptual, pictures, adversarial)
        terms["norm"] = nn.utils.clip_grad_norm_(vq.parameters(), CLIP).item()
        optimizers[0].step()
        if adversarial:
            terms["critic_norm"] = nn.utils.clip_grad_norm_(net.parameters(), CLIP).item()
            optimizers[1].step()
        result |= {f"step.{step}.{name}": torch.tensor([value]) for name, value in terms.items()}
        result[f"step.{step}.codes"] = codes
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    torch.set_num_threads(1)  # sums must not depend on the machine's core count
    torch.manual_seed(20)
    torch.use_deterministic_algorithms(True)
    model = JanusForConditionalGeneration.from_pretrained(out / "tiny-pro/hf", dtype=torch.float32)
    vq = model.model.vqmodel.requires_grad_(True).train()
    net, perceptual = critic(), Perceptual().requires_grad_(False)
    pictures = F.interpolate(torch.rand(PICTURES, 3, 8, 8) * 2 - 1, size=SIDE, mode="bilinear")
    tensors = {"pixels": pictures}
    tensors |= {name: p.detach().clone() for name, p in critic_names(net).items()}
    # All terms, from the same weights.
    terms, codes = backward(vq, net, perceptual, pictures, True)
    tensors |= {f"all.{name}": torch.tensor([value]) for name, value in terms.items()} | {"all.codes": codes}
    for name, gradient in original_gradients(model, TINY_PRO, PREFIX).items():
        tensors |= condensed(f"grad.{name}", gradient)
    for name, parameter in critic_names(net).items():
        tensors |= condensed(f"grad.{name}", parameter.grad)
    tensors |= five_steps(vq, net, perceptual, pictures)
    folder = out / "tokenizer-training"
    folder.mkdir(exist_ok=True)
    state = {f"features.{name}": p for name, p in perceptual.features.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, folder / "vgg.pth")
    torch.save({f"lin{i}.model.1.weight": p.data for i, p in enumerate(perceptual.lins)}, folder / "lpips.pth")
    tensors = {name: value.contiguous() for name, value in sorted(tensors.items())}
    metadata = {"seed": "20", "command": COMMAND, "torch": torch.__version__, "transformers": transformers.__version__}
    write_safetensors(folder / "expected.safetensors", tensors, metadata)
    print({name: value.item() for name, value in tensors.items() if value.numel() == 1 and "step" in name})


if __name__ == "__main__":
    main()
