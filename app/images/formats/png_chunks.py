"""A PNG's chunks, read and checked before Pillow sees them: the picture, and what they say about its colours.

file -> chunks, each with its checksum -> the first frame's chunks as a plain PNG -> Pillow

Pillow gets the header, the palette, the transparency and the pixels in one chunk. Texts, profiles and animations,
which may be long, many or damaged, never reach it.
Source: W3C PNG, third edition.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from app.errors import CorruptImageError, UnsupportedFormatError
from app.images.coded_colour import CodedColour, of_code_points, of_gamma
from app.images.colour import Adjustment
from app.images.formats.exif import orientation_of
from app.images.limits import MAX_PROFILE_BYTES
from app.images.outline import Outline

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS: Final = 100_000
_MAX_TEXT_BYTES: Final = 1024 * 1024
_PALETTE_COLOUR: Final = 3
# Of these a file has one, and only the first counts.
_KEPT: Final = {b"IHDR", b"PLTE", b"tRNS", b"eXIf"}
_COLOURS: Final = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")


@dataclass(slots=True, repr=False)
class _Chunks:
    """What one walk through a file collects: chunks by kind, pixels, and the frame that an animation begins with."""

    first: dict[bytes, memoryview] = field(default_factory=dict)
    pixels: list[memoryview] = field(default_factory=list)
    frame_control: memoryview | None = None
    frame_pixels: list[memoryview] = field(default_factory=list)
    frames: int = 0
    has_hidden_default: bool = False
    text_bytes: int = 0
    is_metadata_damaged: bool = False
    has_end: bool = False


def outline_png(encoded: bytes | bytearray | memoryview) -> Outline:
    """Reads every chunk of a PNG and takes out the picture that a viewer shows first.

    Raises:
        CorruptImageError: pixels, header, palette or transparency are damaged, missing or cut short.
        UnsupportedFormatError: Apple's variant of PNG, which other programs cannot read.
    """
    chunks = _collect(memoryview(encoded))
    header = chunks.first.get(b"IHDR", b"")
    if len(header) != 13 or not chunks.pixels:
        raise CorruptImageError("The PNG image is cut short before its pixels.")
    width, height, _, colour_type = struct.unpack(">IIBB", header[:10])
    if colour_type == _PALETTE_COLOUR:
        _check_palette(chunks.first)
    frame, pixels = _first_frame(chunks, width, height)
    kept = {kind: chunks.first[kind] for kind in (b"PLTE", b"tRNS") if kind in chunks.first}
    size = struct.pack(">II", frame[2] - frame[0], frame[3] - frame[1])
    parts: list[bytes | memoryview] = [_SIGNATURE, _chunk(b"IHDR", size + bytes(header[8:]))]
    parts += [_chunk(kind, bytes(content)) for kind, content in kept.items()]
    # One chunk of pixels, however many there were. Pillow does not look at its checksum, which was checked here.
    parts += [struct.pack(">I", sum(map(len, pixels))), b"IDAT", *pixels, bytes(4), _chunk(b"IEND", b"")]
    profile, colour = _colour_of(chunks.first)
    mended: list[Adjustment] = ["metadata_ignored"] if chunks.is_metadata_damaged else []
    return Outline(
        b"".join(parts),
        size=(width, height),
        frame=frame,
        is_animated=chunks.frames > 1 or chunks.has_hidden_default,
        orientation=orientation_of(chunks.first.get(b"eXIf", b"")),
        has_profile=b"iCCP" in chunks.first and b"cICP" not in chunks.first,
        profile=profile,
        colour=colour,
        mended=(*mended, *(() if chunks.has_end else ("end_marker_added",))),
    )


def _first_frame(chunks: _Chunks, width: int, height: int) -> tuple[tuple[int, int, int, int], list[memoryview]]:
    """Returns where the picture lies (left, top, right, bottom), and its compressed pixels.

    It is the file's own image, unless an animation leaves that out and begins with a usable frame.
    """
    if chunks.has_hidden_default and chunks.frame_control is not None and chunks.frame_pixels:
        frame_width, frame_height, left, top = struct.unpack(">4I", chunks.frame_control[4:20])
        if frame_width and frame_height and left + frame_width <= width and top + frame_height <= height:
            return (left, top, left + frame_width, top + frame_height), chunks.frame_pixels
    return (0, 0, width, height), chunks.pixels


def _collect(content: memoryview) -> _Chunks:
    chunks = _Chunks()
    is_animation = False
    for kind, body, is_intact in _chunks(content):
        if kind == b"CgBI":
            raise UnsupportedFormatError("This is Apple's own variant of PNG (CgBI). Send an ordinary PNG.")
        if not chunks.first and (kind != b"IHDR" or len(body) != 13):
            raise CorruptImageError("The PNG image does not begin with its header.")
        if not is_intact and not _is_ancillary(kind):
            raise CorruptImageError(f"The PNG image is damaged: its chunk {_name(kind)} has a wrong checksum.")
        if not is_intact:
            chunks.is_metadata_damaged = True
            if kind in _COLOURS:  # its being there counts: the colours are not what is left
                chunks.first.setdefault(kind, memoryview(b""))
        elif kind == b"IEND":
            chunks.has_end = True
            break
        elif kind == b"IDAT":
            chunks.pixels.append(body)
            chunks.has_hidden_default = is_animation and chunks.frames == 0
        elif kind == b"fcTL" and is_animation and len(body) == 26:
            chunks.frames += 1
            chunks.frame_control = chunks.frame_control or body
        elif kind == b"fdAT" and chunks.frames == 1:
            chunks.frame_pixels.append(body[4:])  # behind its number
        elif kind == b"acTL":
            is_animation = not chunks.pixels and any(body[:4])
        elif kind in {b"zTXt", b"iTXt"} and chunks.text_bytes <= _MAX_TEXT_BYTES:
            chunks.text_bytes += _text_length(kind, body, _MAX_TEXT_BYTES + 1 - chunks.text_bytes)
            chunks.is_metadata_damaged |= chunks.text_bytes > _MAX_TEXT_BYTES
        elif kind in _KEPT or kind in _COLOURS:
            chunks.first.setdefault(kind, body)
        elif not _is_ancillary(kind):
            raise CorruptImageError(f"The PNG image has a chunk {_name(kind)} that no standard knows.")
    return chunks


def _chunks(content: memoryview) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Gives kind, content, and whether the checksum is right, of each chunk.

    Raises:
        CorruptImageError: a chunk of pixels is cut short, or there are more chunks than any encoder writes.
    """
    position = len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(content):
            return
        length = int.from_bytes(content[position : position + 4], "big")
        kind, end = bytes(content[position + 4 : position + 8]), position + 8 + length
        if not kind.isalpha():
            raise CorruptImageError(f"The PNG image is damaged: {_name(kind)} stands where a chunk was expected.")
        if end + 4 > len(content):
            if _is_ancillary(kind) or kind == b"IEND":
                return
            raise CorruptImageError(f"The PNG image is cut short inside its chunk {_name(kind)}.")
        checksum = zlib.crc32(content[position + 4 : end])
        yield kind, content[position + 8 : end], checksum == int.from_bytes(content[end : end + 4], "big")
        position = end + 4
    raise CorruptImageError(f"The PNG image has more than {_MAX_CHUNKS:,} chunks.")


