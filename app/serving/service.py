"""Holds the parts that requests share, and says whether the service is ready."""

from __future__ import annotations

import logging
import math
from enum import Enum, auto
from typing import Final

from app.errors import DrainingError, NotReadyError, PredictorError
from app.models.registry import Registry
from app.models.store_watcher import StoreWatcher
from app.serving.admission import Admission
from app.serving.gauges import GaugeSampler
from app.serving.watchdog import Watchdog
from app.settings import Settings
from app.system.worker_board import WorkerPlace
from app.telemetry import tracing
from app.telemetry.metrics import Metrics

logger = logging.getLogger("app.serving")


# A batch takes milliseconds to seconds. A batch that takes longer than this, and than a request may, counts as stuck.
_MIN_STUCK_S: Final = 30.0


class Phase(Enum):
    """The phases of the service's life."""

    SERVING = auto()
    """The service takes requests, once its models are loaded."""
    DRAINING = auto()
    """The service is not ready any more, so that balancers look elsewhere, and still answers requests."""
    CLOSING = auto()
    """The service refuses new requests and finishes those that it has admitted."""


class Service:
    """The parts that requests share.

    Args:
        settings: the settings of this process.
        place: this process's place among the workers; None if it is the only process.

    Raises:
        SignatureError: the trusted keys cannot be read.
        TelemetryError: traces are asked for, and the extra `telemetry` is not installed.
    """

    def __init__(self, settings: Settings, place: WorkerPlace | None = None) -> None:
        self.settings = settings
        self.place = place
        self.metrics = Metrics(place)
        self.registry = Registry(
            settings,
            self.metrics,
            max_queue_items=settings.max_pending_images,
            memory_budget_mb=settings.memory_budget_mb,
            runtime_folder=place.folder if place else None,
        )
        self.watcher = StoreWatcher(self.registry, watch_store_s=settings.watch_store_s, place=place)
        self.watchdog = Watchdog(
            lambda: self.registry.served, stuck_after_s=max(_MIN_STUCK_S, settings.request_timeout_s)
        )
        self.tracing = tracing.traces_to(settings.otlp_endpoint) if settings.otlp_endpoint else None
        self.phase = Phase.SERVING
        self.admission = Admission(
            settings.max_pending_images,
            settings.max_pending_bytes,
            model_count=lambda: len({deployment.name for deployment in self.registry.deployments}),
        )
        self.gauges = GaugeSampler(self.metrics, self.registry, self.admission, self.check_ready)

    def check_live(self) -> None:
        """Raises if only a restart of the process helps.

        Raises:
            NotReadyError: inference has stopped working.
        """
        if reason := self.watchdog.verdict.restart_because:
            raise NotReadyError(reason, retry_after_s=5)

    def check_ready(self) -> None:
        """Raises if the service is not ready for requests.

        Raises:
            DrainingError: the service is shutting down.
            NotReadyError: the default model does not serve, inference has stopped working, or a sibling is not ready.
        """
        self.check_own_readiness()
        if self.place is None:
            return
        board = self.place.board
        for worker in self.place.siblings:
            # A service that starts is ready only when all its workers are. Later, the others serve while a worker that
            # has died is replaced.
            if not worker.ready and (worker.accepts or not board.complete):
                raise NotReadyError("Another worker of this service is not ready.", retry_after_s=5)
        board.complete = True

    def check_own_readiness(self) -> None:
        """Raises if this process is not ready for requests, whatever its siblings are.

        Raises:
            DrainingError: the service is shutting down.
            NotReadyError: the default model does not serve, or inference has stopped working.
        """
        if self.phase is not Phase.SERVING:
            raise DrainingError("The service is shutting down.", retry_after_s=5)
        default = self.registry.default
        if default and not default.model:
            raise NotReadyError(default.reason, retry_after_s=5)
        if reason := self.watchdog.verdict.unready_because:
            raise NotReadyError(reason, retry_after_s=5)

    @property
    def is_ready_itself(self) -> bool:
        """Whether this process serves all its models, whatever its siblings do."""
        try:
            self.check_own_readiness()
            self.check_started()
        except PredictorError:
            return False
        return True

    def check_started(self) -> None:
        """Raises while models are being loaded at the start.

        Raises:
            NotReadyError: a model is still being loaded.
        """
        if not self.registry.is_loaded:
            raise NotReadyError("Models are being loaded.", retry_after_s=5)

    def check_admissible(self, *, model: str | None, declared_bytes: int, deadline: float) -> None:
        """Raises if the body of a request should not be read.

        Args:
            model: the name of the model that the request is for; None if it is not known yet, and then no other
                model's permits are kept free.
            declared_bytes: the length of the body by the request's head, in bytes; 0 if the head has none.
            deadline: when the request's time is up, on the clock of time.monotonic().

        Raises:
            DrainingError: the service refuses new requests.
            OverloadedError: there is no room for the request, or no time.
        """
        if self.phase is Phase.CLOSING:
            raise DrainingError("The service is shutting down.", retry_after_s=5)
        self.admission.check(model=model, more_bytes=declared_bytes, deadline=deadline)

    def deadline_of(self, received_at: float, patience: float = math.inf) -> float:
        """Returns when a request's time is up, on the clock of time.monotonic().

        Args:
            received_at: when the request's body was complete, on the same clock.
            patience: when its client gives up, on the same clock; it can only shorten the time.
        """
        return min(received_at + self.settings.request_timeout_s, patience)
