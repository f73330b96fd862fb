"""Writes real photographs as JPEG files with a caption beside each, as people have them for training.

    pip install scikit-image
    python photo_folder.py --out DIR [--count 40] [--side 640]
    python photo_folder.py --out DIR --time     # the files are there: what Pillow makes of them, on one thread

The photographs are those that the scikit-image package carries; none is copied into this project. Each is
fitted into SIDE pixels, and repeated with another quality until there are COUNT files.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from images import PAD, fitted

PHOTOS = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "hubble_deep_field.jpg",
          "motorcycle_left.png", "ihc.png"]


SIDE = 384  # of Janus-Pro's pictures


def seen(path: Path) -> np.ndarray:
    """A file as the vision tower wants it: fitted into a grey square, in [-1, 1]."""
    photo = Image.open(path).convert("RGB")
    height, width = fitted(photo.height, photo.width, SIDE)
    square = Image.new("RGB", (SIDE, SIDE), (PAD,) * 3)
    square.paste(photo.resize((width, height), Image.Resampling.BICUBIC), ((SIDE - width) // 2, (SIDE - height) // 2))
    return (np.asarray(square, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5


def timed(folder: Path) -> str:
    files, seconds = sorted(folder.glob("*.jpg")), []
    for _ in range(2):
        start = time.perf_counter()
        for path in files:
            seen(path)
        seconds.append(time.perf_counter() - start)
    return json.dumps({"what": "decoded and resized", "kind": "understand", "side": "Pillow", "threads": 1,
                       "pictures": len(files), "per_second": len(files) / min(seconds)})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--time", action="store_true")
    args = parser.parse_args()
    if args.time:
        return print(timed(args.out))
    folder = Path(skimage.__file__).parent / "data"
    found = [folder / name for name in PHOTOS if (folder / name).exists()]
    if not found:
        raise SystemExit(f"{folder} has none of the photographs")
    args.out.mkdir(parents=True, exist_ok=True)
    for number in range(args.count):
        source = found[number % len(found)]
        photo = Image.open(source).convert("RGB")
        photo.thumbnail((args.side, args.side), Image.Resampling.LANCZOS)
        photo.save(args.out / f"{number:04}.jpg", quality=75 + number % 20)
        (args.out / f"{number:04}.txt").write_text(f"{source.stem.replace('_', ' ')}, number {number}")
    print(f"{args.out}: {args.count} files of {len(found)} photographs")


if __name__ == "__main__":
    main()
