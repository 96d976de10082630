"""The full page of a TIFF is the picture; camera raw files and kinds that are not served are named."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from app.errors import CorruptImageError, UnsupportedFormatError
from app.images.decode import decode
from tests.support.decoded_pixels import assert_pixels, decoded
from tests.support.images import Pixels, encode, exif, tiff

REDUCED = {254: (4, [1])}
RAW = "camera raw"
Tags = Mapping[int, tuple[int, Sequence[int]]]


def _page(pixels: Pixels, tags: Tags | None = None) -> tuple[dict[int, tuple[int, Sequence[int]]], bytes]:
    height, width = pixels.shape[:2]
    described = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8, 8, 8]),
        259: (3, [1]),
        262: (3, [2]),
        273: (4, [0]),
        277: (3, [3]),
        278: (4, [height]),
        279: (4, [pixels.size]),
    }
    return {**described, **(tags or {})}, pixels.tobytes()


def _pages(
    *pages: tuple[Pixels, Tags], inner: tuple[Pixels, Tags] | None = None, byte_order: str = "<", is_big: bool = False
) -> bytes:
    """Returns a TIFF of pages one behind the other, the first of which has another one inside (SubIFDs)."""
    offset_kind, first_at = ("Q", 8) if is_big else ("I", 4)
    file = bytearray((b"II" if byte_order == "<" else b"MM") + struct.pack(byte_order + "H", 43 if is_big else 42))
    file += struct.pack(byte_order + "HHQ", 8, 0, 0) if is_big else bytes(4)

    def append(pixels: Pixels, tags: Tags) -> tuple[int, int]:
        """Returns where the directory begins, and where it tells the next one."""
        described, strip = _page(pixels, tags)
        described[273] = (4, [len(file)])
        file.extend(strip)
        values = {}
        for tag, (kind, numbers) in described.items():
            packed = struct.pack(f"{byte_order}{len(numbers)}{ {1: 'B', 3: 'H', 4: 'I'}[kind] }", *numbers)
            room = 8 if is_big else 4
            if len(packed) > room:
                values[tag] = struct.pack(byte_order + offset_kind, len(file))
                file.extend(packed)
            else:
                values[tag] = packed.ljust(room, b"\0")
        position = len(file)
        file.extend(struct.pack(byte_order + ("Q" if is_big else "H"), len(described)))
        for tag, (kind, numbers) in sorted(described.items()):
            file.extend(struct.pack(byte_order + "HH" + offset_kind, tag, kind, len(numbers)) + values[tag])
        file.extend(bytes(8 if is_big else 4))
        return position, len(file) - (8 if is_big else 4)

    first, *others = pages
    if inner is not None:
        inner_position, _ = append(*inner)
        first = (first[0], {**first[1], 330: (4, [inner_position])})
    told_at = first_at
    for page in (first, *others):
        position, following = append(*page)
        struct.pack_into(byte_order + offset_kind, file, told_at, position)
        told_at = following
    return bytes(file)


@pytest.fixture
def thumbnail(small_cat: Pixels) -> Pixels:
    return np.ascontiguousarray(255 - small_cat[::4, ::4])


@pytest.mark.parametrize(
    ("byte_order", "is_big"), [("<", False), (">", False), ("<", True)], ids=["little-endian", "big-endian", "BigTIFF"]
)
@pytest.mark.parametrize("place", ["next", "inside"])
@pytest.mark.parametrize("mark", [REDUCED, {255: (3, [2])}], ids=["NewSubfileType", "SubfileType"])
def test_a_reduced_first_page_gives_way_to_the_full_one(
    small_cat: Pixels, thumbnail: Pixels, byte_order: str, is_big: bool, place: str, mark: Tags
) -> None:
    # libtiff's tiffinfo shows the same directories: "Subfile Type: reduced-resolution image" for the first.
    full: tuple[Pixels, Tags] = (small_cat, {})
    if place == "next":
        encoded = _pages((thumbnail, mark), full, byte_order=byte_order, is_big=is_big)
    else:
        encoded = _pages((thumbnail, mark), inner=full, byte_order=byte_order, is_big=is_big)
    pixels, adjustments = decoded(encoded)
    assert_pixels(pixels, small_cat)
    assert adjustments == ("full_size_page",)


def test_a_big_endian_bigtiff_which_pillow_does_not_read_is_no_damage(small_cat: Pixels) -> None:
    with pytest.raises(UnsupportedFormatError, match="not served"):
        decode(_pages((small_cat, {}), byte_order=">", is_big=True))


def test_reduced_pages_behind_the_full_one_are_no_animation(small_cat: Pixels, thumbnail: Pixels) -> None:
    pixels, adjustments = decoded(_pages((small_cat, {}), (thumbnail, REDUCED), (thumbnail, {254: (4, [4])})))
    assert_pixels(pixels, small_cat)
    assert adjustments == ()


def test_several_full_pages_are_told(small_cat: Pixels) -> None:
    pixels, adjustments = decoded(_pages((small_cat, {}), (255 - small_cat, {})))
    assert_pixels(pixels, small_cat)
    assert adjustments == ("first_frame",)


def test_a_reduced_page_alone_is_the_picture(thumbnail: Pixels) -> None:
    pixels, adjustments = decoded(_pages((thumbnail, REDUCED)))
    assert_pixels(pixels, thumbnail)
    assert adjustments == ()


def test_the_full_page_is_turned_as_its_own_tag_says(small_cat: Pixels, thumbnail: Pixels) -> None:
    pixels, adjustments = decoded(_pages((thumbnail, {**REDUCED, 274: (3, [1])}), (small_cat, {274: (3, [3])})))
    assert_pixels(pixels, small_cat[::-1, ::-1])
    assert adjustments == ("full_size_page", "exif_orientation")


@pytest.mark.parametrize(
    ("first", "inner"),
    [
        pytest.param({**REDUCED, 50706: (1, [1, 4, 0, 0])}, {262: (3, [32803]), 277: (3, [1])}, id="DNG"),
        pytest.param({50706: (1, [1, 4, 0, 0])}, {262: (3, [34892])}, id="DNG-linear"),
        pytest.param(REDUCED, {262: (3, [32803]), 277: (3, [1]), 259: (3, [34713])}, id="NEF"),
        pytest.param(REDUCED, {262: (3, [32803]), 259: (3, [32767])}, id="ARW"),
        pytest.param({262: (3, [32803]), 259: (3, [65535])}, None, id="PEF"),
        pytest.param({259: (3, [65000])}, None, id="DCR"),
    ],
)
def test_camera_raw_is_not_served_and_said_to_be_it(
    small_cat: Pixels, thumbnail: Pixels, first: Tags, inner: Tags | None
) -> None:
    encoded = _pages((thumbnail, first), inner=None if inner is None else (small_cat, inner))
    with pytest.raises(UnsupportedFormatError, match=RAW):
        decode(encoded)


def test_a_cr2_is_known_by_its_header(small_cat: Pixels) -> None:
    encoded = _pages((small_cat, {}))
    with pytest.raises(UnsupportedFormatError, match=RAW):
        decode(encoded[:8] + b"CR\2\0" + encoded[12:])


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        pytest.param(
            {258: (3, [32] * 3), 339: (3, [3] * 3)}, "RGB, 3 samples of 32 bits, floating-point", id="float32"
        ),
        pytest.param({258: (3, [12] * 3)}, "RGB, 3 samples of 12 bits", id="12-bit"),
        pytest.param({258: (3, [32] * 3)}, "RGB, 3 samples of 32 bits, unsigned", id="32-bit"),
        pytest.param({258: (3, [16] * 3), 339: (3, [2] * 3)}, "16 bits, signed", id="signed"),
        pytest.param(
            {258: (3, [8] * 5), 262: (3, [5]), 277: (3, [5]), 338: (3, [2])}, "CMYK, 5 samples", id="CMYK-and-alpha"
        ),
        pytest.param(
            {258: (3, [16] * 2), 262: (3, [1]), 277: (3, [2]), 338: (3, [2])},
            "grey, 2 samples of 16",
            id="grey-alpha-16",
        ),
        pytest.param({258: (3, [8] * 9), 262: (3, [1]), 277: (3, [9])}, "grey, 9 samples", id="nine-bands"),
        pytest.param({262: (3, [32844])}, "colour space 32844", id="LogL"),
        pytest.param({259: (3, [34887])}, "compression 34887", id="LERC"),
        pytest.param({259: (3, [33005])}, "compression 33005", id="JPEG-2000"),
    ],
)
def test_sound_tiffs_that_are_not_served_are_no_damage(small_cat: Pixels, tags: Tags, words: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=words):
        decode(_pages((small_cat, tags)))


@pytest.mark.parametrize(
    "tags", [{258: (3, [8, 8])}, {277: (3, [0])}, {258: (3, [0] * 3)}, {258: (3, [200] * 3)}], ids=str
)
def test_tags_that_contradict_each_other_are_damage(small_cat: Pixels, tags: Tags) -> None:
    with pytest.raises(CorruptImageError):
        decode(_pages((small_cat, tags)))


def test_more_strips_than_rows_are_refused_at_once(small_cat: Pixels) -> None:
    described, strip = _page(small_cat, {278: (4, [24]), 273: (4, [8] * 750_000)})
    encoded = tiff(strip, {tag: value for tag, value in described.items() if tag != 273} | {273: (4, [0])})
    directory = int.from_bytes(encoded[4:8], "little")
    at = next(at for at in range(directory + 2, directory + 200, 12) if encoded[at : at + 2] == struct.pack("<H", 273))
    many = bytearray(encoded + struct.pack("<750000I", *[8] * 750_000))
    many[at + 4 : at + 12] = struct.pack("<II", 750_000, len(encoded))
    began = time.thread_time()
    with pytest.raises(CorruptImageError, match="750,000 strips"):
        decode(bytes(many))
    assert time.thread_time() - began < 0.5


def test_a_directory_of_many_long_tags_is_refused_at_once(small_cat: Pixels) -> None:
    """Pillow copies what each tag refers to: 60,000 tags of 1 MB each would take 60 GB."""
    encoded = _pages((small_cat, {tag: (1, [0] * 10) for tag in range(1000, 1100)}))
    many = bytearray(encoded + bytes(100_000))
    directory = int.from_bytes(encoded[4:8], "little")
    for at in range(directory + 2, directory + 2 + 12 * 109, 12):
        if 1000 <= int.from_bytes(many[at : at + 2], "little") < 1100:
            many[at + 4 : at + 8] = struct.pack("<I", 90_000)
    with pytest.raises(CorruptImageError, match="more data than it has"):
        decode(bytes(many))


def test_directories_in_a_circle_end(small_cat: Pixels) -> None:
    encoded = bytearray(_pages((small_cat, {}), (small_cat, {})))
    encoded[-4:] = encoded[4:8]
    assert decode(bytes(encoded)).adjustments == ("first_frame",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_told_and_done_once(small_cat: Pixels, orientation: int) -> None:
    image = decode(encode(small_cat, "TIFF", exif=exif(orientation)))
    assert ("exif_orientation" in image.adjustments) == (orientation != 1)
    assert image.pixels.size == ((48, 64) if orientation >= 5 else (64, 48))
    assert image.pixels.size == (image.width, image.height)
