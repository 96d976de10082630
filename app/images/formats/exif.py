"""The one thing that is read from EXIF: how a camera was held."""

from __future__ import annotations

from typing import Final, Literal

_ORIENTATION: Final = 0x0112
_LENGTHS: Final = {1: 1, 3: 2, 4: 4}  # BYTE, SHORT, LONG
_MAX_ENTRIES: Final = 1000
_ORIENTATIONS: Final = range(1, 9)


def orientation_of(exif: bytes | bytearray | memoryview) -> int:
    """Returns the orientation, 1 to 8, of EXIF 2.32; 1 where there is none or it cannot be read.

    Args:
        exif: begins with a TIFF header, or with "Exif" and two zeros before that.
    """
    if bytes(exif[:6]) == b"Exif\0\0":
        exif = exif[6:]
    order: Literal["little", "big"] = "little" if bytes(exif[:2]) == b"II" else "big"

    def number(position: int, length: int) -> int:
        return int.from_bytes(exif[position : position + length], order)

    directory = number(4, 4)
    for entry in range(min(number(directory, 2), len(exif) // 12, _MAX_ENTRIES)):
        position = directory + 2 + 12 * entry
        if number(position, 2) == _ORIENTATION:
            orientation = number(position + 8, _LENGTHS.get(number(position + 2, 2), 0))
            return orientation if orientation in _ORIENTATIONS else 1
    return 1
