"""What the routes call: admission -> upload -> pipeline -> answer, under one deadline; and the state of the service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request

from app import tracing
from app.admission import Admission
from app.errors import DeadlineExceededError, DrainingError, ImageError, NotReadyError, PredictorError
from app.metrics import Metrics
from app.pipeline import Classification
from app.problems import problem_details
from app.registry import Registry, ServedModel
from app.runtime import Runtime
from app.schemas import ClassProbability, FailedImage, ImageDescription, ImagePrediction
from app.settings import Settings
from app.watchdog import Watchdog
from app.watcher import Watcher

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Most answers are sooner than this, and then nobody need watch whether the client leaves.
_NOTICE_AFTER_S: Final = 0.02

# A batch takes milliseconds to seconds. One that takes longer than this, and than a request may, does not end any more.
_MIN_STUCK_S: Final = 30.0


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
        settings: of this process.
        runtime: its place among several workers; None if it is the only process.
    """

    def __init__(self, settings: Settings, runtime: Runtime | None = None) -> None:
        self.settings = settings
        self.runtime = runtime
        # Whether the number of workers is known. While it is not, this one may be about to be replaced by several.
        self.is_settled = runtime is None or runtime.workers == runtime.max_workers
        self.metrics = Metrics(runtime)
        self.registry = Registry(
            settings,
            self.metrics,
            max_queue_items=settings.max_pending_images,
            memory_budget_mb=settings.memory_budget_mb,
            runtime_folder=runtime.folder if runtime else None,
        )
        self.watcher = Watcher(self.registry, watch_store_s=settings.watch_store_s)
        self.watchdog = Watchdog(
            lambda: self.registry.served, stuck_after_s=max(_MIN_STUCK_S, settings.request_timeout_s)
        )
        self.tracing = tracing.traces_to(settings.otlp_endpoint) if settings.otlp_endpoint else None
        self.phase = Phase.SERVING
        self.admission = Admission(
            settings.max_pending_images,
            settings.max_pending_bytes,
            model_count=lambda: len({slot.name for slot in self.registry.slots}),
        )

    def check_live(self) -> None:
        """Raises what only a restart of the process helps against.

        Raises:
            NotReadyError: inference has stopped working.
        """
        if reason := self.watchdog.verdict.restart_because:
            raise NotReadyError(reason, retry_after_s=5)

    def check_ready(self) -> None:
        """Raises what keeps the service from taking requests.

        Raises:
            DrainingError: it is shutting down.
            NotReadyError: the default model does not serve, inference has stopped working, or a sibling is not ready.
        """
        self.check_own_readiness()
        if self.runtime is None:
            return
        board = self.runtime.board
        for worker in self.runtime.siblings:
            # One that has died is replaced while the others serve; but whoever begins, begins with all.
            if not worker.ready and (worker.accepts or not board.complete):
                raise NotReadyError("Another worker of this service is not ready.", retry_after_s=5)
        board.complete = True

    def check_own_readiness(self) -> None:
        """Raises what keeps this process from taking requests, whatever its siblings do; see `check_ready`."""
        if self.phase is not Phase.SERVING:
            raise DrainingError("The service is shutting down.", retry_after_s=5)
        default = self.registry.slots[0]
        if not default.model:
            raise NotReadyError(default.reason, retry_after_s=5)
        if reason := self.watchdog.verdict.unready_because:
            raise NotReadyError(reason, retry_after_s=5)
        self._check_settled()

    def _check_settled(self) -> None:
        if self.runtime and not self.is_settled:
            raise NotReadyError("The service is starting its workers.", retry_after_s=1)

    def check_started(self) -> None:
        """Raises what says that a model is still being loaded.

        Raises:
            NotReadyError: one is.
        """
        if not self.registry.is_loaded:
            raise NotReadyError("Models are being loaded.", retry_after_s=5)

    def check_admissible(self, *, model: str | None, declared_bytes: int, deadline: float) -> None:
        """Raises what keeps a request from being read.

        Args:
            model: that it is for; None if that is not known yet, and no other model's part is kept free.
            declared_bytes: of its body, 0 where that is not known.
            deadline: of `time.monotonic`.

        Raises:
            DrainingError: the service finishes only what came before.
            NotReadyError: this process may be about to be replaced, and whoever has an answer goes on asking.
            OverloadedError: there is no room for it.
        """
        if self.phase is Phase.CLOSING:
            raise DrainingError("The service is shutting down.", retry_after_s=5)
        self._check_settled()
        self.admission.check(model=model, more_bytes=declared_bytes, deadline=deadline)

    def deadline_of(self, started_at: float, timeout_ms: int | None) -> float:
        """Returns when a request's time is up, of `time.monotonic`; a client's own limit only ever shortens it."""
        timeout_s = self.settings.request_timeout_s
        return started_at + (timeout_s if timeout_ms is None else min(timeout_s, timeout_ms / 1000))

    async def classify(
        self, model: ServedModel, encoded: bytearray, *, top_k: int, deadline: float, timings: Timings
    ) -> ImagePrediction:
        """Classifies one image and counts it; see `Pipeline.classify` for what it raises."""
        artifact = model.artifact
        if self.tracing is None:
            classification = await model.pipeline.classify(encoded, deadline=deadline)
        else:
            with self.tracing.classify(artifact.name, artifact.version) as span:
                classification = await model.pipeline.classify(encoded, deadline=deadline)
                span.finish(classification)
        timings.include(classification)
        self.metrics.of_model(artifact.name, artifact.version).count_image(classification, artifact.class_names)
        return ImagePrediction(
            predictions=top_classes(classification, artifact.class_names, top_k),
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


def top_classes(classification: Classification, class_names: tuple[str, ...], top_k: int) -> list[ClassProbability]:
    """Returns the `top_k` most probable classes, in descending order; of equal ones the lower id first."""
    probabilities = classification.probabilities
    return [
        ClassProbability(
            class_name=class_names[class_id],
            class_id=class_id,
            # Six decimals are what float32 holds; a softmax may round to just above 1.
            probability=min(round(float(probabilities[class_id]), 6), 1.0),
        )
        for class_id in classification.ranking[:top_k].tolist()
    ]


def describe_image(classification: Classification) -> ImageDescription:
    """Returns what is told about the image itself."""
    return ImageDescription(
        format=classification.format,
        width=classification.width,
        height=classification.height,
        adjustments=list(classification.adjustments),
    )


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
    has_left = is_over = False

    def watch() -> None:
        nonlocal watching
        watching = loop.create_task(_wait_for_disconnect(request))
        watching.add_done_callback(leave)

    def leave(watched: asyncio.Task[None]) -> None:
        nonlocal has_left
        if not (is_over or watched.cancelled()):
            has_left = True
            scope.reschedule(loop.time())

    starting = loop.call_later(_NOTICE_AFTER_S, watch)
    try:
        async with asyncio.timeout(deadline - time.monotonic()) as scope:
            try:
                finished = await work
            finally:
                is_over = True
                starting.cancel()
                if watching is not None:
                    watching.cancel()
    except TimeoutError:
        if has_left:
            raise ClientDisconnect from None
        raise DeadlineExceededError("The request's time ran out.") from None
    if time.monotonic() > deadline:  # the event loop was late, and the client has given up
        raise DeadlineExceededError("The request's time ran out.")
    return finished


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
