"""A JPEG of more scans than any encoder writes is refused, and its scans are counted right."""

from __future__ import annotations

import numpy as np
import pytest

from app.errors import CorruptImageError
from app.images.decode import decode
from app.images.header_checks import MAX_SCANS, has_too_many_scans
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
