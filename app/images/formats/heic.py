"""The outline of a HEIC, an iPhone's photo: HEVC in a HEIF container. libheif decodes it, if `pi_heif` is installed.

libheif turns and crops as the file says, so that EXIF's orientation must not be heeded again. What it does not tell is
damage: libde265 paints over what it cannot read. So the bytes are looked at here.
Source: ISO/IEC 14496-15, section 8.3 (HEVC), and ITU-T H.265, section 7.4.2.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

from app.images.coded_colour import of_code_points
from app.images.formats.heif_boxes import Items, number, read_items
from app.images.outline import Outline

_MAX_UNITS: Final = 20_000  # a tile has one to a few; 1,000 tiles make a picture of 260 megapixels
_PIECE_BYTES: Final = 1 << 20

if find_spec("pi_heif") is not None:
    import pi_heif

    # One thread, as all decoders here. What is beside the picture is not read.
    pi_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)


def outline_heic(encoded: bytes | bytearray | memoryview) -> Outline:
    """Reads the size, the colour space that is told by numbers, and whether every byte of the picture is there."""
    items = read_items(encoded)
    numbers = items.code_points(items.primary)
    return Outline(
        encoded,
        size=_upright_size(items),
        orientation=1,
        colour=of_code_points(*numbers) if numbers else None,
        damage=_damage(memoryview(encoded), items),
    )


def _upright_size(items: Items) -> tuple[int, int] | None:
    """Returns the size after turning; None if the file tells none, or if it crops the picture."""
    size = None
    for kind, content in items.properties(items.primary):
        if kind == b"clap":
            return None
        if kind == b"ispe":
            size = (number(content[4:], 4), number(content[8:], 4))
        if kind == b"irot" and number(content, 1) & 1 and size is not None:
            size = size[::-1]
    return size


def _damage(encoded: memoryview, items: Items) -> str:
    """Returns a sentence if bytes of the picture are missing or cannot be HEVC; else nothing."""
    if items.has_broken_names():
        return "The HEIC image is damaged: its list of parts has names that are no text."
    extents, units, left = items.extents(), 0, len(encoded)
    for item in dict.fromkeys(items.parts(items.primary) or [items.primary]):
        length_bytes = _length_bytes(items, item)
        for offset, length in extents.get(item, []):
            content = encoded[offset : offset + length] if length else encoded[offset:]
            if len(content) < length:
                return "The HEIC image is cut short: parts of the picture lie behind the end of the file."
            left -= len(content)
            if left < 0:
                return "The HEIC image refers to more data than it has."
            if length_bytes is None:
                continue
            for unit in _units(content, length_bytes):
                units += 1
                if units > _MAX_UNITS or _has_zeros(unit):
                    return "The HEIC image is damaged: parts of the picture are not HEVC."
    return ""


def _length_bytes(items: Items, item: int) -> int | None:
    """Returns the bytes of the length in front of each unit of an HEVC item; None for items of another kind."""
    for kind, content in items.properties(item):
        if kind == b"hvcC" and len(content) > 21:
            return (content[21] & 3) + 1
    return None


def _units(content: memoryview, length_bytes: int) -> Iterator[memoryview]:
    """Gives the units (NAL units) of an HEVC item, each with a length in front."""
    position = 0
    while position < len(content):
        end = position + length_bytes + number(content[position:], length_bytes)
        yield content[position + length_bytes : end]
        position = end


def _has_zeros(unit: memoryview) -> bool:
    """Says whether three zero bytes follow each other: HEVC never writes them, disks and transfers that fail do."""
    return any(
        b"\0\0\0" in bytes(unit[start : start + _PIECE_BYTES + 2]) for start in range(0, len(unit), _PIECE_BYTES)
    )
