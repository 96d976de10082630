"""A format is known by the file's first bytes, never by a name or a declared type."""

from __future__ import annotations

import pytest

from app.images.limits import FORMATS, ImageFormat
from app.images.recognise import describe_unknown, recognise
from tests.support.images import Pixels, encode


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_is_recognised_by_its_first_64_bytes(small_cat: Pixels, image_format: ImageFormat) -> None:
    assert recognise(encode(small_cat, image_format)[:64]) == image_format


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        pytest.param(b"\xff\xd8\xff\xe1", "JPEG", id="JPEG-with-EXIF-first"),
        pytest.param(b"GIF87a", "GIF", id="GIF87a"),
        pytest.param(b"MM\0*\0\0\0\x08", "TIFF", id="TIFF-big-endian"),
        pytest.param(b"II+\0\x08\0\0\0", "TIFF", id="BigTIFF-little-endian"),
        pytest.param(b"MM\0+\0\x08\0\0", "TIFF", id="BigTIFF-big-endian"),
        pytest.param(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF", id="AVIF-behind-a-general-brand"),
        pytest.param(b"\0\0\0\x1cftypavis\0\0\0\0avismsf1", "AVIF", id="AVIF-sequence"),
        pytest.param(b"BM" + bytes(12) + b"\x0c\0\0\0", "BMP", id="BMP-of-OS/2"),
        pytest.param(b"RIFF\x10\0\0\0WAVEfmt ", None, id="a-sound"),
        pytest.param(b"BMW 3 series, a text that begins like a bitmap", None, id="a-text-that-begins-with-BM"),
        pytest.param(b"\xff\xd8", None, id="half-a-JPEG-signature"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_signatures(head: bytes, expected: str | None) -> None:
    assert recognise(head) == expected


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"\n<!DOCTYPE html><html>", "HTML"),
        (b"%PDF-1.7", "PDF"),
        (b'{"image": "..."}', "JSON"),
        (b"/9j/4AAQSkZJRgABAQ", "base64"),
        (b"data:image/png;base64,iVBORw0KGgo", "base64"),
        (b"\x00\x01\x02\x03", "not an image of any known format"),
    ],
    ids=["HEIC", "SVG", "HTML", "PDF", "JSON", "base64-JPEG", "data-URL", "unknown"],
)
def test_what_is_sent_by_mistake_is_named(head: bytes, words: str) -> None:
    assert recognise(head) is None
    assert words in describe_unknown(head)