def _is_ancillary(kind: bytes) -> bool:
    """Tells by its first letter, a small one, whether the pixels can be read without a chunk; alpha belongs to them."""
    return bool(kind[0] & 0x20) and kind != b"tRNS"


def _check_palette(first: dict[bytes, memoryview]) -> None:
    palette, alpha = first.get(b"PLTE", b""), first.get(b"tRNS", b"")
    if not palette or len(palette) % 3 or len(palette) > 768 or len(alpha) > 256:
        raise CorruptImageError("The PNG image has no usable palette, which its pixels refer to.")


def _text_length(kind: bytes, body: memoryview, most: int) -> int:
    """Returns how long a compressed text is when it is inflated, up to `most`; 0 for other texts."""
    rest = bytes(body).partition(b"\0")[2]  # behind the keyword
    if kind == b"iTXt":  # a flag, a method, two names
        rest = rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""
    try:
        return len(zlib.decompressobj().decompress(rest[1:] if kind == b"zTXt" else rest, most))
    except zlib.error:
        return 0


def _colour_of(first: dict[bytes, memoryview]) -> tuple[bytes | None, CodedColour | None]:
    """Returns the profile or the numbers, whichever decides: `cICP`, `iCCP`, `sRGB`, then `gAMA` and `cHRM`."""
    if b"cICP" in first:
        numbers = first[b"cICP"]
        # The third says that the samples are RGB, the fourth that they use the whole range.
        usable = len(numbers) == 4 and numbers[2] == 0 and numbers[3] == 1
        return None, of_code_points(numbers[0], numbers[1]) if usable else CodedColour(None)
    if b"iCCP" in first:
        return _profile(first[b"iCCP"]), None
    if b"sRGB" in first or not (b"gAMA" in first or b"cHRM" in first):
        return None, None
    gamma, chromaticities = first.get(b"gAMA"), first.get(b"cHRM")
    if (gamma is not None and len(gamma) != 4) or (chromaticities is not None and len(chromaticities) != 32):
        return None, CodedColour(None)
    return None, of_gamma(
        int.from_bytes(gamma, "big") / 100_000 if gamma is not None else None,
        tuple(number / 100_000 for number in struct.unpack(">8I", chromaticities)) if chromaticities else None,
    )


def _profile(body: memoryview) -> bytes | None:
    """Returns the profile of an `iCCP` chunk; None where it is damaged or too long."""
    name = bytes(body[:80]).split(b"\0", 1)[0]
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(body[len(name) + 2 :], MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if inflater.eof else None


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _name(kind: bytes) -> str:
    return repr(kind.decode("latin-1"))
