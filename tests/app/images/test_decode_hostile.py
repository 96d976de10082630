"""A damaged or hostile file gives an `ImageError` or a picture, never another exception."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.errors import CorruptImageError, ImageError, TooManyPixelsError
from app.images.decode import decode
from app.images.limits import ImageLimits
from app.images.recognise import recognise
from tests.support.file_structures import lying_avif, structures
from tests.support.images import Pixels, encode, png_chunk

LIMITS = ImageLimits(max_pixels=1_000_000)
SIGNATURES = [
    b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"RIFF\xff\xff\0\0WEBPVP8X\n\0\0\0",
    b"RIFF\xff\xff\0\0WEBPVP8L",
    b"GIF89a\x10\0\x10\0\x80\0\0",
    b"BM\xff\xff\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x10\0\0\0\x10\0\0\0\x01\0",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0",
    b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B\0\0",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
]


SEEDS = structures(np.add.outer(np.arange(48), np.arange(64))[..., None].repeat(3, -1).astype(np.uint8))


@pytest.fixture(scope="module")
def seeds(small_cat: Pixels) -> dict[str, bytes]:
    """A real image in each structure."""
    return structures(small_cat)


def assert_picture_or_image_error(encoded: bytes, **options: Any) -> None:
    try:
        image = decode(encoded, limits=LIMITS, **options)
    except ImageError:
        return
    assert image.pixels.mode == "RGB"
    assert image.width * image.height <= LIMITS.max_pixels
    assert image.pixels.size == (image.width, image.height) or "dct_scaled" in image.adjustments[0]


@pytest.mark.parametrize("kind", SEEDS)
def test_a_file_cut_short_anywhere_is_corrupt_or_a_picture(seeds: dict[str, bytes], kind: str) -> None:
    whole = seeds[kind]
    size = decode(whole).pixels.size
    corrupt = 0
    for length in range(64, len(whole) - 1, max(1, len(whole) // 150)):
        try:
            assert decode(whole[:length]).pixels.size == size
        except CorruptImageError:
            corrupt += 1
    assert corrupt > 10
    for length in range(1, 64):
        with pytest.raises(ImageError):
            decode(whole[:length])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIC"])
def test_half_a_file_is_never_taken_for_a_picture(seeds: dict[str, bytes], kind: str) -> None:
    with pytest.raises(CorruptImageError, match=kind):
        decode(seeds[kind][: len(seeds[kind]) // 2])


@pytest.mark.parametrize("kind", SEEDS)
def test_changed_bytes_are_an_image_error_or_a_picture(seeds: dict[str, bytes], kind: str) -> None:
    random = np.random.default_rng(list(seeds).index(kind))
    whole = seeds[kind]
    for trial in range(300):
        mutated = bytearray(whole)
        # Headers decide most: half of the trials change only the first bytes.
        reach = min(len(whole), 600) if trial % 2 else len(whole)
        for position in random.integers(4, reach, size=random.integers(1, 12)):
            mutated[position] = random.choice([0, 1, 0x7F, 0x80, 0xFF, int(random.integers(256))])
        if trial % 5 == 0:
            cut = int(random.integers(4, len(whole)))
            mutated = mutated[:cut] + mutated[cut + int(random.integers(1, 64)) :]
        assert_picture_or_image_error(bytes(mutated), min_shorter_side=16)


@given(signature=st.sampled_from(SIGNATURES), rest=st.binary(max_size=400))
@example(signature=SIGNATURES[6], rest=b"")
@settings(max_examples=600, deadline=None, derandomize=True, database=None)
def test_random_bytes_behind_a_signature_are_an_image_error(signature: bytes, rest: bytes) -> None:
    assert recognise(signature) is not None
    with pytest.raises(ImageError):
        decode(signature + rest, limits=LIMITS)


@given(st.binary(min_size=1, max_size=200))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_random_bytes_are_an_image_error(encoded: bytes) -> None:
    with pytest.raises(ImageError):
        decode(encoded)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIC"])
def test_one_format_announced_as_another_is_an_image_error(seeds: dict[str, bytes], kind: str) -> None:
    for signature in SIGNATURES:
        if recognise(signature) != kind:
            with pytest.raises(ImageError):
                decode(signature + seeds[kind][len(signature) :])


def test_the_error_names_the_format_and_no_internals(seeds: dict[str, bytes]) -> None:
    with pytest.raises(CorruptImageError) as caught:
        decode(seeds["JPEG"][:200])
    assert "JPEG" in caught.value.detail
    assert "0x" not in caught.value.detail
    assert "BytesIO" not in caught.value.detail


def _announcing(size: int) -> dict[str, Callable[[dict[str, bytes]], bytes]]:
    """Files that announce a side of so many pixels, and hold next to none."""

    def patched(kind: str, find: bytes, skip: int, packed: bytes) -> Callable[[dict[str, bytes]], bytes]:
        def patch(seeds: dict[str, bytes]) -> bytes:
            position = seeds[kind].index(find) + skip
            return seeds[kind][:position] + packed + seeds[kind][position + len(packed) :]

        return patch

    def png_of(seeds: dict[str, bytes]) -> bytes:
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))
        return seeds["PNG"][:8] + header + seeds["PNG"][33:]

    canvas = (size - 1).to_bytes(3, "little") * 2
    return {
        "JPEG": patched("JPEG", b"\xff\xc0", 5, struct.pack(">HH", size, size)),
        "JPEG-progressive": patched("JPEG-progressive", b"\xff\xc2", 5, struct.pack(">HH", size, size)),
        "PNG": png_of,
        "WEBP-animated": patched("WEBP-animated", b"VP8X", 12, canvas),
        "GIF": patched("GIF", b"GIF", 6, struct.pack("<HH", size, size)),
        "BMP": patched("BMP", b"BM", 18, struct.pack("<ii", size, size)),
        "BMP-from-top": patched("BMP", b"BM", 18, struct.pack("<ii", size, -size)),
        "TIFF": lambda seeds: _resized_tiff(seeds["TIFF-lzw"], {256: size, 257: size}),
        "TIFF-raw": lambda seeds: _resized_tiff(seeds["TIFF"], {256: size, 257: size}),
        "AVIF": patched("AVIF", b"ispe", 8, struct.pack(">II", size, size)),
        "HEIC": patched("HEIC", b"ispe", 8, struct.pack(">II", size, size)),
    }


def _resized_tiff(encoded: bytes, changes: dict[int, int]) -> bytes:
    """Overwrites values of a little-endian TIFF's first directory."""
    changed = bytearray(encoded)
    directory = int.from_bytes(encoded[4:8], "little")
    for entry in range(
        directory + 2, directory + 2 + 12 * int.from_bytes(encoded[directory : directory + 2], "little"), 12
    ):
        tag = int.from_bytes(encoded[entry : entry + 2], "little")
        if tag in changes:
            changed[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, changes.pop(tag))
    assert not changes
    return bytes(changed)


