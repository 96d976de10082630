"""The service's side of decoding in other processes: takes a decoder, sends it an image, and ends one that is stuck.

an idle decoder, or a new one -> the file into shared memory -> Request -> Need: is there memory? -> Pixels
-> the pixels are used -> the decoder is idle again; after a large image it is ended, and its memory is free
"""

from __future__ import annotations

import contextlib
import logging
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from app import errors
from app.errors import CorruptImageError, ImageError, PredictorError, TooMuchWorkError
from app.images.decode import Cost, Reserve
from app.images.isolation.messages import (
    MAX_MESSAGE_BYTES,
    Failure,
    Grant,
    Message,
    Need,
    Pixels,
    Request,
    from_bytes,
    pixels_at,
    to_bytes,
)

logger = logging.getLogger("app.images")

IS_AVAILABLE: Final = sys.platform == "linux" and hasattr(os, "pidfd_open")
"""Whether images can be decoded in other processes here."""
MAX_CPU_S: Final = 5.0
"""What one image may take of the CPU. The slowest image that is known here takes 4.3 s (docs/limits.md)."""
# On a busy machine, the CPU time of an image may take this much longer.
_MAX_WALL_S: Final = 3 * MAX_CPU_S
_KEPT_BYTES: Final = 64_000_000  # a decoder that has shared more than this with the service is ended after its image
_START_S: Final = 30.0


class DecoderError(PredictorError):
    """No decoder can be started, or one has failed in a way that says nothing about the image."""


class DecodedElsewhere(NamedTuple):
    """What another process has made of an image.

    Attributes:
        pixels: the crop, uint8 `(S, S, 3)`, or all pixels `(H, W, 3)` if no geometry was asked for. The memory is
            shared, and changes as soon as the decoder has another image.
        facts: everything else.
    """

    pixels: npt.NDArray[np.uint8]
    facts: Pixels


