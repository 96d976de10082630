"""What the routes call: admission -> upload -> pipeline -> answer, under one deadline; and the state of the service."""

from __future__ import annotations

import logging
from enum import Enum, auto
from typing import Final

from app.errors import DrainingError, NotReadyError
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


# A batch takes milliseconds to seconds. One that takes longer than this, and than a request may, does not end any more.
_MIN_STUCK_S: Final = 30.0


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
        place: its place among several workers; None if it is the only process.
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
        self.watcher = StoreWatcher(self.registry, watch_store_s=settings.watch_store_s)
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
        if self.place is None:
            return
        board = self.place.board
        for worker in self.place.siblings:
            # One that has died is replaced while the others serve; but whoever begins, begins with all.
            if not worker.ready and (worker.accepts or not board.complete):
                raise NotReadyError("Another worker of this service is not ready.", retry_after_s=5)
        board.complete = True

    def check_own_readiness(self) -> None:
        """Raises what keeps this process from taking requests, whatever its siblings do; see `check_ready`."""
        if self.phase is not Phase.SERVING:
            raise DrainingError("The service is shutting down.", retry_after_s=5)
        default = self.registry.deployments[0]
        if not default.model:
            raise NotReadyError(default.reason, retry_after_s=5)
        if reason := self.watchdog.verdict.unready_because:
            raise NotReadyError(reason, retry_after_s=5)

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
            OverloadedError: there is no room for it.
        """
        if self.phase is Phase.CLOSING:
            raise DrainingError("The service is shutting down.", retry_after_s=5)
        self.admission.check(model=model, more_bytes=declared_bytes, deadline=deadline)

    def deadline_of(self, started_at: float, timeout_ms: int | None) -> float:
        """Returns when a request's time is up, of `time.monotonic`; a client's own limit only ever shortens it."""
        timeout_s = self.settings.request_timeout_s
        return started_at + (timeout_s if timeout_ms is None else min(timeout_s, timeout_ms / 1000))
