"""The outline of a file: what is read of it, with bounded work, before a decoder sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.images.coded_colour import CodedColour
from app.images.colour import Adjustment


@dataclass(frozen=True, slots=True)
class Outline:
    """What is known of a file before it is decoded. What only the decoder can tell is None.

    Attributes:
        file: the bytes for the decoder: the whole file, or the part that holds the picture.
        size: width and height of the whole image as it is stored, in pixels.
        frame: the place of the picture in the image: left, top, right and bottom in pixels. None if it fills the image.
        is_animated: whether more pictures follow.
        orientation: the orientation in EXIF, 1 to 8.
        has_profile: whether an ICC profile was found. If False, the decoder may still find one.
        profile: the ICC profile; None if there is none, or if it is damaged or too long.
        colour: the colour space that the file tells by numbers, if no profile decides.
        bands: the samples of a JPEG's pixel, 1, 3 or 4; 0 for other formats.
        coded_size: width and height of the largest picture that is decoded, if the file tells that apart.
        decoder_bytes: what the decoder keeps besides until it is done: the coefficients of a JPEG of several scans, the
            planes of an AVIF.
        kind: the samples of a TIFF in words, if its directory makes sense; else empty.
        damage: a sentence that refuses the image, if its size is allowed; empty for a sound file.
        mended: what was left out or added so that the file can be decoded.
    """

    file: bytes | bytearray | memoryview = field(repr=False)
    size: tuple[int, int] | None = None
    frame: tuple[int, int, int, int] | None = None
    is_animated: bool | None = None
    orientation: int | None = None
    has_profile: bool = False
    profile: bytes | None = field(default=None, repr=False)
    colour: CodedColour | None = None
    bands: int = 0
    coded_size: tuple[int, int] | None = None
    decoder_bytes: int = 0
    kind: str = ""
    damage: str = ""
    mended: tuple[Adjustment, ...] = ()
