"""Which colour space an AVIF announces by numbers: its `nclx`, which Pillow does not tell.

file -> meta -> the primary item (pitm) -> its properties (iprp: ipma, ipco) -> colr
Source: ISO/IEC 23008-12 (HEIF), section 6.5, and ISO/IEC 14496-12, section 8.11.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from app.images.coded_colour import of_code_points
from app.images.outline import Outline

_MAX_BOXES: Final = 1000


def outline_avif(encoded: bytes | bytearray | memoryview) -> Outline:
    """Reads the colour space that is told by numbers."""
    numbers = code_points(encoded)
    return Outline(encoded, colour=of_code_points(*numbers) if numbers else None)


def code_points(encoded: bytes | bytearray | memoryview) -> tuple[int, int] | None:
    """Returns the numbers of primaries and transfer (ITU-T H.273) of the primary item, or None where none are told."""
    meta = _find(memoryview(encoded), b"meta")[4:]  # a version and flags stand first
    items = _find(meta, b"pitm")
    primary = _number(items[4:], 4 if _number(items, 1) else 2)
    properties = _find(meta, b"iprp")
    boxes = list(_boxes(_find(properties, b"ipco")))
    for index in _properties_of(primary, _find(properties, b"ipma")):
        if 1 <= index <= len(boxes):
            kind, content = boxes[index - 1]
            if kind == b"colr" and bytes(content[:4]) == b"nclx" and len(content) >= 8:
                return _number(content[4:], 2), _number(content[6:], 2)
    return None


def _boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Gives the kind and the content of each box, as far as they fit."""
    position = 0
    for _ in range(_MAX_BOXES):
        size, kind, head = _number(content[position:], 4), bytes(content[position + 4 : position + 8]), 8
        if size == 1:
            size, head = _number(content[position + 8 :], 8), 16
        elif size == 0:  # to the end
            size = len(content) - position
        if len(kind) < 4 or size < head:
            return
        yield kind, content[position + head : position + size]
        position += size


def _find(content: memoryview, wanted: bytes) -> memoryview:
    """Returns the content of the first box of a kind; nothing where there is none."""
    return next((inside for kind, inside in _boxes(content) if kind == wanted), memoryview(b""))


def _properties_of(item: int, associations: memoryview) -> Iterator[int]:
    """Gives the numbers of an item's properties, from 1, as the box `ipma` lists them."""
    id_bytes = 4 if _number(associations, 1) else 2
    index_bytes = 2 if _number(associations[3:], 1) & 1 else 1
    position = 8
    for _ in range(min(_number(associations[4:], 4), _MAX_BOXES)):
        listed = _number(associations[position:], id_bytes)
        count = _number(associations[position + id_bytes :], 1)
        position += id_bytes + 1
        if listed == item:
            # The uppermost bit says whether a decoder must understand the property.
            mask = (1 << 8 * index_bytes - 1) - 1
            starts = range(position, position + count * index_bytes, index_bytes)
            yield from (_number(associations[start:], index_bytes) & mask for start in starts)
        position += count * index_bytes


def _number(content: memoryview, length: int) -> int:
    """Returns a big-endian number; 0 where the content ends."""
    return int.from_bytes(content[:length], "big")
