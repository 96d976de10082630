"""HEIC, the photos of iPhones: the same picture as its PNG, upright, and never with parts that are missing.

The files in heic/ were encoded from picture.png by pillow-heif 1.8.1 with x265 4.3 at quality 85, each in another way
that HEIF allows. grid-turned.heic was put together from four such tiles, a `grid` and an `irot`, as telephones do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.errors import CorruptImageError, TooManyPixelsError, UnsupportedFormatError
from app.images import decode as decoding
from app.images.decode import decode
from app.images.limits import ImageLimits
from tests.support.images import Pixels

HERE = Path(__file__).parent / "heic"
ALIKE = 2.0
"""The mean difference, in levels, that HEVC's loss may make; JPEG at quality 85 makes 3.4 here."""
# From Display P3 to sRGB in linear light (Bradford is not needed: both have D65). CSS Color 4, section 10.
P3_TO_SRGB = np.array([[1.2249401, -0.2249404, 0.0], [-0.0420569, 1.0420571, 0.0], [-0.0196376, -0.0786361, 1.0982735]])


@pytest.fixture(scope="module")
def picture() -> Pixels:
    return np.asarray(Image.open(HERE / "picture.png").convert("RGB"))


def _difference(image: decoding.DecodedImage, expected: Pixels) -> float:
    pixels = np.asarray(image.pixels).astype(float)
    assert pixels.shape == expected.shape
    return float(np.abs(pixels - expected).mean())


@pytest.mark.parametrize(
    ("name", "turned", "adjustments"),
    [
        ("plain", False, ()),
        ("ten-bit", False, ()),
        ("turned", False, ()),  # EXIF says it too, and must not turn it twice
        ("grid-turned", True, ()),
        ("burst", False, ("first_frame",)),  # whose second picture is the primary one
    ],
)
def test_heic_is_the_picture_it_was_made_from(
    picture: Pixels, name: str, turned: bool, adjustments: tuple[str, ...]
) -> None:
    image = decode((HERE / f"{name}.heic").read_bytes())

    assert image.format == "HEIC"
    assert _difference(image, np.rot90(picture) if turned else picture) < ALIKE
    assert (image.width, image.height) == ((96, 128) if turned else (128, 96))
    assert image.adjustments == adjustments


def test_transparent_heic_is_laid_on_white(picture: Pixels) -> None:
    image = decode((HERE / "alpha.heic").read_bytes())

    expected = picture.copy()
    expected[:, 64:] = 255
    assert _difference(image, expected) < ALIKE
    assert image.adjustments == ("alpha_on_white",)


def test_grey_heic_is_grey(picture: Pixels) -> None:
    image = decode((HERE / "grey.heic").read_bytes())

    grey = np.asarray(Image.fromarray(picture).convert("L").convert("RGB"))
    assert _difference(image, grey) < ALIKE


def test_wide_colours_of_a_heic_become_srgb(picture: Pixels) -> None:
    image = decode((HERE / "display-p3.heic").read_bytes())

    encoded = picture / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    linear = (linear @ P3_TO_SRGB.T).clip(0, 1)
    expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(expected - picture).mean() > 4
    assert _difference(image, expected) < ALIKE
    assert image.adjustments == ("coded_colour_to_srgb",)


@pytest.mark.parametrize("name", ["plain", "grid-turned", "turned", "alpha"])
def test_heic_that_is_cut_short_is_refused(name: str) -> None:
    whole = (HERE / f"{name}.heic").read_bytes()
    for length in (*range(40, len(whole), 997), len(whole) - 1):
        with pytest.raises(CorruptImageError):
            decode(whole[:length])


@pytest.mark.parametrize("name", ["plain", "grid-turned"])
def test_heic_with_a_hole_of_zeros_is_refused(name: str) -> None:
    whole = (HERE / f"{name}.heic").read_bytes()
    middle = len(whole) * 2 // 3
    with pytest.raises(CorruptImageError, match="not HEVC"):
        decode(whole[:middle] + bytes(512) + whole[middle + 512 :])


def test_pixels_of_a_heic_are_counted_before_any_is_decoded() -> None:
    with pytest.raises(TooManyPixelsError, match="96 x 128"):
        decode((HERE / "grid-turned.heic").read_bytes(), limits=ImageLimits(max_pixels=12_000))


def test_service_without_the_decoder_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    without = tuple(name for name in ImageLimits().formats if name != "HEIC")
    monkeypatch.setattr(decoding, "FORMATS", without)
    with pytest.raises(UnsupportedFormatError, match="lacks its extra heic"):
        decode((HERE / "plain.heic").read_bytes(), limits=ImageLimits(formats=without))
