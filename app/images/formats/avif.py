"""The outline of an AVIF: an AV1 picture in a HEIF container, or several that make one.

boxes -> the colour space in numbers -> the streams of AV1 -> the size that these announce

libavif decodes what AV1's own header says and scales it to the size that the container says, which alone Pillow tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from app.errors import CorruptImageError
from app.images.coded_colour import of_code_points
from app.images.formats.av1_headers import largest_frame
from app.images.formats.heif_boxes import IN_FILE, IN_IDAT, Items, boxes_of, find_box, number, read_items
from app.images.outline import Outline

_BESIDE_PLANES: Final = 1  # a plane of alpha, or about as much that dav1d holds itself


def outline_avif(encoded: bytes | bytearray | memoryview) -> Outline:
    """Reads what Pillow does not tell: the colour space in numbers, and the size of the pictures that are coded.

    Raises:
        CorruptImageError: the file has more parts than any encoder writes, or refers to more data than it has.
    """
    items = read_items(encoded)
    numbers = items.code_points(items.primary)
    width, height = coded = largest_frame(_av1_streams(memoryview(encoded), items))
    canvas = items.size(items.primary) if items.parts(items.primary) else None  # of the whole grid
    pixels = width * height + (canvas[0] * canvas[1] if canvas else 0)
    return Outline(
        encoded,
        coded_size=coded if width else None,
        colour=of_code_points(*numbers) if numbers else None,
        decoder_bytes=int(pixels * _plane_bytes(items)),
    )


def _av1_streams(encoded: memoryview, items: Items) -> Iterator[memoryview]:
    """Gives the bytes of every picture that libavif may decode: items, and the first one of each track."""
    kinds, left = items.kinds(), len(encoded)
    for method, place in ((IN_FILE, encoded), (IN_IDAT, find_box(items.meta, b"idat"))):
        for item, extents in items.extents(method).items():
            if kinds.get(item) != b"av01":
                continue
            parts = [place[offset : offset + length] if length else place[offset:] for offset, length in extents]
            left -= sum(map(len, parts))
            if left < 0:
                raise CorruptImageError("The AVIF image refers to more data than it has.")
            yield parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
    for kind, track in boxes_of(find_box(encoded, b"moov")):
        if kind == b"trak":
            yield _first_sample(encoded, track)


def _first_sample(encoded: memoryview, track: memoryview) -> memoryview:
    table = track
    for kind in (b"mdia", b"minf", b"stbl"):
        table = find_box(table, kind)
    sizes, places, far_places = (find_box(table, kind) for kind in (b"stsz", b"stco", b"co64"))
    size = number(sizes[4:], 4) or number(sizes[12:], 4)
    place = number(places[8:], 4) or number(far_places[8:], 8)
    return encoded[place : place + size]


def _plane_bytes(items: Items) -> float:
    """Returns the bytes of a pixel in the planes of the picture: 1.5 with 4:2:0, twice as many above 8 bits.

    Source: AV1 Codec ISO Media File Format Binding, section 2.3.3 (`av1C`).
    """
    flags = next((number(content[2:], 1) for kind, content in items.properties(items.primary) if kind == b"av1C"), 0)
    across, down = flags >> 3 & 1, flags >> 2 & 1
    of_sample = 2 if flags & 0x40 else 1
    return of_sample * (1 + _BESIDE_PLANES + (0 if flags & 0x10 else 2 / ((1 + across) * (1 + down))))
