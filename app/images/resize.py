"""Resizes and crops a decoded image to what the network sees, as `Predictor.resize_and_crop` defines it.

Unlike the definition, it is fast and does not hold Python's lock. Which library computes depends on the image:

decoded in full, float32       -> Pillow, equal to the definition in the artifact to the bit (tests hold it)
decoded at a reduced scale     -> torch, one level off Pillow in 1 of 1,000 samples, in a fifth of the time
decoded in full, not float32   -> torch, one level off in at most 7 of 1,000 samples, in half the time or less
in several pieces of memory    -> Pillow: torch would need two copies of all pixels, and then takes longer
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from app.images.crop import Scaled, crop_by_pillow, first_of_crop, in_one_piece, is_for_torch
from app.images.decode import DecodedImage


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
    pixels = in_one_piece(image.pixels) if is_for_torch(image, exact=exact) else None
    if pixels is None:
        return as_planes(crop_by_pillow(image, resize_size, image_size))
    return crop_by_torch(image, torch.utils.dlpack.from_dlpack(pixels), resize_size, image_size)


def as_planes(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Returns uint8 `(H, W, 3)` as `(3, H, W)`, in the same memory."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def crop_by_torch(image: Scaled, pixels: torch.Tensor, resize_size: int, image_size: int) -> torch.Tensor:
    """Resizes and crops with weights of 16 bits; Pillow's and the definition's have 22.

    Args:
        image: the size of the upright image, and the scale at which it was decoded.
        pixels: its pixels, uint8, with four bytes for each: red, green, blue and one that is not used.
        resize_size: the length that the shorter side is resized to, in pixels.
        image_size: the side S of the crop in pixels.

    Returns:
        the crop, uint8 `(3, S, S)` in channels-last memory.
    """
    rows, columns = -(-image.height // image.scale), -(-image.width // image.scale)
    pixels = pixels.view(1, rows, columns, 4).permute(0, 3, 1, 2)
    shorter = min(image.width, image.height)
    sides = (image.height, image.width)
    resized = [resize_size * side // shorter for side in sides]
    first_row, first_column = (first_of_crop(length, image_size) for length in resized)
    # Rows and columns behind the crop are not computed.
    computed: torch.Tensor = torch.ops.aten._upsample_bilinear2d_aa(
        pixels,
        [first_row + image_size, first_column + image_size],
        align_corners=False,
        scales_h=resized[0] * image.scale / sides[0],
        scales_w=resized[1] * image.scale / sides[1],
    )  # (1, 4, rows, columns)
    return computed[0, :3, first_row:, first_column:].permute(1, 2, 0).contiguous().permute(2, 0, 1)
