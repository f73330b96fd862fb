"""Image preparation by the original rules, Hugging Face's variant, and small odd image files."""

import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

PAD = 127
MIN_SIDE = 14


def pattern(height: int, width: int) -> np.ndarray:
    """The test picture whose resized checksums are known (u8, HWC)."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((7 * x + 13 * y + 29 * c + 5 * ((x * y) % 31)) % 256).astype(np.uint8)


def scene(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth picture with a few shapes: closer to a photograph than `pattern`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    picture = np.zeros((height, width, 3))
    for c in range(3):
        picture[..., c] = 128 + 90 * np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y + rng.uniform(0, 6))
    for _ in range(4):
        cy, cx, radius = rng.uniform(0, 0.8), rng.uniform(0, 0.8), rng.uniform(0.08, 0.2)
        picture[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def fitted(height: int, width: int, side: int) -> tuple[int, int]:
    """Size after the longer side became `side`: the original rounds down."""
    longest = max(height, width)
    return max(height * side // longest, MIN_SIDE), max(width * side // longest, MIN_SIDE)


def fitted_hf(height: int, width: int, side: int) -> tuple[int, int]:
    """Hugging Face's size rule: round half to even."""
    scale = side / max(height, width)
    return max(round(height * scale), MIN_SIDE), max(round(width * scale), MIN_SIDE)


def _bicubic(t: float) -> float:
    t = abs(t)
    if t < 1:
        return (1.5 * t - 2.5) * t * t + 1
    return (((t - 5) * t + 8) * t - 4) * -0.5 if t < 2 else 0.0


def _filter(n_in: int, n_out: int) -> list[tuple[int, np.ndarray]]:
    """For each output position: first input position and 22-bit fixed-point weights."""
    scale = n_in / n_out
    stretch = max(scale, 1.0)
    result = []
    for i in range(n_out):
        centre = (i + 0.5) * scale
        low = max(int(centre - 2 * stretch + 0.5), 0)
        high = min(int(centre + 2 * stretch + 0.5), n_in)
        weights = [_bicubic((k + low - centre + 0.5) * (1 / stretch)) for k in range(high - low)]
        total = sum(weights)
        scaled = [w / total * (1 << 22) for w in weights]
        result.append((low, np.array([int(w + (-0.5 if w < 0 else 0.5)) for w in scaled], np.int64)))
    return result


