"""Decodes the bytes of an image to upright 8-bit RGB. The service and training decode with this alone.

bytes -> recognise (by content) -> outline -> check the size against the limits -> decode (JPEG: at a reduced DCT scale)
      -> scale 16 bits -> sRGB -> alpha on white -> RGB -> EXIF orientation
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import AvifImagePlugin, Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from app.errors import CorruptImageError, EmptyBodyError, PredictorError, TooManyPixelsError, UnsupportedFormatError
from app.images.colour import Adjustment, bit_depth_of, to_rgb
from app.images.decode_memory import TILE_LENGTH, memory_of_image, memory_of_jpeg, memory_of_webp
from app.images.formats.avif import outline_avif
from app.images.formats.exif import orientation_of
from app.images.formats.gif_blocks import outline_gif
from app.images.formats.heic import outline_heic
from app.images.formats.jpeg import decode_jpeg, outline_jpeg
from app.images.formats.libtiff import check_pixels, damage_told
from app.images.formats.png_chunks import outline_png
from app.images.formats.tiff_directories import outline_tiff
from app.images.formats.webp_header import outline_webp
from app.images.limits import DEFAULT_LIMITS, FORMATS, MAX_SIDE, ImageFormat, ImageLimits, ImageSource
from app.images.outline import Outline
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

_OUTLINES: Final[dict[ImageFormat, Callable[[bytes | bytearray | memoryview], Outline]]] = {
    "JPEG": outline_jpeg,
    "PNG": outline_png,
    "GIF": outline_gif,
    "TIFF": outline_tiff,
    "WEBP": outline_webp,
    "AVIF": outline_avif,
    "HEIC": outline_heic,
}
_PILLOW_NAMES: Final = {"HEIC": "HEIF"}
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


class Cost(NamedTuple):
    """What decoding an image takes.

    Attributes:
        memory_bytes: the bytes of its peak, by an estimate.
        pixels: the number of pixels of the decoded image.
        coded_pixels: the number of pixels of the file, which a JPEG at a reduced scale has more of.
    """

    memory_bytes: int
    pixels: int
    coded_pixels: int


Reserve = Callable[[Cost], None]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright RGB image and what was done to get there.

    Attributes:
        pixels: a Pillow image in mode RGB; smaller than `width` x `height` if it was decoded at a reduced scale.
        format: the format that was recognised from the content; `pixels` if it came as pixels.
        width: the width of the upright image at full scale, in pixels.
        height: the height of the upright image at full scale, in pixels.
        adjustments: what was done on the way to RGB, in order.
        scale: 1 for full scale; 2, 4 or 8 if each pixel stands for 2 x 2, 4 x 4 or 8 x 8 pixels of the file.
        offset: where in `pixels` the image begins, (x, y) in pixels. At a reduced scale libjpeg rounds sizes up, so
            the last column and row are only partly image, and turning the image upright may bring them to the front.
    """

    pixels: Image.Image
    format: ImageSource
    width: int
    height: int
    adjustments: tuple[Adjustment, ...]
    scale: int = 1
    offset: tuple[float, float] = (0.0, 0.0)

    def to_array(self) -> npt.NDArray[np.uint8]:
        """Returns the pixels, uint8 `(H, W, 3)`."""
        return np.array(self.pixels)


