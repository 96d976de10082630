"""A decoded image -> what the network sees: `Predictor.resize_and_crop`, computed by Pillow.

Equal to the definition in the artifact to the bit where the image was decoded in full (tests hold it), several times
faster, and without the interpreter's lock.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from app.decode import DecodedImage


def resize_and_crop(image: DecodedImage, *, resize_size: int, image_size: int) -> torch.Tensor:
    """Resizes the shorter side, antialiased bilinear, and cuts out the centre; computes only what the crop can see.

    Args:
        image: of any size, decoded at any scale; the window is computed at full scale, so that it sits on one grid.
        resize_size: what the shorter side becomes.
        image_size: the side S of the crop; at most `resize_size`.

    Returns:
        uint8 `(3, S, S)`, in channels-last memory.
    """
    shorter = min(image.width, image.height)
    (x, y), scale = image.offset, image.scale
    left, right = _window(image.width, resize_size * image.width // shorter, image_size, x, scale)
    top, bottom = _window(image.height, resize_size * image.height // shorter, image_size, y, scale)
    if image.height <= image.width:
        crop = _resize(image.pixels, (image_size, image_size), (left, top, right, bottom))
    else:
        # Pillow resizes horizontally first, as the definition does, but tall images since 12.x vertically first
        # (https://github.com/python-pillow/Pillow/pull/9549), and rounds in between. Two calls leave it no choice: the
        # first copies the rows that the second needs.
        support = max((bottom - top) / image_size, 1.0)
        first_row = max(int(top - support), 0)
        last_row = min(int(bottom + support) + 1, image.pixels.height)
        strip = _resize(image.pixels, (image_size, last_row - first_row), (left, first_row, right, last_row))
        crop = _resize(strip, (image_size, image_size), (0, top - first_row, image_size, bottom - first_row))
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1)  # (S, S, 3) -> (3, S, S)


def _resize(pixels: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    return pixels.resize(size, Image.Resampling.BILINEAR, box=box)


def _window(length: int, resized_length: int, crop_size: int, origin: float, scale: int) -> tuple[float, float]:
    """Returns the part of an axis that the central crop of the resized axis covers.

    Args:
        length: of the axis in pixels, at full scale.
        resized_length: what it becomes.
        crop_size: how much of that is kept, at its centre.
        origin: where the axis begins in the decoded pixels.
        scale: how many pixels of full scale one decoded pixel stands for.

    Returns:
        start and end in decoded pixels, in float32's precision, which is that of Pillow's box.
    """
    margin = resized_length - crop_size
    offset = margin // 2 + (margin % 2) * (margin // 2 % 2)  # margin / 2, halves to even, as torchvision rounds
    start = offset * length / resized_length
    end = min((offset + crop_size) * length / resized_length, length)
    return float(np.float32(origin + start / scale)), float(np.float32(origin + end / scale))
