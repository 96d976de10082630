"""Estimates what memory a decode takes, from the header alone, so that it can be waited for before pixels are made.

format, mode, size -> the largest of three moments: decoding, the conversion to RGB, setting upright

The numbers were measured with one image of 25 megapixels of each kind in a process of its own (the peak of its
resident memory); tests/app/images/test_decode_memory.py measures them again.
"""

from __future__ import annotations

from typing import Final

from PIL import Image, ImageFile, TiffImagePlugin

from app.images.colour import BAND_PIXELS, BANDS_FROM_PIXELS, changes_colours
from app.images.formats.exif import orientation_of
from app.images.outline import Outline

TILE_LENGTH: Final = 323
"""The tag of the rows of a TIFF's tile (TIFF 6.0, section 15), for which Pillow has no name."""

# TIFF 6.0, sections 8 and 21.
_YCBCR: Final = 6
_SEPARATE_PLANES: Final = 2
_RGB_BYTES: Final = 4  # Pillow keeps three bands in four bytes
_POINTER_BYTES: Final = 8  # and an address for each row
_STORED_BYTES: Final = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # of a pixel; other modes take 4
_BAND_BYTES: Final = 16  # of a pixel in the steps of a conversion, which holds one band at a time
_OTHER_BYTES: Final = 4 << 20
_CANVAS_BYTES: Final = 8  # of a pixel of WebP, in two canvases
_COPY_BYTES: Final = 4  # of a pixel of WebP and HEIC, as the decoder hands it over
_RLE_BYTES: Final = 2  # of a pixel of a run-length coded bitmap, which Pillow decodes in Python
# How often a file is copied on its way to the decoder; once for the formats that are not named.
_FILE_COPIES: Final = {"WEBP": 3, "AVIF": 2, "HEIC": 2}


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
    loading = outline.decoder_bytes + len(outline.file)  # a file that is to be mended is copied
    return _peak(width, height, mode, loading=loading, is_converted=is_converted, is_turned=is_turned)


def memory_of_webp(outline: Outline) -> int:
    """Returns the bytes that decoding a WebP takes at its peak, whether or not it has alpha: one copy is made.

    Args:
        outline: the WebP's outline.
    """
    assert outline.size is not None
    width, height = outline.size
    held = width * height * _CANVAS_BYTES + len(outline.file) * _FILE_COPIES["WEBP"]
    loading = held + width * height * _COPY_BYTES
    return _peak(width, height, "RGBA", loading=loading, held=held, is_converted=True, is_turned=True)


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
        image.mode != "RGB" or "transparency" in image.info or changes_colours(image.mode, profile, outline.colour)
    )
    is_turned = (outline.orientation or orientation_of(image.info.get("exif", b""))) != 1
    held = len(outline.file) * _FILE_COPIES.get(image_format, 1)
    loading = held + outline.decoder_bytes
    if image_format == "AVIF":
        held += width * height * len(image.getbands())  # as the decoder hands them over
        loading += held
    elif image_format == "HEIC":
        # One copy more where the file says that the picture is cut out of a larger one.
        loading += width * height * _COPY_BYTES * (1 if outline.size else 2)
    elif _codec(image) == "bmp_rle":
        loading += width * height * _RLE_BYTES
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        of_copy = width * height * _stored_bytes(image.mode) if is_turned else 0
        loading += max(_of_strip(image), of_copy)
        is_turned = False  # for Pillow has turned it while it loaded it
    needed = _peak(*image.size, image.mode, loading=loading, held=held, is_converted=is_converted, is_turned=is_turned)
    if image_format == "PNG" and outline.size not in {None, image.size}:  # its frame is laid on the whole screen
        screen_width, screen_height = outline.size or (0, 0)
        needed += screen_width * screen_height * _RGB_BYTES * (2 if is_turned else 1)
    return needed


def _peak(
    width: int, height: int, mode: str, *, loading: int, held: int = 0, is_converted: bool, is_turned: bool
) -> int:
    """Returns the bytes of the moment that takes most.

    Args:
        width: the width of the decoded image in pixels.
        height: the height of the decoded image in pixels.
        mode: the mode of the decoded image.
        loading: the bytes that the decoder takes besides the image.
        held: the bytes of the decoder that are kept until the image is RGB.
        is_converted: whether RGB is another image than the decoded one.
        is_turned: whether a copy is set upright.
    """
    pixels = width * height
    rgb = pixels * _RGB_BYTES + height * _POINTER_BYTES
    decoded = pixels * _stored_bytes(mode) + height * _POINTER_BYTES
    moments = [decoded + loading]
    if is_converted:
        band = pixels if pixels <= BANDS_FROM_PIXELS else max(width, BAND_PIXELS)
        moments.append(held + decoded + rgb + band * _BAND_BYTES)
    if is_turned:
        moments.append(rgb + pixels * _RGB_BYTES + width * _POINTER_BYTES)
    return _OTHER_BYTES + max(moments)


def _stored_bytes(mode: str) -> int:
    return _STORED_BYTES.get(mode, 4)


def _codec(image: Image.Image) -> str:
    """Returns the name of Pillow's decoder; nothing where a plugin decodes by itself."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    return tiles[0].codec_name if tiles else ""


def _of_strip(image: TiffImagePlugin.TiffImageFile) -> int:
    """Returns the bytes of the strip or tile that libtiff decodes at a time; 0 where Pillow reads row by row."""
    if _codec(image) != "libtiff":
        return 0
    tags = image.tag_v2
    width, length = int(tags[TiffImagePlugin.IMAGEWIDTH]), int(tags[TiffImagePlugin.IMAGELENGTH])
    rows = min(int(tags.get(TiffImagePlugin.ROWSPERSTRIP, length)), length)
    if TiffImagePlugin.TILEWIDTH in tags:
        width, rows = int(tags[TiffImagePlugin.TILEWIDTH]), int(tags[TILE_LENGTH])
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _YCBCR:  # which libtiff converts
        return width * rows * _RGB_BYTES
    is_separate = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _SEPARATE_PLANES
    samples = 1 if is_separate else int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
    return width * rows * samples * int(max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))) // 8
