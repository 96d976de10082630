"""Levels rather than events: what is looked at once a second, and again when somebody scrapes.

event loop: what is pending, queue depth, readiness, its own lag; a thread: the process, the garbage collector, the GPU
-> plain `set` of plain gauges, which each of several workers can do for itself and prometheus_client adds up
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter as Tally
from typing import Final

import torch

from app.errors import PredictorError
from app.serving.service import Service
from app.telemetry.process_metrics import GpuMetrics, ProcessMetrics

logger = logging.getLogger("app.serving")

_INTERVAL_S: Final = 1.0


class GaugeSampler:
    """Sets the gauges of a service.

    Args:
        service: what is looked at.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._process = ProcessMetrics(service.metrics.registry)
        self._gpu = GpuMetrics(service.metrics.registry)
        self._models: set[str] = set()

    async def run(self) -> None:
        """Samples until it is cancelled."""
        looking = asyncio.ensure_future(asyncio.to_thread(self.sample_process))
        while True:
            self.sample_service()
            due_at = time.monotonic() + _INTERVAL_S
            await asyncio.sleep(_INTERVAL_S)
            self._service.metrics.event_loop_lag_seconds.observe(max(0.0, time.monotonic() - due_at))
            if looking.done():  # a driver in trouble may take long: nothing else waits for it
                looking = asyncio.ensure_future(asyncio.to_thread(self.sample_process))

    def sample_service(self) -> None:
        """Looks at the service; fast, and of the event loop."""
        metrics, registry, admission = self._service.metrics, self._service.registry, self._service.admission
        metrics.pending_images.set(admission.pending_images)
        metrics.pending_bytes.set(admission.pending_bytes)
        depths: Tally[str] = Tally()
        for model in registry.served:  # several versions of one count together
            depths[model.artifact.name] += model.pipeline.queue_depth
        self._models |= set(depths)
        for name in self._models:  # one that serves no more has none that wait
            metrics.queue_depth.labels(name).set(depths[name])
        try:
            self._service.check_ready()
        except PredictorError:
            metrics.ready.set(0)
        else:
            metrics.ready.set(1)

    def sample_process(self) -> None:
        """Looks at the process and the GPU; whatever fails is only not known."""
        try:
            self._process.sample()
            self._gpu.sample(torch.cuda)
        except Exception as error:
            logger.debug("The process could not be looked at: %s", error)
