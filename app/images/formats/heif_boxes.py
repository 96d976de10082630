"""Reads the boxes of an AVIF or HEIC: which item is the picture, its properties, and where its bytes lie.

file -> meta -> the primary item (pitm) -> its properties (iprp: ipma, ipco) -> colr, ispe, ...
Source: ISO/IEC 23008-12 (HEIF), sections 6 and 9.3, and ISO/IEC 14496-12, section 8.11.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from app.errors import CorruptImageError

IN_FILE: Final = 0
"""The bytes of an item lie in the file (ISO/IEC 14496-12, section 8.11.3)."""

IN_IDAT: Final = 1
"""The bytes of an item lie in the box `idat`."""

_MAX_BOXES: Final = 1000
_MAX_PARTS: Final = 1000  # libheif's limit for items; a camera's picture has some tens of tiles


@dataclass(frozen=True, slots=True)
class Items:
    """The items of a file, as its `meta` box describes them. What is missing or makes no sense is left out.

    Attributes:
        primary: the number of the item that is the picture.
        meta: the content of the box.
    """

    primary: int
    meta: memoryview = field(repr=False)
    _properties: list[tuple[bytes, memoryview]] = field(repr=False)
    _associations: dict[int, list[int]] = field(repr=False)

    def properties(self, item: int) -> Iterator[tuple[bytes, memoryview]]:
        """Gives the kind and the content of each property of an item."""
        for index in self._associations.get(item, ()):
            if 1 <= index <= len(self._properties):
                yield self._properties[index - 1]

    def code_points(self, item: int) -> tuple[int, int] | None:
        """Returns the numbers of primaries and transfer (ITU-T H.273) of an item, or None where none are told."""
        for kind, content in self.properties(item):
            if kind == b"colr" and bytes(content[:4]) == b"nclx" and len(content) >= 8:
                return number(content[4:], 2), number(content[6:], 2)
        return None

    def size(self, item: int) -> tuple[int, int] | None:
        """Returns the width and the height of an item in pixels, before it is turned; None where none are told."""
        for kind, content in self.properties(item):
            if kind == b"ispe":
                return number(content[4:], 4), number(content[8:], 4)
        return None

    def kinds(self) -> dict[int, bytes]:
        """Returns the kind of each item, such as `av01` or `grid`."""
        box = find_box(self.meta, b"iinf")
        found = {}
        for _, content in boxes_of(box[8 if number(box, 1) else 6 :]):
            id_bytes = 4 if number(content, 1) == 3 else 2
            found[number(content[4:], id_bytes)] = bytes(content[6 + id_bytes : 10 + id_bytes])
        return found

    def has_broken_names(self) -> bool:
        """Returns whether the kind or the name of an item is no text, over which pi_heif 1.4.0 crashes."""
        box = find_box(self.meta, b"iinf")
        for _, content in boxes_of(box[8 if number(box, 1) else 6 :]):
            try:
                str(content[8 if number(content, 1) < 3 else 10 :], "utf-8")
            except UnicodeDecodeError:
                return True
        return False

    def parts(self, item: int) -> list[int]:
        """Returns the items that an item is put together from, such as the tiles of a grid; none for a plain one."""
        references = find_box(self.meta, b"iref")
        id_bytes = 4 if number(references, 1) else 2
        for kind, content in boxes_of(references[4:]):
            if kind == b"dimg" and number(content, id_bytes) == item:
                count = min(number(content[id_bytes:], 2), _MAX_BOXES)
                starts = range(id_bytes + 2, id_bytes + 2 + count * id_bytes, id_bytes)
                return [number(content[start:], id_bytes) for start in starts]
        return []

    def extents(self, place: int = IN_FILE) -> dict[int, list[tuple[int, int]]]:
        """Returns where the bytes of each item lie, as offsets and lengths; 0 is a length up to the end.

        Args:
            place: `IN_FILE` for items whose bytes lie in the file, `IN_IDAT` for those in the box `idat`.

        Raises:
            CorruptImageError: there are more items, or more pieces of them, than any encoder writes.
        """
        box = find_box(self.meta, b"iloc")
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
        left = _MAX_PARTS
        for _ in range(count):
            item = take(id_bytes)
            method = take(2) & 15 if version else 0
            take(2)
            base, listed, pieces = take(base_bytes), [], take(2)
            left -= max(pieces, 1)
            if left < 0:
                raise CorruptImageError(f"The image consists of more than {_MAX_PARTS:,} pieces.")
            for _ in range(pieces):
                take(index_bytes)
                listed.append((base + take(offset_bytes), take(length_bytes)))
            if position > len(box):
                break
            if method == place:
                found[item] = listed
        return found


def read_items(encoded: bytes | bytearray | memoryview) -> Items:
    """Returns the items of a file."""
    meta = find_box(memoryview(encoded), b"meta")[4:]  # a version and flags stand first
    primary = find_box(meta, b"pitm")
    properties = find_box(meta, b"iprp")
    return Items(
        number(primary[4:], 4 if number(primary, 1) else 2),
        meta,
        list(boxes_of(find_box(properties, b"ipco"))),
        _associations(find_box(properties, b"ipma")),
    )


def number(content: memoryview, length: int) -> int:
    """Returns a big-endian number; 0 where the content ends."""
    return int.from_bytes(content[:length], "big")


def boxes_of(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
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


def find_box(content: memoryview, wanted: bytes) -> memoryview:
    """Returns the content of the first box of a kind; nothing where there is none."""
    return next((inside for kind, inside in boxes_of(content) if kind == wanted), memoryview(b""))


def _associations(box: memoryview) -> dict[int, list[int]]:
    """Returns the numbers of each item's properties, from 1, as the box `ipma` lists them."""
    id_bytes = 4 if number(box, 1) else 2
    index_bytes = 2 if number(box[3:], 1) & 1 else 1
    # The uppermost bit says whether a decoder must understand the property.
    mask = (1 << 8 * index_bytes - 1) - 1
    found: dict[int, list[int]] = {}
    position = 8
    for _ in range(min(number(box[4:], 4), _MAX_BOXES)):
        if position >= len(box):
            break
        item, count = number(box[position:], id_bytes), number(box[position + id_bytes :], 1)
        position += id_bytes + 1
        starts = range(position, position + count * index_bytes, index_bytes)
        found.setdefault(item, []).extend(number(box[start:], index_bytes) & mask for start in starts)
        position += count * index_bytes
    return found
