"""Makes the images of the benchmark from a real photo, the same bytes on every run (with the same Pillow).

training/golden/coffee.jpg -> enlarged, with a little noise as a sensor adds -> JPEG or PNG of the wanted size
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from training.export.import_pretrained import GOLDEN_FOLDER


def write_missing(folder: Path) -> dict[str, Path]:
    """Writes the images that are not there yet; returns all of them by name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, make in _IMAGES.items():
        paths[name] = folder / name
        if not paths[name].exists():
            paths[name].write_bytes(make())
    return paths


def _photo_640x480() -> bytes:
    return _jpeg((640, 480), noise=4.0, quality=88)  # about 80 KB, as photos on the web


def _photo_12mp() -> bytes:
    return _jpeg((4000, 3000), noise=2.25, quality=75)  # about 715 KB


def _icon_32x32() -> bytes:
    stream = io.BytesIO()
    _enlarged((32, 32), noise=0.0).save(stream, "PNG")
    return stream.getvalue()


def _jpeg(size: tuple[int, int], *, noise: float, quality: int) -> bytes:
    stream = io.BytesIO()
    _enlarged(size, noise).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _enlarged(size: tuple[int, int], noise: float) -> Image.Image:
    with Image.open(GOLDEN_FOLDER / "coffee.jpg") as photo:
        enlarged = ImageOps.fit(photo.convert("RGB"), size, Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, noise, (*reversed(size), 1))  # grey, as luminance noise is
    return Image.fromarray(np.clip(np.asarray(enlarged) + grain, 0, 255).astype(np.uint8))


_IMAGES: dict[str, Callable[[], bytes]] = {
    "photo-640x480.jpg": _photo_640x480,
    "photo-12mp.jpg": _photo_12mp,
    "icon-32x32.png": _icon_32x32,
}
