"""The size of the pictures that an AV1 stream announces, which may be larger than the AVIF around it says.

Source: AV1 Bitstream & Decoding Process Specification, sections 4.10, 5.3 to 5.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from app.errors import CorruptImageError

_MAX_UNITS: Final = 10_000  # a picture has a handful, or one for each of its tiles, at most 4,096
_SEQUENCE_HEADER: Final = 1
_HEADER_BYTES: Final = 512  # far more than one can have up to the size, with all 32 operating points


def largest_frame(streams: Iterable[memoryview]) -> tuple[int, int]:
    """Returns the width and the height that no frame of some streams exceeds; 0 and 0 where they announce none.

    Raises:
        CorruptImageError: the streams have more units than any encoder writes.
    """
    width, height = 0, 0
    units = (unit for stream in streams for unit in _units(stream))
    for kind, content in islice(units, _MAX_UNITS):
        if kind == _SEQUENCE_HEADER:
            size = _frame_size(_Bits(bytes(content[:_HEADER_BYTES])))
            width, height = max(width, size[0]), max(height, size[1])
    if next(units, None) is not None:
        raise CorruptImageError(f"The AVIF image has more than {_MAX_UNITS:,} units of AV1, which no encoder writes.")
    return width, height


def _units(stream: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Gives the type and the content of each unit (OBU)."""
    position = 0
    while position < len(stream):
        head = stream[position]
        position += 2 if head & 0b100 else 1  # a byte more for layers
        end = len(stream)
        if head & 0b10:  # the size is told
            size, position = _leb128(stream, position)
            end = position + size
        yield head >> 3 & 15, stream[position:end]
        position = end


def _leb128(stream: memoryview, position: int) -> tuple[int, int]:
    """Returns a number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 56, 7):
        byte = stream[position] if position < len(stream) else 0
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
    return value, position


class _Bits:
    """Reads numbers of any length in bits; 0 behind the end."""

    def __init__(self, content: bytes) -> None:
        self._bits = int.from_bytes(content, "big")
        self._left = 8 * len(content)

    def read(self, length: int) -> int:
        self._left -= length
        value = self._bits >> self._left if self._left >= 0 else self._bits << -self._left
        return value & (1 << length) - 1

    def skip_exponential(self) -> None:
        """Passes a number that tells its own length (uvlc)."""
        zeros = 0
        while self._left > 0 and not self.read(1):
            zeros += 1
        if zeros < 32:
            self.read(zeros)


def _frame_size(bits: _Bits) -> tuple[int, int]:
    """Returns the largest width and height of a sequence header."""
    bits.read(3 + 1)  # profile, still picture
    if bits.read(1):  # reduced header of a still picture
        bits.read(5)
    else:
        delay_bits = 0
        has_decoder_model = False
        if bits.read(1):  # timing
            bits.read(64)
            if bits.read(1):
                bits.skip_exponential()
            has_decoder_model = bool(bits.read(1))
            if has_decoder_model:
                delay_bits = bits.read(5) + 1
                bits.read(32 + 5 + 5)
        has_display_delay = bits.read(1)
        for _ in range(bits.read(5) + 1):  # operating points
            bits.read(12)
            if bits.read(5) > 7:
                bits.read(1)
            if has_decoder_model and bits.read(1):
                bits.read(2 * delay_bits + 1)
            if has_display_delay and bits.read(1):
                bits.read(4)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(width_bits) + 1, bits.read(height_bits) + 1
