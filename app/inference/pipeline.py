"""One image's way: decode -> resize -> batch -> probabilities. Decoding and inference never run on the event loop.

classify: event loop -> batcher: a stream thread decodes, resizes, crops and infers -> event loop
On a GPU, whose streams wait for it most of the time, threads of their own decode before the batcher.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from app.errors import DeadlineExceededError
from app.images.colour import Adjustment
from app.images.limits import ImageFormat, ImageLimits
from app.inference.artifact import Artifact
from app.inference.batcher import Batcher
from app.inference.engine import Engine, Probabilities
from app.inference.prepare import PreparedImage, prepare
from app.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class Classification:
    """What came of one image.

    Attributes:
        probabilities: `(C,)` float32.
        ranking: `(C,)` class ids, the most probable first; of equal ones the lower id.
        format: that the image was recognised as.
        width: in pixels, upright.
        height: likewise.
        adjustments: what was done to it.
        decode_s: seconds to decode, resize and crop.
        queue_s: seconds that it waited, for a decoder and for a stream.
        inference_s: seconds that its batch took.
        batch_size: how many images shared the batch.
        decode_started_at: of `time.monotonic`.
    """

    probabilities: Probabilities
    ranking: npt.NDArray[np.intp]
    format: ImageFormat
    width: int
    height: int
    adjustments: tuple[Adjustment, ...]
    decode_s: float
    queue_s: float
    inference_s: float
    batch_size: int
    decode_started_at: float


class _Encoded(NamedTuple):
    content: bytes | bytearray
    limits: ImageLimits


class _Computed(NamedTuple):
    """What came of one image of a batch."""

    image: PreparedImage
    probabilities: Probabilities
    ranking: npt.NDArray[np.intp]


class Pipeline:
    """Takes encoded images to probabilities, many at once.

    Args:
        artifact: the model.
        engine: computes it.
        settings: batching and limits.
        streams: batches computed at once.
        decode_pool: threads that decode, shared by all models; None where the streams do.
        max_queue_items: most images that wait for a stream.
    """

    def __init__(
        self,
        artifact: Artifact,
        engine: Engine,
        settings: ModelSettings,
        *,
        streams: int,
        decode_pool: Executor | None,
        max_queue_items: int,
    ) -> None:
        self._artifact = artifact
        self._limits = settings.image_limits
        self._engine = engine
        self._decode_pool = decode_pool
        self._batcher: Batcher[_Encoded | PreparedImage, PreparedImage, _Computed] = Batcher(
            self._prepare,
            self._infer,
            streams=streams,
            max_batch_size=settings.max_batch_size,
            max_batch_delay_ms=settings.max_batch_delay_ms,
            max_queue_items=max_queue_items,
        )

    async def classify(
        self, encoded: bytes | bytearray, *, deadline: float, limits: ImageLimits | None = None
    ) -> Classification:
        """Classifies one encoded image.

        Args:
            encoded: the whole file.
            deadline: of `time.monotonic`.
            limits: what is accepted, if not what the settings say.

        Raises:
            ImageError: the image cannot be decoded.
            DeadlineExceededError: the time was up before decoding or before inference.
            OverloadedError: too many images wait for a stream.
            app.inference.engine.InferenceError: the model failed on this image.
        """
        submitted_at = time.monotonic()
        image: _Encoded | PreparedImage = _Encoded(encoded, limits or self._limits)
        if self._decode_pool is not None:
            loop = asyncio.get_running_loop()
            waiting = [image]
            try:
                image = await loop.run_in_executor(self._decode_pool, self._prepare_in_time, waiting, deadline)
            except asyncio.CancelledError:
                waiting.clear()  # the pool drops what is cancelled only when its turn comes; its bytes go now
                raise
        prepared_at = time.monotonic()
        answer = await self._batcher.submit(image, deadline=deadline)
        prepared, probabilities, ranking = answer.result
        preparation_s = prepared.decode_s + prepared.resize_s
        decode_wait_s = prepared_at - submitted_at - preparation_s if self._decode_pool is not None else 0.0
        return Classification(
            probabilities=probabilities,
            ranking=ranking,
            format=prepared.format,
            width=prepared.width,
            height=prepared.height,
            adjustments=prepared.adjustments,
            decode_s=preparation_s,
            queue_s=decode_wait_s + answer.queue_s,
            inference_s=answer.inference_s,
            batch_size=answer.batch_size,
            decode_started_at=prepared.started_at,
        )

    async def compute(self, pixels: torch.Tensor, *, deadline: float) -> Probabilities:
        """Computes the probabilities of an image that is prepared already; see `classify` for what it raises."""
        height, width = pixels.shape[1:]
        image = PreparedImage(pixels, "BMP", width, height, (), started_at=0.0, decode_s=0.0, resize_s=0.0)
        return (await self._batcher.submit(image, deadline=deadline)).result.probabilities

    @property
    def longest_batch_s(self) -> float:
        """Seconds that the longest of all streams has been at one image or batch; 0 if all are idle."""
        return self._batcher.longest_running_s

    @property
    def failures_in_a_row(self) -> int:
        """How many images the engine has failed on since the last one that came through."""
        return self._batcher.failures_in_a_row

    @property
    def queue_depth(self) -> int:
        """How many images wait for a stream."""
        return self._batcher.depth

    def busy_streams_counter(self) -> Callable[[], int]:
        """Returns a function that tells how many streams have an image. It does not keep the pipeline in memory."""
        batcher = self._batcher  # not self: an engine that keeps the function would be in a cycle with its pipeline
        return lambda: batcher.busy_streams

    def count_batches(self, observe: Callable[[int], None]) -> None:
        """Tells the size of every batch from now on to `observe`, which streams call from their threads."""
        self._batcher.on_batch = observe

    def close(self) -> None:
        """Computes what waits, then ends the streams. Blocks."""
        self._batcher.close()

    def _prepare_in_time(self, waiting: list[_Encoded | PreparedImage], deadline: float) -> PreparedImage:
        image = waiting.pop()
        if time.monotonic() > deadline:
            raise DeadlineExceededError("The request's time ran out before its image was decoded.")
        return self._prepare(image)

    def _prepare(self, image: _Encoded | PreparedImage) -> PreparedImage:
        """Prepares an image, unless that has been done."""
        if isinstance(image, PreparedImage):
            return image
        return prepare(image.content, self._artifact, self._engine.precision, image.limits)

    def _infer(self, batch: Sequence[PreparedImage]) -> list[_Computed]:
        probabilities = self._engine([image.pixels for image in batch])
        # Not on the event loop: numpy lets go of Python's lock while it sorts, and the loop would wait to get it back.
        rankings = np.argsort(-probabilities, axis=1, kind="stable")
        return list(map(_Computed, batch, probabilities, rankings))
