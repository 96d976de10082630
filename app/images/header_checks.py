"""Finds images that ask for more work than their header says, before they are decoded.

JPEG: count the scans, each of which passes over the whole image
GIF: find the size that holds the first frame, which may be larger than the screen
"""

from __future__ import annotations

import re
from typing import Final

MAX_SCANS: Final = 100
"""The most scans of a JPEG. It is far more than encoders write: libjpeg's progressive script has 10. libtiff and GDAL
have the same limit.

Each scan may cost a few bytes in the file and 16 ms for 100 MP: without a limit, 0.5 MB kept a core busy for 18 s
(https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf).
"""

_START_OF_SCAN: Final = re.compile(rb"\xff\xda")
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])")
_WITHOUT_CONTENT: Final = {0x01, *range(0xD0, 0xD9)}  # TEM, RST0 to RST7, SOI
_SOS: Final = 0xDA
_EOI: Final = 0xD9

# GIF89a
_SCREEN: Final = slice(6, 10)
_FIRST_BLOCK: Final = 13
_TRAILER: Final = 0x3B
_EXTENSION: Final = 0x21
_IMAGE: Final = 0x2C


def has_too_many_scans(encoded: bytes | bytearray | memoryview) -> bool:
    """Returns whether a JPEG has more than `MAX_SCANS` scans, without decoding it."""
    # This is quick, and nearly always enough. The two bytes may also be in a thumbnail, or in a video behind the image.
    if sum(1 for _ in _START_OF_SCAN.finditer(encoded)) <= MAX_SCANS:
        return False
    return _count_scans(encoded) > MAX_SCANS


def _count_scans(encoded: bytes | bytearray | memoryview) -> int:
    """Counts the scans from marker to marker, as libjpeg walks through them (ITU-T T.81, B.1.1)."""
    scans, position = 0, 0
    while match := _MARKER.search(encoded, position):
        marker, position = match[1][0], match.end()
        if marker == _EOI:
            break
        if marker not in _WITHOUT_CONTENT:
            position += int.from_bytes(encoded[position : position + 2], "big")
        scans += marker == _SOS
    return scans


def size_with_first_frame(encoded: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Returns the width and height that hold a GIF's screen and its first frame, as far as the file goes.

    Source: the GIF89a specification, sections 18 to 20. Unknown blocks are skipped a byte at a time, as Pillow does.
    """
    content = memoryview(encoded)
    width, height = _words(content[_SCREEN], 2)
    position = _FIRST_BLOCK
    if len(content) > 10 and content[10] & 0x80:
        position += 3 << (content[10] & 7) + 1  # the global palette
    while position < len(content) and content[position] != _TRAILER:
        block = content[position]
        position += 1
        if block == _EXTENSION:
            position += 1
            while position < len(content) and content[position]:
                position += 1 + content[position]
            position += 1
        elif block == _IMAGE:
            left, top, frame_width, frame_height = _words(content[position : position + 8], 4)
            return max(width, left + frame_width), max(height, top + frame_height)
    return width, height


def _words(content: memoryview, count: int) -> tuple[int, ...]:
    """Returns the first 16-bit little-endian numbers of some bytes; 0 for those behind the end."""
    return tuple(int.from_bytes(content[2 * number : 2 * number + 2], "little") for number in range(count))
