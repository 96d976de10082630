"""Reads the boxes of an AVIF or HEIC: which item is the picture, its properties, and where its bytes lie.

file -> meta -> the primary item (pitm) -> its properties (iprp: ipma, ipco) -> colr, ispe, ...
Source: ISO/IEC 23008-12 (HEIF), sections 6 and 9.3, and ISO/IEC 14496-12, section 8.11.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from app.images.coded_colour import of_code_points
from app.images.outline import Outline

_MAX_BOXES: Final = 1000


def outline_avif(encoded: bytes | bytearray | memoryview) -> Outline:
    """Reads the colour space that is told by numbers, which Pillow does not tell."""
    items = read_items(encoded)
    numbers = items.code_points(items.primary)
    return Outline(encoded, colour=of_code_points(*numbers) if numbers else None)


@dataclass(frozen=True, slots=True)
class Items:
    """The items of a file, as its `meta` box describes them. What is missing or makes no sense is left out.

    Attributes:
        primary: the number of the item that is the picture.
        meta: the content of the box.
    """

    primary: int
    meta: memoryview = field(repr=False)

    def properties(self, item: int) -> Iterator[tuple[bytes, memoryview]]:
        """Gives the kind and the content of each property of an item."""
        properties = _find(self.meta, b"iprp")
        boxes = list(_boxes(_find(properties, b"ipco")))
        for index in _properties_of(item, _find(properties, b"ipma")):
            if 1 <= index <= len(boxes):
                yield boxes[index - 1]

    def code_points(self, item: int) -> tuple[int, int] | None:
        """Returns the numbers of primaries and transfer (ITU-T H.273) of an item, or None where none are told."""
        for kind, content in self.properties(item):
            if kind == b"colr" and bytes(content[:4]) == b"nclx" and len(content) >= 8:
                return number(content[4:], 2), number(content[6:], 2)
        return None

    def parts(self, item: int) -> list[int]:
        """Returns the items that an item is put together from, such as the tiles of a grid; none for a plain one."""
        references = _find(self.meta, b"iref")
        id_bytes = 4 if number(references, 1) else 2
        for kind, content in _boxes(references[4:]):
            if kind == b"dimg" and number(content, id_bytes) == item:
                count = min(number(content[id_bytes:], 2), _MAX_BOXES)
                starts = range(id_bytes + 2, id_bytes + 2 + count * id_bytes, id_bytes)
                return [number(content[start:], id_bytes) for start in starts]
        return []

    def extents(self) -> dict[int, list[tuple[int, int]]]:
        """Returns where the bytes of each item lie in the file, as offsets and lengths; 0 is a length up to the end."""
        box = _find(self.meta, b"iloc")
        version, sizes = number(box, 1), number(box[4:], 2)
        offset_bytes, length_bytes, base_bytes = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
        index_bytes = sizes & 15 if version else 0
        id_bytes = 4 if version == 2 else 2
        count, position = number(box[6:], id_bytes), 6 + id_bytes

        def take(length: int) -> int:
            nonlocal position
            position += length
            return number(box[position - length :], length)

        found: dict[int, list[tuple[int, int]]] = {}
        for _ in range(min(count, _MAX_BOXES)):
            item = take(id_bytes)
            method = take(2) & 15 if version else 0
            take(2)
            base, listed = take(base_bytes), []
            for _ in range(min(take(2), _MAX_BOXES)):
                take(index_bytes)
                listed.append((base + take(offset_bytes), take(length_bytes)))
            if position > len(box):
                break
            if method == 0:  # in the file; others lie in the box `idat`, or in another item
                found[item] = listed
        return found


def read_items(encoded: bytes | bytearray | memoryview) -> Items:
    """Returns the items of a file."""
    meta = _find(memoryview(encoded), b"meta")[4:]  # a version and flags stand first
    primary = _find(meta, b"pitm")
    return Items(number(primary[4:], 4 if number(primary, 1) else 2), meta)


def number(content: memoryview, length: int) -> int:
    """Returns a big-endian number; 0 where the content ends."""
    return int.from_bytes(content[:length], "big")


def _boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Gives the kind and the content of each box, as far as they fit."""
    position = 0
    for _ in range(_MAX_BOXES):
        size, kind, head = number(content[position:], 4), bytes(content[position + 4 : position + 8]), 8
        if size == 1:
            size, head = number(content[position + 8 :], 8), 16
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
    id_bytes = 4 if number(associations, 1) else 2
    index_bytes = 2 if number(associations[3:], 1) & 1 else 1
    position = 8
    for _ in range(min(number(associations[4:], 4), _MAX_BOXES)):
        listed = number(associations[position:], id_bytes)
        count = number(associations[position + id_bytes :], 1)
        position += id_bytes + 1
        if listed == item:
            # The uppermost bit says whether a decoder must understand the property.
            mask = (1 << 8 * index_bytes - 1) - 1
            starts = range(position, position + count * index_bytes, index_bytes)
            yield from (number(associations[start:], index_bytes) & mask for start in starts)
        position += count * index_bytes
