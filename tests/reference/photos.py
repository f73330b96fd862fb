"""Real photographs through the whole path, against Pillow and PyTorch.

    pip install scikit-image
    python photos.py --model DIR --janus ../../target/release/janus --pixels ../../target/release/examples/pixels

The photographs are those that the scikit-image package carries; none is copied into this project.
Each one, and variants of it that cameras and programs write (JPEG of several kinds, turned by
EXIF, CMYK, palette, 16 bits, alpha, WebP), is read by both sides. Compared are the decoded
picture, the prepared pixels, and for the photographs themselves the greedy answer.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image, ImageOps
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from expectations import greedy_text
from full_size import QUESTION, find_sizes, load
from images import PAD, fitted
import tokenizer as tok
from prompts import SYSTEM, prompt_ids, render, turns

PHOTOS = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "hubble_deep_field.jpg",
          "motorcycle_left.png", "ihc.png", "camera.png", "page.png"]


def variants(folder: Path, source: Path) -> list[Path]:
    """One photograph as other programs would have written it."""
    photo = Image.open(source).convert("RGB")
    made = []

    def save(name: str, image: Image.Image, **how):
        image.save(folder / name, **how)
        made.append(folder / name)

    for quality, subsampling in [(95, 0), (75, 2), (30, 1)]:
        save(f"q{quality}.jpg", photo, quality=quality, subsampling=subsampling)
    save("progressive.jpg", photo, quality=85, progressive=True)
    save("cmyk.jpg", photo.convert("CMYK"), quality=90)
    save("grey.jpg", photo.convert("L"), quality=90)
    save("palette.png", photo.quantize(64))
    save("alpha.png", Image.merge("RGBA", [*photo.split(), photo.convert("L")]))
    save("grey-alpha.png", photo.convert("LA"))
    save("sixteen.png", Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257))
    save("one-bit.png", photo.convert("1"))
    save("lossless.webp", photo, lossless=True)
    save("lossy.webp", photo, quality=80)
    save("bitmap.bmp", photo)
    save("picture.gif", photo)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"turned-{orientation}.jpg", photo, quality=95, subsampling=0, exif=exif)
    return made


def prepared(image: Image.Image, side: int) -> np.ndarray:
    """The original's rules, with Pillow's own resizing."""
    height, width = fitted(image.height, image.width, side)
    canvas = Image.new("RGB", (side, side), (PAD, PAD, PAD))
    canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), ((side - width) // 2, (side - height) // 2))
    return (np.asarray(canvas).astype(np.float32) / 255 - 0.5).transpose(2, 0, 1) / 0.5


def answer(model, tokenizer, sizes, pixels: np.ndarray, tokens: int) -> list[int]:
    text = render(SYSTEM, turns(f"{tok.IMAGE}\n{QUESTION}", ""))
    ids = torch.tensor([prompt_ids(tokenizer, text, sizes.vision_tokens)])
    chosen, _, _ = greedy_text(model, ids, torch.from_numpy(pixels)[None], tokens)
    return chosen.tolist()


def janus_answer(binary: Path, model: Path, photo: Path, tokens: int) -> list[int]:
    command = [binary, "ask", photo, "--question", QUESTION, "--model", model, "--device", "cpu", "--json",
               "--max-new-tokens", str(tokens)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["token_ids"]


def compare_pixels(args, paths: list[Path], side: int, folder: Path) -> list[np.ndarray]:
    """Prints one row per file; gives back our prepared pixels."""
    out = folder / "pixels.safetensors"
    subprocess.run([args.pixels, args.model, out, *paths], check=True)
    ours = load_file(out)
    print("| file | size | decoded values that differ | by at most | prepared values that differ | by at most |")
    print("|---|---|---|---|---|---|")
    for number, path in enumerate(paths):
        theirs = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        decoded = np.abs(np.asarray(theirs).astype(int) - ours[f"{number}.source"].astype(int))
        pixels = np.abs(prepared(theirs, side) - ours[f"{number}.pixels"])
        print(f"| {path.name} | {theirs.width}x{theirs.height} | {(decoded > 0).mean():.2%} | {decoded.max()} "
              f"| {(pixels > 0).mean():.2%} | {pixels.max() * 127.5:.1f} levels |")
    return [ours[f"{number}.pixels"] for number in range(len(paths))]


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--janus", type=Path, required=True)
    parser.add_argument("--pixels", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--photos", type=int, default=len(PHOTOS), help="how many are asked about")
    args = parser.parse_args()
    torch.set_num_threads(2)
    sizes, tokenizer = find_sizes(args.model), Tokenizer.from_file(str(args.model / "tokenizer.json"))
    data = Path(skimage.__file__).parent / "data"
    photos = [data / name for name in PHOTOS]
    with tempfile.TemporaryDirectory() as folder:
        compare_pixels(args, photos + variants(Path(folder), data / "coffee.png"), sizes.image, Path(folder))
    model = load(args.model, torch.float32)
    print("\n| photograph | answer ids equal to PyTorch's, from Pillow's pixels |\n|---|---|")
    failed = 0
    for photo in photos[:args.photos]:
        pixels = prepared(ImageOps.exif_transpose(Image.open(photo)).convert("RGB"), sizes.image)
        theirs = answer(model, tokenizer, sizes, pixels, args.tokens)
        ours = janus_answer(args.janus, args.model, photo, args.tokens)
        eos = tok.special_ids(tokenizer)["eos"]
        theirs = theirs[:theirs.index(eos)] if eos in theirs else theirs
        same = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        failed += ours != theirs
        print(f"| {photo.name} | {same} of {len(theirs)} |", flush=True)
    raise SystemExit(f"{failed} answers differ" if failed else None)


if __name__ == "__main__":
    main()
