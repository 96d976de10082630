"""Decodes the bytes of an image to upright 8-bit RGB. The service and training decode with this alone.

bytes -> recognise (by content) -> check the header against the limits -> decode (JPEG: at a reduced DCT scale)
      -> scale 16 bits -> ICC to sRGB -> alpha on white -> RGB -> EXIF orientation
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from PIL import AvifImagePlugin, GifImagePlugin, Image, TiffImagePlugin, WebPImagePlugin

from app.errors import CorruptImageError, EmptyBodyError, ImageError, TooManyPixelsError, UnsupportedFormatError
from app.images.colour import Adjustment, bit_depth_of, to_rgb
from app.images.header_checks import MAX_SCANS, has_too_many_scans, size_with_first_frame
from app.images.limits import DEFAULT_LIMITS, ImageFormat, ImageLimits
from app.images.recognise import HEAD_BYTES, describe_unknown, recognise

MIN_DETAIL: Final = 4
"""How many times the model's resize size a JPEG's shorter side keeps, at least, when decoded at a reduced scale.

The service and training use the same value, so that they see the same pixels. At 2, probabilities of EfficientNet-Lite0
moved by up to 0.09 on the photos of the tests; at 4, by up to 0.03 (docs/artifact.md).
"""

# Importing a plugin registers its format. It is done here once, rather than in the first request that needs it.
_LATE_PLUGINS: Final = (AvifImagePlugin, WebPImagePlugin)
# Pillow's own limit only warns, and comes after some work is done. `_check_pixels` comes first.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION_TAG: Final = 0x0112
# EXIF 2.32, table 6: the transposition that sets an image of each orientation upright.
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Whether the column and the row that such an upright image starts with were the last ones in the file.
_STARTS_WITH_LAST: Final = {
    2: (True, False),
    3: (True, True),
    4: (False, True),
    6: (True, False),
    7: (True, True),
    8: (False, True),
}
_SCALED: Final[dict[int, Adjustment]] = {2: "dct_scaled_1_2", 4: "dct_scaled_1_4", 8: "dct_scaled_1_8"}
_TILE_LENGTH: Final = 323  # TIFF 6.0, section 15


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright RGB image and what was done to get there.

    Attributes:
        pixels: a Pillow image in mode RGB; smaller than `width` x `height` if it was decoded at a reduced scale.
        format: the format that was recognised from the content.
        width: the width of the upright image at full scale, in pixels.
        height: the height of the upright image at full scale, in pixels.
        adjustments: what was done on the way to RGB, in order.
        scale: 1 for full scale; 2, 4 or 8 if each pixel stands for 2 x 2, 4 x 4 or 8 x 8 pixels of the file.
        offset: where in `pixels` the image begins, (x, y) in pixels. At a reduced scale libjpeg rounds sizes up, so
            the last column and row are only partly image, and turning the image upright may bring them to the front.
    """

    pixels: Image.Image
    format: ImageFormat
    width: int
    height: int
    adjustments: tuple[Adjustment, ...]
    scale: int = 1
    offset: tuple[float, float] = (0.0, 0.0)

    def to_tensor(self) -> torch.Tensor:
        """Returns the pixels as `uint8 (3, H, W)`."""
        return torch.from_numpy(np.array(self.pixels)).permute(2, 0, 1).contiguous()


