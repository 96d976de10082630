"""A decoder: a process that decodes one image after the other until the service closes its connection.

Request -> decode, after a Grant -> resize and crop, or all pixels -> the shared memory -> Pixels
"""

from __future__ import annotations

import io
import mmap
import os
import socket
import time

import numpy as np
import numpy.typing as npt

from app.errors import PredictorError, TooMuchMemoryError
from app.images.decode import Cost, decode
from app.images.geometry import Geometry
from app.images.isolation.confinement import address_bytes, confine, limit_memory, limit_time
from app.images.isolation.messages import (
    MAX_MESSAGE_BYTES,
    Failure,
    Grant,
    Need,
    Pixels,
    Request,
    from_bytes,
    pixels_at,
    to_bytes,
)
from app.images.limits import ImageLimits
from app.images.resize import resize_and_crop

_BAND_ROWS = 256


class _NotGrantedError(PredictorError):
    """The service does not want the image any more."""


class Decoder:
    """Decodes for the service.

    Args:
        connection: where messages come from and go to.
        shared: the descriptor of the shared memory.
    """

    def __init__(self, connection: socket.socket, shared: int) -> None:
        self._connection = connection
        self._shared = shared
        self._memory: mmap.mmap | None = None
        self._own_bytes = address_bytes()

    def run(self) -> None:
        """Decodes until the connection is closed."""
        confine()
        while packet := self._connection.recv(MAX_MESSAGE_BYTES):
            request = from_bytes(packet)
            assert isinstance(request, Request)
            limit_time(request.cpu_s)
            try:
                answer: Pixels | Failure = self._decode(request)
            except PredictorError as error:
                answer = Failure(error=type(error).__name__, detail=error.detail)
            except MemoryError:
                detail = "Decoding the image takes more memory than its header lets expect."
                answer = Failure(error=TooMuchMemoryError.__name__, detail=detail)
            except Exception as error:
                answer = Failure(error=type(error).__name__, detail=str(error)[:1000])
            limit_time(0)
            self._connection.send(to_bytes(answer))

    def _decode(self, request: Request) -> Pixels:
        started_at = time.monotonic()
        limits = ImageLimits(request.max_pixels, request.formats)
        file = bytes(memoryview(self._mapped())[: request.file_bytes])
        image = decode(file, limits=limits, min_shorter_side=request.min_shorter_side, reserve=self._ask)
        decoded_at = time.monotonic()
        if request.geometry:
            crop = resize_and_crop(image, request.geometry, exact=request.exact)
            np.copyto(self._target(request, crop.shape), crop)
        else:
            target = self._target(request, (image.height, image.width, 3))
            for top in range(0, image.height, _BAND_ROWS):
                bottom = min(top + _BAND_ROWS, image.height)
                target[top:bottom] = np.asarray(image.pixels.crop((0, top, image.width, bottom)))
        return Pixels(
            format=image.format,
            width=image.width,
            height=image.height,
            adjustments=image.adjustments,
            decode_s=decoded_at - started_at,
            resize_s=time.monotonic() - decoded_at,
        )

    def _ask(self, cost: Cost) -> None:
        """Asks the service for what decoding takes."""
        self._connection.send(to_bytes(Need(**cost._asdict())))
        grant = from_bytes(self._connection.recv(MAX_MESSAGE_BYTES))
        if not isinstance(grant, Grant) or not grant.is_granted:
            raise _NotGrantedError("The image is not wanted any more.")
        limit_memory(self._own_bytes + os.fstat(self._shared).st_size, cost.memory_bytes)

    def _mapped(self) -> mmap.mmap:
        """Returns the shared memory, which the service may have made larger."""
        size = os.fstat(self._shared).st_size
        if self._memory is None or len(self._memory) != size:
            self._memory = mmap.mmap(self._shared, size)
        return self._memory

    def _target(self, request: Request, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Returns the place of the pixels in the shared memory."""
        return np.ndarray(shape, np.uint8, self._mapped(), offset=pixels_at(request.file_bytes))


def warm_up() -> None:
    """Decodes small images, so that everything that is imported late is there before files cannot be opened."""
    from PIL import Image, ImageCms, features

    sample = Image.new("RGB", (64, 48), (200, 100, 50))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kinds = [("JPEG", {}), ("PNG", {}), ("GIF", {}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"})]
    kinds += [(name, {}) for name, feature in (("WEBP", "webp"), ("AVIF", "avif")) if features.check(feature)]
    for name, options in kinds:
        file = io.BytesIO()
        sample.save(file, name, icc_profile=profile, **options)
        decoded = decode(file.getvalue())
        for exact in (True, False):
            resize_and_crop(decoded, Geometry(32, 24), exact=exact)
