"""Class folders of real images, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.images import Pixels
from training.config.file import parse_config
from training.config.settings import TrainConfig


def write_patches(folder: Path, photo: Pixels, count: int, *, seed: int, side: int = 48) -> None:
    """Writes so many different square patches of a photo as JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        top, left = (int(generator.integers(0, length - side)) for length in photo.shape[:2])
        Image.fromarray(photo[top : top + side, left : left + side]).save(folder / f"{number:03}.jpg", quality=92)


def write_classes(folder: Path, photos: dict[str, Pixels], *, per_class: int = 12, side: int = 48) -> Path:
    """Writes a class folder of patches for each photo; returns the folder."""
    for seed, (name, photo) in enumerate(photos.items()):
        write_patches(folder / name, photo, per_class, seed=seed, side=side)
    return folder


def digits_config(tmp_path: Path, **settings: object) -> TrainConfig:
    """A configuration that trains on the digits in a second or two."""
    fixed: dict[str, object] = {
        "data": "digits",
        "architecture": "simple-cnn",
        "widths": (8, 16),
        "hidden_width": 16,
        "image_size": 8,
        "channels": 1,
        "horizontal_flip": False,
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": 0.01,
        "runs": tmp_path / "runs",
        "store": tmp_path / "store",
        "tracking": "none",
        "device": "cpu",
        "threads": 1,
    }
    return parse_config(fixed | settings, origin="The test")
