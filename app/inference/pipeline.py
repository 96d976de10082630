"""Takes an image to its probabilities: decode, resize, batch, compute. None of it runs on the event loop.

CPU: event loop -> batcher: a stream's thread prepares the image and computes its batch -> event loop
GPU: event loop -> a decoding thread prepares the image -> batcher: a stream's thread computes its batch -> event loop

much work: event loop -> a thread waits for another process, which decodes -> batcher, as on a GPU

A GPU's streams wait for it most of the time, so other threads decode for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.errors import DeadlineExceededError
from app.images.colour import Adjustment
from app.images.limits import ImageLimits, ImageSource
from app.inference.artifact import Artifact
from app.inference.batcher import Answer, Batcher
from app.inference.decode_budget import DecodeResources, Turn
from app.inference.engine import Engine, Pixels, Probabilities, Samples
from app.inference.prepare import (
    PreparedImage,
    TakesMuchWorkError,
    needs_resizing,
    prepare,
    prepare_elsewhere,
    prepare_pixels,
)
from app.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class Classification:
    """The classification of one image.

    Attributes:
        probabilities: the probability of each class, float32 `(C,)`.
        ranking: the class ids `(C,)`, the most probable first. Equally probable ones are in the order of their ids.
        format: the format that the image was recognised as; `pixels` if it came as pixels.
        width: the width of the upright image in pixels.
        height: the height of the upright image in pixels.
        adjustments: what was done to the image on its way to RGB, in order.
        decode_s: seconds that decoding, resizing and cropping took.
        queue_s: seconds that the image waited for a decoding thread and for a stream.
        inference_s: seconds that its batch took to compute.
        batch_size: how many images the batch had.
        decode_started_at: when decoding began, on the clock of `time.monotonic()`.
    """

    probabilities: Probabilities
    ranking: npt.NDArray[np.intp]
    format: ImageSource
    width: int
    height: int
    adjustments: tuple[Adjustment, ...]
    decode_s: float
    queue_s: float
    inference_s: float
    batch_size: int
    decode_started_at: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An image that waits for its preparation."""

    content: bytes | bytearray | Pixels | Samples = field(repr=False)
    limits: ImageLimits
    deadline: float


class _Computed(NamedTuple):
    """What came of one image of a batch."""

    image: PreparedImage
    probabilities: Probabilities
    ranking: npt.NDArray[np.intp]


