"""HEIC, the photos of iPhones: the same picture as its PNG, upright, and never with parts that are missing.

The files in heic/ were encoded from picture.png by pillow-heif 1.8.1 with x265 4.3 at quality 85, each in another way
that HEIF allows. grid-turned.heic was put together from four such tiles, a `grid` and an `irot`, as telephones do.
"""

from __future__ import annotations

import contextlib
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.errors import CorruptImageError, ImageError, TooManyPixelsError, UnsupportedFormatError
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


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full_box(kind: bytes, content: bytes) -> bytes:
    return _box(kind, bytes(4) + content)


def _grid(tiles: int, *, properties: int = 1, extents: int = 0, tile_bytes: int = 100) -> bytes:
    """Returns a HEIC of many tiles, each of many properties, and each so often all of the file's pixels."""
    numbers, grid = range(1, 1 + tiles), tiles + 1
    start = _box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    data = struct.pack(">I", tile_bytes) + b"\x01" * tile_bytes
    place = struct.pack(">II", len(start) + 8, len(data))
    items = b"".join(struct.pack(">HHH", number, 0, extents) + place * extents for number in numbers)
    tags = b"".join(
        struct.pack(">HB", number, min(properties, 255)) + b"\1" * min(properties, 255) for number in numbers
    )
    decoder = _box(b"hvcC", bytes(21) + b"\3" + bytes(2))
    known = _box(b"ipco", decoder + _box(b"free", b"") * properties)
    meta = (
        _full_box(b"pitm", struct.pack(">H", grid))
        + _full_box(b"iref", _box(b"dimg", struct.pack(f">{2 + tiles}H", grid, tiles, *numbers)))
        + _box(b"iprp", known + _full_box(b"ipma", struct.pack(">I", tiles) + tags))
        + _full_box(b"iloc", struct.pack(">BBH", 0x44, 0, tiles) + items)
    )
    return start + _box(b"mdat", data) + _full_box(b"meta", meta)


def test_data_that_many_tiles_share_is_not_looked_at_again_and_again() -> None:
    encoded = _grid(20, extents=20, tile_bytes=1_000_000)
    began = time.thread_time()
    with pytest.raises(CorruptImageError, match="refers to more data than it has"):
        decode(encoded)
    assert time.thread_time() - began < 0.1  # each of the 400 looks takes a millisecond


def test_more_pieces_than_any_camera_writes_are_refused() -> None:
    with pytest.raises(CorruptImageError, match="more than 1,000 pieces"):
        decode(_grid(40, extents=30))


def test_tiles_and_their_properties_are_listed_once() -> None:
    def fastest(count: int) -> float:
        return min(_seconds(_grid(count, properties=count)) for _ in range(3))

    # Where each tile searched the list of all, 1,000 took four times as long as 500, and a second.
    assert fastest(1_000) < 3 * fastest(500) + 0.05


def _seconds(encoded: bytes) -> float:
    began = time.thread_time()
    with contextlib.suppress(ImageError):
        decode(encoded)
    return time.thread_time() - began


@pytest.mark.parametrize("change", [b"\x80xif", b"\xff\xff\xff\xff"])
def test_names_of_parts_that_are_no_text_are_refused(change: bytes) -> None:
    """pi_heif 1.4.0 crashes over them, and would take the process with it."""
    photo = (HERE / "turned.heic").read_bytes()
    place = photo.index(b"infe\x02\x00\x00\x01\x00\x02\x00\x00Exif") + 12

    with pytest.raises(CorruptImageError, match="names that are no text"):
        decode(photo[:place] + change + photo[place + 4 :])
