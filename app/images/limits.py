"""Which images are accepted: their formats, and the most pixels."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Literal, get_args

ImageFormat = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIC"]

ImageSource = ImageFormat | Literal["pixels"]
"""What an image came as: a file of a format, or its pixels."""

FORMATS: Final[tuple[ImageFormat, ...]] = tuple(
    name for name in get_args(ImageFormat) if name != "HEIC" or find_spec("pi_heif") is not None
)
"""The formats that can be decoded here. HEIC needs the package `pi_heif`, which the extra `heic` brings."""

MAX_SIDE: Final = 65_535
"""The most pixels of a side, which is all that a JPEG can have.

A PNG of 1 x 120,000,000 pixels takes 8 s to decode and as much memory for its rows as for its pixels.
"""

MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
"""The longest ICC profile that is used. The largest published CMYK profiles have about 3 MB."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Which images are accepted.

    Attributes:
        max_pixels: the most pixels (width x height) that a header may announce.
        formats: the formats that are switched on.
    """

    max_pixels: int = 125_000_000
    formats: tuple[ImageFormat, ...] = FORMATS


DEFAULT_LIMITS: Final = ImageLimits()