class Pipeline:
    """Takes encoded images to probabilities, many at once.

    Args:
        artifact: the model.
        engine: the engine that computes the model.
        settings: the settings of batching and of the images that are accepted.
        streams: how many batches are computed at once.
        decoding: what images are decoded with, shared by all models.
        max_queue_items: the most images that may wait for a stream.
    """

    def __init__(
        self,
        artifact: Artifact,
        engine: Engine,
        settings: ModelSettings,
        *,
        streams: int,
        decoding: DecodeResources,
        max_queue_items: int,
    ) -> None:
        self._artifact = artifact
        self._limits = settings.image_limits
        self._engine = engine
        self._decoding = decoding
        # A stream that holds an image at full size may not wait for the memory of the next one.
        alone = decoding.pool is None and not artifact.is_split
        self._batcher: Batcher[_Waiting | PreparedImage, PreparedImage, _Computed] = Batcher(
            self._prepare,
            self._infer,
            streams=streams,
            max_batch_size=1 if alone else settings.max_batch_size,
            max_batch_delay_ms=settings.max_batch_delay_ms,
            max_queue_items=max_queue_items,
        )

    async def classify(
        self, image: bytes | bytearray | Pixels | Samples, *, deadline: float, limits: ImageLimits | None = None
    ) -> Classification:
        """Classifies one image.

        Args:
            image: the whole file; or the image's pixels in sRGB, uint8 `(H, W, 3)`, which the engine gets as they are
                if they have its size `(S, S, 3)`; or samples of that size, if the engine takes them.
            deadline: when the request's time is up, on the clock of `time.monotonic()`.
            limits: which images are accepted; None for those that the settings say.

        Raises:
            ImageError: the image is not accepted, or cannot be decoded.
            DeadlineExceededError: the time was up before decoding or before inference.
            OverloadedError: too many images wait for a stream.
            app.inference.engine.InferenceError: the model failed on this image.
        """
        submitted_at = time.monotonic()
        waiting = _Waiting(image, limits or self._limits, deadline)
        ready: _Waiting | PreparedImage = waiting
        answer: Answer[_Computed] | None = None
        with suppress(TakesMuchWorkError):
            is_ready = isinstance(image, np.ndarray) and not needs_resizing(image, self._artifact.geometry)
            if self._decoding.pool is not None and not is_ready:
                ready = await self._in_thread(self._decoding.pool, self._prepare, waiting)
            prepared_at = time.monotonic()
            answer = await self._batcher.submit(ready, deadline=deadline)
        if answer is None:
            ready = await self._in_thread(self._decoding.waiting, self._prepare_elsewhere, waiting)
            prepared_at = time.monotonic()
            answer = await self._batcher.submit(ready, deadline=deadline)
        prepared, probabilities, ranking = answer.result
        preparation_s = prepared.decode_s + prepared.resize_s
        decode_wait_s = prepared_at - submitted_at - preparation_s if isinstance(ready, PreparedImage) else 0.0
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

    @property
    def longest_batch_s(self) -> float:
        """Seconds since the stream that is busy for longest began with its batch; 0 if all streams are idle."""
        return self._batcher.longest_running_s

    @property
    def failures_in_a_row(self) -> int:
        """How many images the engine has failed on since the last batch that it computed."""
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
        """Calls `observe` with the size of every batch from now on, in the threads of the streams."""
        self._batcher.on_batch = observe

    def close(self) -> None:
        """Computes the images that wait, then ends the streams. Blocks until then."""
        self._batcher.close()

    async def _in_thread(
        self, threads: Executor | None, prepare_one: Callable[[_Waiting], PreparedImage], image: _Waiting
    ) -> PreparedImage:
        """Has an image prepared by other threads than the streams'.

        Raises:
            DeadlineExceededError: the time was up.
        """
        handed_over = [image]  # it is taken out when its client leaves: the pool drops a cancelled call in its turn

        def prepare_handed_over() -> PreparedImage:
            taken = handed_over.pop()
            if time.monotonic() > taken.deadline:
                raise DeadlineExceededError("The request's time ran out before its image was decoded.")
            return prepare_one(taken)

        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + image.deadline - time.monotonic()):
                return await asyncio.get_running_loop().run_in_executor(threads, prepare_handed_over)
        except TimeoutError as error:
            raise DeadlineExceededError("The request's time ran out before its image was decoded.") from error
        finally:
            handed_over.clear()

    def _prepare(self, image: _Waiting | PreparedImage) -> PreparedImage:
        """Prepares an image, unless that has been done."""
        return image if isinstance(image, PreparedImage) else self._in_its_turn(image, prepare)

    def _prepare_elsewhere(self, image: _Waiting) -> PreparedImage:
        return self._in_its_turn(image, prepare_elsewhere)

    def _in_its_turn(self, image: _Waiting, prepare_one: Callable[..., PreparedImage]) -> PreparedImage:
        """Prepares an image with `prepare` or `prepare_elsewhere`, when there is memory for it."""
        with self._decoding.budget.turn(image.deadline) as turn:
            reserve = partial(self._reserve, turn)
            artifact, precision = self._artifact, self._engine.precision
            if isinstance(image.content, np.ndarray):
                return prepare_pixels(image.content, artifact, precision, reserve)
            prepared = prepare_one(image.content, artifact, precision, image.limits, reserve, self._decoding.decoders)
            if not self._artifact.is_split:
                turn.keep_for(prepared.pixels)
            return prepared

    def _reserve(self, turn: Turn, needed: int) -> None:
        with self._batcher.waiting():  # for memory, however long, is no batch that is stuck
            turn.reserve(needed)

    def _infer(self, batch: Sequence[PreparedImage]) -> list[_Computed]:
        probabilities = self._engine([image.pixels for image in batch])
        # Not on the event loop: numpy lets go of Python's lock while it sorts, and the loop would wait to get it back.
        rankings = np.argsort(-probabilities, axis=1, kind="stable")
        return list(map(_Computed, batch, probabilities, rankings))
