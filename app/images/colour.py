"""Converts a decoded image of any mode and colour space to 8-bit sRGB.

scale 16 bits to 8 -> split alpha off -> ICC profile, or numbers instead, to sRGB -> RGB -> composite on white
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from app.errors import UnsupportedFormatError
from app.images.coded_colour import CodedColour
from app.images.limits import MAX_PROFILE_BYTES

Adjustment = Literal[
    "dct_scaled_1_2",
    "dct_scaled_1_4",
    "dct_scaled_1_8",
    "first_frame",
    "16_bit_to_8_bit",
    "icc_to_srgb",
    "icc_ignored",
    "coded_colour_to_srgb",
    "coded_colour_ignored",
    "hdr_to_sdr",
    "cmyk_to_rgb",
    "colour_space_to_rgb",
    "palette_to_rgb",
    "grey_to_rgb",
    "alpha_on_white",
    "alpha_ignored",
    "exif_orientation",
    "full_size_page",
    "end_marker_added",
    "extra_bytes_ignored",
    "metadata_ignored",
]
"""What may be done to an image on its way to RGB. Answers list it in `image.adjustments`."""

# Every grey, and a grid of 9 x 9 x 9 colours.
_PROBE: Final = np.concatenate(
    [
        np.arange(256)[:, None].repeat(3, axis=1),
        np.stack(np.meshgrid(*[np.linspace(0, 255, 9).round()] * 3), axis=-1).reshape(-1, 3),
    ]
).astype(np.uint8)[None]
_ROUNDING: Final = 1  # levels of 255
BANDS_FROM_PIXELS: Final = 4_000_000
"""Larger images are converted in bands, so that the steps of a conversion hold no further copies of all pixels."""

BAND_PIXELS: Final = 1_000_000
"""A band has about as many, and at least one row."""

_GREY_MODES: Final = {"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"}


def to_rgb(
    image: Image.Image, bit_depth: int, adjustments: list[Adjustment], coded: CodedColour | None = None
) -> Image.Image:
    """Converts a loaded image of any mode to RGB.

    Args:
        image: the loaded image. Its ICC profile, if it has one, is in its `info`.
        bit_depth: the bits of a sample in the file; see `bit_depth_of`.
        adjustments: the list that what is done is appended to.
        coded: the colour space that the file tells by numbers; None if it tells none. A profile counts more.

    Raises:
        UnsupportedFormatError: the samples are signed, 32-bit or floating-point.
    """
    if image.mode in {"I", "F"}:
        raise UnsupportedFormatError(
            "Signed, 32-bit and floating-point samples are not served: they have no known range."
        )
    if image.mode in _GREY_MODES:
        adjustments.append("grey_to_rgb")
    elif image.mode in {"P", "PA"}:
        adjustments.append("palette_to_rgb")
    elif image.mode in {"CMYK", "LAB", "YCbCr"}:
        adjustments.append("cmyk_to_rgb" if image.mode == "CMYK" else "colour_space_to_rgb")
    if bit_depth > 8:
        adjustments.append("16_bit_to_8_bit")
    is_inverted = (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    )  # WhiteIsZero, which Pillow inverts up to 8 bits only
    told: list[Adjustment] = []
    rgb = None
    for top, band in _bands(image):
        converted = _band_to_rgb(band, bit_depth, told, coded, is_inverted=is_inverted)
        if band is image:
            rgb = converted
        elif converted is band and band.mode == "RGB" and "transparency" not in band.info:
            rgb = image  # nothing is to be done, in this band or another
            break
        else:
            rgb = rgb or Image.new("RGB", image.size)
            rgb.paste(converted, (0, top))
    adjustments += dict.fromkeys(told)
    assert rgb is not None
    return rgb


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Gives a large image in bands from top to bottom, each with its first row, so that copies of it stay small."""
    if image.width * image.height <= BANDS_FROM_PIXELS:
        yield 0, image
        return
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _band_to_rgb(
    image: Image.Image, bit_depth: int, adjustments: list[Adjustment], coded: CodedColour | None, *, is_inverted: bool
) -> Image.Image:
    colour, alpha = _split_alpha(image, bit_depth, is_inverted=is_inverted)
    if colour.mode == "YCbCr":
        colour = colour.convert("RGB")  # a profile beside YCbCr describes RGB
    profile = image.info.get("icc_profile")
    if profile is None and "icc_profile" in image.info:
        adjustments.append("icc_ignored")  # Pillow found a profile that it could not put together
    if profile or colour.mode == "LAB":
        colour = _to_srgb(colour, profile, adjustments)
    elif coded is not None and "icc_profile" not in image.info:
        colour = _coded_to_srgb(colour, coded, adjustments)
    if colour.mode != "RGB":
        colour = colour.convert("RGB")
    if alpha is None or alpha.getextrema()[0] == 255:
        return colour
    adjustments.append("alpha_on_white")
    composite = Image.new("RGB", colour.size, "white")
    composite.paste(colour, mask=alpha)
    return composite