def decode(
    encoded: bytes | bytearray | memoryview,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    min_shorter_side: int | None = None,
) -> DecodedImage:
    """Decodes an image of any supported format and mode to upright 8-bit sRGB.

    Args:
        encoded: the whole file.
        limits: which images are accepted.
        min_shorter_side: the pixels that the shorter side of a JPEG must keep, at least, so that it may be decoded at
            1/2, 1/4 or 1/8 scale (in the DCT domain, by Pillow's `draft`). None decodes in full.

    Raises:
        EmptyBodyError: there are no bytes.
        UnsupportedFormatError: the bytes are not an image, or their format or sample type is not served.
        TooManyPixelsError: the header announces more than `limits.max_pixels`. No pixel was decoded.
        CorruptImageError: the format is known, but the image cannot be decoded or is cut short.
    """
    if len(encoded) == 0:
        raise EmptyBodyError("The image is empty (0 bytes).")
    image_format = _recognise(encoded, limits)
    if image_format == "GIF":
        _check_size(*size_with_first_frame(encoded), limits)
    adjustments: list[Adjustment] = []
    with _pillow_errors_mean_corrupt(image_format), Image.open(io.BytesIO(encoded), formats=[image_format]) as image:
        _check_pixels(image, limits)
        width, height = image.size
        if image_format == "JPEG" and has_too_many_scans(encoded):
            raise CorruptImageError(f"The JPEG image has more than {MAX_SCANS} scans, which no encoder writes.")
        scale = 1
        if image_format == "JPEG" and min_shorter_side is not None:
            scale = _draft(image, min_shorter_side)
            if scale > 1:
                adjustments.append(_SCALED[scale])
        bit_depth = bit_depth_of(image)
        # Pillow announces a TIFF's upright size. It turns the image while loading it, and then hides the tag.
        turned_while_loading = image_format == "TIFF" and _orientation(image) != 1
        image.load()
        orientation = _orientation(image)  # only now is a PNG's known: the tag may follow the pixels
        if orientation >= 5:
            width, height = height, width
        if turned_while_loading or orientation != 1:
            adjustments.append("exif_orientation")
        rgb = to_rgb(image, bit_depth, adjustments)
        if isinstance(image, GifImagePlugin.GifImageFile):
            rgb = _on_white_screen(image, rgb, adjustments)
        if orientation != 1:
            rgb = rgb.transpose(_UPRIGHT[orientation])
        # Asked last: looking for a second frame moves the file position, and may meet damage that does not matter.
        if _is_animated(image, image_format):
            adjustments.append("first_frame")
    starts_partly = _STARTS_WITH_LAST.get(orientation, (False, False))
    padding = (rgb.width - width / scale, rgb.height - height / scale)
    offset = (padding[0] * starts_partly[0], padding[1] * starts_partly[1])
    return DecodedImage(rgb, image_format, width, height, tuple(adjustments), scale, offset)


def _recognise(encoded: bytes | bytearray | memoryview, limits: ImageLimits) -> ImageFormat:
    """Returns the format by its signature, so that no parser sees a format that is switched off."""
    head = bytes(encoded[:HEAD_BYTES])
    image_format = recognise(head)
    served = ", ".join(limits.formats)
    if image_format is None:
        raise UnsupportedFormatError(f"{describe_unknown(head)} Send one of {served}.")
    if image_format not in limits.formats:
        raise UnsupportedFormatError(f"{image_format} images are switched off here. Send one of {served}.")
    return image_format


@contextmanager
def _pillow_errors_mean_corrupt(image_format: str) -> Iterator[None]:
    """Turns what Pillow's plugins raise on bad input, nearly every built-in exception, into CorruptImageError."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        if reason.startswith("cannot identify image file"):  # Pillow adds only the buffer's address
            reason = "its header is damaged"
        raise CorruptImageError(f"The {image_format} image cannot be decoded: {reason}.") from error


def _check_pixels(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise CorruptImageError(f"The image's header says {width} x {height} pixels.")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile is decoded whole, however small the image that it belongs to.
        tile_width, tile_height = (image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, _TILE_LENGTH))
        width, height = max(width, tile_width), max(height, tile_height)
    _check_size(width, height, limits)


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise TooManyPixelsError(
            f"The image has {width} x {height} = {width * height:,} pixels; the limit is {limits.max_pixels:,}."
        )


def _draft(image: Image.Image, min_shorter_side: int) -> int:
    """Asks libjpeg for the smallest of 1/2, 1/4 and 1/8 scale that keeps `min_shorter_side`.

    Returns:
        the denominator of the scale; 1 if no reduced scale keeps enough pixels.
    """
    shorter = min(image.size)
    scale = max(candidate for candidate in (1, *_SCALED) if candidate == 1 or shorter // candidate >= min_shorter_side)
    if scale > 1:
        image.draft(None, (image.size[0] // scale, image.size[1] // scale))
    return scale


def _on_white_screen(gif: GifImagePlugin.GifImageFile, rgb: Image.Image, adjustments: list[Adjustment]) -> Image.Image:
    """Paints the screen around a GIF's first frame white. Pillow fills it with the palette's first colour."""
    frame = gif.dispose_extent
    if frame is None or frame == (0, 0, *rgb.size):
        return rgb
    if "alpha_on_white" not in adjustments:
        adjustments.append("alpha_on_white")
    screen = Image.new("RGB", rgb.size, "white")
    screen.paste(rgb.crop(frame), frame)
    return screen


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata does not make the pixels unreadable
        return 1
    return orientation if isinstance(orientation, int) and orientation in _UPRIGHT else 1


def _is_animated(image: Image.Image, image_format: ImageFormat) -> bool:
    if image_format == "JPEG":  # a multi-picture JPEG holds a preview or a depth map, not an animation
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the first frame was read; damage behind it does not matter here
        return False
