"""Estimates what memory a decode takes, from the header alone, so that it can be waited for before pixels are made.

format, mode, size -> what the decoder holds + the decoded image + the RGB image that it becomes

The numbers were measured with one image of 25 megapixels of each kind in a process of its own (the peak of its
resident memory); tests/app/images/test_decode_memory.py measures them again.
"""

from __future__ import annotations

from typing import Final

from PIL import Image, TiffImagePlugin

from app.images.colour import BAND_PIXELS, BANDS_FROM_PIXELS, changes_colours
from app.images.formats.exif import orientation_of
from app.images.outline import Outline

_ORIENTATION: Final = 274  # TIFF 6.0, section 8
_RGB_BYTES: Final = 4  # Pillow keeps three bands in four bytes
_POINTER_BYTES: Final = 8  # and an address for each row
_STORED_BYTES: Final = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # of a pixel; other modes take 4
# What decoders hold besides for each pixel: planes and a copy.
_DECODER_BYTES: Final = {"AVIF": 5}
_CANVAS_BYTES: Final = 8  # of a pixel of WebP, in two canvases
# What Pillow reads of them into bytes of Python before it has the image.
_COPIED: Final = {"HEIC"}
_BAND_BYTES: Final = 16  # of a pixel in the steps of a conversion, which holds one band at a time
_OTHER_BYTES: Final = 4 << 20


def memory_of_jpeg(outline: Outline, scale: int) -> int:
    """Returns the bytes that decoding a JPEG at 1 / `scale` takes at its peak.

    Args:
        outline: the JPEG's outline.
        scale: 1, 2, 4 or 8.
    """
    assert outline.size is not None
    width, height = (-(-side // scale) for side in outline.size)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[outline.bands]
    is_converted = mode != "RGB" or outline.profile is not None
    is_turned = outline.orientation not in {None, 1}
    pixels = _of_pixels(width, height, mode, is_converted=is_converted, is_turned=is_turned)
    return pixels + outline.coefficient_bytes


def memory_of_webp(outline: Outline) -> int:
    """Returns the bytes that decoding a WebP takes at its peak, whether or not it has alpha: one copy is made.

    Args:
        outline: the WebP's outline.
    """
    assert outline.size is not None
    width, height = outline.size
    return width * height * _CANVAS_BYTES + _of_pixels(width, height, "RGBA", is_converted=True, is_turned=False)


def memory_of_image(image: Image.Image, image_format: str, outline: Outline) -> int:
    """Returns the bytes that decoding an image takes at its peak.

    Args:
        image: the image, opened and not loaded.
        image_format: its format, other than JPEG and WebP.
        outline: its outline.
    """
    width, height = image.size
    profile = outline.profile if outline.has_profile else image.info.get("icc_profile")
    is_converted = (
        image.mode != "RGB"
        or "transparency" in image.info
        or changes_colours(image.mode, profile, outline.colour)
        or outline.frame not in {None, (0, 0, width, height)}
    )
    needed = _of_pixels(width, height, image.mode, is_converted=is_converted, is_turned=_is_turned(image, outline))
    if image_format in _COPIED and not is_converted:
        needed += width * height * _RGB_BYTES
    return needed + width * height * _DECODER_BYTES.get(image_format, 0) + _of_strip(image)


def _of_pixels(width: int, height: int, mode: str, *, is_converted: bool, is_turned: bool) -> int:
    """Returns the bytes of the images that are alive at once: as decoded, as RGB, and upright."""
    needed = _OTHER_BYTES + width * height * _STORED_BYTES.get(mode, 4) + height * _POINTER_BYTES
    for is_made, rows in ((is_converted, height), (is_turned, max(width, height))):
        if is_made:
            needed += width * height * _RGB_BYTES + rows * _POINTER_BYTES
    if is_converted:
        band = width * height if width * height <= BANDS_FROM_PIXELS else max(width, BAND_PIXELS)
        needed += band * _BAND_BYTES
    return needed


def _is_turned(image: Image.Image, outline: Outline) -> bool:
    if outline.orientation is not None:
        return outline.orientation != 1
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow turns it while it loads it
        return bool(image.tag_v2.get(_ORIENTATION, 1) != 1)
    return orientation_of(image.info.get("exif", b"")) != 1


def _of_strip(image: Image.Image) -> int:
    """Returns the bytes of the strip or tile that libtiff decodes at a time."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0
    tags = image.tag_v2
    rows = min(int(tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height)), image.height)
    return rows * image.width * 4
