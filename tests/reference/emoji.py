"""Makes training data of the emoji that a package carries: 64×64 pictures on white, and JSONL beside them.

    npm pack emoji-datasource-google@16.0.0      # Noto Emoji: Apache License 2.0; 74 MB
    python emoji.py emoji-datasource-google-16.0.0.tgz --out emoji

`emoji-datasource-twitter` (Twemoji, CC-BY 4.0) has the same layout. Nothing of either is copied into this
project. Pictures in the package are transparent, and what lies under transparent pixels is arbitrary colour:
they are laid on a background. Every emoji becomes two samples, to be drawn from its name and to be named;
one emoji in ten is held out. Which ones, and their order, depends on the names alone.
"""

import argparse
import hashlib
import io
import json
import tarfile
from pathlib import Path

from PIL import Image, ImageColor

CATEGORIES = ["Animals & Nature", "Food & Drink", "Activities", "Travel & Places", "Objects"]
MAX_BYTES = 1 << 20


def digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def member(package: tarfile.TarFile, name: str, limit: int = MAX_BYTES) -> bytes:
    info = package.getmember(f"package/{name}")
    if info.size > limit:
        raise SystemExit(f"{name}: {info.size} bytes")
    return package.extractfile(info).read()


def flat(data: bytes, background: tuple[int, ...]) -> Image.Image:
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    square = Image.new("RGBA", picture.size, background)
    return Image.alpha_composite(square, picture).convert("RGB")


def samples(name: str, file: str) -> list[dict]:
    def turns(question, answer):
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
                "images": [file]}
    return [turns(f"{name} emoji", "<image>"),
            turns("<image>What does this emoji show?", f"{name[0].upper()}{name[1:]}.")]


def chosen(package: tarfile.TarFile, pictures: str, categories: list[str]) -> list[tuple[str, str]]:
    """Names and file names of categories, or of parts of them, in an order that mixes these."""
    found = {}
    for emoji in json.loads(member(package, "emoji.json", 64 << 20)):
        if {emoji["category"], emoji["subcategory"]} & set(categories) and emoji[f"has_img_{pictures}"]:
            found.setdefault(emoji["name"].lower(), emoji["image"])
    return sorted(found.items(), key=lambda item: digest(item[0]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="as `npm pack` writes it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--category", action="append", help=f"or subcategory, such as food-fruit; may be repeated [default: {', '.join(CATEGORIES)}]")
    parser.add_argument("--background", default="white")
    args = parser.parse_args()
    pictures = "twitter" if "twitter" in args.package.name else "google"
    background = (*ImageColor.getrgb(args.background)[:3], 255)
    args.out.mkdir(parents=True, exist_ok=True)
    lines = {"train": [], "valid": []}
    with tarfile.open(args.package) as package:
        for name, file in chosen(package, pictures, args.category or CATEGORIES):
            data = member(package, f"img/{pictures}/64/{file}")
            flat(data, background).save(args.out / file)
            lines["valid" if digest(f"{name} held out") % 10 == 0 else "train"] += samples(name, file)
    for split, found in lines.items():
        text = "".join(json.dumps(line) + "\n" for line in found)
        (args.out / f"{split}.jsonl").write_text(text)
        print(f"{args.out / split}.jsonl: {len(found)} samples of {len(found) // 2} emoji")


if __name__ == "__main__":
    main()
