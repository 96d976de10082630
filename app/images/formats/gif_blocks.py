"""A GIF's blocks, walked through before Pillow sees them: size, palette, and whether a second frame follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from app.errors import CorruptImageError
from app.images.outline import Outline

MAX_BLOCKS: Final = 200_000
"""The most blocks and sub-blocks of a GIF that are walked through; 51 MB of full ones."""

_SCREEN: Final = slice(6, 10)
_FLAGS: Final = 10
_FIRST_BLOCK: Final = 13
_TRAILER: Final = 0x3B
_EXTENSION: Final = 0x21
_IMAGE: Final = 0x2C


def outline_gif(encoded: bytes | bytearray | memoryview) -> Outline:
    """Walks from block to block, as far as the file goes and to the second frame at most.

    Source: the GIF89a specification, sections 18 to 20; unknown blocks are passed by a byte at a time, as Pillow does.

    Raises:
        CorruptImageError: more than `MAX_BLOCKS` stand before the first frame.
    """
    content = memoryview(encoded)
    width, height = _words(content[_SCREEN], 2)
    has_palette = bool(_palette_bytes(content, _FLAGS))
    position = _FIRST_BLOCK + _palette_bytes(content, _FLAGS)
    frame = None
    has_second_frame = False
    blocks = iter(range(MAX_BLOCKS))
    for _ in blocks:
        block = content[position] if position < len(content) else _TRAILER
        position += 1
        has_second_frame = block == _IMAGE and frame is not None
        if block == _TRAILER or has_second_frame:
            break
        if block == _EXTENSION:
            position = _skip_data(content, position + 1, blocks)
        elif block == _IMAGE:
            left, top, frame_width, frame_height = _words(content[position : position + 8], 4)
            width, height = max(width, left + frame_width), max(height, top + frame_height)
            palette_bytes = _palette_bytes(content, position + 8)
            has_palette |= bool(palette_bytes)
            # Behind the descriptor and its palette stands one byte: how long LZW's first codes are.
            position = _skip_data(content, position + 9 + palette_bytes + 1, blocks)
            frame = (left, top, left + frame_width, top + frame_height)
    else:
        if frame is None:
            raise CorruptImageError(f"The GIF image has more than {MAX_BLOCKS:,} blocks before its first frame.")
    damage = "" if has_palette or frame is None else "The GIF image has no palette, which its pixels refer to."
    return Outline(encoded, (width, height), frame, has_second_frame, orientation=1, damage=damage)


def _palette_bytes(content: memoryview, flags_at: int) -> int:
    """Returns the length of the palette that these flags announce, 0 without one."""
    flags = content[flags_at] if flags_at < len(content) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_data(content: memoryview, position: int, blocks: Iterator[int]) -> int:
    """Returns where a row of sub-blocks ends; each begins with its length, and the last one is empty."""
    for _ in blocks:
        if position >= len(content) or not content[position]:
            break
        position += 1 + content[position]
    return position + 1


def _words(content: memoryview, count: int) -> tuple[int, ...]:
    """Returns 16-bit little-endian numbers; 0 where the content ends."""
    return tuple(int.from_bytes(content[2 * number : 2 * number + 2], "little") for number in range(count))
