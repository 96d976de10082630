"""Sets the gauges of Prometheus once a second, and again at each scrape.

on the event loop: what is pending, queue depth, readiness, the loop's own lag
in a thread: the process, the garbage collector, the GPU; the files of metrics, if somebody has removed them
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter as Tally
from collections.abc import Callable
from typing import Final

from app.errors import PredictorError
from app.models.registry import Registry
from app.serving.admission import Admission
from app.telemetry.metric_files import restore_files
from app.telemetry.metrics import Metrics
from app.telemetry.process_metrics import GpuMetrics, ProcessMetrics

logger = logging.getLogger("app.serving")

_INTERVAL_S: Final = 1.0


class GaugeSampler:
    """Sets the gauges of a service.

    Args:
        metrics: the gauges.
        registry: the models, and what is queued for them.
        admission: counts what is pending.
        check_ready: raises a `PredictorError` while the service is not ready.
    """

    def __init__(
        self, metrics: Metrics, registry: Registry, admission: Admission, check_ready: Callable[[], None]
    ) -> None:
        self._metrics = metrics
        self._registry = registry
        self._admission = admission
        self._check_ready = check_ready
        self._process = ProcessMetrics(metrics.registry)
        self._gpu = GpuMetrics(metrics.registry)
        self._models: set[str] = set()

    async def run(self) -> None:
        """Samples until it is cancelled."""
        looking = asyncio.ensure_future(asyncio.to_thread(self.sample_process))
        while True:
            self.sample_service()
            due_at = time.monotonic() + _INTERVAL_S
            await asyncio.sleep(_INTERVAL_S)
            self._metrics.event_loop_lag_seconds.observe(max(0.0, time.monotonic() - due_at))
            if looking.done():  # a faulty driver may take long, and nothing else waits for it
                looking = asyncio.ensure_future(asyncio.to_thread(self.sample_process))

    def sample_service(self) -> None:
        """Sets what the service itself knows; fast, to be called on the event loop."""
        metrics = self._metrics
        metrics.pending_images.set(self._admission.pending_images)
        metrics.pending_bytes.set(self._admission.pending_bytes)
        metrics.decode_bytes.set(self._registry.decode_budget.used_bytes)
        depths: Tally[str] = Tally()
        for model in self._registry.served:  # several versions of a model count together
            depths[model.artifact.name] += model.pipeline.queue_depth
        self._models |= set(depths)
        for name in self._models:  # no image waits for a model that serves no more
            metrics.queue_depth.labels(name).set(depths[name])
        try:
            self._check_ready()
        except PredictorError:
            metrics.ready.set(0)
        else:
            metrics.ready.set(1)

    def sample_process(self) -> None:
        """Sets what the system and the GPU know of this process; may block. A failure is only logged."""
        try:
            self._process.sample()
            if torch := sys.modules.get("torch"):  # otherwise nothing here uses a GPU
                self._gpu.sample(torch.cuda)
            restore_files()
        except Exception as error:
            logger.debug("The process could not be looked at: %s", error)
