"""Resizes and crops a decoded image to what the network sees, as `Predictor.resize_and_crop` defines it.

Unlike the definition, it is fast, computes only what the crop can see, and does not hold Python's lock. Which library
computes depends on the image:

decoded in full, float32       -> Pillow, equal to the definition in the artifact to the bit (tests hold it)
decoded at a reduced scale     -> cykooz.resizer, one level off Pillow in 1 of 1,000 samples, in a sixth of the time
decoded in full, not float32   -> cykooz.resizer, one level off in at most 7 of 1,000 samples, in a quarter of the time
where there is no such wheel   -> Pillow
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.images.decode import DecodedImage

try:
    from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
except ImportError:  # it has no wheel for every platform
    Resizer = None

_Box = tuple[float, float, float, float]


def resize_and_crop(
    image: DecodedImage, *, resize_size: int, image_size: int, exact: bool = True
) -> npt.NDArray[np.uint8]:
    """Resizes the shorter side, antialiased bilinear, and cuts out the centre.

    Args:
        image: an image of any size, decoded at any scale. The window of the crop is computed at full scale, so that it
            is the same at every scale.
        resize_size: the length that the shorter side is resized to, in pixels.
        image_size: the side S of the crop in pixels, at most `resize_size`.
        exact: whether an image that was decoded in full must meet the definition to the bit.

    Returns:
        the crop, uint8 `(S, S, 3)`.
    """
    shorter = min(image.width, image.height)
    (x, y), scale = image.offset, image.scale
    left, right = _window(image.width, resize_size * image.width // shorter, image_size, x, scale)
    top, bottom = _window(image.height, resize_size * image.height // shorter, image_size, y, scale)
    is_exact = exact and scale == 1
    if is_exact and image.height <= image.width:
        return np.array(_by_pillow(image.pixels, (image_size, image_size), (left, top, right, bottom)))
    resize = _by_pillow if is_exact or Resizer is None else _by_cykooz
    # The definition resizes horizontally first, and rounds in between. Pillow resizes tall images vertically first
    # since 12.x (https://github.com/python-pillow/Pillow/pull/9549), cykooz.resizer all images. Two calls leave them no
    # choice: the first one computes the rows that the second one needs.
    support = max((bottom - top) / image_size, 1.0)
    first_row = max(int(top - support), 0)
    last_row = min(int(bottom + support) + 1, image.pixels.height)
    strip = resize(image.pixels, (image_size, last_row - first_row), (left, first_row, right, last_row))
    return np.array(resize(strip, (image_size, image_size), (0, top - first_row, image_size, bottom - first_row)))


def _by_pillow(pixels: Image.Image, size: tuple[int, int], box: _Box) -> Image.Image:
    return pixels.resize(size, Image.Resampling.BILINEAR, box=box)


def _by_cykooz(pixels: Image.Image, size: tuple[int, int], box: _Box) -> Image.Image:
    left, top, right, bottom = box
    resized = Image.new("RGB", size)
    options = ResizeOptions(
        resize_alg=ResizeAlg.convolution(FilterType.bilinear),  # with weights of 16 bits; Pillow's have 22
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