def _split_alpha(image: Image.Image, bit_depth: int, *, is_inverted: bool) -> tuple[Image.Image, Image.Image | None]:
    """Returns colour (mode L, RGB, CMYK, YCbCr or LAB, 8 bits) and alpha (mode L), or None where all is opaque."""
    key = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        grey, alpha = _from_16_bits(image, bit_depth, key, is_inverted=is_inverted)
        return grey, alpha
    if image.mode == "P" and key is None:
        # A palette may itself have alpha (Pillow allows it). Only the conversion shows it.
        palette_has_alpha = image.palette is not None and image.palette.mode.endswith("A")
        image = image.convert("RGBA" if palette_has_alpha else "RGB")
    elif image.mode in {"P", "PA", "RGBa"}:
        image = image.convert("RGBA")
    elif image.mode == "La":
        image = image.convert("LA")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode in {"RGBA", "LA"}:
        return image.convert(image.mode.removesuffix("A")), image.getchannel("A")
    if key is None or image.mode not in {"L", "RGB"}:
        return image, None
    # One colour stands for "transparent" (PNG tRNS): its samples are as deep as the file's, the pixels have 8 bits.
    samples = [key] if isinstance(key, int) else list(key)
    # Pillow keeps the high byte of 16 bits, and stretches fewer than 8 over the whole range.
    in_8_bits = [sample >> 8 if bit_depth == 16 else sample * 255 // (2**bit_depth - 1) for sample in samples]
    keyed = np.all(np.atleast_3d(np.asarray(image)) == np.array(in_8_bits), axis=-1)
    return image, Image.fromarray(np.where(keyed, 0, 255).astype(np.uint8))


def _from_16_bits(
    image: Image.Image, bit_depth: int, key: object, *, is_inverted: bool
) -> tuple[Image.Image, Image.Image | None]:
    """Scales 9- to 16-bit grey to 8 bits, rounding (Pillow's own conversion clips at 255)."""
    samples = np.asarray(image).astype(np.uint32)  # (H, W)
    largest = 2**bit_depth - 1
    alpha = Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8)) if isinstance(key, int) else None
    grey = ((np.minimum(samples, largest) * 255 + largest // 2) // largest).astype(np.uint8)
    if is_inverted:
        grey = 255 - grey
    return Image.fromarray(grey), alpha


def _to_srgb(colour: Image.Image, profile: bytes | None, adjustments: list[Adjustment]) -> Image.Image:
    """Converts through the embedded ICC profile. A profile that is damaged or of another colour space is ignored."""
    try:
        if profile is not None and len(profile) > MAX_PROFILE_BYTES:
            raise ValueError("The profile is too long.")
        converted = _converted(colour, profile)
    except Exception:  # as a browser does: a bad profile does not make the pixels unreadable
        adjustments.append("icc_ignored")
        return colour
    if converted is not colour:
        adjustments.append("icc_to_srgb")
    return converted


def _coded_to_srgb(colour: Image.Image, coded: CodedColour, adjustments: list[Adjustment]) -> Image.Image:
    """Converts from a colour space that is told by numbers, where they make sense."""
    if coded.profile is None or colour.mode not in {"L", "RGB"}:
        adjustments.append("coded_colour_ignored")
        return colour
    converted = _converted(colour, coded.profile)
    if converted is not colour:
        adjustments.append("coded_colour_to_srgb")
    if coded.is_hdr:
        adjustments.append("hdr_to_sdr")
    return converted


def changes_colours(mode: str, profile: bytes | None, coded: CodedColour | None) -> bool:
    """Returns whether colours of a mode are converted, by an ICC profile or by numbers; True where that is unknown.

    Args:
        mode: a mode of Pillow.
        profile: the image's ICC profile; None if it has none.
        coded: the colour space that the file tells by numbers; None if it tells none.
    """
    if profile is None:
        profile = coded.profile if coded is not None else None
    if profile is None or len(profile) > MAX_PROFILE_BYTES:
        return False
    try:
        return _srgb_transform(profile, mode)[1] is not None
    except Exception:  # it is ignored later, or the mode is converted first
        return True


def _converted(colour: Image.Image, profile: bytes | None) -> Image.Image:
    """Returns the image in sRGB: itself where its profile is that of sRGB already."""
    space, transform = _srgb_transform(profile, colour.mode)
    if transform is None:
        return colour
    if colour.mode == "L" and space == "RGB":
        colour = colour.convert("RGB")
    converted = ImageCms.applyTransform(colour, transform)
    return converted if converted is not None else colour


@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes | None, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Returns the profile's colour space and the way from it to sRGB, or None where it is sRGB already."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else _lab_profile()
    space = source.profile.xcolor_space.strip()
    mode_in = "RGB" if mode == "L" and space == "RGB" else mode
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode_in, "RGB")
    return space, None if _changes_nothing(transform, mode_in) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Tells whether colours stay the same but for rounding. Names say nothing: linear profiles may be called sRGB."""
    if mode not in {"L", "RGB"}:
        return False
    before = Image.fromarray(_PROBE).convert(mode)
    after = ImageCms.applyTransform(before, transform)
    if after is None:
        return False
    difference = np.asarray(after).astype(np.int16) - np.asarray(before.convert("RGB"))
    return int(np.abs(difference).max()) <= _ROUNDING


def _lab_profile() -> ImageCms.ImageCmsProfile:
    """Returns the profile of CIELAB, which no file needs to embed: the space is absolute."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))


def bit_depth_of(image: Image.Image) -> int:
    """Returns the bits of a sample in the file. Pillow's mode alone does not tell them."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0])
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    raw_mode = tiles[0].args if tiles else None
    raw_mode = raw_mode[0] if isinstance(raw_mode, tuple) and raw_mode else raw_mode
    for suffix, bits in ((";16B", 16), (";4", 4), (";2", 2)):
        if isinstance(raw_mode, str) and raw_mode.endswith(suffix):
            return bits
    return 8