@pytest.mark.parametrize("kind", _announcing(1))
def test_too_many_pixels_are_refused_from_the_header(seeds: dict[str, bytes], kind: str) -> None:
    encoded = _announcing(16_000)[kind](seeds)
    with pytest.raises(TooManyPixelsError, match=r"16000 x 16000 = 256,000,000 pixels; the limit is 125,000,000"):
        decode(encoded)


def test_pixels_of_an_avif_are_those_that_its_pictures_have_whatever_its_container_says() -> None:
    whole = encode(Image.new("RGB", (320, 240)), "AVIF")
    assert decode(lying_avif(whole)).pixels.size == (64, 64)
    with pytest.raises(TooManyPixelsError, match="320 x 240"):
        decode(lying_avif(whole), limits=ImageLimits(max_pixels=64 * 64))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_the_limit_itself_is_allowed_and_one_more_is_not(image_format: str) -> None:
    encoded = encode(Image.new("RGB", (40, 25)), image_format)
    assert decode(encoded, limits=ImageLimits(max_pixels=1000)).pixels.size == (40, 25)
    with pytest.raises(TooManyPixelsError):
        decode(encoded, limits=ImageLimits(max_pixels=999))


def test_a_jpeg_is_counted_at_full_size_even_if_it_would_be_decoded_reduced(cat: Pixels) -> None:
    with pytest.raises(TooManyPixelsError):
        decode(encode(cat, "JPEG"), limits=ImageLimits(max_pixels=100_000), min_shorter_side=16)


def test_a_frame_larger_than_its_screen_counts(seeds: dict[str, bytes]) -> None:
    descriptor = seeds["GIF"].index(b"\x2c\0\0\0\0")
    encoded = seeds["GIF"][: descriptor + 5] + struct.pack("<HH", 60_000, 60_000) + seeds["GIF"][descriptor + 9 :]
    with pytest.raises(TooManyPixelsError):
        decode(encoded)
