"""A JPEG's segments, read without decoding, and its pixels, with what libjpeg says against them.

file -> segments up to the first scan: size, orientation, profile -> scans counted -> libjpeg-turbo

simplejpeg decodes, to the same bits as Pillow, because Pillow passes over libjpeg's warnings and so over damage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import nanoarrow
import numpy as np
import simplejpeg
from PIL import Image

from app.errors import CorruptImageError, UnsupportedFormatError
from app.images.colour import Adjustment
from app.images.formats.exif import orientation_of
from app.images.outline import Outline

MAX_SCANS: Final = 100
"""Far more than encoders write (libjpeg's progressive script has 10), and where libtiff and GDAL stop too.

Each scan may cost a few bytes in the file and 16 ms for 100 MP: without a limit, 0.5 MB kept a core busy for 18 s
(https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf).
"""

MAX_SEGMENTS: Final = 10_000
"""The most segments that are walked through; photos have tens, and about a hundred with a long profile or depth map."""

# Python's lock is held while one piece is searched: 512 KiB take 3 ms at the worst.
_PIECE: Final = 1 << 19
_START_OF_SCAN: Final = b"\xff\xda"
# No repeat in it: on a run of FF bytes that ends in 00, `\xff+` would begin anew at every byte. The markers without a
# content (TEM, RST0 to RST7, SOI) are passed over, for there may be millions.
_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SOS: Final = 0xDA
_EOI: Final = 0xD9
_APP0: Final = 0xE0
_APP1: Final = 0xE1
_APP2: Final = 0xE2
_EXIF: Final = b"Exif\0\0"
_PROFILE: Final = b"ICC_PROFILE\0"
# ITU-T T.81, table B.1: frames by how they are coded; baseline, extended and progressive Huffman coding are served.
_PROGRESSIVE: Final = 0xC2
_SERVED_FRAMES: Final = {0xC0, 0xC1, 0xC2}
_OTHER_FRAMES: Final = {
    **dict.fromkeys((0xC3, 0xC5, 0xC6, 0xC7), "Lossless and hierarchical JPEG images are"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "JPEG images with arithmetic coding are"),
}
# Bands -> Pillow's mode, and what libjpeg is asked for: RGB in four bytes a pixel, as Pillow keeps it.
_MODES: Final = {1: ("L", "GRAY"), 3: ("RGB", "RGBX"), 4: ("CMYK", "CMYK")}
_BYTE: Final = nanoarrow.c_schema(nanoarrow.uint8())
_PIXEL: Final = nanoarrow.c_schema(nanoarrow.fixed_size_list(nanoarrow.uint8(), 4))
_END: Final = b"\xff\xd9"
# Some cameras pad their data; more than this is damage.
_MAX_PADDING: Final = 64
_PADDING: Final = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x[0-9a-f]{2}")
_ODD_SCANS: Final = "Inconsistent progression sequence"  # every pixel is there, some of it twice


def outline_jpeg(encoded: bytes | bytearray | memoryview) -> Outline:
    """Reads the segments before the first scan.

    Raises:
        CorruptImageError: there is no frame or no scan, or there are more segments or scans than any encoder writes.
        UnsupportedFormatError: samples, bands or a coding that are not served.
    """
    frame, orientation, profile_parts, marker, is_progressive = None, None, [], _EOI, False
    for marker, start, end in _segments(encoded):
        content = bytes(encoded[start + 4 : end])
        if marker in _OTHER_FRAMES:
            raise UnsupportedFormatError(f"{_OTHER_FRAMES[marker]} not served. Send one with Huffman coding.")
        if marker in _SERVED_FRAMES:
            frame, is_progressive = content, marker == _PROGRESSIVE
        elif marker == _APP1 and content.startswith(_EXIF) and orientation is None:
            orientation = orientation_of(content[len(_EXIF) :])
        elif marker == _APP2 and content.startswith(_PROFILE):
            profile_parts.append(content[len(_PROFILE) :])
    if frame is None or len(frame) < 6 or marker != _SOS:
        raise CorruptImageError("The JPEG image is cut short before its pixels, or its header is damaged.")
    if frame[0] != 8:
        raise UnsupportedFormatError(f"JPEG images of {frame[0]} bits a sample are not served. Send one of 8 bits.")
    if frame[5] not in _MODES:
        raise UnsupportedFormatError(f"JPEG images of {frame[5]} bands are not served. Send one of 1, 3 or 4.")
    if has_too_many_scans(encoded):
        raise CorruptImageError(f"The JPEG image has more than {MAX_SCANS} scans, which no encoder writes.")
    return Outline(
        encoded,
        size=(int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")),
        is_animated=False,  # a multi-picture JPEG holds a preview or a depth map, not an animation
        orientation=orientation or 1,
        has_profile=bool(profile_parts),
        profile=_joined(profile_parts),
        bands=frame[5],
        decoder_bytes=_coefficient_bytes(frame) if is_progressive or content[:1] < frame[5:6] else 0,
    )


def _coefficient_bytes(frame: bytes) -> int:
    """Returns the size of all coefficients of a frame: two bytes for each sample, of which subsampling leaves fewer."""
    height, width = (int.from_bytes(frame[at : at + 2], "big") for at in (1, 3))
    factors = [(factor >> 4, factor & 15) for factor in frame[7 : 6 + 3 * frame[5] : 3]]
    most = max((across for across, _ in factors), default=1) * max((down for _, down in factors), default=1)
    return 2 * width * height * sum(across * down for across, down in factors) // max(most, 1)


def _segments(encoded: bytes | bytearray | memoryview) -> Iterator[tuple[int, int, int]]:
    """Gives each segment up to the first scan: its marker, where the marker begins, and where the segment ends.

    Raises:
        CorruptImageError: there are more than `MAX_SEGMENTS`.
    """
    position = 2
    for _ in range(MAX_SEGMENTS):
        start = _find_marker(encoded, position)
        if start is None or encoded[start + 1] == _EOI:
            return
        position = start + 2 + int.from_bytes(encoded[start + 2 : start + 4], "big")
        yield encoded[start + 1], start, position
        if encoded[start + 1] == _SOS:
            return
    raise CorruptImageError(f"The JPEG image has more than {MAX_SEGMENTS:,} segments, which no encoder writes.")


def _joined(parts: list[bytes]) -> bytes | None:
    """Returns the profile (ICC.1:2001-04, B.4: each part has its number, from 1, and how many there are).

    Returns:
        None where a part is missing.
    """
    parts = sorted(parts)
    if not parts or [part[:2] for part in parts] != [bytes([i + 1, len(parts)]) for i in range(min(len(parts), 255))]:
        return None
    return b"".join(part[2:] for part in parts)


def decode_jpeg(outline: Outline, scale: int) -> tuple[Image.Image, tuple[Adjustment, ...]]:
    """Decodes a JPEG at 1 / `scale`, in the DCT domain.

    Returns:
        an image of mode L, RGB or CMYK, and what was mended: bytes missing or too many behind intact pixels.

    Raises:
        CorruptImageError: libjpeg warns of data that is corrupt or ends early.
    """
    file = outline.file
    try:
        return _decode(file, outline, scale), ()
    except ValueError:
        # What libjpeg says against JFIF and the profile is no matter of pixels, and would hide what it says of them.
        file = _without_metadata(file)
    try:
        return _decode(file, outline, scale), ()
    except ValueError as error:
        warning = str(error)
    if warning == "Premature end of JPEG file":
        # It lacks its end marker, and perhaps more: with the marker, libjpeg tells.
        try:
            return _decode(file + _END, outline, scale), ("end_marker_added",)
        except ValueError as error:
            raise CorruptImageError(f"The JPEG image is cut short: {error}.") from error
    padding = _PADDING.fullmatch(warning)
    if int(padding[1]) > _MAX_PADDING if padding else not warning.startswith(_ODD_SCANS):
        raise CorruptImageError(f"The JPEG image cannot be decoded: {warning}.")
    return _decode(file, outline, scale, strict=False), ("extra_bytes_ignored",) if padding else ()


def _without_metadata(encoded: bytes | bytearray | memoryview) -> bytes:
    """Returns the file without the segments of JFIF and of the profile."""
    parts, position = [], 0
    for marker, start, end in _segments(encoded):
        if marker in {_APP0, _APP2}:
            parts.append(encoded[position:start])
            position = end
    return b"".join([*parts, encoded[position:]])


def _decode(encoded: bytes | bytearray | memoryview, outline: Outline, scale: int, strict: bool = True) -> Image.Image:
    """Decodes by libjpeg-turbo.

    Raises:
        ValueError: libjpeg's error; its first warning, if `strict`.
    """
    assert outline.size is not None
    mode, asked_for = _MODES[outline.bands]
    width, height = (-(-side // scale) if scale > 1 else 0 for side in outline.size)
    samples = simplejpeg.decode_jpeg(encoded, asked_for, min_width=width, min_height=height, strict=strict)
    if mode == "CMYK":
        np.subtract(255, samples, out=samples)  # which are stored inverted, as Adobe does
    height, width, bands = samples.shape
    if bands == 1:
        return Image.fromarray(samples[..., 0])
    # Pillow takes the memory as it is.
    flat = nanoarrow.c_array_from_buffers(_BYTE, samples.size, [None, samples], move=True)
    pixels = nanoarrow.c_array_from_buffers(_PIXEL, width * height, [None], children=[flat], move=True)
    return Image.fromarrow(pixels, mode, (width, height))


def has_too_many_scans(encoded: bytes | bytearray | memoryview) -> bool:
    """Returns whether a JPEG has more than `MAX_SCANS` scans or `MAX_SEGMENTS` segments, without decoding it."""
    # Quick, and nearly always enough. Two such bytes may also stand in a thumbnail, or in a video behind the image.
    pieces = (bytes(encoded[start : start + _PIECE + 1]) for start in range(0, len(encoded), _PIECE))
    if sum(piece.count(_START_OF_SCAN) for piece in pieces) <= MAX_SCANS:
        return False
    return _count_scans(encoded) > MAX_SCANS


def _count_scans(encoded: bytes | bytearray | memoryview) -> int:
    """Walks from marker to marker as libjpeg does (ITU-T T.81, B.1.1), to one scan more than allowed."""
    scans, position = 0, 0
    for _ in range(MAX_SEGMENTS):
        marker_at = _find_marker(encoded, position)
        if marker_at is None or encoded[marker_at + 1] == _EOI:
            return scans
        scans += encoded[marker_at + 1] == _SOS
        if scans > MAX_SCANS:
            return scans
        position = marker_at + 2 + int.from_bytes(encoded[marker_at + 2 : marker_at + 4], "big")
    return MAX_SCANS + 1


def _find_marker(encoded: bytes | bytearray | memoryview, position: int) -> int | None:
    """Returns where the next marker with a content begins (its FF), or None; looks at each byte once."""
    for start in range(position, len(encoded), _PIECE):
        if match := _MARKER.search(encoded, start, start + _PIECE + 1):
            return match.start()
    return None
