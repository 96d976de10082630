"""JPEGs and GIFs that ask for more work than their pixels do are refused, and found in linear time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import numpy as np
import pytest

from app.errors import CorruptImageError, ImageError
from app.images.decode import decode
from app.images.formats.gif_blocks import MAX_BLOCKS
from app.images.formats.jpeg import MAX_SCANS, has_too_many_scans
from tests.support.images import Pixels, encode, with_jpeg_segment

EXIF = 0xE1


def _with_more_scans(encoded: bytes, count: int) -> bytes:
    """Repeats the second scan of a progressive JPEG, with its tables, so many times."""
    first = encoded.index(b"\xff\xda")
    second = encoded.index(b"\xff\xda", first + 2)
    third = encoded.index(b"\xff\xda", second + 2)
    return encoded[:third] + encoded[second:third] * count + encoded[third:]


@pytest.fixture
def progressive(small_cat: Pixels) -> bytes:
    """A progressive JPEG of 10 scans."""
    encoded = encode(small_cat, "JPEG", progressive=True)
    assert encoded.count(b"\xff\xda") == 10
    return encoded


def test_a_jpeg_of_more_scans_than_any_encoder_writes_is_refused(progressive: bytes) -> None:
    assert decode(_with_more_scans(progressive, MAX_SCANS - 10)).format == "JPEG"
    with pytest.raises(CorruptImageError, match="more than 100 scans"):
        decode(_with_more_scans(progressive, MAX_SCANS - 9))


@pytest.mark.parametrize("filler", [b"\xff\xff\xff", b"garbage", b"\xff\x00", b"\xff\xd0"], ids=repr)
def test_scans_are_found_behind_what_libjpeg_skips(progressive: bytes, filler: bytes) -> None:
    hidden = _with_more_scans(progressive, MAX_SCANS).replace(b"\xff\xda", filler + b"\xff\xda")
    with pytest.raises(CorruptImageError, match="more than 100 scans"):
        decode(hidden)


def test_what_only_looks_like_scans_does_not_count(progressive: bytes) -> None:
    video_behind = progressive + b"\xff\xda" * 1000
    assert not has_too_many_scans(video_behind)
    thumbnail_inside = with_jpeg_segment(progressive, EXIF, b"Exif\0\0" + b"\xff\xda" * 1000)
    assert not has_too_many_scans(thumbnail_inside)
    for encoded in (video_behind, thumbnail_inside):
        assert np.array_equal(np.asarray(decode(encoded).pixels), np.asarray(decode(progressive).pixels))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(progressive: bytes, kind: type) -> None:
    assert has_too_many_scans(kind(_with_more_scans(progressive, MAX_SCANS)))
    assert not has_too_many_scans(kind(progressive))


def test_a_jpeg_that_ends_anywhere_is_counted(progressive: bytes) -> None:
    many = _with_more_scans(progressive, MAX_SCANS)
    assert {has_too_many_scans(many[:length]) for length in range(0, len(many), 97)} == {False, True}


def _jpeg_of_ff(progressive: bytes, length: int) -> bytes:
    """Returns a JPEG of 100 scans whose last one is a run of FF bytes that 00 ends."""
    return _with_more_scans(progressive, MAX_SCANS - 10)[:-2] + b"\xff\xda\xff" + b"\xff" * length + b"\0"


def _gif_of_small_blocks(gif: bytes, count: int) -> bytes:
    """Returns a GIF with a comment of so many sub-blocks of one byte before its frame."""
    frame = gif.index(b"\x2c\0\0\0\0")
    return gif[:frame] + b"\x21\xfe" + b"\x01x" * count + b"\0" + gif[frame:]


@pytest.mark.parametrize("make", [_jpeg_of_ff, _gif_of_small_blocks], ids=["JPEG-of-FF", "GIF-of-small-blocks"])
def test_twice_the_bytes_cost_at_most_twice_the_time(
    progressive: bytes, small_cat: Pixels, make: Callable[[bytes, int], bytes]
) -> None:
    seed = progressive if make is _jpeg_of_ff else encode(small_cat, "GIF")

    def seconds(length: int) -> float:
        encoded = make(seed, length)
        began = time.thread_time()
        with contextlib.suppress(ImageError):
            decode(encoded)
        return time.thread_time() - began

    def fastest(length: int) -> float:
        return min(seconds(length) for _ in range(3))

    # A quadratic search needed 8 s for 40 kB of FF.
    assert fastest(1_000_000) < 1
    assert fastest(4_000_000) < 3 * fastest(2_000_000) + 0.05


def test_a_jpeg_of_more_segments_than_any_encoder_writes_is_refused(progressive: bytes) -> None:
    many = _with_more_scans(progressive, MAX_SCANS - 10).replace(b"\xff\xda", b"\xff\xe5\0\2" * 200 + b"\xff\xda")
    with_scans_inside = with_jpeg_segment(many, EXIF, b"\xff\xda" * 100)
    assert has_too_many_scans(with_scans_inside)


def test_a_gif_of_endless_blocks_before_its_frame_is_refused(small_cat: Pixels) -> None:
    gif = encode(small_cat, "GIF")
    assert decode(_gif_of_small_blocks(gif, MAX_BLOCKS // 2)).format == "GIF"
    with pytest.raises(CorruptImageError, match="more than 200,000 blocks before its first frame"):
        decode(_gif_of_small_blocks(gif, MAX_BLOCKS))


def test_blocks_without_end_behind_the_first_frame_do_not_matter(small_cat: Pixels) -> None:
    gif = encode(small_cat, "GIF")
    assert "first_frame" not in decode(gif[:-1] + b"\0" * MAX_BLOCKS + gif[-1:]).adjustments


def test_exif_that_lists_more_than_it_has_costs_nothing(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "JPEG")
    segments = with_jpeg_segment(b"", EXIF, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff") * 9000
    began = time.thread_time()
    assert decode(encoded[:2] + segments + encoded[2:]).adjustments == ()
    assert time.thread_time() - began < 0.5
