"""Prepares an image for an engine: decodes it, resizes it and cuts out the part that the network sees.

encoded bytes -> decode (a large JPEG at a reduced scale) -> resize and crop (to the bit in float32) -> PreparedImage
much work, or HEIC? -> TakesMuchWorkError -> prepare_elsewhere: another process does the same, and may be ended
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from PIL import Image

from app.errors import PredictorError
from app.images.colour import Adjustment
from app.images.decode import MIN_DETAIL, Cost, DecodedImage, Reserve, decode
from app.images.geometry import Geometry
from app.images.isolation import decoders as isolation
from app.images.isolation.decoders import Decoders
from app.images.isolation.messages import Request
from app.images.limits import ImageFormat, ImageLimits, ImageSource
from app.images.recognise import recognise
from app.images.resize import resize_and_crop
from app.inference.artifact import Artifact
from app.inference.engine import Pixels, Precision, Samples

_ARRAY_BYTES: Final = 6  # of a pixel: its three bands, and a copy of them
# What takes more work than this is decoded by another process, which can be ended.
_MUCH_PIXELS: Final = 16_000_000
_MUCH_BYTES: Final = 16_000_000
_HEAD_BYTES: Final = 64
# libheif and libde265 crash on some damaged files, and would take the worker with them (benchmarks/NOTES.md).
_ELSEWHERE: Final[frozenset[ImageFormat | None]] = frozenset({"HEIC"})


class PreparedImage(NamedTuple):
    """An image as an engine takes it, and what is known about it. The pixels at full size are not kept.

    Attributes:
        pixels: uint8 `(S, S, 3)`, or `(H, W, 3)` for a model that resizes by itself; float32 `(S, S, 3)` from 0 to 255
            if they came as samples.
        format: the format that the content was recognised as; `pixels` if it came as pixels.
        width: the width of the upright image in pixels, before resizing.
        height: the height of the upright image in pixels, before resizing.
        adjustments: what was done on the way to RGB, in order.
        started_at: when decoding began, on the clock of `time.monotonic()`.
        decode_s: seconds that decoding took.
        resize_s: seconds that resizing and cropping took; 0 for a model that resizes by itself.
    """

    pixels: Pixels | Samples
    format: ImageSource
    width: int
    height: int
    adjustments: tuple[Adjustment, ...]
    started_at: float
    decode_s: float
    resize_s: float


def needs_resizing(pixels: Pixels | Samples, geometry: Geometry | None) -> bool:
    """Returns whether pixels `(H, W, 3)` have another size than the network; a model that resizes takes any."""
    return geometry is not None and pixels.shape[:2] != (geometry.image_size, geometry.image_size)


def prepare_pixels(
    pixels: Pixels | Samples, artifact: Artifact, precision: Precision, reserve: Callable[[int], None]
) -> PreparedImage:
    """Prepares an image that came as pixels.

    Args:
        pixels: uint8 `(H, W, 3)`, in sRGB, or samples. Those of the network's own size `(S, S, 3)` count as resized and
            cropped.
        artifact: the model, which says to what size.
        precision: the engine's precision; see `prepare`.
        reserve: called with what resizing will take. It may wait, or raise an error of its own.
    """
    geometry, started_at = artifact.geometry, time.monotonic()
    height, width = pixels.shape[:2]
    if geometry and needs_resizing(pixels, geometry):
        reserve(_ARRAY_BYTES * height * width)
        image = DecodedImage(Image.fromarray(pixels), "pixels", width, height, ())
        pixels = resize_and_crop(image, geometry, exact=precision == "float32")
    resize_s = time.monotonic() - started_at
    return PreparedImage(pixels, "pixels", width, height, (), started_at=started_at, decode_s=0.0, resize_s=resize_s)


class TakesMuchWorkError(PredictorError):
    """The image takes so much work that it must hold up no others: `prepare_elsewhere` is for it."""


def prepare(
    encoded: bytes | bytearray,
    artifact: Artifact,
    precision: Precision,
    limits: ImageLimits,
    reserve: Callable[[int], None] = lambda _: None,
    decoders: Decoders | None = None,
) -> PreparedImage:
    """Prepares one image, in the time that a photo takes.

    Args:
        encoded: the whole file.
        artifact: the model, which says to what size.
        precision: the engine's precision. In float32 an image that is decoded in full is resized exactly; lower
            precisions take a faster way that is at most one level off.
        limits: which images are accepted.
        reserve: called with the bytes that decoding will take. It may wait, or raise an error of its own.
        decoders: the processes that decode what takes much work, or everything; None to decode everything here,
            however long it takes.

    Raises:
        TakesMuchWorkError: the image takes much work, or is of a format whose library may crash, and there are
            decoders.
        ImageError: the image is not accepted, or cannot be decoded.
    """
    geometry, exact = artifact.geometry, precision == "float32"

    def reserve_little(cost: Cost) -> None:
        if decoders and cost.coded_pixels > _MUCH_PIXELS:
            raise TakesMuchWorkError("The image takes much work.")
        reserve(_memory_of(cost, geometry))

    if decoders and (len(encoded) > _MUCH_BYTES or recognise(bytes(encoded[:_HEAD_BYTES])) in _ELSEWHERE):
        raise TakesMuchWorkError("The image is decoded elsewhere.")
    if decoders and decoders.for_all:
        return _prepared_by(decoders, encoded, geometry, exact, limits, reserve_little)
    started_at = time.monotonic()
    image = decode(encoded, limits=limits, min_shorter_side=_least_side(geometry), reserve=reserve_little)
    if geometry is None:
        pixels = image.to_array()
        decoded_at = resized_at = time.monotonic()
    else:
        decoded_at = time.monotonic()
        pixels = resize_and_crop(image, geometry, exact=exact)
        resized_at = time.monotonic()
    return PreparedImage(
        pixels,
        image.format,
        image.width,
        image.height,
        image.adjustments,
        started_at=started_at,
        decode_s=decoded_at - started_at,
        resize_s=resized_at - decoded_at,
    )


def prepare_elsewhere(
    encoded: bytes | bytearray,
    artifact: Artifact,
    precision: Precision,
    limits: ImageLimits,
    reserve: Callable[[int], None],
    decoders: Decoders,
) -> PreparedImage:
    """Prepares one image that takes much work; see `prepare` for the arguments. It may take seconds.

    Raises:
        ImageError: the image is not accepted, cannot be decoded, or takes too long.
    """
    geometry, copies = artifact.geometry, 2 * len(encoded)  # in the memory that is shared, and in the process

    def reserve_all(cost: Cost) -> None:
        reserve(_memory_of(cost, geometry) + copies)

    return _prepared_by(decoders, encoded, geometry, precision == "float32", limits, reserve_all)


def _prepared_by(
    decoders: Decoders,
    encoded: bytes | bytearray,
    geometry: Geometry | None,
    exact: bool,
    limits: ImageLimits,
    reserve: Reserve,
) -> PreparedImage:
    started_at = time.monotonic()
    request = Request(
        file_bytes=len(encoded),
        max_pixels=limits.max_pixels,
        formats=limits.formats,
        geometry=geometry,
        min_shorter_side=_least_side(geometry),
        exact=exact,
        cpu_s=isolation.MAX_CPU_S,
    )
    with decoders.decoded(encoded, request, reserve) as (decoded, facts):
        pixels = decoded.copy()
    return PreparedImage(
        pixels,
        facts.format,
        facts.width,
        facts.height,
        facts.adjustments,
        started_at=started_at,
        decode_s=time.monotonic() - started_at - facts.resize_s,
        resize_s=facts.resize_s,
    )


def _least_side(geometry: Geometry | None) -> int | None:
    return MIN_DETAIL * geometry.resize_size if geometry else None


def _memory_of(cost: Cost, geometry: Geometry | None) -> int:
    return cost.memory_bytes + (0 if geometry else _ARRAY_BYTES * cost.pixels)
