"""Prepares an image for an engine: decodes it, resizes it and cuts out the part that the network sees.

encoded bytes -> decode (a large JPEG at a reduced scale) -> resize and crop (to the bit in float32) -> PreparedImage
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import torch

from app.images.colour import Adjustment
from app.images.decode import MIN_DETAIL, Reserve, decode
from app.images.limits import ImageFormat, ImageLimits
from app.images.resize import resize_and_crop
from app.inference.artifact import Artifact
from app.inference.engine import Precision

_TENSOR_BYTES: Final = 6  # of a pixel: its three bands, and a copy of them


class PreparedImage(NamedTuple):
    """An image as an engine takes it, and what is known about it. The pixels at full size are not kept.

    Attributes:
        pixels: uint8 `(3, S, S)`, or `(3, H, W)` for a model that resizes by itself.
        format: the format that the content was recognised as.
        width: the width of the upright image in pixels, before resizing.
        height: the height of the upright image in pixels, before resizing.
        adjustments: what was done on the way to RGB, in order.
        started_at: when decoding began, on the clock of `time.monotonic()`.
        decode_s: seconds that decoding took.
        resize_s: seconds that resizing and cropping took; 0 for a model that resizes by itself.
    """

    pixels: torch.Tensor
    format: ImageFormat
    width: int
    height: int
    adjustments: tuple[Adjustment, ...]
    started_at: float
    decode_s: float
    resize_s: float


def prepare(
    encoded: bytes | bytearray,
    artifact: Artifact,
    precision: Precision,
    limits: ImageLimits,
    reserve: Reserve | None = None,
) -> PreparedImage:
    """Prepares one image.

    Args:
        encoded: the whole file.
        artifact: the model, which says to what size.
        precision: the engine's precision. In float32 an image that is decoded in full is resized exactly; lower
            precisions take a faster way that is at most one level off.
        limits: which images are accepted.
        reserve: called with what decoding will take; see `decode`.

    Raises:
        ImageError: the image is not accepted, or cannot be decoded.
    """
    started_at = time.monotonic()
    resize_size, image_size = artifact.resize_size, artifact.image_size
    if resize_size is None or image_size is None:

        def reserve_copies(needed: int, pixels: int) -> None:
            if reserve:
                reserve(needed + _TENSOR_BYTES * pixels, pixels)

        image = decode(encoded, limits=limits, reserve=reserve_copies)
        pixels = image.to_tensor()
        decoded_at = resized_at = time.monotonic()
    else:
        image = decode(encoded, limits=limits, min_shorter_side=MIN_DETAIL * resize_size, reserve=reserve)
        decoded_at = time.monotonic()
        pixels = resize_and_crop(image, resize_size=resize_size, image_size=image_size, exact=precision == "float32")
        resized_at = time.monotonic()
    return PreparedImage(
        pixels,
        image.format,
        image.width,
        image.height,
        image.adjustments,
        started_at=started_at,
        decode_s=decoded_at - started_at,
        resize_s=resized_at - decoded_at,
    )