def _pass(pixels: np.ndarray, n_out: int) -> np.ndarray:
    """Resizes the first axis."""
    if pixels.shape[0] == n_out:
        return pixels
    out = np.empty((n_out, *pixels.shape[1:]), np.uint8)
    for i, (low, weights) in enumerate(_filter(pixels.shape[0], n_out)):
        total = np.tensordot(weights, pixels[low : low + len(weights)].astype(np.int64), axes=1)
        out[i] = np.clip(((1 << 21) + total) >> 22, 0, 255)
    return out


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's bicubic in integers: horizontal pass first, 8 bits in between."""
    horizontal = _pass(pixels.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return _pass(horizontal, height)


def canvas(pixels: np.ndarray, side: int, rule=fitted) -> np.ndarray:
    """`pixels` fitted into a grey square."""
    height, width = rule(*pixels.shape[:2], side)
    square = np.full((side, side, 3), PAD, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = resize(pixels, height, width)
    return square


def normalised(square: np.ndarray) -> np.ndarray:
    """u8 HWC to f32 CHW in [-1, 1], rounded in the original's two steps."""
    scaled = (square.astype(np.float64) * 0.00392156862745098).astype(np.float32)
    return ((scaled - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1)


def pillow_resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


# source height and width, CRC-32 of the source and of the 384-pixel canvas
_CHECKSUMS = [
    (427, 640, "47f2d347", "b989a6ca"), (640, 427, "c4387c42", "6184ff5e"), (428, 640, "d41b7f7a", "995848ee"),
    (1000, 333, "1ac5a081", "48f90a0b"), (100, 50, "115796ad", "a9724e27"), (384, 200, "70bbb669", "df0c9bf8"),
    (37, 911, "2ab4e65d", "5f6b23ab"), (384, 384, "76c82a3d", "76c82a3d"), (500, 500, "b703753a", "b5f5d61a"),
]


def check_resize(pictures: list[np.ndarray], side: int):
    """The integer algorithm against known checksums, and against the Pillow at hand."""
    for height, width, source_crc, canvas_crc in _CHECKSUMS:
        source = pattern(height, width)
        assert f"{zlib.crc32(source.tobytes()):08x}" == source_crc, (height, width)
        assert f"{zlib.crc32(canvas(source, 384).tobytes()):08x}" == canvas_crc, (height, width)
    for picture in pictures:
        for rule in (fitted, fitted_hf):
            size = rule(*picture.shape[:2], side)
            assert np.array_equal(resize(picture, *size), pillow_resize(picture, *size)), (picture.shape, size)


def _variants(rgb: np.ndarray) -> dict[str, tuple[Image.Image, dict]]:
    """File name to picture and save options: every mode a user may send."""
    picture = Image.fromarray(rgb)
    grey = picture.convert("L")
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, rgb.shape[1]).astype(np.uint8), (rgb.shape[0], 1)))
    palette = picture.quantize(16)
    # Even columns stay below 256: Pillow clips 16-bit values instead of scaling them.
    deep = rgb[..., 0].astype(np.uint16)
    deep[:, 1::2] *= 257
    deep = Image.fromarray(deep)
    with_alpha, grey_alpha = picture.copy(), Image.merge("LA", (grey, alpha))
    with_alpha.putalpha(alpha)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "rgb.png": (picture, {}),
        "palette.png": (palette, {}),
        "palette-transparent.png": (palette, {"transparency": 3}),
        "palette-alpha.png": (palette, {"transparency": bytes(range(0, 256, 16))}),
        "bits-1.png": (picture.convert("1"), {}),
        "grey.png": (grey, {}),
        "grey-transparent.png": (grey, {"transparency": 128}),
        "grey-alpha.png": (grey_alpha, {}),
        "grey-16.png": (deep, {}),
        "rgba.png": (with_alpha, {}),
        "rgb.jpg": (picture, {"quality": 90}),
        "grey.jpg": (grey, {"quality": 90}),
        "progressive.jpg": (picture, {"quality": 90, "progressive": True}),
        "cmyk.jpg": (picture.convert("CMYK"), {"quality": 90}),
        "ycck.jpg": (picture.convert("CMYK"), {"quality": 90, "ycck": True}),
        "orientation-6.jpg": (picture, {"quality": 90, "exif": exif}),
        "lossless.webp": (picture, {"lossless": True}),
        "lossy.webp": (picture, {"quality": 80}),
        "rgba-lossless.webp": (with_alpha, {"lossless": True}),
        "animated.gif": (palette, {"save_all": True, "append_images": [palette.transpose(Image.Transpose.ROTATE_180)]}),
        "rgb.bmp": (picture, {}),
    }


def write_image_files(folder: Path) -> dict[str, np.ndarray]:
    """Writes the odd image files; returns what Pillow's RGB conversion makes of each."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, (picture, options) in _variants(scene(19, 26, seed=5)).items():
        data = _ycck(picture, options) if options.pop("ycck", False) else _saved(picture, name, options)
        (folder / name).write_bytes(data)
        expected[name] = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
        if "exif" in options:
            upright = ImageOps.exif_transpose(Image.open(BytesIO(data)))
            expected[f"{name}.upright"] = np.asarray(upright.convert("RGB"))
    return {name: np.ascontiguousarray(value) for name, value in expected.items()}


def _saved(picture: Image.Image, name: str, options: dict) -> bytes:
    buffer = BytesIO()
    kind = Image.registered_extensions()[Path(name).suffix]
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _ycck(picture: Image.Image, options: dict) -> bytes:
    """A YCCK JPEG.

    Pillow writes CMYK with the Adobe marker's transform at 0. Setting it to 2
    declares the same bytes as YCCK; the colours change, but every decoder must
    change them alike.
    """
    data = bytearray(_saved(picture, "a.jpg", {k: v for k, v in options.items() if k != "ycck"}))
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0
    data[marker + 11] = 2
    return bytes(data)
