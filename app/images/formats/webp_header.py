"""The size of a WebP, read before its decoder is made, which allocates two canvases at once.

Source: RFC 9649, sections 2.5 to 2.7 and 3.4; RFC 6386, section 9.1.
"""

from __future__ import annotations

from typing import Final

from app.images.outline import Outline

_CONTENT: Final = 20  # behind RIFF's header of 12 bytes and the first chunk's of 8
_KEY_FRAME_START: Final = b"\x9d\x01\x2a"


def outline_webp(encoded: bytes | bytearray | memoryview) -> Outline:
    """Reads the size of the canvas; None where the header makes no sense, which the decoder then tells."""
    return Outline(encoded, size=_size(bytes(encoded[12:16]), bytes(encoded[_CONTENT : _CONTENT + 10])))


def _size(kind: bytes, content: bytes) -> tuple[int, int] | None:
    if len(content) < 10:
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(content[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and content[3:6] == _KEY_FRAME_START:
        return int.from_bytes(content[6:8], "little") & 0x3FFF, int.from_bytes(content[8:10], "little") & 0x3FFF
    return None
