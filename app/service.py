"""What the routes call: admission -> upload -> pipeline -> answer, under one deadline; and the state of the service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, TypeVar

import numpy as np
from starlette.requests import ClientDisconnect, Request

from app.admission import Admission
from app.errors import DeadlineExceededError, DrainingError, ImageError, NotReadyError, PredictorError
from app.metrics import Metrics
from app.pipeline import Classification
from app.problems import problem_details
from app.registry import Registry, ServedModel
from app.schemas import ClassProbability, FailedImage, ImageDescription, ImagePrediction
from app.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Most answers are sooner than this, and then nobody need watch whether the client leaves.
_NOTICE_AFTER_S: Final = 0.02


@dataclass
class Timings:
    """Seconds that a request spent in each step; of several images, those of the slowest."""

    decode_s: float | None = None
    queue_s: float | None = None
    inference_s: float | None = None

    def include(self, classification: Classification) -> None:
        """Takes an image's times in."""
        self.decode_s = max(self.decode_s or 0.0, classification.decode_s)
        self.queue_s = max(self.queue_s or 0.0, classification.queue_s)
        self.inference_s = max(self.inference_s or 0.0, classification.inference_s)


class Phase(Enum):
    """Where the service is in its life."""

    SERVING = auto()
    DRAINING = auto()
    """Not ready any more, so that balancers look elsewhere, but still answering."""
    CLOSING = auto()
    """Only what was admitted is finished."""


class Service:
    """The parts that requests share.

    Args:
        settings: of the whole service.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.registry = Registry(settings, self.metrics, max_queue_items=settings.max_pending_images)
        self.phase = Phase.SERVING
        self._admission = Admission(settings.max_pending_images)
        self.metrics.pending_images.set_function(lambda: self._admission.pending_images)

    def check_ready(self) -> None:
        """Raises what keeps the service from taking requests.

        Raises:
            DrainingError: it is shutting down.
            NotReadyError: the default model does not serve.
        """
        if self.phase is not Phase.SERVING:
            raise DrainingError("The service is shutting down.", retry_after_s=5)
        default = self.registry.slots[0]
        if not default.model:
            raise NotReadyError(default.reason, retry_after_s=5)

    def check_started(self) -> None:
        """Raises what says that a model is still being loaded.

        Raises:
            NotReadyError: one is.
        """
        if not self.registry.is_loaded:
            raise NotReadyError("Models are being loaded.", retry_after_s=5)

    def admit(self, images: int = 1) -> AbstractContextManager[None]:
        """Holds permits for images while they are worked on.

        Raises:
            DrainingError: the service finishes only what was admitted before.
            OverloadedError: too many images are being worked on.
        """
        if self.phase is Phase.CLOSING:
            raise DrainingError("The service is shutting down.", retry_after_s=5)
        return self._admission.admit(images)

    async def classify(
        self, model: ServedModel, encoded: bytearray, *, top_k: int, deadline: float, timings: Timings
    ) -> ImagePrediction:
        """Classifies one image and counts it; see `Pipeline.classify` for what it raises."""
        classification = await model.pipeline.classify(encoded, deadline=deadline)
        timings.include(classification)
        self._count(model.artifact.name, classification)
        return ImagePrediction(
            predictions=top_classes(classification, model.artifact.class_names, top_k),
            image=describe_image(classification),
        )

    async def classify_or_explain(
        self, model: ServedModel, encoded: bytearray, *, request_id: str, top_k: int, deadline: float, timings: Timings
    ) -> ImagePrediction | FailedImage:
        """Classifies one of several images; what is wrong with it becomes its result, and no other's."""
        try:
            return await self.classify(model, encoded, top_k=top_k, deadline=deadline, timings=timings)
        except ImageError as error:
            return FailedImage(error=problem_details(error.code, error.detail, request_id))
        except PredictorError:  # about the request or the service, so about all images
            raise
        except Exception:
            logger.exception("An image of request %s failed.", request_id)
            detail = "The image could not be classified; the log has the reason under the request id."
            return FailedImage(error=problem_details("internal", detail, request_id))

    def _count(self, model: str, classification: Classification) -> None:
        self.metrics.images.labels(model, classification.format).inc()
        self.metrics.decode_seconds.labels(model).observe(classification.decode_s)
        self.metrics.queue_seconds.labels(model).observe(classification.queue_s)
        self.metrics.inference_seconds.labels(model).observe(classification.inference_s)
        self.metrics.batch_size.labels(model).observe(classification.batch_size)


def top_classes(classification: Classification, class_names: tuple[str, ...], top_k: int) -> list[ClassProbability]:
    """Returns the `top_k` most probable classes, in descending order; of equal ones the lower id first."""
    probabilities = classification.probabilities
    best = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
    return [
        ClassProbability(
            class_name=class_names[class_id],
            class_id=class_id,
            # Six decimals are what float32 holds; a softmax may round to just above 1.
            probability=min(round(float(probabilities[class_id]), 6), 1.0),
        )
        for class_id in best
    ]


def describe_image(classification: Classification) -> ImageDescription:
    """Returns what is told about the image itself."""
    return ImageDescription(
        format=classification.format,
        width=classification.width,
        height=classification.height,
        adjustments=list(classification.adjustments),
    )


async def within(deadline: float, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` until the deadline.

    Args:
        deadline: of `time.monotonic`.
        work: what to run; cancelled when the time is up.

    Raises:
        DeadlineExceededError: the time was up.
    """
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await work
    except TimeoutError:
        raise DeadlineExceededError("The request's time ran out.") from None


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T], *, deadline: float) -> T:
    """Runs `work` until the deadline and for as long as the client is there, so that nothing is computed for nobody.

    Args:
        request: whose body has been read.
        work: what to run; cancelled when the client leaves or the time is up.
        deadline: of `time.monotonic`.

    Raises:
        ClientDisconnect: the client left first.
        DeadlineExceededError: the time was up.
    """
    loop = asyncio.get_running_loop()
    watching: asyncio.Task[None] | None = None
    has_left = False

    def watch() -> None:
        nonlocal watching
        watching = loop.create_task(_wait_for_disconnect(request))
        watching.add_done_callback(leave)

    def leave(watched: asyncio.Task[None]) -> None:
        nonlocal has_left
        if not watched.cancelled():
            has_left = True
            scope.reschedule(loop.time())

    starting = loop.call_later(_NOTICE_AFTER_S, watch)
    try:
        async with asyncio.timeout(deadline - time.monotonic()) as scope:
            try:
                return await work
            finally:
                starting.cancel()
                if watching is not None:
                    watching.remove_done_callback(leave)
                    watching.cancel()
    except TimeoutError:
        if has_left:
            raise ClientDisconnect from None
        raise DeadlineExceededError("The request's time ran out.") from None


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
