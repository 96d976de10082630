"""How large a GIF's first frame makes it, read before any library allocates for it.

decode: recognised as GIF -> screen and first frame against the limit -> Pillow

A frame may lie beyond the screen, up to 131,070 pixels each way. Pillow takes the memory of such a frame when it opens
the file, before anybody can ask for the size: 1.8 kB that fuzzing found took 3.2 GB.
"""

from __future__ import annotations

from typing import Final

_SCREEN: Final = slice(6, 10)
_FIRST_BLOCK: Final = 13
_TRAILER: Final = 0x3B
_EXTENSION: Final = 0x21
_IMAGE: Final = 0x2C


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
