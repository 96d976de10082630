"""The one way of a request with images to its answers, whatever its body and its answer look like.

which model? -> room? -> read the body -> a permit for each image -> classify until the deadline -> the caller's answer

Every route that classifies comes through here, so all of them have the same limits, deadlines, metrics and traces.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from app.api.bodies.uploads import Upload, declared_bytes
from app.api.disconnect import unless_disconnected
from app.inference.engine import Pixels
from app.inference.pipeline import Classification
from app.models.served_model import ServedModel
from app.serving.service import Service

T = TypeVar("T")
Image = bytes | bytearray | Pixels
"""An image's file as it was uploaded, or its pixels as the engine takes them."""
Reader = Callable[[Upload], Awaitable[Sequence[Image]]]
"""Reads the images of a request from its body."""


@dataclass
class Timings:
    """How long a request spent in each step; of several images, the slowest counts in each step.

    Attributes:
        decode_s: seconds of decoding and resizing; None before an image has been classified.
        queue_s: seconds of waiting for a stream; None before an image has been classified.
        inference_s: seconds of computing the batch; None before an image has been classified.
    """

    decode_s: float | None = None
    queue_s: float | None = None
    inference_s: float | None = None

    def include(self, classification: Classification) -> None:
        """Takes the times of one more image into account."""
        self.decode_s = max(self.decode_s or 0.0, classification.decode_s)
        self.queue_s = max(self.queue_s or 0.0, classification.queue_s)
        self.inference_s = max(self.inference_s or 0.0, classification.inference_s)


@dataclass(frozen=True, slots=True)
class Answering:
    """Answers one request, with one model.

    Attributes:
        service: the service that the request came to.
        request: the request.
        model: the model that classifies.
        timeout_s: how long the client waits for its answer, in seconds from the request's head; infinite if it does
            not say.
    """

    service: Service
    request: Request
    model: ServedModel
    timeout_s: float = math.inf

    async def each(self, read: Reader, answer: Callable[[Image, float], Awaitable[T]]) -> list[T]:
        """Reads the images, and answers each.

        Args:
            read: reads the images.
            answer: answers one image, by the deadline that it is given; see `classify`.

        Returns:
            the answers, in the order of the images.

        Raises:
            PredictorError: the request cannot be answered, or `answer` raised this for one of the images.
            ClientDisconnect: the client has left.
        """
        service, name = self.service, self.model.artifact.name
        with self.model.usage.hold(), self._upload() as upload:
            images = await read(upload)
            deadline = service.deadline_of(time.monotonic(), upload.patience)
            with service.admission.admit(len(images), model=name, deadline=deadline):
                return await unless_disconnected(self.request, _answers(images, answer, deadline), deadline=deadline)

    async def classify(self, image: Image, deadline: float) -> Classification:
        """Classifies one image and counts it in the model's metrics.

        Args:
            image: the image.
            deadline: when the request's time is up, on the clock of `time.monotonic()`.

        Raises:
            PredictorError: whatever `Pipeline.classify` raises.
        """
        service, artifact, pipeline = self.service, self.model.artifact, self.model.pipeline
        if service.tracing is None:
            classification = await pipeline.classify(image, deadline=deadline)
        else:
            with service.tracing.classify(artifact.name, artifact.version) as span:
                classification = await pipeline.classify(image, deadline=deadline)
                span.finish(classification)
        timings: Timings = self.request.state.timings
        timings.include(classification)
        service.metrics.of_model(artifact.name, artifact.version).count_image(classification, artifact.class_names)
        return classification

    @contextmanager
    def _upload(self) -> Iterator[Upload]:
        """Yields the limits of the request's body; the body of a request that is refused here is never read."""
        service, settings = self.service, self.service.settings
        started_at: float = self.request.state.started_at
        patience = started_at + self.timeout_s
        declared = min(declared_bytes(self.request), settings.max_body_bytes)
        deadline = service.deadline_of(started_at, patience)
        service.check_admissible(model=self.model.artifact.name, declared_bytes=declared, deadline=deadline)
        with service.admission.hold_bytes() as held:
            yield Upload(settings.max_body_bytes, settings.min_upload_bytes_per_s, patience, held)


async def _answers(images: Sequence[Image], answer: Callable[[Image, float], Awaitable[T]], deadline: float) -> list[T]:
    if len(images) == 1:  # as most requests have: no task for it
        return [await answer(images[0], deadline)]
    return await asyncio.gather(*(answer(image, deadline) for image in images))
