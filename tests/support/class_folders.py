"""Writes folders of real images, one folder a class, as training reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.images import Pixels


def write_patches(folder: Path, photo: Pixels, count: int, *, seed: int, side: int = 48) -> None:
    """Writes `count` different square patches of a photo as JPEG files, each `side` pixels wide."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        top, left = (int(generator.integers(0, length - side)) for length in photo.shape[:2])
        Image.fromarray(photo[top : top + side, left : left + side]).save(folder / f"{number:03}.jpg", quality=92)


def write_classes(folder: Path, photos: dict[str, Pixels], *, per_class: int = 12, side: int = 48) -> Path:
    """Writes a class folder of patches for each photo; returns `folder`."""
    for seed, (name, photo) in enumerate(photos.items()):
        write_patches(folder / name, photo, per_class, seed=seed, side=side)
    return folder
