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
from typing import Final, TypeVar

from fastapi import Request

from app.api.bodies.uploads import Upload, declared_bytes
from app.api.disconnect import unless_disconnected
from app.errors import ImageError, InvalidParameterError
from app.inference.engine import Pixels, Samples
from app.inference.pipeline import Classification
from app.models.served_model import ServedModel
from app.serving.service import Service

T = TypeVar("T")
Image = bytes | bytearray | Pixels | Samples
"""An image's file as it was uploaded, or its pixels as the engine takes them."""
Reader = Callable[[Upload], Awaitable[Sequence[Image]]]
"""Reads the images of a request from its body."""


TIMEOUT_HEADER: Final = "X-Request-Timeout-Ms"
"""The header in which a client says how long it waits, in milliseconds."""
_MAX_NUMBER: Final = 2**63 - 1  # a larger number counts as this one, which every float can hold


def whole_number(name: str, text: str | None) -> int | None:
    """Returns the number that a parameter or a header has, None if it was not sent.

    Args:
        name: what it is called, for the error's sentence.
        text: its text.

    Raises:
        InvalidParameterError: it is no whole number of at least 1.
    """
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise InvalidParameterError(f"{name} must be a whole number of at least 1.")
    return min(number, _MAX_NUMBER)


def timeout_s_of(request: Request) -> float:
    """Returns how many seconds a client waits, by its header; infinite if it does not say.

    Raises:
        InvalidParameterError: the header has no whole number of milliseconds.
    """
    timeout_ms = whole_number(TIMEOUT_HEADER, request.headers.get(TIMEOUT_HEADER))
    return math.inf if timeout_ms is None else timeout_ms / 1000


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
            PredictorError: the request cannot be answered, or `answer` raised this for one of the images. If several
                failed it is about the first of them, and tells its place.
            ClientDisconnect: the client has left.
        """
        service, name = self.service, self.model.artifact.name
        counters = service.metrics.of_model(name, self.model.artifact.version)
        outcome = counters.failed
        try:
            with self.model.usage.hold(), self._upload() as upload:
                images = await read(upload)
                deadline = service.deadline_of(time.monotonic(), upload.patience)
                with service.admission.admit(len(images), model=name, deadline=deadline):
                    work = _answers(images, answer, deadline)
                    answers = await unless_disconnected(self.request, work, deadline=deadline)
            outcome = counters.succeeded
        finally:
            outcome.inc()
        return answers

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
    tried = await asyncio.gather(*(answer(image, deadline) for image in images), return_exceptions=True)
    answers: list[T] = []
    for place, each in enumerate(tried):
        if isinstance(each, ImageError):
            raise type(each)(f"Image {place}: {each.detail}") from each
        if isinstance(each, BaseException):
            raise each
        answers.append(each)
    return answers
