"""The half of resizing that needs no torch: which library is to resize an image, and Pillow's way to do it."""

from __future__ import annotations

from typing import Any, Final, Protocol

import nanoarrow
import numpy as np
import numpy.typing as npt
from PIL import Image

from app.images.decode import DecodedImage

# torch computes from the image's corner on, the part before the crop included. For long images that is too much.
_MAX_TORCH_RATIO: Final = 4


class Scaled(Protocol):
    """The size of an upright image, and the scale at which it was decoded."""

    @property
    def width(self) -> int:
        """The width of the upright image at full scale, in pixels."""

    @property
    def height(self) -> int:
        """The height of the upright image at full scale, in pixels."""

    @property
    def scale(self) -> int:
        """How many pixels of full scale one decoded pixel stands for, along each axis."""


def is_for_torch(image: DecodedImage, *, exact: bool) -> bool:
    """Returns whether torch is to resize an image, if its pixels lie in one piece of memory.

    Args:
        image: the image.
        exact: whether an image that was decoded in full must meet the definition to the bit.
    """
    shorter, longer = sorted((image.width, image.height))
    return (
        (image.scale > 1 or not exact)
        and longer <= _MAX_TORCH_RATIO * shorter
        # An image that begins between the edges of decoded pixels can only be resized by Pillow.
        and image.offset == (0.0, 0.0)
    )


def in_one_piece(pixels: Image.Image) -> Any:
    """Returns the memory of a Pillow image in mode RGB, of four bytes a pixel; None if that is in several pieces."""
    try:
        return nanoarrow.c_array(pixels).child(0).view().buffer(1)
    except ValueError:
        return None


def crop_by_pillow(image: DecodedImage, resize_size: int, image_size: int) -> npt.NDArray[np.uint8]:
    """Resizes the shorter side of an image and cuts out the centre.

    Args:
        image: the image.
        resize_size: the length that the shorter side is resized to, in pixels.
        image_size: the side S of the crop in pixels.

    Returns:
        the crop, uint8 `(S, S, 3)`.
    """
    shorter = min(image.width, image.height)
    (x, y), scale = image.offset, image.scale
    left, right = _window(image.width, resize_size * image.width // shorter, image_size, x, scale)
    top, bottom = _window(image.height, resize_size * image.height // shorter, image_size, y, scale)
    if image.height <= image.width:
        crop = _resize(image.pixels, (image_size, image_size), (left, top, right, bottom))
    else:
        # The definition resizes horizontally first. So does Pillow, but since 12.x it resizes tall images vertically
        # first (https://github.com/python-pillow/Pillow/pull/9549), and it rounds in between. Two calls leave it no
        # choice: the first one copies the rows that the second one needs.
        support = max((bottom - top) / image_size, 1.0)
        first_row = max(int(top - support), 0)
        last_row = min(int(bottom + support) + 1, image.pixels.height)
        strip = _resize(image.pixels, (image_size, last_row - first_row), (left, first_row, right, last_row))
        crop = _resize(strip, (image_size, image_size), (0, top - first_row, image_size, bottom - first_row))
    return np.array(crop)


def _resize(pixels: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    return pixels.resize(size, Image.Resampling.BILINEAR, box=box)


def _window(length: int, resized_length: int, crop_size: int, origin: float, scale: int) -> tuple[float, float]:
    """Returns the part of an axis that the central crop of the resized axis covers.

    Args:
        length: the length of the axis at full scale, in pixels.
        resized_length: the length that the axis is resized to, in pixels.
        crop_size: how many pixels of the resized axis are kept, at its centre.
        origin: where the axis begins in the decoded pixels.
        scale: how many pixels of full scale one decoded pixel stands for.

    Returns:
        the start and the end in decoded pixels, rounded to float32, the precision of Pillow's box.
    """
    offset = first_of_crop(resized_length, crop_size)
    start = offset * length / resized_length
    end = min((offset + crop_size) * length / resized_length, length)
    return float(np.float32(origin + start / scale)), float(np.float32(origin + end / scale))


def first_of_crop(resized_length: int, crop_size: int) -> int:
    """Returns where a central crop begins on an axis."""
    margin = resized_length - crop_size
    return margin // 2 + (margin % 2) * (margin // 2 % 2)  # margin / 2, halves to even, as torchvision rounds
