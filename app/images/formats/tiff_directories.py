"""A TIFF's directories, read before Pillow sees them: which page is the picture, and whether it is a camera's raw data.

header -> directories, one behind the other, and those inside them -> the first page of full size
Source: TIFF 6.0, its Supplement 1 (SubIFDs), Adobe's DNG specification, and BigTIFF.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from app.errors import CorruptImageError, UnsupportedFormatError
from app.images.outline import Outline

_MAX_DIRECTORIES: Final = 100
_MAX_VALUES: Final = 1000
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

_NEW_SUBFILE_TYPE: Final = 254
_SUBFILE_TYPE: Final = 255
_WIDTH: Final = 256
_LENGTH: Final = 257
_BITS: Final = 258
_COMPRESSION: Final = 259
_PHOTOMETRIC: Final = 262
_STRIP_OFFSETS: Final = 273
_ORIENTATION: Final = 274
_SAMPLES: Final = 277
_ROWS_PER_STRIP: Final = 278
_TILE_OFFSETS: Final = 324
_SUB_DIRECTORIES: Final = 330
_EXTRA_SAMPLES: Final = 338
_SAMPLE_FORMAT: Final = 339
_DNG_VERSION: Final = 50706

_SENSOR_PHOTOMETRICS: Final = {32803, 34892}  # colour filter array, linear raw
_SENSOR_COMPRESSIONS: Final = {32767, 34713, 65000, 65535}  # Sony, Nikon, Kodak, Pentax
_PHOTOMETRICS: Final = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"}
_FORMATS: Final = {1: "unsigned", 2: "signed", 3: "floating-point"}


@dataclass(frozen=True, slots=True)
class _Directory:
    """One page.

    Attributes:
        position: where the directory begins in the file.
        tags: the first `_MAX_VALUES` values of each tag of whole numbers.
        counts: how many values each tag has.
        following: where the next directory begins; 0 behind the last one.
        is_whole: whether it has pixels, and they and all values begin or lie inside the file.
    """

    position: int
    tags: dict[int, list[int]]
    counts: dict[int, int]
    following: int
    is_whole: bool

    def value(self, tag: int, default: int) -> int:
        values = self.tags.get(tag)
        return values[0] if values else default

    @property
    def is_picture(self) -> bool:
        """Neither a reduced copy of another page nor a mask."""
        is_secondary = self.value(_NEW_SUBFILE_TYPE, 0) & 0b101 or self.value(_SUBFILE_TYPE, 1) == 2
        return not is_secondary and self.value(_WIDTH, 0) > 0 and self.value(_LENGTH, 0) > 0

    @property
    def is_raw(self) -> bool:
        return (
            _DNG_VERSION in self.tags
            or self.value(_PHOTOMETRIC, 0) in _SENSOR_PHOTOMETRICS
            or self.value(_COMPRESSION, 1) in _SENSOR_COMPRESSIONS
        )


def outline_tiff(encoded: bytes | bytearray | memoryview) -> Outline:
    """Looks through the directories for the page that is the picture.

    Raises:
        CorruptImageError: the first directory refers to more data than the file has.
        UnsupportedFormatError: the file is a camera's raw data.
    """
    reader = _Reader(encoded)
    if bytes(encoded[8:10]) == b"CR":
        raise UnsupportedFormatError(_RAW)
    pages, inner = reader.pages()
    if any(directory.is_raw for directory in (*pages, *inner)):
        raise UnsupportedFormatError(_RAW)
    if not pages:
        raise CorruptImageError("The TIFF image is cut short before its first page, or its header is damaged.")
    pictures = [page for page in pages if page.is_picture]
    chosen = next(iter((*pictures, *(page for page in inner if page.is_picture))), pages[0])
    _check_strips(chosen)
    is_first = chosen is pages[0]
    return Outline(
        encoded if is_first else reader.beginning_with(chosen),
        is_animated=len(pictures) > 1,
        orientation=chosen.value(_ORIENTATION, 1),
        kind=_kind(chosen),
        mended=() if is_first else ("full_size_page",),
    )


_RAW: Final = "This is a camera raw file, the unprocessed data of a sensor. Send a JPEG or another developed image."


class _Reader:
    """Reads numbers and directories of one file; outside of it, numbers are 0."""

    def __init__(self, encoded: bytes | bytearray | memoryview) -> None:
        self._content = memoryview(encoded)
        self._order: Literal["little", "big"] = "little" if encoded[0] == 0x49 else "big"
        self._is_big = self._number(2, 2) == 43
        # Where the first directory is told, and how long an offset and a number of entries are.
        self._first_at, self._offset_bytes, self._count_bytes = (8, 8, 8) if self._is_big else (4, 4, 2)

    def pages(self) -> tuple[list[_Directory], list[_Directory]]:
        """Returns the directories one behind the other, and those inside them; `_MAX_DIRECTORIES` in all."""
        pages = list(self._chain(self._number(self._first_at, self._offset_bytes), _MAX_DIRECTORIES))
        places = [place for page in pages for place in page.tags.get(_SUB_DIRECTORIES, [])]
        inner = [self._directory(place) for place in places[: _MAX_DIRECTORIES - len(pages)]]
        return pages, [directory for directory in inner if directory is not None]

    def beginning_with(self, directory: _Directory) -> bytes:
        """Returns the file with another directory as its first."""
        offset = directory.position.to_bytes(self._offset_bytes, self._order)
        behind = self._first_at + self._offset_bytes
        return b"".join([self._content[: self._first_at], offset, self._content[behind:]])

    def _chain(self, position: int, most: int) -> Iterator[_Directory]:
        seen: set[int] = set()
        while position and position not in seen and len(seen) < most:
            seen.add(position)
            directory = self._directory(position)
            if directory is None:
                return
            yield directory
            position = directory.following

    def _directory(self, position: int) -> _Directory | None:
        entry_bytes = 20 if self._is_big else 12
        entries, start = self._number(position, self._count_bytes), position + self._count_bytes
        if not 0 < entries <= 0xFFFF or start + entries * entry_bytes > len(self._content):
            return None
        tags: dict[int, list[int]] = {}
        counts: dict[int, int] = {}
        referred, last = 0, 0
        for place in range(start, start + entries * entry_bytes, entry_bytes):
            tag, kind = self._number(place, 2), self._number(place + 2, 2)
            count = self._number(place + 4, self._offset_bytes)
            size = _SIZES.get(kind, 0)
            value_at = place + 4 + self._offset_bytes
            if count * size > self._offset_bytes:
                referred += count * size
                value_at = self._number(value_at, self._offset_bytes)
                last = max(last, value_at + count * size)
            counts[tag] = count
            if kind in {1, 3, 4, 13, 16, 18}:
                within = range(value_at, value_at + size * min(count, _MAX_VALUES), size)
                tags[tag] = [self._number(at, size) for at in within]
        if referred > 2 * len(self._content):
            raise CorruptImageError("The TIFF image refers to more data than it has.")
        following = self._number(start + entries * entry_bytes, self._offset_bytes)
        offsets = tags.get(_STRIP_OFFSETS, []) + tags.get(_TILE_OFFSETS, [])
        is_whole = bool(offsets) and max(last, *offsets) <= len(self._content)
        return _Directory(position, tags, counts, following, is_whole)

    def _number(self, position: int, length: int) -> int:
        return int.from_bytes(self._content[position : position + length], self._order)


def _check_strips(page: _Directory) -> None:
    """Refuses a page that lists more strips than it has rows: Pillow reads the same rows again for each.

    Raises:
        CorruptImageError: it does.
    """
    rows = max(page.value(_ROWS_PER_STRIP, 0), 1)
    strips = -(-page.value(_LENGTH, 0) // rows) * max(page.value(_SAMPLES, 1), 1)
    if page.counts.get(_STRIP_OFFSETS, 0) > max(strips, 1):
        raise CorruptImageError(f"The TIFF image lists {page.counts[_STRIP_OFFSETS]:,} strips; it has {strips:,}.")


def _kind(page: _Directory) -> str:
    """Says in words what the samples of a sound page are; nothing where a page makes no sense."""
    bits, samples = page.tags.get(_BITS, [1]), page.value(_SAMPLES, 1)
    if (
        not (page.is_picture and page.is_whole)
        or len(bits) not in {1, samples}
        or not 0 < samples <= 64
        or not 0 < max(bits) <= 64
    ):
        return ""
    photometric = page.value(_PHOTOMETRIC, 0)
    extra = f", {page.counts[_EXTRA_SAMPLES]} of them extra" if _EXTRA_SAMPLES in page.counts else ""
    colours = _PHOTOMETRICS.get(photometric, f"colour space {photometric}")
    return (
        f"{colours}, {samples} samples of {max(bits)} bits{extra}, "
        f"{_FORMATS.get(page.value(_SAMPLE_FORMAT, 1), 'complex')}, compression {page.value(_COMPRESSION, 1)}"
    )
