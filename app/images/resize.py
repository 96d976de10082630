"""Resizes and crops a decoded image to what the network sees, as `Predictor.resize_and_crop` defines it.

Unlike the definition, it is fast and does not hold Python's lock. Which library computes depends on the image:

decoded in full, float32       -> Pillow, equal to the definition in the artifact to the bit (tests hold it)
decoded at a reduced scale     -> torch, one level off Pillow in 1 of 1,000 samples, in a fifth of the time
decoded in full, not float32   -> torch, one level off in at most 7 of 1,000 samples, in half the time or less
in several pieces of memory    -> Pillow: torch would need two copies of all pixels, and then takes longer
"""

from __future__ import annotations

from typing import Final

import nanoarrow
import numpy as np
import torch
from PIL import Image

from app.images.decode import DecodedImage

# torch computes from the image's corner on, the part before the crop included. For long images that is too much.
_MAX_TORCH_RATIO: Final = 4


def resize_and_crop(image: DecodedImage, *, resize_size: int, image_size: int, exact: bool = True) -> torch.Tensor:
    """Resizes the shorter side, antialiased bilinear, and cuts out the centre. It computes only what the crop can see.

    Args:
        image: an image of any size, decoded at any scale. The window of the crop is computed at full scale, so that it
            is the same at every scale.
        resize_size: the length that the shorter side is resized to, in pixels.
        image_size: the side S of the crop in pixels, at most `resize_size`.
        exact: whether an image that was decoded in full must meet the definition to the bit.

    Returns:
        the crop, uint8 `(3, S, S)` in channels-last memory.
    """
    shorter, longer = sorted((image.width, image.height))
    by_torch = (
        (image.scale > 1 or not exact)
        and longer <= _MAX_TORCH_RATIO * shorter
        # An image that begins between the edges of decoded pixels can only be resized by Pillow.
        and image.offset == (0.0, 0.0)
    )
    pixels = _as_tensor(image.pixels) if by_torch else None
    if pixels is None:
        crop = _by_pillow(image, resize_size, image_size)
    else:
        crop = _by_torch(image, pixels, resize_size, image_size)
    return crop.permute(2, 0, 1)  # (S, S, 3) -> (3, S, S)


def _by_torch(image: DecodedImage, pixels: torch.Tensor, resize_size: int, image_size: int) -> torch.Tensor:
    """Returns uint8 `(S, S, 3)`. Its weights have 16 bits, Pillow's and the definition's 22."""
    shorter = min(image.width, image.height)
    sides = (image.height, image.width)
    resized = [resize_size * side // shorter for side in sides]
    first_row, first_column = (_first_of_crop(length, image_size) for length in resized)
    # Rows and columns behind the crop are not computed.
    computed: torch.Tensor = torch.ops.aten._upsample_bilinear2d_aa(
        pixels,
        [first_row + image_size, first_column + image_size],
        align_corners=False,
        scales_h=resized[0] * image.scale / sides[0],
        scales_w=resized[1] * image.scale / sides[1],
    )  # (1, 4, rows, columns)
    return computed[0, :3, first_row:, first_column:].permute(1, 2, 0).contiguous()


def _as_tensor(pixels: Image.Image) -> torch.Tensor | None:
    """Returns a Pillow image's own memory, uint8 `(1, 4, H, W)`; None if that is in several pieces."""
    try:
        buffer = nanoarrow.c_array(pixels).child(0).view().buffer(1)
    except ValueError:
        return None
    # Pillow keeps RGB in four bytes a pixel, the fourth unused.
    return torch.utils.dlpack.from_dlpack(buffer).view(1, pixels.height, pixels.width, 4).permute(0, 3, 1, 2)


def _by_pillow(image: DecodedImage, resize_size: int, image_size: int) -> torch.Tensor:
    """Returns uint8 `(S, S, 3)`."""
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
    return torch.from_numpy(np.array(crop))


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
    offset = _first_of_crop(resized_length, crop_size)
    start = offset * length / resized_length
    end = min((offset + crop_size) * length / resized_length, length)
    return float(np.float32(origin + start / scale)), float(np.float32(origin + end / scale))


def _first_of_crop(resized_length: int, crop_size: int) -> int:
    margin = resized_length - crop_size
    return margin // 2 + (margin % 2) * (margin // 2 % 2)  # margin / 2, halves to even, as torchvision rounds
