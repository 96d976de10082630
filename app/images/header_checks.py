"""How much work a JPEG asks for beyond its pixels: the scans that each pass over the whole image.

decode: header checked -> scans counted -> Pillow decodes
"""

from __future__ import annotations

import re
from typing import Final

_SCREEN: Final = slice(6, 10)

_FIRST_BLOCK: Final = 13

_TRAILER: Final = 0x3B

_EXTENSION: Final = 0x21

_IMAGE: Final = 0x2C

MAX_SCANS: Final = 100
"""Far more than encoders write (libjpeg's progressive script has 10), and where libtiff and GDAL stop too.

Each scan may cost a few bytes in the file and 16 ms for 100 MP: without a limit, 0.5 MB kept a core busy for 18 s
(https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf).
"""

_START_OF_SCAN: Final = re.compile(rb"\xff\xda")
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])")
_WITHOUT_CONTENT: Final = {0x01, *range(0xD0, 0xD9)}  # TEM, RST0 to RST7, SOI
_SOS: Final = 0xDA
_EOI: Final = 0xD9


def has_too_many_scans(encoded: bytes | bytearray | memoryview) -> bool:
    """Tells whether the image has more than `MAX_SCANS` scans, without decoding."""
    # Quick, and nearly always enough. Two such bytes may also stand in a thumbnail, or in a video behind the image.
    if sum(1 for _ in _START_OF_SCAN.finditer(encoded)) <= MAX_SCANS:
        return False
    return _count_scans(encoded) > MAX_SCANS


def _count_scans(encoded: bytes | bytearray | memoryview) -> int:
    """Walks from marker to marker as libjpeg does (ITU-T T.81, B.1.1)."""
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
    """Returns the width and height that hold the screen and the first frame, as far as the file goes.

    Source: the GIF89a specification, sections 18 to 20; unknown blocks are passed by a byte at a time, as Pillow does.
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
    """Returns 16-bit little-endian numbers; 0 where the content ends."""
    return tuple(int.from_bytes(content[2 * number : 2 * number + 2], "little") for number in range(count))