def decode(
    encoded: bytes | bytearray | memoryview,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    min_shorter_side: int | None = None,
    reserve: Reserve | None = None,
) -> DecodedImage:
    """Decodes an image of any supported format and mode to upright 8-bit sRGB.

    Args:
        encoded: the whole file.
        limits: which images are accepted.
        min_shorter_side: the pixels that the shorter side of a JPEG must keep, at least, so that it may be decoded at
            1/2, 1/4 or 1/8 scale (in the DCT domain, by libjpeg). None decodes in full.
        reserve: called before pixels are made with what that will take. It may wait, or raise an error of its own.

    Raises:
        EmptyBodyError: there are no bytes.
        UnsupportedFormatError: the bytes are not an image, or their format or sample type is not served.
        TooManyPixelsError: the header announces more than `limits.max_pixels`. No pixel was decoded.
        CorruptImageError: the format is known, but the image cannot be decoded or is cut short.
    """
    if len(encoded) == 0:
        raise EmptyBodyError("The image is empty (0 bytes).")
    image_format = _recognise(encoded, limits)
    outline = _OUTLINES.get(image_format, Outline)(encoded)
    for size in (outline.size, outline.coded_size):
        if size is not None:
            _check_size(*size, limits)
    if outline.damage:
        raise CorruptImageError(outline.damage)
    adjustments = list(outline.mended)
    with _pillow_errors_mean_corrupt(image_format, outline):
        scale, bit_depth = 1, 8
        if image_format == "JPEG":
            scale = _scale(outline, min_shorter_side)
            if reserve and outline.size:
                coded_pixels = outline.size[0] * outline.size[1]
                reserve(Cost(memory_of_jpeg(outline, scale), coded_pixels // scale**2, coded_pixels))
            image, mended = decode_jpeg(outline, scale)
            adjustments += ((_SCALED[scale],) if scale > 1 else ()) + mended
        else:
            if reserve and image_format == "WEBP" and outline.size:  # which takes memory as soon as it is opened
                reserve(_cost_at_full_scale(memory_of_webp(outline), outline.size, outline))
            image = Image.open(io.BytesIO(outline.file), formats=[_PILLOW_NAMES.get(image_format, image_format)])
            _check_pixels(image, limits)
            bit_depth = bit_depth_of(image)
            if reserve and image_format != "WEBP":
                reserve(_cost_at_full_scale(memory_of_image(image, image_format, outline), image.size, outline))
            if (
                isinstance(image, TiffImagePlugin.TiffImageFile)
                and image.tile
                and image.tile[0].codec_name == "libtiff"
            ):
                check_pixels(outline.file, image.tag_v2.offset, image.tag_v2.get(TiffImagePlugin.COMPRESSION, 1))
            with damage_told():
                image.load()
            _check_palette(image, image_format)
            if image_format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
                # Programs that leave the fourth byte at 0 write such bitmaps; Windows and ffmpeg show them opaque.
                image = image.convert("RGB")
                adjustments.append("alpha_ignored")
        if outline.has_profile:
            image.info["icc_profile"] = outline.profile
        width, height = outline.size or image.size
        orientation = outline.orientation or orientation_of(image.info.get("exif", b""))
        if orientation != 1:
            adjustments.append("exif_orientation")
        if image_format == "TIFF":  # which Pillow has turned upright
            orientation = 1
        if orientation >= 5:
            width, height = height, width
        rgb = to_rgb(image, bit_depth, adjustments, outline.colour)
        if outline.size is not None and outline.frame not in {None, (0, 0, *outline.size)}:
            rgb = _on_white_screen(rgb, outline, adjustments)
        # Asked last: looking for a second frame moves the file position, and may meet damage that does not matter.
        if outline.is_animated if outline.is_animated is not None else _is_animated(image):
            adjustments.append("first_frame")
        del image  # so that its memory, and its decoder's, are free for the upright copy
        if orientation != 1:
            rgb = rgb.transpose(_UPRIGHT[orientation])
    starts_partly = _STARTS_WITH_LAST.get(orientation, (False, False))
    padding = (rgb.width - width / scale, rgb.height - height / scale)
    offset = (padding[0] * starts_partly[0], padding[1] * starts_partly[1])
    return DecodedImage(rgb, image_format, width, height, tuple(adjustments), scale, offset)


def _cost_at_full_scale(memory_bytes: int, size: tuple[int, int], outline: Outline) -> Cost:
    """Returns the cost of an image that is decoded as it is, and perhaps laid on a larger screen."""
    pixels = max(width * height for width, height in (size, outline.size or size))
    coded_width, coded_height = outline.coded_size or (0, 0)
    return Cost(memory_bytes, pixels, max(pixels, coded_width * coded_height))


def _recognise(encoded: bytes | bytearray | memoryview, limits: ImageLimits) -> ImageFormat:
    """Returns the format by its signature, so that no parser sees a format that is switched off."""
    head = bytes(encoded[:HEAD_BYTES])
    image_format = recognise(head)
    served = ", ".join(limits.formats)
    if image_format is None:
        raise UnsupportedFormatError(f"{describe_unknown(head)} Send one of {served}.")
    if image_format not in FORMATS:
        raise UnsupportedFormatError(
            f"{image_format} images are not decoded here: the service lacks its extra heic. Send one of {served}."
        )
    if image_format not in limits.formats:
        raise UnsupportedFormatError(f"{image_format} images are switched off here. Send one of {served}.")
    return image_format


@contextmanager
def _pillow_errors_mean_corrupt(image_format: str, outline: Outline) -> Iterator[None]:
    """Turns what Pillow's plugins raise on bad input, nearly every built-in exception, into an ImageError."""
    try:
        yield
    except (PredictorError, MemoryError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        if reason.startswith("Unsupported BMP"):
            raise UnsupportedFormatError(f"BMP images of this kind are not served: {reason}.") from error
        if isinstance(error, UnidentifiedImageError):  # whose text adds only the buffer's address
            if outline.kind:
                raise UnsupportedFormatError(f"TIFF images of this kind are not served: {outline.kind}.") from error
            reason = "its header is damaged"
        raise CorruptImageError(f"The {image_format} image cannot be decoded: {reason}.") from error


def _check_pixels(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile is decoded whole, however small the image that it belongs to.
        tile_width, tile_height = (image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TILE_LENGTH))
        width, height = max(width, tile_width), max(height, tile_height)
    _check_size(width, height, limits)


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise CorruptImageError(f"The image's header says {width} x {height} pixels.")
    if max(width, height) > MAX_SIDE:
        raise TooManyPixelsError(f"The image has {width} x {height} pixels; the limit is {MAX_SIDE:,} a side.")
    if width * height > limits.max_pixels:
        raise TooManyPixelsError(
            f"The image has {width} x {height} = {width * height:,} pixels; the limit is {limits.max_pixels:,}."
        )


def _check_palette(image: Image.Image, image_format: ImageFormat) -> None:
    """Refuses pixels that refer to colours which the palette does not have: nobody knows what they were."""
    if image.mode != "P" or image.palette is None:
        return
    colours = len(image.palette.palette) // len(image.palette.mode)
    largest = image.getextrema()[1]
    if isinstance(largest, int) and largest >= colours:
        raise CorruptImageError(
            f"The {image_format} image is damaged: a pixel has colour {largest} of a palette of {colours}."
        )


def _scale(outline: Outline, min_shorter_side: int | None) -> int:
    """Returns the denominator of the smallest scale, 1/8, 1/4, 1/2 or 1, that keeps `min_shorter_side` pixels."""
    if min_shorter_side is None or outline.size is None:
        return 1
    # With a single pixel left, libjpeg could not tell the scales apart.
    least, shorter = max(min_shorter_side, 2), min(outline.size)
    return max(candidate for candidate in (1, *_SCALED) if candidate == 1 or shorter // candidate >= least)


def _on_white_screen(rgb: Image.Image, outline: Outline, adjustments: list[Adjustment]) -> Image.Image:
    """Returns the whole image, white where the first frame leaves it free."""
    assert outline.size is not None
    assert outline.frame is not None
    if "alpha_on_white" not in adjustments:
        adjustments.append("alpha_on_white")
    # Pillow gives the frame alone of a PNG, and the whole screen of a GIF, painted in the palette's first colour.
    if rgb.size != outline.size:
        screen = Image.new("RGB", outline.size, "white")
        screen.paste(rgb, outline.frame)
        return screen
    (width, height), (left, top, right, bottom) = outline.size, outline.frame
    for beside in ((0, 0, width, top), (0, top, left, bottom), (right, top, width, bottom), (0, bottom, width, height)):
        rgb.paste("white", beside)
    return rgb


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the first frame was read; damage behind it does not matter here
        return False
