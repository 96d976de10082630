"""Resizes and crops a decoded image to what the network sees, as `Predictor.resize_and_crop` defines it.

Unlike the definition, it is fast, computes only what the crop can see, and does not hold Python's lock. Which library
computes depends on the image:

decoded in full, float32       -> Pillow, equal to the definition in the artifact to the bit (tests hold it)
decoded at a reduced scale     -> cykooz.resizer, one level off Pillow in 1 of 1,000 samples, in a sixth of the time
decoded in full, not float32   -> cykooz.resizer, one level off in at most 7 of 1,000 samples, in a quarter of the time
where there is no such wheel   -> Pillow
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.images.decode import DecodedImage
from app.images.geometry import Geometry, Interpolation

try:
    from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
except ImportError:  # it has no wheel for every platform
    Resizer = None

# How far the filters reach, in pixels of the smaller image.
_SUPPORT: Final = {"bilinear": 1.0, "bicubic": 2.0}
_Box = tuple[float, float, float, float]


def resize_and_crop(image: DecodedImage, geometry: Geometry, *, exact: bool = True) -> npt.NDArray[np.uint8]:
    """Resizes an image, antialiased, and cuts out the centre.

    Args:
        image: an image of any size, decoded at any scale. The window of the crop is computed at full scale, so that it
            is the same at every scale.
        geometry: how large the result is, and how it is made.
        exact: whether an image that was decoded in full must meet the definition to the bit.

    Returns:
        the crop, uint8 `(S, S, 3)`.
    """
    size, shorter = geometry.image_size, min(image.width, image.height)
    (x, y), scale = image.offset, image.scale
    resized = [
        size if geometry.fit == "squash" else geometry.resize_size * length // shorter
        for length in (image.width, image.height)
    ]
    left, right = _window(image.width, resized[0], size, x, scale)
    top, bottom = _window(image.height, resized[1], size, y, scale)
    is_exact = exact and scale == 1
    filter_name = geometry.interpolation
    if is_exact and image.height <= image.width:
        return np.array(_by_pillow(image.pixels, (size, size), (left, top, right, bottom), filter_name))
    resize = _by_pillow if is_exact or Resizer is None else _by_cykooz
    # The definition resizes horizontally first, and rounds in between. Pillow resizes tall images vertically first
    # since 12.x (https://github.com/python-pillow/Pillow/pull/9549), cykooz.resizer all images. Two calls leave them no
    # choice: the first one computes the rows that the second one needs.
    support = _SUPPORT[filter_name] * max((bottom - top) / size, 1.0)
    first_row = max(int(top - support), 0)
    last_row = min(int(bottom + support) + 1, image.pixels.height)
    strip = resize(image.pixels, (size, last_row - first_row), (left, first_row, right, last_row), filter_name)
    return np.array(resize(strip, (size, size), (0, top - first_row, size, bottom - first_row), filter_name))


def _by_pillow(pixels: Image.Image, size: tuple[int, int], box: _Box, filter_name: Interpolation) -> Image.Image:
    return pixels.resize(size, Image.Resampling[filter_name.upper()], box=box)


def _by_cykooz(pixels: Image.Image, size: tuple[int, int], box: _Box, filter_name: Interpolation) -> Image.Image:
    left, top, right, bottom = box
    resized = Image.new("RGB", size)
    options = ResizeOptions(
        # With weights of 16 bits; Pillow's have 22. Catmull and Rom's filter is the bicubic one with a = -0.5.
        resize_alg=ResizeAlg.convolution(
            getattr(FilterType, "catmull_rom" if filter_name == "bicubic" else "bilinear")
        ),
        crop_box=CropBox(left, top, right - left, bottom - top),
    )
    Resizer().resize_pil(pixels, resized, options)
    return resized


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
    margin = resized_length - crop_size
    offset = margin // 2 + (margin % 2) * (margin // 2 % 2)  # margin / 2, halves to even, as torchvision rounds
    start = offset * length / resized_length
    end = min((offset + crop_size) * length / resized_length, length)
    return float(np.float32(origin + start / scale)), float(np.float32(origin + end / scale))
