"""Decodes images and compares their pixels with what they should be."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.images.decode import decode
from tests.support.images import Pixels


def decoded(encoded: bytes) -> tuple[Pixels, tuple[str, ...]]:
    """Decodes as the service does; returns RGB pixels `uint8 (H, W, 3)` and what was adjusted."""
    image = decode(encoded)
    assert image.pixels.mode == "RGB"
    assert image.pixels.size == (image.width, image.height)
    return np.asarray(image.pixels), image.adjustments


def assert_pixels(pixels: Pixels, expected: Any, *, within: int = 0) -> None:
    """Checks that every sample is within so many levels of the expected one, which is broadcast."""
    expected = np.broadcast_to(np.asarray(expected, dtype=np.int16), pixels.shape)
    largest_difference = int(np.abs(pixels.astype(np.int16) - expected).max())
    assert largest_difference <= within


def luma(pixels: Pixels) -> Pixels:
    """Returns the luma of ITU-R BT.601, in Pillow's fixed-point arithmetic."""
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)
    return np.asarray((pixels.astype(np.uint32) @ weights + 0x8000) >> 16, dtype=np.uint8)