class _Decoder:
    """One decoder, seen from the service.

    Args:
        connection: where messages go to and come from.
        shared: the descriptor of the shared memory.
        handle: the descriptor of the process.
    """

    def __init__(self, connection: socket.socket, shared: int, handle: int) -> None:
        connection.settimeout(_MAX_WALL_S)
        self._connection = connection
        self._shared = shared
        self._handle = handle
        self._memory: mmap.mmap | None = None
        self.is_idle = True

    @property
    def shared_bytes(self) -> int:
        """The size of the memory that is shared, in bytes."""
        return len(self._memory) if self._memory else 0

    def decode(self, encoded: bytes | bytearray, request: Request, reserve: Reserve) -> DecodedElsewhere:
        """Has an image decoded; see `Decoders.decoded`."""
        self.is_idle = False
        began, refusal = time.monotonic(), None
        self._make_room(max(1, request.file_bytes))
        assert self._memory is not None
        np.copyto(np.ndarray(len(encoded), np.uint8, self._memory), np.frombuffer(encoded, np.uint8))  # without the GIL
        try:
            self._send(request)
            answer = self._receive()
            if isinstance(answer, Need):
                refusal = self._grant(answer, request, reserve)
                began = time.monotonic()
                answer = self._receive()
        except (OSError, EOFError, ValueError) as error:
            raise _failed(error, time.monotonic() - began, request) from error
        if isinstance(answer, Failure):
            self.is_idle = True
            raise refusal or _error_of(answer)
        if refusal or not isinstance(answer, Pixels):
            raise DecoderError("A decoder has given an answer that makes no sense.")
        pixels = self._pixels(answer, request)
        self.is_idle = True  # only now: one that does not tell the truth is ended
        return DecodedElsewhere(pixels, answer)

    def end(self) -> None:
        """Ends the process, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        self._connection.close()
        os.close(self._handle)
        os.close(self._shared)
        self._memory = None

    def _grant(self, need: Need, request: Request, reserve: Reserve) -> PredictorError | None:
        """Takes the memory that an image needs, and tells the decoder; returns why it did not get it."""
        try:
            reserve(Cost(need.memory_bytes, need.pixels, need.coded_pixels))
        except PredictorError as error:
            self._send(Grant(is_granted=False))
            return error
        of_crop = 3 * request.geometry.image_size**2 if request.geometry else 0
        self._make_room(pixels_at(request.file_bytes) + max(3 * need.pixels, of_crop))
        self._send(Grant(is_granted=True))
        return None

    def _make_room(self, size: int) -> None:
        if self._memory is None or len(self._memory) < size:
            size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            os.ftruncate(self._shared, size)
            self._memory = mmap.mmap(self._shared, size)

    def _pixels(self, facts: Pixels, request: Request) -> npt.NDArray[np.uint8]:
        assert self._memory is not None
        height, width = (request.geometry.image_size,) * 2 if request.geometry else (facts.height, facts.width)
        shape = height, width, 3
        offset = pixels_at(request.file_bytes)
        if offset + math.prod(shape) > len(self._memory):
            raise DecoderError("A decoder has told sizes that make no sense.")
        return np.ndarray(shape, np.uint8, self._memory, offset=offset)

    def _send(self, message: Message) -> None:
        self._connection.send(to_bytes(message))

    def _receive(self) -> Message:
        if packet := self._connection.recv(MAX_MESSAGE_BYTES):
            return from_bytes(packet)
        raise EOFError


class Decoders:
    """Decoders, as many as there are images at once. Threads may share it.

    Args:
        for_all: whether all images are decoded here; otherwise only those that take much work.
    """

    def __init__(self, *, for_all: bool) -> None:
        self.for_all = for_all
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []
        self._control: socket.socket | None = None
        self._nursery: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def decoded(self, encoded: bytes | bytearray, request: Request, reserve: Reserve) -> Iterator[DecodedElsewhere]:
        """Has an image decoded by another process, and keeps its pixels until the block ends.

        Args:
            encoded: the whole file.
            request: how to decode it.
            reserve: called with what decoding will take, as `decode` calls it. It may wait, or raise an error.

        Raises:
            TooMuchWorkError: the image takes more CPU time than one image may.
            ImageError: as `decode` raises it, or the decoder has crashed.
            DecoderError: there is no decoder.
        """
        decoder = self._take()
        try:
            yield decoder.decode(encoded, request, reserve)
        finally:
            if decoder.is_idle and decoder.shared_bytes <= _KEPT_BYTES:
                with self._lock:
                    self._idle.append(decoder)
            else:
                decoder.end()

    def close(self) -> None:
        """Ends all decoders that are idle, and the nursery."""
        with self._lock:
            for decoder in self._idle:
                decoder.end()
            self._idle.clear()
            self._end_nursery()

    def _take(self) -> _Decoder:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            try:
                try:
                    return self._fork()
                except (OSError, EOFError):  # the nursery may have been killed: another one
                    return self._fork(anew=True)
            except (OSError, EOFError) as error:
                raise DecoderError(f"No process can be started that decodes: {error}.") from error

    def _fork(self, *, anew: bool = False) -> _Decoder:
        if self._control is None or anew:
            self._start_nursery()
        assert self._control is not None
        self._control.send(b"1")
        answer, descriptors, _, _ = socket.recv_fds(self._control, 1, 3)
        if not answer:
            raise EOFError("it has ended")
        connection, shared, handle = descriptors
        return _Decoder(socket.socket(fileno=connection), shared, handle)

    def _end_nursery(self) -> None:
        if self._control and self._nursery:
            self._control.close()
            self._nursery.kill()  # it may still be starting
            self._nursery.wait()
        self._control = self._nursery = None

    def _start_nursery(self) -> None:
        self._end_nursery()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_START_S)
        nursery = f"from app.images.isolation.nursery import main; main({theirs.fileno()})"
        code = f"import sys; sys.path[:] = {sys.path!r}; {nursery}"
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZ") if name in os.environ}
        with theirs:
            self._nursery = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **kept},
            )


def _failed(error: Exception, seconds: float, request: Request) -> PredictorError:
    """Returns the error of an image whose decoder has ended, or does not answer."""
    if isinstance(error, ValueError):
        return DecoderError("A decoder has given an answer that makes no sense.")
    if isinstance(error, TimeoutError) or seconds >= 0.9 * request.cpu_s:
        return TooMuchWorkError(f"Decoding the image takes more than {request.cpu_s:g} s of CPU time.")
    return CorruptImageError("The image cannot be decoded: its decoder has crashed.")


def _error_of(failure: Failure) -> PredictorError:
    """Returns the error that a decoder has told."""
    kind = getattr(errors, failure.error, None)
    if isinstance(kind, type) and issubclass(kind, ImageError):
        return kind(failure.detail)
    return DecoderError(f"A decoder has failed: {failure.error}: {failure.detail}")
