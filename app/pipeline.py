"""One image's way: decode -> resize -> batch -> probabilities. Decoding and inference never run on the event loop.

classify: event loop -> decode pool: decode, resize and crop -> batcher: stream threads -> event loop
"""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import torch

from app.artifact import Artifact
from app.batcher import Batcher
from app.decode import DecodedImage, ImageLimits, decode
from app.engine import Engine, Probabilities
from app.errors import DeadlineExceededError
from app.resize import resize_and_crop
from app.settings import ModelSettings

# From how many times the model's resize size on a JPEG is decoded at a reduced scale, and how many it keeps then. Below
# that, probabilities move by more than 0.02 on too many photos (docs/performance.md, "Decoding").
_REDUCED_FROM: Final = 8
_MIN_DETAIL: Final = 2.75


@dataclass(frozen=True, slots=True)
class Classification:
    """What came of one image.

    Attributes:
        probabilities: `(C,)` float32.
        image: what was decoded, and how.
        decode_s: seconds to decode, resize and crop.
        queue_s: seconds that it waited, for a decoder and for a stream.
        inference_s: seconds that its batch took.
        batch_size: how many images shared the batch.
    """

    probabilities: Probabilities
    image: DecodedImage
    decode_s: float
    queue_s: float
    inference_s: float
    batch_size: int


class Pipeline:
    """Takes encoded images to probabilities, many at once.

    Args:
        artifact: the model.
        engine: computes it.
        settings: batching and limits.
        streams: batches computed at once.
        decode_pool: threads that decode; shared by all models.
        max_queue_items: most images that wait for a stream.
    """

    def __init__(
        self,
        artifact: Artifact,
        engine: Engine,
        settings: ModelSettings,
        *,
        streams: int,
        decode_pool: Executor,
        max_queue_items: int,
    ) -> None:
        self._artifact = artifact
        self._limits = settings.image_limits
        self._decode_pool = decode_pool
        self._batcher: Batcher[torch.Tensor, Probabilities] = Batcher(
            lambda images: list(engine(images)),
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
            app.engine.InferenceError: the model failed on this image.
        """
        submitted_at = time.monotonic()
        loop = asyncio.get_running_loop()
        image, pixels, decode_s = await loop.run_in_executor(
            self._decode_pool, self._prepare, encoded, deadline, limits or self._limits
        )
        decode_wait_s = time.monotonic() - submitted_at - decode_s
        answer = await self._batcher.submit(pixels, deadline=deadline)
        return Classification(
            probabilities=answer.result,
            image=image,
            decode_s=decode_s,
            queue_s=decode_wait_s + answer.queue_s,
            inference_s=answer.inference_s,
            batch_size=answer.batch_size,
        )

    def close(self) -> None:
        """Computes what waits, then ends the streams. Blocks."""
        self._batcher.close()

    def _prepare(
        self, encoded: bytes | bytearray, deadline: float, limits: ImageLimits
    ) -> tuple[DecodedImage, torch.Tensor, float]:
        """Runs in the decode pool.

        Returns:
            the image; its pixels, uint8 `(3, S, S)`, or `(3, H, W)` for a model without a split; and the seconds taken.
        """
        started_at = time.monotonic()
        if started_at > deadline:
            raise DeadlineExceededError("The request's time ran out before its image was decoded.")
        resize_size, image_size = self._artifact.resize_size, self._artifact.image_size
        if resize_size is None or image_size is None:
            image = decode(encoded, limits=limits)
            pixels = image.to_tensor()
        else:
            image = decode(
                encoded,
                limits=limits,
                min_shorter_side=math.ceil(_MIN_DETAIL * resize_size),
                full_below=_REDUCED_FROM * resize_size,
            )
            pixels = resize_and_crop(image, resize_size=resize_size, image_size=image_size)
        return image, pixels, time.monotonic() - started_at
