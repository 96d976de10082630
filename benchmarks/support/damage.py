"""Damages images: for `benchmarks.fuzz` and `benchmarks.soak`.

a file of every structure -> `damaged` -> the decoder, or a request's body
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import skimage.data

from tests.support.file_structures import structures

_INTERESTING = (
    b"\0",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\0\0",
    b"\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
)
_HEADER_BYTES = 600
_METADATA = (b"Exif", b"ICC_PROFILE", b"iCCP", b"eXIf", b"ICCP", b"EXIF", b"acTL", b"colr", b"acsp")


def real_images() -> list[bytes]:
    """Returns a photo in every file structure that is parsed in a way of its own."""
    cat = skimage.data.chelsea()[60:252:4, 100:356:4]  # type: ignore[no-untyped-call]
    return list(structures(np.ascontiguousarray(cat)).values())


def damaged(images: list[bytes], rng: random.Random) -> bytes:
    """Returns one of the images with one to three kinds of damage."""
    encoded = bytearray(rng.choice(images))
    for _ in range(rng.choice((1, 1, 2, 3))):
        if len(encoded) < 8:
            break
        rng.choice(_DAMAGES)(encoded, images, rng)
    return bytes(encoded)


def _change_bytes(encoded: bytearray, _: list[bytes], rng: random.Random) -> None:
    for _i in range(rng.randint(1, 12)):
        encoded[rng.randrange(len(encoded))] = rng.randrange(256)


def _change_header(encoded: bytearray, _: list[bytes], rng: random.Random) -> None:
    for _i in range(rng.randint(1, 8)):
        position, value = rng.randrange(min(len(encoded), _HEADER_BYTES)), rng.choice(_INTERESTING)
        encoded[position : position + len(value)] = value


def _change_number(encoded: bytearray, _: list[bytes], rng: random.Random) -> None:
    """Lengths, sizes and offsets: 16 or 32 bits, in either order."""
    kind = rng.choice(("<H", ">H", "<I", ">I"))
    position = rng.randrange(min(len(encoded), _HEADER_BYTES))
    size = struct.calcsize(kind)
    number = rng.choice((0, 1, 2, 255, 256, 0x7FFF, 0x8000, 0xFFFF, len(encoded), rng.getrandbits(8 * size)))
    encoded[position : position + size] = struct.pack(kind, number % 2 ** (8 * size))


def _cut_short(encoded: bytearray, _: list[bytes], rng: random.Random) -> None:
    del encoded[rng.randrange(4, len(encoded)) :]


def _cut_out(encoded: bytearray, _: list[bytes], rng: random.Random) -> None:
    start = rng.randrange(4, len(encoded))
    del encoded[start : start + rng.randint(1, 200)]


def _repeat(encoded: bytearray, _: list[bytes], rng: random.Random) -> None:
    start = rng.randrange(len(encoded))
    encoded[start:start] = encoded[start : start + rng.randint(1, 500)] * rng.choice((1, 2, 50))


def _splice(encoded: bytearray, images: list[bytes], rng: random.Random) -> None:
    other = rng.choice(images)
    start = rng.randrange(len(other))
    position = rng.randrange(4, len(encoded))
    encoded[position : position + rng.choice((0, 100))] = other[start : start + rng.randint(1, 1000)]


def _change_metadata(encoded: bytearray, images: list[bytes], rng: random.Random) -> None:
    """EXIF, ICC and the like: where the file has some."""
    found = [position for name in _METADATA if (position := encoded.find(name)) >= 0]
    if not found:
        return _change_header(encoded, images, rng)
    start = rng.choice(found)
    for _i in range(rng.randint(1, 8)):
        encoded[min(start + rng.randrange(200), len(encoded) - 1)] = rng.choice(
            (0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))
        )
    return None


def _mend_png(encoded: bytearray, images: list[bytes], rng: random.Random) -> None:
    """Damages a PNG's chunk and sets its checksum right, so that the damage gets behind the checksum."""
    if not encoded.startswith(b"\x89PNG"):
        return _change_number(encoded, images, rng)
    position, chunks = 8, []
    while position + 12 <= len(encoded):
        length = int.from_bytes(encoded[position : position + 4], "big")
        if position + 12 + length > len(encoded):
            break
        chunks.append((position + 4, length))
        position += 12 + length
    if chunks:
        start, length = rng.choice(chunks)
        if length:
            encoded[start + 4 + rng.randrange(length)] = rng.randrange(256)
        encoded[start + 4 + length : start + 8 + length] = struct.pack(
            ">I", zlib.crc32(encoded[start : start + 4 + length])
        )
    return None


_DAMAGES: tuple[Callable[[bytearray, list[bytes], random.Random], None], ...] = (
    _change_bytes,
    _change_header,
    _change_number,
    _cut_short,
    _cut_out,
    _repeat,
    _splice,
    _change_metadata,
    _mend_png,
)
