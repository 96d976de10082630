"""Makes images for tests: encoded ones, hand-made files that no encoder writes, and hostile ones.

pixels (H, W, 3) uint8 -> `encode` | `png` | `tiff` | `gif` -> bytes -> the code under test
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

PHOTO_NAMES: Final = ("cat", "coffee", "rocket", "china", "flower")  # of the fixture `photos`
EXIF_ORIENTATIONS: Final = range(1, 9)
_ORIENTATION_TAG: Final = 0x0112


def encode(image: Image.Image | npt.NDArray[Any], image_format: str, **options: Any) -> bytes:
    """Returns the image as a file of the given Pillow format; `options` are Pillow's for saving."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    """Returns EXIF metadata with nothing but an orientation."""
    metadata = Image.Exif()
    metadata[_ORIENTATION_TAG] = orientation
    return metadata


def lay_down(upright: Pixels, orientation: int) -> Pixels:
    """Returns the pixels as a camera that announces this EXIF orientation stores them (EXIF 2.32, table 6).

    The table says which visual side the stored row 0 and column 0 are: 1 top left, 2 top right, 3 bottom right,
    4 bottom left, 5 left top, 6 right top, 7 right bottom, 8 left bottom.
    """
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    return np.ascontiguousarray(stored)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Returns one PNG chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    rows: Sequence[bytes],
    *,
    width: int,
    bit_depth: int,
    colour_type: int,
    before_pixels: Sequence[tuple[bytes, bytes]] = (),
    height: int | None = None,
) -> bytes:
    """Returns a PNG of packed rows, for depths and chunks that Pillow does not write (W3C PNG, 3rd edition)."""
    header = struct.pack(">IIBBBBB", width, len(rows) if height is None else height, bit_depth, colour_type, 0, 0, 0)
    unfiltered = b"".join(b"\0" + row for row in rows)
    chunks = [(b"IHDR", header), *before_pixels, (b"IDAT", zlib.compress(unfiltered)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, content) for kind, content in chunks)


def pack_bits(samples: npt.NDArray[Any], bit_depth: int) -> list[bytes]:
    """Packs rows of samples, most significant bit first, each row padded to a whole byte."""
    shifts = np.arange(bit_depth - 1, -1, -1)
    bits = (samples[..., None].astype(np.uint32) >> shifts) & 1  # (H, W, bit_depth)
    return [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in bits]


def tiff(
    strip: bytes,
    tags: Mapping[int, tuple[int, Sequence[int]]],
    *,
    byte_order: str = "<",
) -> bytes:
    """Returns a TIFF of one strip or tile (TIFF 6.0).

    Args:
        strip: the pixels, as the tags describe them.
        tags: number -> (type, values), type 3 being SHORT and 4 LONG; StripOffsets (273) or TileOffsets (324), where
            given, is filled in.
        byte_order: "<" or ">".
    """
    size_of = {3: 2, 4: 4}
    directory_offset = 8
    outside_offset = directory_offset + 2 + 12 * len(tags) + 4
    entries, outside = b"", b""
    strip_offset = outside_offset + sum(
        size_of[kind] * len(values) for kind, values in tags.values() if size_of[kind] * len(values) > 4
    )
    for number, (kind, values) in sorted(tags.items()):
        values = [strip_offset] if number in {273, 324} else values
        packed = b"".join(struct.pack(byte_order + {3: "H", 4: "I"}[kind], value) for value in values)
        if len(packed) > 4:
            place = struct.pack(byte_order + "I", outside_offset + len(outside))
            outside += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack(byte_order + "HHI", number, kind, len(values)) + place
    head = (b"II" if byte_order == "<" else b"MM") + struct.pack(byte_order + "HI", 42, directory_offset)
    return head + struct.pack(byte_order + "H", len(tags)) + entries + b"\0\0\0\0" + outside + strip


def grey_tiff(
    samples: npt.NDArray[np.uint16], *, bits: int = 16, white_is_zero: bool = False, byte_order: str = "<"
) -> bytes:
    """Returns an uncompressed grey TIFF of 9 to 16 bits."""
    height, width = samples.shape
    packed = pack_bits(samples, bits) if bits != 16 else [row.astype(byte_order + "u2").tobytes() for row in samples]
    strip = b"".join(packed)
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits]),
        259: (3, [1]),
        262: (3, [0 if white_is_zero else 1]),
        273: (4, [0]),
        277: (3, [1]),
        278: (4, [height]),
        279: (4, [len(strip)]),
    }
    return tiff(strip, tags, byte_order=byte_order)


def with_jpeg_segment(encoded: bytes, marker: int, content: bytes) -> bytes:
    """Inserts an application segment behind a JPEG's first two bytes."""
    return encoded[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + encoded[2:]


def without_jpeg_segments(encoded: bytes, marker: int) -> bytes:
    """Removes the application segments with this marker from a JPEG."""
    kept, position = encoded[:2], 2
    while encoded[position + 1] != 0xDA:  # start of scan
        end = position + 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
        if encoded[position + 1] != marker:
            kept += encoded[position:end]
        position = end
    return kept + encoded[position:]


def interlaced_png(pixels: Pixels) -> bytes:
    """Returns an RGB PNG in Adam7 order (W3C PNG, section 8), which Pillow reads but does not write."""
    height, width, _ = pixels.shape
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    filtered = b"".join(
        b"\0" + row.tobytes()
        for first_row, first_column, row_step, column_step in passes
        for row in pixels[first_row::row_step, first_column::column_step]
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, content) for kind, content in chunks)
